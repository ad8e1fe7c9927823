//! Event streams: the API over responses without an end, for clients without WebSockets.
//!
//! Owns: the responses to requests for event streams, their first and last blocks, and reconnection
//! times. Must not know: the syntax of queries and filters, or how events are selected. A connection has
//! one filter, which is set as if a WebSocket client had sent it with `since`.

use std::rc::Rc;

use crate::http::{Block, EventStream, Request, Response, percent_decode};
use crate::model::{BackendRequest, RequestId, Secret};
use crate::net::{ConnCx, ConnKey, Cx, Frame, Verdict};
use crate::ws::CloseCode;

use super::reply::{self, Rejection, push_string};
use super::request::{self, Credentials};
use super::resume::{ResumePoint, Since, SinceError};
use super::session::SessionFlag;
use super::stream_request::{ParameterError, StreamRequest};
use super::{ApiSession, Realtime, cost, json};

impl Realtime {
    /// Returns whether a request is for an event stream.
    pub fn wants_event_stream(request: &Request<'_>) -> bool {
        percent_decode(request.path) == "/sse"
    }

    /// Handles a request for an event stream.
    pub(super) fn on_stream_request(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        request: &Request<'_>,
    ) -> Verdict<ApiSession> {
        if !request::is_origin_allowed(request, &self.settings.origins) {
            self.counters.rejected.origin += 1;
            return Verdict::Respond(request::forbidden_origin());
        }
        let origin = self.allowed_origin(request);
        match request.method {
            "GET" | "HEAD" => {}
            "OPTIONS" => return Verdict::Respond(readable(preflight(), origin)),
            _ => return Verdict::Respond(readable(not_allowed(), origin)),
        }
        let checked = match self.check_stream(cx, key, request) {
            Ok(checked) => checked,
            Err(response) => {
                self.counters.rejected.stream += u64::from(response.status.0 == 400);
                return Verdict::Respond(readable(response, origin));
            }
        };
        if request::requests_tracing(request) {
            self.tracer.request(key, cx.now().mono);
        }
        let mut session = ApiSession::default();
        session.set(SessionFlag::EventStream, true);
        let client = checked.client_id.as_deref();
        session.set_client(client.map(|client| self.digester.client_id(client)));
        let stream = open(origin.clone(), checked.message());
        match request::credentials(request) {
            Credentials::Anonymous => {
                self.counters.auth.anonymous += 1;
                Verdict::Stream(stream, session)
            }
            // A client that reconnects by itself must not become anonymous without notice.
            Credentials::Invalid => {
                self.counters.auth.unknown += 1;
                self.counters.rejected.token += 1;
                Verdict::Respond(readable(request::unauthorized(), origin))
            }
            Credentials::Token(token) => {
                cx.charge(cost::LOGIN);
                let request = BackendRequest::Authenticate {
                    request_id: RequestId(key.to_u64()),
                    token: Secret(token.into_owned()),
                };
                match self.backend.send(request) {
                    Ok(()) => Verdict::DeferStream(stream, session),
                    Err(_) => {
                        self.counters.auth.unavailable += 1;
                        Verdict::Respond(self.retry_later(UNAVAILABLE))
                    }
                }
            }
        }
    }

    /// Parses the parameters of a request, and checks them as far as possible now.
    ///
    /// # Errors
    /// The response to a request that cannot be served.
    fn check_stream(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        request: &Request<'_>,
    ) -> Result<StreamRequest, Response> {
        let bytes = request.query.map_or(0, str::len) as u64;
        cx.charge(cost::MESSAGE_BYTE * bytes);
        let parsed = StreamRequest::parse(request).map_err(|error| invalid_parameter(&error))?;
        match self.parse_filter(cx, key, &parsed.filter(), None) {
            Ok(_) => {}
            Err(Rejection::FiltersFull { .. }) => return Err(self.retry_later(NO_ROOM)),
            Err(rejection) => {
                let error = self.rejected_parameter(cx, key, &parsed, rejection);
                return Err(invalid_parameter(&error));
            }
        }
        if let Some((text, name)) = &parsed.since {
            let since = match *name {
                "since" => Since::from_text(text),
                // The ids of this server are cursors.
                _ => Since::from_cursor(text),
            };
            if let Err(error) = self.look_up_since(cx, since) {
                self.count_rejection(Rejection::InvalidCursor(error));
                let reason = match (error, *name) {
                    (SinceError::Future, _) => {
                        "The position is later than all events of this server."
                    }
                    (_, "since") => "The value must be a cursor, an RFC 3339 time, or now.",
                    _ => "The value must be a cursor from this server.",
                };
                return Err(invalid("invalid_cursor", name, reason));
            }
        }
        Ok(parsed)
    }

