//! Compressed messages (RFC 7692): one compressor and one decompressor for all connections.
//!
//! Owns: compressing and decompressing single messages within limits. Must not know: which
//! connection a message belongs to, and the negotiated parameters. No state is carried from one
//! message to the next ("no context takeover"), so that no connection needs a compressor of its
//! own.

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

use super::decoder::{Event, whole_event};
use super::error::{CloseCode, ProtocolError};
use super::frame::OpCode;

/// Whether this build supports compression.
pub const CAN_DEFLATE: bool = true;

/// Compresses messages independently. Allocates about 165 KB for the first message.
#[derive(Default)]
pub struct Deflater {
    stream: Option<Deflate>,
    out: Vec<u8>,
}

/// Decompresses messages independently. Allocates about 40 KB and an output buffer for the first
/// message.
#[derive(Default)]
pub struct Inflater {
    stream: Option<Inflate>,
    out: Vec<u8>,
}

impl Deflater {
    /// Returns the payload of a compressed message (RFC 7692 §7.2.1), or `None` if it would be
    /// longer than `limit` bytes.
    pub fn deflate(&mut self, message: &[u8], limit: usize) -> Option<&[u8]> {
        let stream = self
            .stream
            .get_or_insert_with(|| Deflate::new_with_config(config()));
        stream.reset();
        // One byte more than fits: output that fills the buffer may be incomplete.
        self.out.resize(limit + TAIL.len() + 1, 0);
        let status = stream.compress(message, &mut self.out, DeflateFlush::SyncFlush);
        let written = stream.total_out() as usize;
        if status != Ok(Status::Ok) || written >= self.out.len() {
            // The stream still contains the rest of the output. `reset` discards it without
            // restoring its capacity (zlib-rs 0.6.8), and the stream panics when it has none.
            self.stream = None;
            return None;
        }
        // "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end."
        self.out.get(..written)?.strip_suffix(TAIL)
    }

    /// Frees the output buffer if it is unusually large.
    pub fn shrink(&mut self) {
        shrink(&mut self.out);
    }
}

impl Inflater {
    /// Decompresses a message (§7.2.2) of at most `limit` bytes.
    ///
    /// # Errors
    /// [`ProtocolError`]: `TOO_BIG` as soon as the output exceeds the limit by one byte, regardless of the remaining input; `INVALID_DATA` if the data is corrupt, or if it is not valid text.
    pub fn inflate(
        &mut self,
        is_text: bool,
        data: &[u8],
        limit: usize,
    ) -> Result<Event<'_>, ProtocolError> {
        let stream = self.stream.get_or_insert_with(|| Inflate::new(false, 15));
        stream.reset(false);
        let mut run = Run {
            stream,
            out: &mut self.out,
            written: 0,
            limit,
        };
        // §7.2.3.4: "on platforms where the flush method … is not available, implementors can
        // choose to flush data using DEFLATE blocks with "BFINAL" set to 1". Such a block may
        // be the last.
        if !run.feed(data)? {
            // The rest of an empty block and the start of another one must be valid here; otherwise
            // the data ended in the middle of a block.
            let before = run.written;
            if !run.feed(&TAIL_AND_END)? || run.written != before {
                return Err(corrupt());
            }
        }
        let written = run.written;
        let opcode = if is_text {
            OpCode::Text
        } else {
            OpCode::Binary
        };
        whole_event(opcode, self.out.get(..written).unwrap_or_default())
    }

    /// Frees the output buffer if it is unusually large.
    pub fn shrink(&mut self) {
        shrink(&mut self.out);
    }
}

fn shrink(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEPT_OUTPUT {
        *buffer = Vec::new();
    }
}

/// The decompression of one message.
struct Run<'a> {
    stream: &'a mut Inflate,
    out: &'a mut Vec<u8>,
    written: usize,
    limit: usize,
}

impl Run<'_> {
    /// Consumes all of `input`. Returns whether it ends with a final block.
    fn feed(&mut self, mut input: &[u8]) -> Result<bool, ProtocolError> {
        loop {
            let end = self.make_room()?;
            let (taken, written) = (self.stream.total_in(), self.stream.total_out());
            let room = self.out.get_mut(self.written..end).unwrap_or_default();
            let status = self
                .stream
                .decompress(input, room, InflateFlush::NoFlush)
                .map_err(|_| corrupt())?;
            let taken = (self.stream.total_in() - taken) as usize;
            input = input.get(taken..).unwrap_or_default();
            self.written += (self.stream.total_out() - written) as usize;
            if status == Status::StreamEnd {
                // A final block does not end the message: other blocks may follow.
                self.stream.reset(false);
                if input.is_empty() {
                    self.make_room()?;
                    return Ok(true);
                }
            } else if self.written < end {
                // The decompressor had output space but made no progress.
                return if input.is_empty() {
                    Ok(false)
                } else {
                    Err(corrupt())
                };
            }
        }
    }

    /// Grows the output buffer with the output, and returns the usable length: at most one byte
    /// beyond the limit, even if the buffer is longer from a message with a higher limit.
    fn make_room(&mut self) -> Result<usize, ProtocolError> {
        if self.written > self.limit {
            return Err(ProtocolError::new(CloseCode::TOO_BIG, "message is too big"));
        }
        let most = self.limit.saturating_add(1);
        if self.written == self.out.len() {
            let longer = self.written.saturating_mul(2).max(FIRST_OUTPUT);
            self.out.resize(longer.min(most), 0);
        }
        Ok(self.out.len().min(most))
    }
}

fn corrupt() -> ProtocolError {
    ProtocolError::new(CloseCode::INVALID_DATA, "compressed data is corrupt")
}

/// An event is about 1 KB: a larger window compresses it hardly better, and a smaller one
/// noticeably worse.
fn config() -> DeflateConfig {
    DeflateConfig {
        window_bits: -i32::from(super::DEFLATE_WINDOW_BITS),
        mem_level: 5,
        level: 6,
        ..DeflateConfig::default()
    }
}

/// §7.2.1: the end of all flushed data, which is therefore not sent.
const TAIL: &[u8] = &[0x00, 0x00, 0xFF, 0xFF];
/// The same, followed by an empty final block.
const TAIL_AND_END: [u8; 9] = [0x00, 0x00, 0xFF, 0xFF, 0x01, 0x00, 0x00, 0xFF, 0xFF];
const FIRST_OUTPUT: usize = 4 * 1024;
/// The largest output buffer that is kept for the next message.
const KEPT_OUTPUT: usize = 128 * 1024;

#[cfg(test)]
mod tests;
