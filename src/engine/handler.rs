//! The interface between the engine and the application.

use crate::http::{EventStream, Request, Response, Upgrade};
use crate::{ConnCx, ConnKey, Cx, RequestCx};

/// The application behind the engine: it is called for every arrival, and sends through [`Cx`].
///
/// The calls for one connection occur in this order:
///
/// ```text
/// ( on_request … )*  on_open  on_message*  on_close        a WebSocket
/// ( on_request … )*  on_open_stream  on_close              an event stream
/// ```
///
/// `on_close` is called exactly once for every `on_open` and `on_open_stream`, regardless of how the connection ended.
/// Actions on connections are recorded in [`Cx`] and applied after the call returns, so that no
/// call can free, move, or re-enter a connection in use.
pub trait Handler {
    /// The application's state of one open connection. It is stored in the connection's slot, so
    /// that its size counts for every idle connection.
    type Session;

    /// Commands that other threads send through the reactor's mailbox.
    type Command;

    /// Called when a request head has arrived on a listener.
    ///
    /// With [`Verdict::ReadBody`], the engine reads the body and calls again with [`Request::body`]
    /// set. With [`Verdict::Defer`], [`Verdict::DeferUpgrade`], or [`Verdict::DeferStream`], the
    /// connection is not read from until [`Cx::respond`] or [`Cx::accept`].
    fn on_request(
        &mut self,
        cx: &mut RequestCx<'_, Self::Session>,
        request: &Request<'_>,
    ) -> Verdict<Self::Session>;

    /// Called when the deadline of a deferred request has passed, or when a shutdown no longer
    /// waits for it.
    ///
    /// With [`Overdue::Refuse`], the engine responds that the request failed, so the handler must
    /// ensure that the request has no effect. It may be called again for the same request.
    fn on_overdue(&mut self, key: ConnKey) -> Overdue {
        let _ = key;
        Overdue::Refuse
    }

    /// Returns whether a request is for an event stream. Called before [`Handler::on_request`] for
    /// requests that count for the limit per client address, or are about to be rejected.
    fn wants_event_stream(&self, request: &Request<'_>) -> bool {
        let _ = request;
        false
    }

    /// Returns the response to a request that the engine rejects. The connection ends with it.
    ///
    /// A client of event streams may never reconnect after a status other than 200.
    fn on_refusal(&mut self, refusal: Refusal, is_event_stream: bool) -> Response {
        let _ = is_event_stream;
        let response = Response::new(refusal.status(), "text/plain", &b""[..]);
        match refusal.status() {
            429 | 503 => response.with("Retry-After", "5"),
            _ => response,
        }
    }

    /// Called when the WebSocket has opened and its 101 response has been queued.
    fn on_open(&mut self, cx: &mut ConnCx<'_, Self::Session>) {
        let _ = cx;
    }

    /// Called when an event stream has opened and the head of its response has been queued. `request`
    /// is the text that was passed to [`EventStream::new`].
    fn on_open_stream(&mut self, cx: &mut ConnCx<'_, Self::Session>, request: &str) {
        let _ = (cx, request);
    }

    /// Returns the heartbeat of an event stream, in place of an empty comment: a short block without
    /// data, shared by many streams.
    fn heartbeat(
        &mut self,
        cx: &mut Cx<'_, Self::Session>,
        key: ConnKey,
    ) -> Option<std::rc::Rc<crate::Frame>> {
        let _ = (cx, key);
        None
    }

    /// Returns the last blocks of an event stream that this side ends. They take the place of the
    /// close frame of a WebSocket, which would have this code and this reason.
    fn last_blocks(&mut self, code: u16, reason: &str) -> Vec<u8> {
        let _ = (code, reason);
        Vec::new()
    }

    /// Called for each complete message; text has been validated as UTF-8.
    fn on_message(&mut self, cx: &mut ConnCx<'_, Self::Session>, message: Message<'_>);

    /// Called when an open connection has sent all its queued output after its socket was full: the
    /// peer reads again. See [`Cx::buffered`].
    fn on_drain(&mut self, cx: &mut ConnCx<'_, Self::Session>) {
        let _ = cx;
    }

    /// Called when the WebSocket or event stream is no longer open. Returns ownership of the session to the
    /// handler.
    fn on_close(&mut self, cx: &mut Cx<'_, Self::Session>, key: ConnKey, session: Self::Session) {
        let _ = (cx, key, session);
    }

    /// Called for each command from another thread.
    fn on_command(&mut self, cx: &mut Cx<'_, Self::Session>, command: Self::Command) {
        let _ = (cx, command);
    }

