//! What stands for compression in a build without it: nothing is ever compressed, and since
//! nothing is negotiated, nothing compressed arrives.

use super::close::CloseCode;
use super::decoder::{Event, ProtocolError};

/// Whether this build can compress.
pub const CAN_DEFLATE: bool = false;

/// Compresses nothing.
#[derive(Default)]
pub struct Deflater(());

/// Is never asked.
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
