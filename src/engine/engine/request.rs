//! The HTTP phase of a connection: heads, bodies, verdicts, and responses.

use super::work::{Class, HEAD_BYTE_COST, REQUEST_COST};
use super::{CORK_SIZE, Engine, millis};
use crate::conn::keep_alive::Heartbeat;
use crate::conn::lifecycle::Event;
use crate::conn::{BodyEnd, Conn, Deferred, Flags, Opening, PartialBody, PartialRequest, Phase};
use crate::cx::{Cx, RequestCx};
use crate::handler::{Handler, Overdue, Refusal, Verdict};
use crate::http::{Framing, Head, HeadError, HeadLayout, Request, Response, is_head, parse_head};
use crate::io::socket::Socket;
use crate::ws::CAN_DEFLATE;
use crate::{ConnKey, ListenerId};

/// A parsed request, with the handler's verdict.
pub(super) struct Taken<C> {
    verdict: Verdict<C>,
    /// The length of the head.
    pub head: usize,
    /// The parsed head, if the verdict is to read the body.
    pub layout: Option<HeadLayout>,
    pub framing: Framing,
    keep_alive: bool,
    pub head_only: bool,
    pub expects_continue: bool,
}

/// A request with its whole body, whose head has been parsed.
pub(super) struct WholeRequest {
    pub head: HeadLayout,
    /// The length of head and body together.
    pub length: usize,
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Serves as many requests as the input contains, each one completely before the next is
    /// parsed.
    pub(super) fn on_request_bytes(&mut self, key: ConnKey, fresh: &mut [u8]) {
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        let Phase::Request { partial, .. } = &mut conn.phase else {
            return;
        };
        let Some(mut partial) = partial.take() else {
            let used = self.take_requests(key, fresh, None);
            return self.keep_rest(key, &mut fresh[used..]);
        };
        let end = partial.body.as_ref().map(|body| &body.end);
        if matches!(end, Some(BodyEnd::Chunked(_))) {
            return self.take_chunks(key, partial, fresh);
        }
        let before = partial.bytes.len();
        partial.bytes.extend_from_slice(fresh);
        if !(partial.is_unread || may_be_complete(&partial, before, self.config.max_head)) {
            return self.keep_partial(key, partial);
        }
        let PartialRequest {
            mut bytes, body, ..
        } = *partial;
        let whole = match body {
            Some(PartialBody {
                head,
                end: BodyEnd::At(length),
            }) => Some(WholeRequest { head, length }),
            _ => None,
        };
        let used = self.take_requests(key, &mut bytes, whole);
        self.keep_rest(key, &mut bytes[used..]);
    }

    /// Serves requests from the front of the input. Returns the number of bytes consumed. `whole`
    /// is the first request, if its body was requested.
    pub(super) fn take_requests(
        &mut self,
        key: ConnKey,
        bytes: &mut [u8],
        whole: Option<WholeRequest>,
    ) -> usize {
        let mut used = 0;
        let mut whole = whole;
        while used < bytes.len()
            && (used == 0 || self.outbox.work < self.visit.share)
            && self
                .arena
                .get(key)
                .is_some_and(|conn| matches!(conn.phase, Phase::Request { .. }))
        {
            match self.take_request(key, &mut bytes[used..], whole.take()) {
                Some(count) => used += count,
                None => break,
            }
            if self.outbox.cork.len() >= CORK_SIZE {
                self.commit_cork();
                // Responses are longer than requests: a client that lets them pile up gets no more.
                let queued = self.arena.get(key).map_or(0, Conn::queued);
                if queued > self.config.queue_hard {
                    self.apply(key, Event::Unread);
                }
            }
        }
        used
    }

