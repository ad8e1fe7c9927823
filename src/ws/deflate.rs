//! Compressed messages, RFC 7692: one compressor and one decompressor, for all connections.
//!
//! Owns: turning a message into compressed data and back, within limits. Must not know: whose
//! message it is, and what was negotiated. Neither side carries anything from one message to
//! the next ("no context takeover"), and so no connection has a compressor of its own.

use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

use super::close::CloseCode;
use super::decoder::{Event, ProtocolError, whole_event};
use super::frame::OpCode;

/// Whether this build can compress.
pub const CAN_DEFLATE: bool = true;

/// Compresses messages, each by itself. Takes memory from its first message on, about 165 KB.
#[derive(Default)]
pub struct Deflater {
    stream: Option<Deflate>,
    out: Vec<u8>,
}

/// Decompresses messages, each by itself. Takes memory from its first message on: about 40 KB,
/// and an output buffer.
#[derive(Default)]
pub struct Inflater {
    stream: Option<Inflate>,
    out: Vec<u8>,
}

impl Deflater {
    /// The payload of a compressed message (RFC 7692 §7.2.1); `None` where it would have more
    /// than `limit` bytes.
    pub fn deflate(&mut self, message: &[u8], limit: usize) -> Option<&[u8]> {
        let stream = self
            .stream
            .get_or_insert_with(|| Deflate::new_with_config(config()));
        stream.reset();
        // One byte more than fits: output that fills all the room may not be all there is.
        self.out.resize(limit + TAIL.len() + 1, 0);
        let status = stream.compress(message, &mut self.out, DeflateFlush::SyncFlush);
        let written = stream.total_out() as usize;
        if status != Ok(Status::Ok) || written >= self.out.len() {
            // The rest of the output is in there still. `reset` forgets it, but does not give
            // back its room (zlib-rs 0.6.8), and without room it panics.
            self.stream = None;
            return None;
        }
        // "Remove 4 octets (that are 0x00 0x00 0xff 0xff) from the tail end."
        self.out.get(..written)?.strip_suffix(TAIL)
    }

    /// Releases the output buffer if it is larger than messages usually need.
    pub fn shrink(&mut self) {
        shrink(&mut self.out);
    }
}

impl Inflater {
    /// The message whose compressed data this is (§7.2.2), a text or not, of at most `limit`
    /// bytes.
    ///
    /// # Errors
    /// [`ProtocolError`]: `TOO_BIG` as soon as one byte too many has come out, however much
    /// more there would be; `INVALID_DATA` where it is no such data, or no text.
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
            // What follows must be the rest of an empty block, and the beginning of another:
            // else the data ended in the midst of something.
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

    /// Releases the output buffer if it is larger than messages usually need.
    pub fn shrink(&mut self) {
        shrink(&mut self.out);
    }
}

fn shrink(buffer: &mut Vec<u8>) {
    if buffer.capacity() > KEPT_OUTPUT {
        *buffer = Vec::new();
    }
}

/// One message on its way out.
struct Run<'a> {
    stream: &'a mut Inflate,
    out: &'a mut Vec<u8>,
    written: usize,
    limit: usize,
}

impl Run<'_> {
    /// Takes all of `input`; whether its end is that of a final block.
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
                // Not the message's end: other blocks may follow.
                self.stream.reset(false);
                if input.is_empty() {
                    self.make_room()?;
                    return Ok(true);
                }
            } else if self.written < end {
                // It had room to go on, and did not.
                return if input.is_empty() {
                    Ok(false)
                } else {
                    Err(corrupt())
                };
            }
        }
    }

    /// The output grows with what comes out. Where its room ends: never beyond one byte more
    /// than allowed, be it longer from a message that was allowed more.
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

/// An event is about 1 KB: a larger window finds hardly more in it, and a smaller one
/// noticeably less.
fn config() -> DeflateConfig {
    DeflateConfig {
        window_bits: -i32::from(super::DEFLATE_WINDOW_BITS),
        mem_level: 5,
        level: 6,
        ..DeflateConfig::default()
    }
}

/// §7.2.1: what ends every flushed piece of data, and so is not sent.
const TAIL: &[u8] = &[0x00, 0x00, 0xFF, 0xFF];
/// The same, and an empty block that is final.
const TAIL_AND_END: [u8; 9] = [0x00, 0x00, 0xFF, 0xFF, 0x01, 0x00, 0x00, 0xFF, 0xFF];
const FIRST_OUTPUT: usize = 4 * 1024;
/// The largest output buffer that is kept for the next message.
const KEPT_OUTPUT: usize = 128 * 1024;

#[cfg(test)]
mod tests;
