//! The receiving side of a connection: decodes bytes into messages.

use std::ops::Range;

use super::close::CloseFrame;
use super::error::{CloseCode, ProtocolError};
use super::frame::{Header, MAX_CLIENT_HEADER, OpCode, encode_again};
use super::mask::apply_mask;
use super::utf8::Utf8;

/// Limits on the input of a peer.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Maximum payload bytes of a message over all its fragments.
    pub max_message: usize,
    /// Maximum frames of a message. Empty frames count: they cost work without counting toward
    /// `max_message`.
    pub max_fragments: u32,
    /// Whether permessage-deflate was negotiated. `max_message` applies to a compressed message
    /// twice: to the compressed data here, and to the decompressed message in the caller.
    pub deflate: bool,
}

/// A decoded event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A complete text message.
    Text(&'a str),
    /// A complete binary message.
    Binary(&'a [u8]),
    /// A complete message that is still compressed. [`Inflater`](super::Inflater) turns it into one
    /// of the two above.
    Compressed {
        /// Whether the decompressed message is text.
        is_text: bool,
        /// The concatenated payloads of its frames.
        data: &'a [u8],
    },
    /// A ping, to be answered with a pong that has the same payload (§5.5.2).
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// A close frame; `None` if it has no code.
    Close(Option<CloseFrame<'a>>),
}

impl Event<'_> {
    /// Returns the payload length of a data message, and 0 for any other event.
    pub fn size(&self) -> usize {
        match self {
            Event::Text(text) => text.len(),
            Event::Binary(data) | Event::Compressed { data, .. } => data.len(),
            Event::Ping(_) | Event::Pong(_) | Event::Close(_) => 0,
        }
    }

    /// Appends a frame that a [`Decoder`] decodes into this data message again. Appends nothing for
    /// any other event.
    pub fn encode_again(&self, out: &mut Vec<u8>) {
        match *self {
            Event::Text(text) => encode_again(OpCode::Text, false, text.as_bytes(), out),
            Event::Binary(data) => encode_again(OpCode::Binary, false, data, out),
            Event::Compressed { is_text, data } => {
                let opcode = if is_text {
                    OpCode::Text
                } else {
                    OpCode::Binary
                };
                encode_again(opcode, true, data, out);
            }
            Event::Ping(_) | Event::Pong(_) | Event::Close(_) => {}
        }
    }
}

/// The receiving side of one connection. Between messages it is a null pointer: only incomplete
/// input is buffered, and the buffers are freed as soon as it is complete.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

/// Incomplete input.
#[derive(Debug, Default)]
struct Partial {
    /// A partial frame header.
    spill: [u8; MAX_CLIENT_HEADER],
    spilled: usize,
    /// The current frame, and the number of payload bytes received.
    frame: Option<(Header, u64)>,
    /// The payload so far, if the current frame is a control frame.
    control: Vec<u8>,
    /// The message in progress.
    message: Option<Message>,
    /// The event that borrows from this buffer, returned by the previous call.
    delivered: Option<OpCode>,
    /// Received input that has not been decoded.
    unread: Unread,
}

/// Received bytes that are to be decoded later.
#[derive(Debug, Default)]
pub struct Unread {
    /// The bytes, including a prefix that has been decoded since.
    pub bytes: Vec<u8>,
    /// The offset of the rest.
    pub at: usize,
}

#[derive(Debug)]
struct Message {
    is_text: bool,
    compressed: bool,
    utf8: Utf8,
    frames: u32,
    data: Vec<u8>,
}

impl Decoder {
    /// Returns whether a header, frame, or message is incomplete.
    pub fn is_mid_message(&self) -> bool {
        self.partial.is_some()
    }

    /// Stores input that is to be decoded later. None may be stored already.
    pub fn keep_unread(&mut self, unread: Unread) {
        debug_assert!(!self.has_unread());
        if unread.at < unread.bytes.len() {
            self.partial.get_or_insert_default().unread = unread;
        }
    }

    /// Returns whether input is stored that is to be decoded later.
    pub fn has_unread(&self) -> bool {
        let partial = self.partial.as_deref();
        partial.is_some_and(|partial| !partial.unread.bytes.is_empty())
    }

    /// Takes the stored input.
    pub fn take_unread(&mut self) -> Option<Unread> {
        let partial = self.partial.as_deref_mut()?;
        let unread = std::mem::take(&mut partial.unread);
        if partial.is_empty() {
            self.partial = None;
        }
        (!unread.bytes.is_empty()).then_some(unread)
    }

    /// Returns the memory used for incomplete input, in bytes.
    pub fn buffered(&self) -> usize {
        self.partial.as_deref().map_or(0, |partial| {
            let message = partial.message.as_ref();
            size_of::<Partial>()
                + partial.control.capacity()
                + partial.unread.bytes.capacity()
                + message.map_or(0, |message| message.data.capacity())
        })
    }

    /// Returns the number of missing payload bytes of the current frame.
    #[inline]
    pub fn missing(&self) -> u64 {
        let frame = self.partial.as_deref().and_then(|partial| partial.frame);
        frame.map_or(0, |(header, received)| header.len - received)
    }

    /// Returns whether the decoder holds nothing, not even an event that has been returned.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.partial.is_none()
    }

    /// Consumes bytes from the front of `input`, up to the end of the next event, and returns their
    /// number. Payloads are unmasked in place. If no event is returned, either all of `input` was
    /// consumed, or a fragment that completes no message: a call never decodes more than one frame,
    /// so that the caller can bound its work.
    ///
    /// # Errors
    /// [`ProtocolError`], as early as possible. The decoder must not be called again afterwards.
    pub fn next<'a>(
        &'a mut self,
        input: &'a mut [u8],
        limits: &Limits,
    ) -> Result<(usize, Option<Event<'a>>), ProtocolError> {
        self.forget_delivered();
        if self.partial.is_none() {
            if let Some(payload) = short_text(input, limits) {
                let end = payload.end;
                let text = whole_event(OpCode::Text, &input[payload])?;
                return Ok((end, Some(text)));
            }
            match Header::parse(input, limits.deflate)? {
                Some((header, size)) if is_whole_event(&header, input.len() - size) => {
                    check_size(0, &header, limits)?;
                    let end = size + header.len as usize;
                    let payload = &mut input[size..end];
                    apply_mask(payload, header.mask, 0);
                    let event = match header.compressed {
                        true => compressed_event(header.opcode == OpCode::Text, payload),
                        false => whole_event(header.opcode, payload)?,
                    };
                    return Ok((end, Some(event)));
                }
                None if input.is_empty() => return Ok((0, None)),
                _ => {}
            }
        }
        let mut taken = 0;
        while taken < input.len() || self.payload_is_complete() {
            taken += self.take_header(&input[taken..], limits)?;
            taken += self.take_payload(&mut input[taken..])?;
            if self.payload_is_complete() {
                let event = match self.finish_frame()? {
                    Some(opcode) => Some(self.completed_event(opcode)?),
                    None => None,
                };
                return Ok((taken, event));
            }
        }
        Ok((taken, None))
    }

    fn payload_is_complete(&self) -> bool {
        matches!(
            self.partial.as_deref(),
            Some(Partial { frame: Some((header, received)), .. }) if *received == header.len
        )
    }

    fn forget_delivered(&mut self) {
        let Some(partial) = self.partial.as_deref_mut() else {
            return;
        };
        match partial.delivered.take() {
            Some(opcode) if opcode.is_control() => partial.control = Vec::new(),
            Some(_) => partial.message = None,
            None => return,
        }
        if partial.message.is_none() && partial.unread.bytes.is_empty() {
            self.partial = None;
        }
    }

    /// Completes the header of the next frame, unless a frame is in progress.
    fn take_header(&mut self, input: &[u8], limits: &Limits) -> Result<usize, ProtocolError> {
        let partial = self.partial.get_or_insert_default();
        if partial.frame.is_some() {
            return Ok(0);
        }
        let before = partial.spilled;
        let fresh = input.len().min(MAX_CLIENT_HEADER - before);
        partial.spill[before..before + fresh].copy_from_slice(&input[..fresh]);
        partial.spilled += fresh;
        let spill = &partial.spill[..partial.spilled];
        let Some((header, size)) = Header::parse(spill, limits.deflate)? else {
            return Ok(fresh);
        };
        partial.begin_frame(header, limits)?;
        Ok(size - before)
    }

    /// Consumes the available payload of the current frame.
    fn take_payload(&mut self, input: &mut [u8]) -> Result<usize, ProtocolError> {
        let Some(partial) = self.partial.as_deref_mut() else {
            return Ok(0);
        };
        let Some((header, received)) = &mut partial.frame else {
            return Ok(0);
        };
        let missing = usize::try_from(header.len - *received).unwrap_or(usize::MAX);
        let size = missing.min(input.len());
        let payload = &mut input[..size];
        // The mask repeats every four bytes, so only the offset modulo 4 matters.
        apply_mask(payload, header.mask, (*received % 4) as usize);
        *received += size as u64;
        if header.opcode.is_control() {
            partial.control.extend_from_slice(payload);
        } else if let Some(message) = &mut partial.message {
            // The buffer grows with received data, never with an announced length.
            message.data.extend_from_slice(payload);
            // §8.1: text that is not UTF-8 fails the connection. Fail at the first invalid byte,
            // even if the frame is incomplete. Compressed text cannot be validated before it is
            // complete.
            let is_plain_text = message.is_text && !message.compressed;
            if is_plain_text && message.utf8.feed(payload).is_err() {
                return Err(not_utf8());
            }
        }
        Ok(size)
    }

    /// Ends the current frame. Returns the type of the event that it completes, if any.
    fn finish_frame(&mut self) -> Result<Option<OpCode>, ProtocolError> {
        let Some(partial) = self.partial.as_deref_mut() else {
            return Ok(None);
        };
        let Some((header, _)) = partial.frame.take() else {
            return Ok(None);
        };
        let complete = match &partial.message {
            _ if header.opcode.is_control() => Some(header.opcode),
            Some(message) if header.fin => Some(message.finish()?),
            _ => None,
        };
        partial.delivered = complete;
        Ok(complete)
    }

    /// Returns the event whose type `finish_frame` has just returned.
    fn completed_event(&self, opcode: OpCode) -> Result<Event<'_>, ProtocolError> {
        let payload = match self.partial.as_deref() {
            Some(partial) if opcode.is_control() => partial.control.as_slice(),
            Some(Partial {
                message: Some(message),
                ..
            }) if message.compressed => {
                return Ok(compressed_event(message.is_text, &message.data));
            }
            Some(Partial {
                message: Some(message),
                ..
            }) => message.data.as_slice(),
            _ => &[],
        };
        whole_event(opcode, payload)
    }
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.spilled == 0
            && self.frame.is_none()
            && self.message.is_none()
            && self.delivered.is_none()
            && self.unread.bytes.is_empty()
    }

    fn begin_frame(&mut self, header: Header, limits: &Limits) -> Result<(), ProtocolError> {
        match (header.opcode, &mut self.message) {
            (OpCode::Continuation, None) => return Err(out_of_order("nothing to continue")),
            (OpCode::Continuation, Some(message)) => {
                check_size(message.data.len(), &header, limits)?;
                if message.frames >= limits.max_fragments {
                    return Err(ProtocolError::new(CloseCode::TOO_BIG, "too many fragments"));
                }
                message.frames += 1;
            }
            // §5.4: "The fragments of one message MUST NOT be interleaved between the
            // fragments of another message".
            (OpCode::Text | OpCode::Binary, Some(_)) => {
                return Err(out_of_order("message inside a message"));
            }
            (OpCode::Text | OpCode::Binary, empty @ None) => {
                check_size(0, &header, limits)?;
                *empty = Some(Message {
                    is_text: header.opcode == OpCode::Text,
                    compressed: header.compressed,
                    utf8: Utf8::default(),
                    frames: 1,
                    data: Vec::new(),
                });
            }
            // "Control frames … MAY be injected in the middle of a fragmented message."
            (OpCode::Close | OpCode::Ping | OpCode::Pong, _) => {}
        }
        self.spilled = 0;
        self.frame = Some((header, 0));
        Ok(())
    }
}