    /// Serves one request. Returns `None` if it is incomplete or was rejected.
    pub(super) fn take_request(
        &mut self,
        key: ConnKey,
        bytes: &mut [u8],
        whole: Option<WholeRequest>,
    ) -> Option<usize> {
        let asked = match &whole {
            Some(whole) if bytes.len() < whole.length => return None,
            Some(whole) => self.ask_with_body(key, bytes, whole),
            None => self.ask_handler(key, bytes),
        };
        let taken = match asked {
            Ok(Head::Complete(taken)) => taken,
            Ok(Head::Partial) => return None,
            Err(error) => {
                self.refuse_request(key, Refusal::from(error), is_head(bytes));
                return None;
            }
        };
        let parsed = if whole.is_none() { taken.head } else { 0 };
        self.outbox.work += REQUEST_COST + parsed as u64 * HEAD_BYTE_COST;
        let end = whole.as_ref().map_or(taken.head, |whole| whole.length);
        // The next bytes on the connection are the unwanted body.
        let unread_body = whole.is_none() && taken.framing.has_body();
        let keep_alive = taken.keep_alive && !unread_body;
        match taken.verdict {
            Verdict::ReadBody { limit } => {
                debug_assert!(whole.is_none(), "a handler asked twice for the same body");
                return self.begin_body(key, bytes, limit, taken);
            }
            Verdict::Respond(response) => {
                self.respond(key, &response, keep_alive, taken.head_only);
            }
            Verdict::Upgrade(upgrade, session) => {
                self.open(key, Opening::WebSocket(upgrade), session);
            }
            Verdict::Stream(stream, _) if taken.head_only => self.send_stream_head(key, &stream),
            Verdict::Stream(stream, session) => {
                self.open(key, Opening::EventStream(stream), session);
            }
            Verdict::Defer => self.defer(key, Deferred::new(None, keep_alive, taken.head_only)),
            Verdict::DeferUpgrade(upgrade, session) => {
                let opening = Some((Opening::WebSocket(upgrade), session));
                self.defer(key, Deferred::new(opening, keep_alive, taken.head_only));
            }
            Verdict::DeferStream(stream, session) => {
                let opening = Some((Opening::EventStream(stream), session));
                self.defer(key, Deferred::new(opening, keep_alive, taken.head_only));
            }
        }
        self.apply_effects();
        Some(end)
    }

    /// Parses a head, and asks the handler about the request.
    fn ask_handler(
        &mut self,
        key: ConnKey,
        bytes: &[u8],
    ) -> Result<Head<Taken<H::Session>>, HeadError> {
        parse_head(bytes, self.config.max_head, |request| {
            let mut taken = self.ask(key, request);
            if matches!(taken.verdict, Verdict::ReadBody { .. }) {
                taken.layout = HeadLayout::of(request, bytes);
            }
            taken
        })
    }

    /// Asks the handler about a request again, with its body.
    fn ask_with_body(
        &mut self,
        key: ConnKey,
        bytes: &[u8],
        whole: &WholeRequest,
    ) -> Result<Head<Taken<H::Session>>, HeadError> {
        let taken = whole.head.visit(bytes, |request| {
            let mut request: Request<'_> = *request;
            request.body = bytes.get(request.length..whole.length);
            self.ask(key, &request)
        });
        taken.map(Head::Complete).ok_or(HeadError::Malformed)
    }

    fn ask(&mut self, key: ConnKey, request: &Request<'_>) -> Taken<H::Session> {
        let conn = self.arena.get(key);
        let listener = conn.map_or(ListenerId(0), |conn| conn.listener);
        let refusal = match conn.is_some_and(|conn| conn.flags.has(Flags::OVER_LIMIT)) {
            true => Some(Refusal::Full),
            false => self.refuse_address(key, request),
        };
        let verdict = match refusal {
            Some(refusal) => {
                let is_event_stream = self.handler.wants_event_stream(request);
                Verdict::Respond(self.handler.on_refusal(refusal, is_event_stream))
            }
            None => {
                self.outbox.backlog = self.fan_out.backlog();
                let cx = Cx::new(self.now, &mut self.arena, &mut self.outbox, &self.counters);
                let mut cx = RequestCx { cx, key, listener };
                self.handler.on_request(&mut cx, request)
            }
        };
        Taken {
            verdict,
            head: request.length,
            layout: None,
            framing: request.framing,
            keep_alive: request.keeps_alive() && refusal.is_none(),
            head_only: request.method == "HEAD",
            // RFC 9110 §10.1.1: a server "MUST ignore that expectation" in HTTP/1.0.
            expects_continue: request.minor_version > 0
                && request.list_contains("expect", "100-continue"),
        }
    }

