//! Request bodies, which are read only on the handler's request.
//!
//! Owns: collecting a body, by length or in chunks, after the head of its request. A chunked body
//! is decoded on arrival, into the buffer of its request; chunk sizes, extensions, and trailers are
//! not stored.

use super::Engine;
use super::request::{Taken, WholeRequest};
use super::work::CHUNK_BYTE_COST;
use crate::ConnKey;
use crate::conn::{BodyEnd, PartialBody, PartialRequest};
use crate::handler::{Handler, Refusal};
use crate::http::{ChunkedDecoder, ChunkedError, Decoded, Framing, HeadLayout, is_head};
use crate::io::socket::Socket;

impl<S: Socket, H: Handler> Engine<S, H> {
    /// The handler has requested the body of the request at the front of `bytes`: calls the handler
    /// again if the body is complete, or waits for the rest. Returns the number of bytes consumed,
    /// or `None` if the request was rejected.
    pub(super) fn begin_body(
        &mut self,
        key: ConnKey,
        bytes: &mut [u8],
        limit: usize,
        taken: Taken<H::Session>,
    ) -> Option<usize> {
        let Some(head) = taken.layout else {
            // The handler has the body already.
            self.refuse_request(key, Refusal::Malformed, taken.head_only);
            return None;
        };
        let expects_continue = taken.expects_continue;
        match taken.framing {
            // RFC 9110 §15.5.12: "The client MAY repeat the request if it adds a valid
            // Content-Length header field".
            Framing::None => {
                self.refuse_request(key, Refusal::LengthRequired, taken.head_only);
                None
            }
            Framing::Length(length) => {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                if length > limit {
                    self.refuse_request(key, Refusal::BodyTooLarge, taken.head_only);
                    return None;
                }
                self.begin_length(key, bytes, head, length, expects_continue)
            }
            Framing::Chunked => self.begin_chunks(key, bytes, head, limit, expects_continue),
        }
    }

    fn begin_length(
        &mut self,
        key: ConnKey,
        bytes: &mut [u8],
        head: HeadLayout,
        length: usize,
        expects_continue: bool,
    ) -> Option<usize> {
        let length = head.length() + length;
        if bytes.len() >= length {
            return self.take_request(key, bytes, Some(WholeRequest { head, length }));
        }
        let end = BodyEnd::At(length);
        self.await_body(key, bytes, PartialBody { head, end }, expects_continue);
        // All bytes have been buffered.
        Some(bytes.len())
    }

    fn begin_chunks(
        &mut self,
        key: ConnKey,
        bytes: &mut [u8],
        head: HeadLayout,
        limit: usize,
        expects_continue: bool,
    ) -> Option<usize> {
        let offset = head.length();
        let mut decoder = ChunkedDecoder::new(limit);
        let head_only = is_head(bytes);
        let decoded = self.decode(key, &mut decoder, &mut bytes[offset..], head_only)?;
        let whole = &mut bytes[..offset + decoded.written];
        if decoder.is_done() {
            let length = whole.len();
            self.take_request(key, whole, Some(WholeRequest { head, length }))?;
        } else {
            let end = BodyEnd::Chunked(decoder);
            self.await_body(key, whole, PartialBody { head, end }, expects_continue);
        }
        Some(offset + decoded.read)
    }

    /// Buffers a partial request until the rest of its body arrives.
    fn await_body(
        &mut self,
        key: ConnKey,
        bytes: &[u8],
        body: PartialBody,
        expects_continue: bool,
    ) {
        if expects_continue {
            self.queue_own(key, |out| out.extend_from_slice(CONTINUE));
        }
        self.arm(key, self.config.body_timeout);
        self.keep_partial(
            key,
            Box::new(PartialRequest {
                bytes: bytes.to_vec(),
                body: Some(body),
                is_unread: false,
            }),
        );
    }

    /// Appends input to a request with a chunked body. Once the body is complete, serves the
    /// request and those after it.
    pub(super) fn take_chunks(
        &mut self,
        key: ConnKey,
        mut partial: Box<PartialRequest>,
        fresh: &mut [u8],
    ) {
        let Some(PartialBody {
            end: BodyEnd::Chunked(decoder),
            ..
        }) = &mut partial.body
        else {
            return;
        };
        let Some(decoded) = self.decode(key, decoder, fresh, is_head(&partial.bytes)) else {
            return;
        };
        let is_done = decoder.is_done();
        partial.bytes.extend_from_slice(&fresh[..decoded.written]);
        if !is_done {
            return self.keep_partial(key, partial);
        }
        let PartialRequest {
            mut bytes, body, ..
        } = *partial;
        let length = bytes.len();
        let whole = body.map(|PartialBody { head, .. }| WholeRequest { head, length });
        self.take_requests(key, &mut bytes, whole);
        drop(bytes);
        let rest = &mut fresh[decoded.read..];
        let used = match self.outbox.work < self.visit.share {
            true => self.take_requests(key, rest, None),
            false => 0,
        };
        self.keep_rest(key, &mut rest[used..]);
    }

    /// Decodes body bytes in place. Returns `None` if they are rejected. `head_only` tells whether
    /// the request has the method `HEAD`.
    fn decode(
        &mut self,
        key: ConnKey,
        decoder: &mut ChunkedDecoder,
        bytes: &mut [u8],
        head_only: bool,
    ) -> Option<Decoded> {
        let result = decoder.decode(bytes);
        let overhead = result.map_or(bytes.len(), |done| done.read - done.written);
        self.outbox.work += overhead as u64 * CHUNK_BYTE_COST;
        if let Err(error) = result {
            self.refuse_request(key, Refusal::from(error), head_only);
        }
        result.ok()
    }
}

impl From<ChunkedError> for Refusal {
    fn from(error: ChunkedError) -> Self {
        match error {
            ChunkedError::Malformed => Refusal::Malformed,
            ChunkedError::BodyTooLarge => Refusal::BodyTooLarge,
            ChunkedError::ExtensionsTooLarge => Refusal::ExtensionsTooLarge,
            ChunkedError::TrailersTooLarge => Refusal::TrailersTooLarge,
        }
    }
}

/// RFC 9110 §10.1.1: "A server that receives a 100-continue expectation … MAY … send a 100".
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
