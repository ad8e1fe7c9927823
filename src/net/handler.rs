//! What an application gives the engine.

use crate::http::{Request, Response, Upgrade};

use super::{ConnKey, Cx, ListenerId};

/// The application behind the engine: it is told what arrives and says what to send.
///
/// For one connection the calls come in this order, each as often as the pattern says:
///
/// ```text
/// ( on_request … )*  on_open  on_message*  on_close
/// ```
///
/// `on_close` is called exactly once for every `on_open`, whatever ended the connection.
/// Everything a handler does to a connection is recorded in [`Cx`] and happens after the call
/// has returned, so no call can free, move or re-enter a connection under another's feet.
pub trait Handler {
    /// The application's state of one open connection. It lives in the connection's own slot,
    /// so its size counts for every idle connection.
    type Session: Default;

    /// What other threads send through the reactor's mailbox.
    type Command;

    /// A request head has arrived on a listener.
    ///
    /// With [`Verdict::ReadBody`] the engine reads the body and calls again with
    /// [`Request::body`] set. With [`Verdict::Defer`] the connection waits, unread, until
    /// [`Cx::accept`] or [`Cx::respond`].
    fn on_request(
        &mut self,
        cx: &mut Cx<'_, Self::Session>,
        key: ConnKey,
        listener: ListenerId,
        request: &Request<'_>,
    ) -> Verdict;

    /// The deadline of a deferred request has passed, or a shutdown waits for it no longer.
    ///
    /// With [`Overdue::Refuse`] the engine answers that the request failed, so the handler must
    /// see to it that nothing comes of it. It may be called again for the same request.
    fn on_overdue(&mut self, key: ConnKey) -> Overdue {
        let _ = key;
        Overdue::Refuse
    }

    /// The engine refuses a request, and ends the connection with this answer.
    fn on_refusal(&mut self, refusal: Refusal) -> Response {
        let response = Response::new(refusal.status(), "text/plain", &b""[..]);
        match refusal.status() {
            429 | 503 => response.with("Retry-After", "5"),
            _ => response,
        }
    }

    /// The WebSocket is open; its 101 is on the way.
    fn on_open(&mut self, cx: &mut Cx<'_, Self::Session>, key: ConnKey) {
        let _ = (cx, key);
    }

    /// A whole message has arrived; text has been checked to be UTF-8.
    fn on_message(&mut self, cx: &mut Cx<'_, Self::Session>, key: ConnKey, message: Message<'_>);

    /// The WebSocket is no longer open. The session is given back.
    fn on_close(&mut self, cx: &mut Cx<'_, Self::Session>, key: ConnKey, session: Self::Session) {
        let _ = (cx, key, session);
    }

    /// Another thread sent something.
    fn on_command(&mut self, cx: &mut Cx<'_, Self::Session>, command: Self::Command);

    /// Called in the turn of a command and in each turn after it, until it returns false: for work
    /// that is done in pieces, after input and before deliveries. It returns whether any is left;
    /// the engine does not sleep then. While output takes half of
    /// [`Config::queue_total`](super::Config::queue_total) or more, it is not called.
    fn on_turn(&mut self, cx: &mut Cx<'_, Self::Session>) -> bool {
        let _ = cx;
        false
    }

    /// The engine has other limits from now on: what belongs to the application may change with
    /// them.
    fn on_reload(&mut self, cx: &mut Cx<'_, Self::Session>) {
        let _ = cx;
    }

    /// Called about every [`TICK_PERIOD`](super::TICK_PERIOD) for whatever hangs on the clock.
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

/// What becomes of a request.
#[derive(Debug)]
pub enum Verdict {
    /// Answer it.
    Respond(Response),
    /// Switch to the WebSocket protocol.
    Upgrade(Upgrade),
    /// Read its body first, which may have at most `limit` bytes (else it is refused with 413). A
    /// request without a length and without chunks is refused with 411.
    ReadBody {
        /// In bytes, without those that the chunked coding adds.
        limit: usize,
    },
    /// Wait for [`Cx::accept`] (where an upgrade is given) or [`Cx::respond`].
    Defer(Option<Upgrade>),
}

/// The outcome of a deferred request that was not answered in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overdue {
    /// The engine refuses it.
    Refuse,
    /// It has begun to have an effect, so its outcome is waited for.
    Wait,
}

/// Why the engine itself answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Not HTTP/1.1, or ambiguous.
    Malformed,
    /// The head is longer than [`Config::max_head`](super::Config::max_head), or has too many
    /// fields.
    HeadTooLarge,
    /// The body is longer than the handler allows.
    BodyTooLarge,
    /// The chunk extensions are longer than
    /// [`MAX_CHUNK_EXTENSIONS`](crate::http::MAX_CHUNK_EXTENSIONS).
    ExtensionsTooLarge,
    /// The trailer section is longer than [`MAX_TRAILERS`](crate::http::MAX_TRAILERS), or has too
    /// many fields.
    TrailersTooLarge,
    /// The handler wants a body, and the request has neither a length nor chunks.
    LengthRequired,
    /// The body is in a transfer coding besides chunked.
    UnsupportedCoding,
    /// The request was not whole within its deadline.
    Incomplete,
    /// The handler deferred the request and did not answer within the deadline.
    TimedOut,
    /// There are as many connections for this client's address as there may be.
    TooMany,
    /// There are as many connections as there may be.
    Full,
    /// Incomplete requests and messages take too much memory, and this one takes the most.
    Overloaded,
    /// The server is shutting down.
    ShuttingDown,
}

impl Refusal {
    /// The status code that says it.
    pub fn status(self) -> u16 {
        match self {
            Refusal::Malformed => 400,
            // RFC 6585 §5: also "when a single header field is at fault"; trailer fields are no
            // different.
            Refusal::HeadTooLarge | Refusal::TrailersTooLarge => 431,
            Refusal::BodyTooLarge | Refusal::ExtensionsTooLarge => 413,
            Refusal::LengthRequired => 411,
            Refusal::UnsupportedCoding => 501,
            Refusal::Incomplete => 408,
            // RFC 6585 §4.
            Refusal::TooMany => 429,
            Refusal::TimedOut | Refusal::Full | Refusal::Overloaded | Refusal::ShuttingDown => 503,
        }
    }
}
