//! Stubs for builds without compression: nothing is compressed, and since nothing is negotiated, no
//! compressed message arrives.

use super::decoder::Event;
use super::error::{CloseCode, ProtocolError};

/// Whether this build supports compression.
pub const CAN_DEFLATE: bool = false;

/// A compressor that compresses nothing.
#[derive(Default)]
pub struct Deflater(());

/// A decompressor that is never called.
#[derive(Default)]
pub struct Inflater(());

#[allow(missing_docs, clippy::missing_errors_doc)]
impl Deflater {
    pub fn deflate(&mut self, _: &[u8], _: usize) -> Option<&[u8]> {
        None
    }

    pub fn shrink(&mut self) {}
}

#[allow(missing_docs, clippy::missing_errors_doc)]
impl Inflater {
    pub fn inflate(&mut self, _: bool, _: &[u8], _: usize) -> Result<Event<'_>, ProtocolError> {
        Err(ProtocolError::new(
            CloseCode::PROTOCOL_ERROR,
            "compression was not negotiated",
        ))
    }

    pub fn shrink(&mut self) {}
}