    /// Called in the turn of a command or of [`Cx::request_turn`], and in each turn after it until it returns false, for work
    /// that is done in slices, after input and before deliveries. Returns whether any work is left;
    /// the engine does not sleep then. It is not called while output takes half of
    /// [`Config::queue_total`](crate::Config::queue_total) or more.
    fn on_turn(&mut self, cx: &mut Cx<'_, Self::Session>) -> bool {
        let _ = cx;
        false
    }

    /// Called after the engine's configuration has been reloaded.
    fn on_reload(&mut self, cx: &mut Cx<'_, Self::Session>) {
        let _ = cx;
    }

    /// Called about every [`TICK_PERIOD`](crate::TICK_PERIOD), for periodic work.
    fn on_tick(&mut self, cx: &mut Cx<'_, Self::Session>) {
        let _ = cx;
    }
}

/// A data message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A text message.
    Text(&'a str),
    /// A binary message.
    Binary(&'a [u8]),
}

/// The handler's decision on a request. `S` is [`Handler::Session`].
#[derive(Debug)]
pub enum Verdict<S = ()> {
    /// Respond to it.
    Respond(Response),
    /// Switch to the WebSocket protocol, with the session of the connection. The session is dropped
    /// if the connection ends before it opens.
    Upgrade(Upgrade, S),
    /// Read its body, of at most `limit` bytes; a longer one is rejected with 413. A request with
    /// neither a length nor chunks is rejected with 411.
    ReadBody {
        /// In bytes of data, without chunk framing.
        limit: usize,
    },
    /// Wait for [`Cx::respond`].
    Defer,
    /// Wait for [`Cx::accept`], which switches to the WebSocket protocol with this session, or for
    /// [`Cx::respond`].
    DeferUpgrade(Upgrade, S),
    /// Respond with an event stream, with the session of the connection. The response to `HEAD` is
    /// its head alone. The session is dropped if the connection ends before it opens.
    Stream(EventStream, S),
    /// Wait for [`Cx::accept`], which starts the event stream with this session, or for
    /// [`Cx::respond`].
    DeferStream(EventStream, S),
}

/// The handling of a deferred request that was not answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// The engine rejects it.
    Refuse,
    /// It has begun to take effect, so the engine keeps waiting for its outcome.
    Wait,
}

/// Why the engine itself answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// Not HTTP/1.1, or ambiguous.
    Malformed,
    /// The head is longer than [`Config::max_head`](crate::Config::max_head), or has too many
    /// fields.
    HeadTooLarge,
    /// The request line alone is longer than [`Config::max_head`](crate::Config::max_head).
    TargetTooLong,
    /// The body is longer than the handler allows.
    BodyTooLarge,
    /// The chunk extensions are longer than
    /// [`MAX_CHUNK_EXTENSIONS`](crate::http::MAX_CHUNK_EXTENSIONS).
    ExtensionsTooLarge,
    /// The trailer section is longer than [`MAX_TRAILERS`](crate::http::MAX_TRAILERS), or has too
    /// many fields.
    TrailersTooLarge,
    /// The handler requires a body, but the request has neither a length nor chunks.
    LengthRequired,
    /// The body has a transfer coding other than chunked.
    UnsupportedCoding,
    /// The request was not completed within its deadline.
    Incomplete,
    /// The handler deferred the request and did not respond within the deadline.
    TimedOut,
    /// The limit on connections for this client's address has been reached.
    TooMany,
    /// The limit on connections has been reached.
    Full,
    /// Incomplete requests and messages take too much memory, and this connection was chosen to be
    /// dropped.
    Overloaded,
    /// The server is shutting down.
    ShuttingDown,
}

impl Refusal {
    /// Returns the status code of the response.
    pub fn status(self) -> u16 {
        match self {
            Refusal::Malformed => 400,
            // RFC 6585 §5: also "when a single header field is at fault"; trailer fields are no
            // different.
            Refusal::HeadTooLarge | Refusal::TrailersTooLarge => 431,
            Refusal::BodyTooLarge | Refusal::ExtensionsTooLarge => 413,
            Refusal::TargetTooLong => 414,
            Refusal::LengthRequired => 411,
            Refusal::UnsupportedCoding => 501,
            Refusal::Incomplete => 408,
            // RFC 6585 §4.
            Refusal::TooMany => 429,
            Refusal::TimedOut | Refusal::Full | Refusal::Overloaded | Refusal::ShuttingDown => 503,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_status_code() {
        for (refusal, status) in [
            (Refusal::Malformed, 400),
            (Refusal::Incomplete, 408),
            (Refusal::LengthRequired, 411),
            (Refusal::BodyTooLarge, 413),
            (Refusal::TargetTooLong, 414),
            (Refusal::TooMany, 429),
            (Refusal::HeadTooLarge, 431),
            (Refusal::UnsupportedCoding, 501),
            (Refusal::Full, 503),
        ] {
            assert_eq!(refusal.status(), status, "{refusal:?}");
        }
    }
}
