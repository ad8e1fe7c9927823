//! A minimal HTTP/1.1 implementation for WebSocket handshakes and a small admin interface.
//!
//! Owns: parsing of request heads (with `httparse`), body framing and the chunked transfer coding,
//! the handshake checks of RFC 6455 §4.2, negotiation of compression, query parameters, origins,
//! client addresses reported by proxies, and response encoding. Sans-I/O: bytes in, values out.
//! Must not know: sockets, time, JSON, or the meaning of paths.

mod chunked;
mod date;
mod event_stream;
mod extensions;
mod forwarded;
mod framing;
mod host;
mod layout;
mod origin;
mod proxies;
mod proxy_protocol;
mod query;
mod request;
mod response;
mod upgrade;

pub use chunked::{ChunkedDecoder, ChunkedError, Decoded, MAX_CHUNK_EXTENSIONS, MAX_TRAILERS};
pub use date::http_date;
pub use event_stream::{Block, EventStream};
pub use extensions::Deflate;
pub use forwarded::{ForwardedBy, client_address};
pub use framing::Framing;
pub(crate) use layout::HeadLayout;
pub use origin::Origin;
pub use proxies::Proxies;
pub use proxy_protocol::{Malformed, Progress, Source, parse_proxy};
pub use query::{Params, percent_decode};
pub use request::{Head, HeadError, MAX_HEADERS, Request, is_head, parse_head};
pub use response::{Response, Status};
pub use upgrade::{Refused, Upgrade, check_upgrade};