    /// Buffers the incomplete rest, or passes it to the phase that the last request led to.
    pub(super) fn keep_rest(&mut self, key: ConnKey, rest: &mut [u8]) {
        if rest.is_empty() {
            return;
        }
        let is_unread = self.outbox.work >= self.visit.share;
        match self.arena.get_mut(key).map(|conn| &mut conn.phase) {
            Some(Phase::Request { partial: None, .. }) => self.keep_partial(
                key,
                Box::new(PartialRequest {
                    bytes: rest.to_vec(),
                    body: None,
                    is_unread,
                }),
            ),
            // Bounded by one read: nothing more is read until the response.
            Some(Phase::Deferred(deferred)) => deferred.trailing.extend_from_slice(rest),
            Some(Phase::Open(_) | Phase::Closing) => {
                self.on_bytes(key, rest);
            }
            _ => {}
        }
    }

    pub(super) fn keep_partial(&mut self, key: ConnKey, partial: Box<PartialRequest>) {
        if let Some(conn) = self.arena.get_mut(key)
            && let Phase::Request { partial: place, .. } = &mut conn.phase
        {
            *place = Some(partial);
        }
    }

    /// Sends a response, and either keeps the connection alive or ends it.
    fn respond(&mut self, key: ConnKey, response: &Response, keep_alive: bool, head_only: bool) {
        let keep_alive = keep_alive && !response.close && self.drain.is_none();
        if response.status.0 >= 400 {
            self.counters.bad_requests += 1;
        }
        if let Some(conn) = self.arena.get_mut(key) {
            conn.flags.clear(Flags::EVENT_STREAM);
        }
        let now = self.now.unix;
        // Rounded down: a client must not rely on a connection that is about to end.
        let idle = millis(self.config.handshake_timeout) / 1000;
        self.queue_own(key, |out| {
            response.encode(now, keep_alive.then_some(idle), head_only, out);
        });
        let event = match keep_alive {
            true => Event::Answered,
            false => Event::Finished,
        };
        self.apply_inlined(key, event);
    }

    /// Answers the request that a connection has sent, of which a part may be missing, with an error,
    /// and ends the connection.
    pub(super) fn refuse(&mut self, key: ConnKey, refusal: Refusal) {
        let conn = self.arena.get(key);
        let head_only = conn.is_some_and(|conn| match &conn.phase {
            Phase::Request { partial, .. } => partial.as_ref().is_some_and(|it| is_head(&it.bytes)),
            Phase::Deferred(deferred) => deferred.head_only,
            _ => false,
        });
        self.refuse_request(key, refusal, head_only);
    }

    /// Refuses a request. RFC 9110 §9.3.2: "the server MUST NOT send content in the response" to
    /// `HEAD`.
    pub(super) fn refuse_request(&mut self, key: ConnKey, refusal: Refusal, head_only: bool) {
        log::debug!("{key:?}: refused: {refusal:?}");
        self.counters.count_refusal(refusal);
        let is_stream = self.is_event_stream(key);
        let response = self.with_handler(|handler, _| handler.on_refusal(refusal, is_stream));
        self.respond(key, &response, false, head_only);
    }

    /// Switches protocols, or starts an event stream.
    fn open(&mut self, key: ConnKey, mut opening: Opening, session: H::Session) {
        let now = self.now.unix;
        let may_deflate = self.config.deflate && CAN_DEFLATE;
        self.queue_own(key, |out| match &mut opening {
            Opening::WebSocket(upgrade) => {
                if !may_deflate {
                    upgrade.decline_deflate();
                }
                upgrade.encode(out);
            }
            Opening::EventStream(stream) => stream.encode_head(now, out),
        });
        if self.current == Some(key) {
            self.commit_cork();
        }
        let first_ping = self.first_ping();
        self.apply_inlined(key, Event::Opened(session));
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        if !conn.is_open() {
            // The head could not be sent: the peer disconnected while the handler was deciding.
            return;
        }
        // RFC 6455 §4.1 requires the client to wait for the 101. For a client that does not wait,
        // no pong may overtake it, and no close frame may replace it.
        if let Some(tx) = conn.tx.as_mut() {
            tx.seal(&mut self.counters.ledger);
        }
        conn.flags.set_heartbeat(Heartbeat::First);
        conn.flags.set_opening(&opening);
        self.counters.opened += 1;
        self.counters.open += 1;
        self.counters.open_tls += u64::from(conn.transport.is_tls());
        let waits = conn.tx.is_some();
        let listener = conn.listener;
        if conn.flags.has(Flags::INCOMPLETE) {
            self.clear_incomplete(key);
        }
        self.unlist_opened(key, listener);
        self.arm(key, first_ping);
        if waits {
            // Responses to earlier requests are still queued; from now on, the limits for slow
            // readers apply to them.
            self.watch_queue(key, 0);
        }
        self.as_current(key, |engine| match &opening {
            Opening::WebSocket(_) => engine.with_replies(key, |handler, cx| handler.on_open(cx)),
            Opening::EventStream(stream) => engine.open_stream(key, stream),
        });
    }

