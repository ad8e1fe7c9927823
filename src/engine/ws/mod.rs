//! The WebSocket protocol (RFC 6455) without I/O: decodes bytes into events, and encodes frames.
//!
//! Owns: frame headers, masking, incremental UTF-8 validation, fragmentation, compressed messages
//! (RFC 7692), and close codes. Must not know: sockets, HTTP, JSON, or time.

mod close;
mod decoder;
mod error;
mod frame;
mod mask;
mod utf8;

#[cfg(feature = "deflate")]
mod deflate;
#[cfg(not(feature = "deflate"))]
#[path = "no_deflate.rs"]
mod deflate;

pub use close::{CloseFrame, encode_close};
pub use decoder::{Decoder, Event, Limits, Unread};
pub use deflate::{CAN_DEFLATE, Deflater, Inflater};
pub use error::{CloseCode, ProtocolError};
pub use frame::{
    MAX_CONTROL_PAYLOAD, MAX_SERVER_HEADER, OpCode, encode_client_frame, encode_compressed,
    encode_frame,
};
pub use mask::apply_mask;
pub use utf8::{InvalidUtf8, Utf8};

/// The compression window, as a power of two of bytes (RFC 7692 §7.1.2.1).
pub const DEFLATE_WINDOW_BITS: u8 = 12;
