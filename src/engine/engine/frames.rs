//! Decodes and dispatches the frames of an open WebSocket.

use std::mem;

use super::work::{FRAME_COST, INFLATE_COST, INFLATED_BYTE_COST, MESSAGE_BYTE_COST, SMALL_MESSAGE};
use super::{CORK_SIZE, Engine};
use crate::ConnKey;
use crate::conn::close_cause::CloseCause;
use crate::conn::{Flags, Phase, lifecycle};
use crate::handler::{Handler, Message};
use crate::io::socket::Socket;
use crate::ws::{self, CloseCode, Event, OpCode, ProtocolError};

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Decodes frames until the input is exhausted, the WebSocket ends, or the connection has used
    /// up its share of work.
    #[inline(always)]
    pub(super) fn on_frames(&mut self, key: ConnKey, bytes: &mut [u8]) -> FramesEnd {
        let Some(conn) = self.arena.get_mut(key) else {
            return FramesEnd::Whole;
        };
        let limits = ws::Limits {
            max_message: self.config.max_message,
            max_fragments: self.config.max_fragments,
            deflate: conn.flags.has(Flags::DEFLATE),
        };
        let mut decoder = mem::take(&mut conn.decoder);
        let (mut is_open, mut at, mut any_message) = (conn.is_open(), 0, false);
        let end = loop {
            // After our close frame, frames are only skipped. Postponing them would delay the end
            // of the connection.
            if is_open && self.outbox.work >= self.visit.share && at < bytes.len() {
                break FramesEnd::Share(at);
            }
            self.outbox.work += FRAME_COST;
            match decoder.next(&mut bytes[at..], &limits) {
                // RFC 6455 §5.5.3: "A response to an unsolicited Pong frame is not expected."
                Ok((taken, Some(Event::Pong(payload)))) => {
                    at += taken;
                    self.on_pong(key, payload);
                }
                Ok((taken, Some(event))) => {
                    at += taken;
                    match self.on_event(key, event, is_open) {
                        next @ (AfterEvent::Open | AfterEvent::Closing) => {
                            is_open = next == AfterEvent::Open;
                            any_message |= !matches!(event, Event::Ping(_));
                            if at == bytes.len() && decoder.is_empty() {
                                break FramesEnd::Whole;
                            }
                        }
                        AfterEvent::Stop => return FramesEnd::Whole,
                        AfterEvent::Postponed => {
                            event.encode_again(&mut self.postponed_message);
                            break FramesEnd::Postponed(at);
                        }
                    }
                }
                Ok((taken, None)) => {
                    at += taken;
                    if at == bytes.len() {
                        break FramesEnd::Whole;
                    }
                }
                Err(error) => {
                    self.fail(key, error);
                    return FramesEnd::Whole;
                }
            }
        };
        if let Some(conn) = self.arena.get_mut(key) {
            conn.decoder = decoder;
            if any_message && conn.flags.has(Flags::INCOMPLETE) {
                self.clear_incomplete(key);
            }
        }
        end
    }

    /// Handles one event of the decoder. The connection is open, or else closing.
    #[inline(always)]
    fn on_event(&mut self, key: ConnKey, event: Event<'_>, is_open: bool) -> AfterEvent {
        if is_open && self.visit.is_quick && event.size() > SMALL_MESSAGE {
            return AfterEvent::Postponed;
        }
        match event {
            Event::Close(frame) => {
                self.apply_inlined(key, lifecycle::Event::PeerClosed(frame));
                return AfterEvent::Stop;
            }
            // After our close frame, only the peer's close frame matters.
            _ if !is_open => {}
            Event::Text(text) => self.on_message(key, Message::Text(text)),
            Event::Binary(data) => self.on_message(key, Message::Binary(data)),
            Event::Compressed { is_text, data } => {
                if let Some(next) = self.on_compressed(key, is_text, data) {
                    return next;
                }
            }
            Event::Ping(payload) => self.pong(key, payload),
            Event::Pong(_) => {}
        }
        if self.outbox.corked() >= CORK_SIZE {
            self.commit_cork();
        }
        match self.arena.get(key).map(|conn| &conn.phase) {
            Some(Phase::Open(_)) => AfterEvent::Open,
            Some(Phase::Closing) => AfterEvent::Closing,
            _ => AfterEvent::Stop,
        }
    }

    /// Decompresses and handles a message. Returns how to proceed if it was not handled.
    fn on_compressed(&mut self, key: ConnKey, is_text: bool, data: &[u8]) -> Option<AfterEvent> {
        let limit = match self.visit.is_quick {
            true => self.config.max_message.min(SMALL_MESSAGE),
            false => self.config.max_message,
        };
        // Moved out of `self`, so that its output can be borrowed while the engine works.
        let mut inflater = mem::take(&mut self.inflater);
        let next = match inflater.inflate(is_text, data, limit) {
            Ok(event) => {
                let size = event.size();
                self.outbox.work += INFLATE_COST + size as u64 * INFLATED_BYTE_COST;
                let counters = &mut self.counters.compression;
                counters.inflated += 1;
                counters.inflated_from += data.len() as u64;
                counters.inflated_to += size as u64;
                match event {
                    Event::Text(text) => self.on_message(key, Message::Text(text)),
                    Event::Binary(data) => self.on_message(key, Message::Binary(data)),
                    _ => {}
                }
                None
            }
            Err(error) if error.code == CloseCode::TOO_BIG && limit < self.config.max_message => {
                self.outbox.work += INFLATE_COST + limit as u64;
                Some(AfterEvent::Postponed)
            }
            Err(error) => {
                self.counters.compression.failures += 1;
                self.fail(key, error);
                Some(AfterEvent::Stop)
            }
        };
        inflater.shrink();
        self.inflater = inflater;
        next
    }

    #[inline]
    fn on_message(&mut self, key: ConnKey, message: Message<'_>) {
        let size = match message {
            Message::Text(text) => text.len(),
            Message::Binary(data) => data.len(),
        };
        self.outbox.work += size as u64 * MESSAGE_BYTE_COST;
        self.handled += 1;
        self.counters.messages_in += 1;
        self.with_replies(key, |handler, cx| handler.on_message(cx, message));
        self.apply_effects();
    }

    /// §5.5.3: "A Pong frame sent in response to a Ping frame must have identical "Application
    /// data"". The pong joins the other replies. If output is queued, only the latest pong is kept.
    fn pong(&mut self, key: ConnKey, payload: &[u8]) {
        self.handled += 1;
        let Some(conn) = self.arena.get_mut(key) else {
            return;
        };
        match &mut conn.tx {
            None => ws::encode_frame(OpCode::Pong, payload, &mut self.outbox.cork),
            Some(tx) => {
                let mut frame = Vec::with_capacity(2 + payload.len());
                ws::encode_frame(OpCode::Pong, payload, &mut frame);
                let before = tx.len();
                tx.set_pong(&frame, &mut self.counters.ledger);
                self.counters.queued_bytes += tx.len() as u64;
                self.counters.queued_bytes -= before as u64;
                self.mark_dirty(key);
            }
        }
    }

    /// Fails the WebSocket, §7.1.7.
    fn fail(&mut self, key: ConnKey, error: ProtocolError) {
        self.apply(key, lifecycle::Event::Failed(CloseCause::Violation(error)));
    }
}

/// Where decoding stopped.
#[derive(Clone, Copy)]
pub(super) enum FramesEnd {
    /// All bytes were consumed, or the rest is not wanted.
    Whole,
    /// The connection used up its share of work after this many bytes.
    Share(usize),
    /// A large message was postponed. It ends after this many bytes, and a frame that contains it
    /// is in `Engine::postponed_message`.
    Postponed(usize),
}

/// How to proceed after an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum AfterEvent {
    /// The WebSocket is open.
    Open,
    /// Our close frame has been sent: only the peer's close frame matters.
    Closing,
    /// The connection accepts no further input.
    Stop,
    /// The message is large and other connections are waiting: it has not been handled.
    Postponed,
}