impl Message {
    fn finish(&self) -> Result<OpCode, ProtocolError> {
        match self.is_text {
            true if !self.utf8.is_complete() => Err(not_utf8()),
            true => Ok(OpCode::Text),
            false => Ok(OpCode::Binary),
        }
    }
}

/// Returns whether the frame is an event by itself and entirely available.
fn is_whole_event(header: &Header, available: usize) -> bool {
    header.fin && header.opcode != OpCode::Continuation && header.len <= available as u64
}

fn compressed_event(is_text: bool, data: &[u8]) -> Event<'_> {
    Event::Compressed { is_text, data }
}

/// Unmasks the first frame if it is a whole text message of at most 125 bytes that satisfies all
/// limits, like almost every message of clients. Returns the range of its payload. Any other input
/// is left to [`Header::parse`], which takes more than twice as long.
#[inline]
fn short_text(input: &mut [u8], limits: &Limits) -> Option<Range<usize>> {
    let &mut [FIN_TEXT, second @ 0x80..0xFE, a, b, c, d, ref mut rest @ ..] = input else {
        return None;
    };
    let len = usize::from(second & 0x7F);
    if len > limits.max_message {
        return None;
    }
    apply_mask(rest.get_mut(..len)?, [a, b, c, d], 0);
    Some(SHORT_HEADER..SHORT_HEADER + len)
}

