//! Outgoing messages that many connections share.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use crate::http::Block;
use crate::ledger::Ledger;
use crate::ws::{self, Deflater};

/// A message in wire format: a WebSocket frame with its header, or a block of event streams. It is
/// encoded once and written to every receiver from the same bytes. A compressed version of a WebSocket
/// frame is created on demand for receivers that negotiated compression.
///
/// The engine never writes a frame to a connection of the other transport.
#[derive(Debug)]
pub struct Frame {
    bytes: Box<[u8]>,
    /// `None` for a block of event streams.
    opcode: Option<ws::OpCode>,
    payload_at: usize,
    /// The compressed twin, once requested; an inner `None` means that compression does not pay.
    deflated: OnceCell<Option<Rc<Frame>>>,
    /// The number of holders: queues and pending deliveries.
    holders: Cell<u32>,
}

/// The result of requesting the compressed twin of a frame.
pub(crate) enum Deflated {
    /// The frame is sent uncompressed.
    Plain,
    /// The twin existed already.
    Known(Rc<Frame>),
    /// The twin has just been created.
    Fresh(Rc<Frame>),
}

impl Frame {
    /// Creates a text message of one frame.
    pub fn text(text: &str) -> Rc<Frame> {
        Frame::message(ws::OpCode::Text, text.as_bytes(), OnceCell::new())
    }

    /// Creates a text message that is never compressed: if an attacker controls part of the
    /// plaintext, the compressed length can leak a secret elsewhere in it (CRIME, BREACH).
    pub fn uncompressed(text: &str) -> Rc<Frame> {
        Frame::message(ws::OpCode::Text, text.as_bytes(), OnceCell::from(None))
    }

    /// Creates a binary message of one frame.
    pub fn binary(payload: &[u8]) -> Rc<Frame> {
        Frame::message(ws::OpCode::Binary, payload, OnceCell::new())
    }

    /// Creates a block of event streams. Blocks are never compressed.
    pub fn block(block: &Block<'_>) -> Rc<Frame> {
        Frame::blocks(std::slice::from_ref(block))
    }

    /// Creates a frame of several blocks of event streams.
    pub fn blocks(blocks: &[Block<'_>]) -> Rc<Frame> {
        let mut bytes = Vec::new();
        blocks.iter().for_each(|block| block.encode(&mut bytes));
        Rc::new(Frame {
            payload_at: 0,
            bytes: bytes.into_boxed_slice(),
            opcode: None,
            deflated: OnceCell::from(None),
            holders: Cell::new(0),
        })
    }

    /// Returns whether this is a block of event streams.
    #[inline]
    pub(crate) fn is_block(&self) -> bool {
        self.opcode.is_none()
    }

    fn message(
        opcode: ws::OpCode,
        payload: &[u8],
        deflated: OnceCell<Option<Rc<Frame>>>,
    ) -> Rc<Frame> {
        let mut bytes = Vec::with_capacity(ws::MAX_SERVER_HEADER + payload.len());
        ws::encode_frame(opcode, payload, &mut bytes);
        Rc::new(Frame {
            payload_at: bytes.len() - payload.len(),
            bytes: bytes.into_boxed_slice(),
            opcode: Some(opcode),
            deflated,
            holders: Cell::new(0),
        })
    }

    /// Adds a holder. The first one adds the frame to the ledger, and holds its compressed twin.
    pub(crate) fn hold(&self, ledger: &mut Ledger) {
        let before = self.holders.replace(self.holders.get() + 1);
        if before == 0 {
            ledger.frames += self.memory() as u64;
            if let Some(twin) = self.twin() {
                twin.hold(ledger);
            }
        }
    }

    /// Removes a holder.
    pub(crate) fn release(&self, ledger: &mut Ledger) {
        debug_assert!(self.holders.get() > 0, "released more often than held");
        let left = self.holders.get().saturating_sub(1);
        self.holders.set(left);
        if left == 0 {
            ledger.frames -= self.memory() as u64;
            if let Some(twin) = self.twin() {
                twin.release(ledger);
            }
        }
    }

    /// Returns the compressed twin, if it has been created.
    pub(crate) fn twin(&self) -> Option<&Rc<Frame>> {
        self.deflated.get().and_then(Option::as_ref)
    }

    /// Returns the memory used by the frame, in bytes.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Frame>() + 2 * size_of::<usize>() + self.bytes.len()
    }

    /// Returns whether the frame is too short to be worth sharing or compressing.
    pub(crate) fn is_short(&self) -> bool {
        self.payload().len() < WORTHWHILE
    }