    /// Returns the parameter for which a filter has been rejected.
    fn rejected_parameter(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        parsed: &StreamRequest,
        rejection: Rejection<'static>,
    ) -> ParameterError {
        self.count_rejection(rejection);
        let mut names = parsed.clauses();
        let found = names.find_map(|(name, filter)| {
            let rejection = self.parse_filter(cx, key, &filter, None).err()?;
            Some((name, rejection))
        });
        let (name, rejection) = found.unwrap_or(("match", rejection));
        match rejection {
            Rejection::InvalidFilter => ParameterError::new(name, "The value is not a valid URI."),
            other => ParameterError::new(name, reply::describe(other).1),
        }
    }

    /// Called when an event stream has opened.
    pub fn on_open_stream(&mut self, cx: &mut ConnCx<'_, ApiSession>, request: &str) {
        let key = cx.key();
        if !self.opened(cx) {
            return;
        }
        let retry = Some(self.jitter(RETRY_AFTER_LOSS));
        let (mut filter, mut since) = (None, None);
        let parsed = json::members(request, |member, value| match member {
            "filter" => filter = Some(value),
            "since" => since = Some(value),
            _ => {}
        });
        if parsed.is_err() {
            return cx.close(key, CloseCode::INTERNAL_ERROR, "invalid request");
        }
        match self.set_stream_filter(cx, key, filter, since) {
            Ok(Some(point)) => {
                let frame = self.position_blocks(point, retry);
                cx.send(key, frame);
            }
            // The position is sent when the history is ready.
            Ok(None) => {
                let block = Block {
                    retry,
                    ..Block::default()
                };
                cx.send(key, Frame::block(&block));
            }
            // The state of the server has changed since the request was checked.
            Err(Rejection::InvalidCursor(_)) => {
                return cx.close(key, CloseCode::POLICY, "invalid cursor");
            }
            Err(_) => return cx.close(key, CloseCode::TRY_AGAIN_LATER, NO_ROOM),
        }
        self.debug_filter(cx, key, filter);
    }

    /// Returns the blocks with which an event stream begins: its position, and the report of a gap.
    pub(super) fn position_blocks(&self, point: ResumePoint, retry: Option<u64>) -> Rc<Frame> {
        let cursor = self.point_cursor(point).encode();
        let position = Block {
            retry,
            id: Some(&cursor),
            ..Block::default()
        };
        if point.recovered {
            return Frame::block(&position);
        }
        let mut text = String::new();
        reply::gap(&mut text, &self.history.oldest_cursor().encode());
        let gap = Block {
            event: Some("recovery"),
            data: Some(&text),
            ..Block::default()
        };
        Frame::blocks(&[position, gap])
    }

    /// Returns the mark of an event stream, which takes the place of its heartbeat: the position has
    /// moved lately, and the connection has been sent no event since the last heartbeat. Thus an idle
    /// stream needs no entry in the queue of marks.
    pub fn heartbeat(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey) -> Option<Rc<Frame>> {
        let now = cx.now();
        let limit = self.expiry_limit(now);
        let head = self.history.head();
        let cursor = self.history.cursor(head);
        // A new history may have the same position.
        let place = (cursor.epoch, head);
        if self.stream_mark.place != place {
            self.stream_mark = StreamMark {
                place,
                since: now.mono,
                block: Some(Frame::block(&mark_block(&cursor.encode()))),
            };
        }
        let session = cx.session(key)?;
        let is_quiet = !session.has(SessionFlag::Marked);
        session.set(SessionFlag::Marked, false);
        let is_current =
            !session.has(SessionFlag::Replaying) && !self.principals.is_silenced(key, limit);
        // All streams have been sent an older mark already.
        let is_old = now.mono.saturating_sub(self.stream_mark.since) > MARK_REPEATS;
        match is_quiet && is_current && !is_old {
            true => self.stream_mark.block.clone(),
            false => None,
        }
    }

