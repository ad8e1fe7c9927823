//! `listen --sse`: the same events over Server-Sent Events instead of a WebSocket, for networks that
//! do not let WebSockets pass.
//!
//! | file | holds |
//! |---|---|
//! | `parser` | the event stream format of the WHATWG |
//! | `body` | the framing of the response's body |
//! | `request` | the request, and the validation of the response |
//! | `session` | one connection, from its first block to its end |

mod body;
mod parser;
mod request;
mod session;

pub(super) use self::request::connect;
pub(super) use self::session::SseSession;
