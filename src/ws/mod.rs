//! The WebSocket protocol (RFC 6455) without a socket: bytes in, events out, frames as bytes.
//!
//! Owns: frame headers, masking, UTF-8 of messages that arrive in pieces, fragmentation and
//! close codes. Must not know: sockets, HTTP, JSON, time.

mod close;
mod decoder;
mod frame;
mod mask;
mod utf8;

pub use close::{CloseCode, CloseFrame, encode_close};
pub use decoder::{Decoder, Event, Limits, ProtocolError};
pub use frame::{
    MAX_CONTROL_PAYLOAD, MAX_SERVER_HEADER, OpCode, encode_client_frame, encode_frame,
};
pub use mask::apply_mask;
pub use utf8::{InvalidUtf8, Utf8};