    fn defer(&mut self, key: ConnKey, deferred: Deferred<H::Session>) {
        if let Some(conn) = self.arena.get_mut(key)
            && deferred.is_event_stream()
        {
            conn.flags.set(Flags::EVENT_STREAM);
        }
        self.apply(key, Event::Deferred(Box::new(deferred)));
    }

    /// Rejects a deferred request that is overdue, unless the handler is already acting on it.
    pub(super) fn refuse_overdue(&mut self, key: ConnKey, refusal: Refusal) {
        match self.with_handler(|handler, _| handler.on_overdue(key)) {
            Overdue::Wait => self.apply(key, Event::KeptWaiting),
            Overdue::Refuse => {
                if let Some(deferred) = self.take_deferred(key) {
                    self.refuse_request(key, refusal, deferred.head_only);
                }
            }
        }
    }

    /// Completes a deferred handshake or request for an event stream on behalf of the handler.
    pub(super) fn accept_deferred(&mut self, key: ConnKey) {
        let Some(mut deferred) = self.take_deferred(key) else {
            return;
        };
        match deferred.opening.take() {
            Some((Opening::EventStream(stream), _)) if deferred.head_only => {
                self.send_stream_head(key, &stream);
            }
            Some((opening, session)) => self.open(key, opening, session),
            None => {
                debug_assert!(false, "accepted a request that opens nothing");
                return self.refuse_request(key, Refusal::TimedOut, deferred.head_only);
            }
        }
        self.resume(key, &mut deferred);
    }

    /// Answers a deferred request on behalf of the handler.
    pub(super) fn respond_deferred(&mut self, key: ConnKey, response: Response) {
        if let Some(mut deferred) = self.take_deferred(key) {
            self.respond(key, &response, deferred.keep_alive, deferred.head_only);
            self.resume(key, &mut deferred);
        }
    }

    /// Resumes a deferred connection: first with the input already read, then with its socket.
    fn resume(&mut self, key: ConnKey, deferred: &mut Deferred<H::Session>) {
        let trailing = &mut deferred.trailing;
        if !trailing.is_empty() {
            self.as_current(key, |engine| {
                engine.serve_and_charge(key, Class::FIRST, false, |engine| {
                    engine.on_bytes(key, trailing);
                });
            });
        }
        self.update_incomplete(key);
        if deferred.has_ended {
            return self.apply(key, Event::PeerEnded);
        }
        self.read_again(key);
    }
}

impl From<HeadError> for Refusal {
    fn from(error: HeadError) -> Self {
        match error {
            HeadError::Malformed | HeadError::Ambiguous => Refusal::Malformed,
            HeadError::TooLarge => Refusal::HeadTooLarge,
            HeadError::TargetTooLong => Refusal::TargetTooLong,
            HeadError::UnsupportedCoding => Refusal::UnsupportedCoding,
        }
    }
}

/// Returns whether the received bytes may contain a complete request. Parsing a growing head again
/// for each byte would take quadratic time.
fn may_be_complete(partial: &PartialRequest, before: usize, max_head: usize) -> bool {
    let bytes = &partial.bytes;
    match partial.body.as_ref().map(|body| &body.end) {
        Some(BodyEnd::At(length)) => bytes.len() >= *length,
        _ => {
            let fresh = &bytes[before.saturating_sub(3)..];
            bytes.len() >= max_head || fresh.windows(4).any(|window| window == b"\r\n\r\n")
        }
    }
}