    /// Returns the bytes of the frame.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns the payload as sent: compressed data if this is a compressed twin.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[self.payload_at..]
    }

    /// Returns the compressed twin, and creates it on the first call.
    pub(crate) fn deflated(&self, deflater: &mut Deflater, ledger: &mut Ledger) -> Deflated {
        let mut is_fresh = false;
        let deflated = self.deflated.get_or_init(|| {
            let frame = self.deflate(deflater);
            is_fresh = frame.is_some();
            frame
        });
        if is_fresh
            && self.holders.get() > 0
            && let Some(twin) = deflated
        {
            twin.hold(ledger);
        }
        match deflated {
            None => Deflated::Plain,
            Some(frame) if is_fresh => Deflated::Fresh(Rc::clone(frame)),
            Some(frame) => Deflated::Known(Rc::clone(frame)),
        }
    }

    /// Creates the compressed twin, or returns `None` if compression saves too little to be worth
    /// the receiver's work.
    fn deflate(&self, deflater: &mut Deflater) -> Option<Rc<Frame>> {
        let payload = self.payload();
        let opcode = self.opcode.filter(|_| !self.is_short())?;
        let mut bytes = Vec::new();
        let limit = payload.len() / 10 * 9;
        let length = deflater.deflate(payload, limit).map(|deflated| {
            bytes.reserve_exact(ws::MAX_SERVER_HEADER + deflated.len());
            ws::encode_compressed(opcode, deflated, &mut bytes);
            deflated.len()
        });
        deflater.shrink();
        Some(Rc::new(Frame {
            payload_at: bytes.len() - length?,
            bytes: bytes.into_boxed_slice(),
            opcode: Some(opcode),
            deflated: OnceCell::from(None),
            holders: Cell::new(0),
        }))
    }
}

/// An event to be delivered to many connections.
#[derive(Debug, Default)]
pub struct Delivery {
    /// The variants of the message.
    pub frames: Vec<Rc<Frame>>,
    /// The receivers, with the index of their variant in `frames`. The engine sorts the list. A
    /// connection listed twice gets the message twice.
    pub to: Vec<(crate::ConnKey, u8)>,
    /// The arrival time of the event, in milliseconds of [`Now::mono`](crate::Now), if known: for
    /// [`Counters::latency`](crate::Counters::latency).
    pub since: Option<u64>,
}

/// The shortest payload that is compressed, in bytes. A shorter one easily fits a packet.
const WORTHWHILE: usize = 256;

#[cfg(all(test, feature = "deflate"))]
mod tests {
    use super::*;

    #[test]
    fn which_frames_are_compressed() {
        let mut deflater = Deflater::default();
        let mut ledger = Ledger::default();
        let long = "annotation ".repeat(30);
        // Eight pseudorandom bits per byte.
        let mut state = 1_u32;
        let noise: Vec<u8> = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .take(1000)
        .collect();
        for (frame, want) in [
            (Frame::text(&long), true),
            (Frame::binary(long.as_bytes()), true),
            (Frame::text(&long[..WORTHWHILE]), true),
            (Frame::text(&long[..WORTHWHILE - 1]), false),
            (Frame::uncompressed(&long), false),
            (Frame::binary(&noise), false),
            // It becomes a little more than half as long.
            (Frame::binary(&[&noise[..500], &[0; 500]].concat()), true),
            (Frame::text(""), false),
        ] {
            let first = match frame.deflated(&mut deflater, &mut ledger) {
                Deflated::Fresh(twin) => twin,
                Deflated::Plain => {
                    assert!(!want);
                    assert!(matches!(
                        frame.deflated(&mut deflater, &mut ledger),
                        Deflated::Plain
                    ));
                    continue;
                }
                Deflated::Known(_) => panic!("it has not been asked for before"),
            };
            assert!(want);
            assert_eq!(first.bytes()[0], frame.bytes()[0] | 0x40);
            assert!(first.payload().len() <= frame.payload().len() / 10 * 9);
            if let short @ ..126 = first.bytes()[1] {
                assert_eq!(first.payload().len(), usize::from(short));
            }
            let Deflated::Known(second) = frame.deflated(&mut deflater, &mut ledger) else {
                panic!("it is not compressed again");
            };
            assert!(Rc::ptr_eq(&first, &second));
            assert!(matches!(
                first.deflated(&mut deflater, &mut ledger),
                Deflated::Plain
            ));
        }
    }

    #[test]
    fn twin_is_counted_while_its_frame_is_held() {
        let mut deflater = Deflater::default();
        let ledger = &mut Ledger::default();
        let long = "annotation ".repeat(30);
        let frame = Frame::text(&long);
        frame.deflated(&mut deflater, ledger);
        assert_eq!(ledger.frames, 0);
        frame.hold(ledger);
        assert!(ledger.frames > frame.memory() as u64);
        frame.release(ledger);
        assert_eq!(ledger.frames, 0);
        let frame = Frame::text(&long);
        frame.hold(ledger);
        frame.deflated(&mut deflater, ledger);
        assert!(ledger.frames > frame.memory() as u64);
        frame.release(ledger);
        assert_eq!(ledger.frames, 0);
    }

    #[test]
    fn memory_is_that_of_the_frame_and_its_bytes() {
        let frame = Frame::text("abc");
        let counts = 2 * size_of::<usize>();
        assert_eq!(frame.memory(), size_of::<Frame>() + counts + 5);
        assert!(!frame.is_block());
        assert!(Frame::block(&Block::default()).is_block());
    }
}