pub(super) fn whole_event(opcode: OpCode, payload: &[u8]) -> Result<Event<'_>, ProtocolError> {
    Ok(match opcode {
        OpCode::Text => Event::Text(std::str::from_utf8(payload).map_err(|_| not_utf8())?),
        OpCode::Binary | OpCode::Continuation => Event::Binary(payload),
        OpCode::Close => Event::Close(CloseFrame::parse(payload)?),
        OpCode::Ping => Event::Ping(payload),
        OpCode::Pong => Event::Pong(payload),
    })
}

/// Rejects a data frame by its announced length, before any of its payload is buffered.
fn check_size(so_far: usize, header: &Header, limits: &Limits) -> Result<(), ProtocolError> {
    let room = limits.max_message.saturating_sub(so_far) as u64;
    if !header.opcode.is_control() && header.len > room {
        return Err(ProtocolError::new(CloseCode::TOO_BIG, "message is too big"));
    }
    Ok(())
}

fn out_of_order(reason: &'static str) -> ProtocolError {
    ProtocolError::new(CloseCode::PROTOCOL_ERROR, reason)
}

/// §8.1: "When an endpoint is to interpret a byte stream as UTF-8 but finds that the byte
/// stream is not, in fact, a valid UTF-8 stream, that endpoint MUST _Fail the WebSocket
/// Connection_."
fn not_utf8() -> ProtocolError {
    ProtocolError::new(CloseCode::INVALID_DATA, "text is not UTF-8")
}

/// The first byte of a message of one frame: FIN and the opcode of text.
const FIN_TEXT: u8 = 0x81;
/// The length of the header of a masked frame with at most 125 bytes of payload.
const SHORT_HEADER: usize = 6;

#[cfg(test)]
mod tests;
