//! Just enough HTTP/1.1 to open WebSockets and to serve a small admin interface.
//!
//! Owns: parsing one request head (with `httparse`), where bodies end and the chunked transfer
//! coding, the RFC 6455 §4.2 handshake checks,
//! the negotiation of compression, the query's parameters, origins, what proxies say of whom they
//! connect for, and writing responses. Sans-I/O: bytes in, values out.
//! Must not know: sockets, time, JSON, or what the paths mean.

mod chunked;
mod date;
mod extensions;
mod forwarded;
mod framing;
mod origin;
mod proxies;
mod proxy_protocol;
mod query;
mod request;
mod response;
mod upgrade;

pub use chunked::{ChunkedDecoder, ChunkedError, Decoded, MAX_CHUNK_EXTENSIONS, MAX_TRAILERS};
pub use date::http_date;
pub use extensions::Deflate;
pub use forwarded::{ForwardedBy, client_address};
pub use framing::Framing;
pub use origin::Origin;
pub use proxies::Proxies;
pub use proxy_protocol::{Malformed, Progress, Source, parse_proxy};
pub use query::{Params, percent_decode};
pub use request::{Head, HeadError, MAX_HEADERS, Request, parse_head};
pub use response::{Response, Status};
pub use upgrade::{Refused, Upgrade, check_upgrade};