    /// Returns the last blocks of an event stream: when to reconnect, and the cause as in the close
    /// frame of a WebSocket.
    pub fn last_blocks(&mut self, code: u16, reason: &str) -> Vec<u8> {
        let mut data = format!(r#"{{"code":{code},"reason":"#);
        push_string(&mut data, reason);
        data.push('}');
        let block = Block {
            retry: Some(self.jitter(RETRY_AFTER_CLOSE)),
            event: Some("close"),
            data: Some(&data),
            ..Block::default()
        };
        let mut out = Vec::new();
        block.encode(&mut out);
        out
    }

    /// Returns the response to a request for an event stream that cannot be served now. Browsers do
    /// not reconnect after any status other than 200.
    pub fn retry_later(&mut self, reason: &str) -> Response {
        let block = Block {
            comment: Some(reason),
            retry: Some(self.jitter(RETRY_AFTER_REFUSAL)),
            ..Block::default()
        };
        let mut body = Vec::new();
        block.encode(&mut body);
        let response = Response::new(200, EventStream::CONTENT_TYPE, body).closing();
        let fields = STREAM_FIELDS.iter();
        let response = fields.fold(response, |response, (name, value)| {
            response.with(name, *value)
        });
        readable(response, "*".into())
    }

    /// Returns a random reconnection time, so that clients do not reconnect together.
    fn jitter(&mut self, (from, to): (u64, u64)) -> u64 {
        self.retries = self.retries.wrapping_add(1);
        from + self.digester.pseudorandom(self.retries) % (to - from)
    }

    /// Returns the value of `Access-Control-Allow-Origin` for an allowed request.
    fn allowed_origin(&self, request: &Request<'_>) -> String {
        let origin = request
            .header("origin")
            .filter(|_| !self.settings.origins.is_empty());
        let origin = origin.and_then(|origin| std::str::from_utf8(origin).ok());
        origin.unwrap_or("*").to_owned()
    }
}

/// The newest mark of event streams, shared by all of them.
#[derive(Default)]
pub(super) struct StreamMark {
    /// The epoch and the position.
    place: (u64, u64),
    /// When a stream was first sent it, in monotonic milliseconds.
    since: u64,
    block: Option<Rc<Frame>>,
}

impl StreamRequest {
    /// Returns the request as the message of a WebSocket client.
    fn message(&self) -> String {
        let mut message = format!(r#"{{"filter":{},"since":"#, self.filter());
        let since = self.since.as_ref().map_or("now", |(since, _)| since);
        push_string(&mut message, since);
        message.push('}');
        message
    }
}

/// Returns the mark of a cursor.
pub(super) fn mark_block(cursor: &str) -> Block<'_> {
    Block {
        comment: Some("cursor"),
        id: Some(cursor),
        ..Block::default()
    }
}

/// Returns the response that opens an event stream.
fn open(origin: String, message: String) -> EventStream {
    let stream = EventStream::new(message);
    let fields = STREAM_FIELDS.iter();
    let stream = fields.fold(stream, |stream, (name, value)| stream.with(name, *value));
    let stream = match &*origin {
        "*" => stream,
        _ => stream.with("Vary", "Origin"),
    };
    stream.with(ALLOW_ORIGIN, origin)
}

/// Lets pages of an origin read a response.
pub(super) fn readable(response: Response, origin: String) -> Response {
    let response = match &*origin {
        "*" => response,
        _ => response.with("Vary", "Origin"),
    };
    response.with(ALLOW_ORIGIN, origin)
}

/// Returns the response to the preflight request of a browser, for clients that set header fields.
fn preflight() -> Response {
    Response::new(200, "text/plain", &b""[..])
        .with("Access-Control-Allow-Methods", METHODS)
        .with(
            "Access-Control-Allow-Headers",
            "Authorization, Last-Event-ID, Cache-Control",
        )
        .with("Access-Control-Max-Age", "86400")
}

fn not_allowed() -> Response {
    let body = r#"{"ok": false, "error": "method_not_allowed", "reason": "Event streams are requested with GET."}"#;
    Response::json(405, body).with("Allow", METHODS)
}

fn invalid_parameter(error: &ParameterError) -> Response {
    invalid("invalid_parameter", &error.name, &error.reason)
}

fn invalid(kind: &str, name: &str, reason: &str) -> Response {
    let end = name
        .char_indices()
        .nth(MAX_NAME)
        .map_or(name.len(), |(end, _)| end);
    let mut body = format!(r#"{{"ok": false, "error": "{kind}", "parameter": "#);
    push_string(&mut body, &name[..end]);
    body.push_str(r#", "reason": "#);
    push_string(&mut body, reason);
    body.push('}');
    Response::json(400, body)
}

const METHODS: &str = "GET, HEAD, OPTIONS";
const ALLOW_ORIGIN: &str = "Access-Control-Allow-Origin";
/// Proxies must neither store, compress, nor buffer an event stream. The last field is a setting of
/// nginx.
const STREAM_FIELDS: [(&str, &str); 2] = [
    ("Cache-Control", "no-cache, no-transform"),
    ("X-Accel-Buffering", "no"),
];
/// The number of characters of a parameter's name that an error repeats.
const MAX_NAME: usize = 64;

/// How long a mark is sent as the heartbeat of quiet streams, in milliseconds: several heartbeats of
/// each, also with a long `timeouts.ping`.
const MARK_REPEATS: u64 = 600_000;
/// The reason why a token cannot be checked now.
pub(super) const UNAVAILABLE: &str = "The access token cannot be checked now.";
/// The reason why a filter cannot be stored now.
const NO_ROOM: &str = "Filters of all clients take too much memory now.";

/// The range of reconnection times after a broken connection, in milliseconds.
const RETRY_AFTER_LOSS: (u64, u64) = (1_000, 4_000);
/// The range of reconnection times after an end by this server, in milliseconds.
const RETRY_AFTER_CLOSE: (u64, u64) = (1_000, 10_000);
/// The range of reconnection times after a request that could not be served, in milliseconds.
const RETRY_AFTER_REFUSAL: (u64, u64) = (5_000, 30_000);

#[cfg(test)]
mod tests;
