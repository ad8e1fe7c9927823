//! From bytes to messages: one connection's receiving side.

use std::fmt;

use super::close::{CloseCode, CloseFrame};
use super::frame::{Header, MAX_CLIENT_HEADER, OpCode, encode_again};
use super::mask::apply_mask;
use super::utf8::Utf8;

/// What a peer may make us hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The longest message, in bytes of payload over all its fragments.
    pub max_message: usize,
    /// The most frames of one message. Empty ones count: each costs work and no byte of
    /// `max_message`.
    pub max_fragments: u32,
    /// Whether permessage-deflate was negotiated. A compressed message is held to `max_message`
    /// twice: here as it comes, and by who decompresses it.
    pub deflate: bool,
}

/// What a peer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole text message.
    Text(&'a str),
    /// A whole binary message.
    Binary(&'a [u8]),
    /// A whole message that is compressed still; [`Inflater`](super::Inflater) makes one of the
    /// two above of it.
    Compressed {
        /// What it is to become.
        is_text: bool,
        /// The payloads of its frames.
        data: &'a [u8],
    },
    /// To be answered by a pong of the same payload (§5.5.2).
    Ping(&'a [u8]),
    /// Sign of life.
    Pong(&'a [u8]),
    /// The closing handshake; `None` where it gives no code.
    Close(Option<CloseFrame<'a>>),
}

impl Event<'_> {
    /// Bytes of a data message; 0 for any other event.
    pub fn size(&self) -> usize {
        match self {
            Event::Text(text) => text.len(),
            Event::Binary(data) | Event::Compressed { data, .. } => data.len(),
            Event::Ping(_) | Event::Pong(_) | Event::Close(_) => 0,
        }
    }

    /// Appends the bytes of a frame that a [`Decoder`] turns into this data message again; nothing
    /// for any other event.
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

/// The peer broke the protocol or a limit: the connection must be failed (§7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    /// What to close with.
    pub code: CloseCode,
    /// What to say about it.
    pub reason: &'static str,
}

impl ProtocolError {
    pub(crate) fn new(code: CloseCode, reason: &'static str) -> Self {
        ProtocolError { code, reason }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code.0, self.reason)
    }
}

impl std::error::Error for ProtocolError {}

/// One connection's receiving side. Between whole messages it is a null pointer: only what is
/// incomplete is kept, and it is given back as soon as it is complete.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Option<Box<Partial>>,
}

/// What has arrived of something that is not whole.
#[derive(Debug, Default)]
struct Partial {
    /// The start of a frame header.
    spill: [u8; MAX_CLIENT_HEADER],
    spilled: usize,
    /// The frame whose payload is arriving, and how much of it is here.
    frame: Option<(Header, u64)>,
    /// The payload so far, when that frame is a control frame.
    control: Vec<u8>,
    /// The message that the data frames so far belong to.
    message: Option<Message>,
    /// The kind of event that the call before this one handed out from here.
    delivered: Option<OpCode>,
    /// Input that has not been decoded yet.
    unread: Unread,
}

/// Received bytes that are to be decoded later, in their order.
#[derive(Debug, Default)]
pub struct Unread {
    /// The bytes, with those at the front that have been decoded since.
    pub bytes: Vec<u8>,
    /// Where the rest begins.
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
    /// Whether something is incomplete: a header, a frame, or a message.
    pub fn is_mid_message(&self) -> bool {
        self.partial.is_some()
    }

    /// Keeps input that is to be decoded later. There must be none kept already.
    pub fn keep_unread(&mut self, unread: Unread) {
        debug_assert!(!self.has_unread());
        if unread.at < unread.bytes.len() {
            self.partial.get_or_insert_default().unread = unread;
        }
    }

    /// Whether input is kept that is to be decoded later.
    pub fn has_unread(&self) -> bool {
        let partial = self.partial.as_deref();
        partial.is_some_and(|partial| !partial.unread.bytes.is_empty())
    }

    /// Takes the input that was kept.
    pub fn take_unread(&mut self) -> Option<Unread> {
        let partial = self.partial.as_deref_mut()?;
        let unread = std::mem::take(&mut partial.unread);
        if partial.is_empty() {
            self.partial = None;
        }
        (!unread.bytes.is_empty()).then_some(unread)
    }

    /// Bytes of memory that what is incomplete takes.
    pub fn held(&self) -> usize {
        self.partial.as_deref().map_or(0, |partial| {
            let message = partial.message.as_ref();
            size_of::<Partial>()
                + partial.control.capacity()
                + partial.unread.bytes.capacity()
                + message.map_or(0, |message| message.data.capacity())
        })
    }

    /// Bytes of payload that the frame under way lacks.
    #[inline]
    pub fn missing(&self) -> u64 {
        let frame = self.partial.as_deref().and_then(|partial| partial.frame);
        frame.map_or(0, |(header, received)| header.len - received)
    }

    /// Whether it holds nothing, not even an event that was handed out.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.partial.is_none()
    }

    /// Takes bytes from the front of `input`, up to the end of the next event, and says how
    /// many. The payload is unmasked in place. With `None` either all of `input` was taken, or a
    /// fragment that completes no message: no call decodes more than one frame, so the caller can
    /// bound its work.
    ///
    /// # Errors
    /// [`ProtocolError`], as soon as it is certain. No further call must be made then.
    pub fn next<'a>(
        &'a mut self,
        input: &'a mut [u8],
        limits: &Limits,
    ) -> Result<(usize, Option<Event<'a>>), ProtocolError> {
        self.forget_delivered();
        if self.partial.is_none() {
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

    /// Completes the header of the next frame, unless one is there already.
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

    /// Takes what there is of the current frame's payload.
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
        // The mask repeats every four bytes: only the position modulo 4 counts.
        apply_mask(payload, header.mask, (*received % 4) as usize);
        *received += size as u64;
        if header.opcode.is_control() {
            partial.control.extend_from_slice(payload);
        } else if let Some(message) = &mut partial.message {
            // It grows with what arrives, never with what a header promises.
            message.data.extend_from_slice(payload);
            // §8.1: text that is not UTF-8 fails the connection; here at the first byte that
            // makes it certain, be the frame complete or not. What compressed text says is not
            // known before it is whole.
            let is_plain_text = message.is_text && !message.compressed;
            if is_plain_text && message.utf8.feed(payload).is_err() {
                return Err(not_utf8());
            }
        }
        Ok(size)
    }

    /// Ends the current frame, and says what kind of event that completes, if any.
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

    /// The event of a kind that `finish_frame` has just completed.
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

/// Whether the frame is an event by itself, and all of it is here.
fn is_whole_event(header: &Header, available: usize) -> bool {
    header.fin && header.opcode != OpCode::Continuation && header.len <= available as u64
}

fn compressed_event(is_text: bool, data: &[u8]) -> Event<'_> {
    Event::Compressed { is_text, data }
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

/// Refuses a data frame for what its header announces, before a byte of it is kept.
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

#[cfg(test)]
mod tests;
