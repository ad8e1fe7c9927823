//! Outgoing messages that many connections share.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use crate::ws::{self, Deflater};

use super::held::Held;

/// One message as it goes over the wire, header included. It is encoded once and written to
/// every receiver from the same bytes; and once more, compressed, for the receivers that agreed
/// to that, if there are any.
#[derive(Debug)]
pub struct Frame {
    bytes: Box<[u8]>,
    opcode: ws::OpCode,
    payload_at: usize,
    /// The same compressed, once it has been asked for; `None` inside where it stays as it is.
    deflated: OnceCell<Option<Rc<Frame>>>,
    /// Places that hold it: queues, and deliveries under way.
    holders: Cell<u32>,
}

/// What came of asking for a compressed frame.
pub(super) enum Deflated {
    /// It stays as it is.
    Plain,
    /// It was compressed before.
    Known(Rc<Frame>),
    /// It has been compressed just now.
    Fresh(Rc<Frame>),
}

impl Frame {
    /// A text message of one frame.
    pub fn text(text: &str) -> Rc<Frame> {
        Frame::message(ws::OpCode::Text, text.as_bytes(), OnceCell::new())
    }

    /// A text message that is never compressed: the length of what is would tell something
    /// about a secret in it to who can have a say in the rest of the text.
    pub fn uncompressed(text: &str) -> Rc<Frame> {
        Frame::message(ws::OpCode::Text, text.as_bytes(), OnceCell::from(None))
    }

    /// A binary message of one frame.
    pub fn binary(payload: &[u8]) -> Rc<Frame> {
        Frame::message(ws::OpCode::Binary, payload, OnceCell::new())
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
            opcode,
            deflated,
            holders: Cell::new(0),
        })
    }

    /// Notes one more place that holds it. With the first it counts in the ledger, and holds its
    /// compressed twin.
    pub(super) fn hold(&self, held: &mut Held) {
        let before = self.holders.replace(self.holders.get() + 1);
        if before == 0 {
            held.frames += self.memory() as u64;
            if let Some(twin) = self.twin() {
                twin.hold(held);
            }
        }
    }

    /// Notes that a place no longer holds it.
    pub(super) fn release(&self, held: &mut Held) {
        debug_assert!(self.holders.get() > 0, "released more often than held");
        let left = self.holders.get().saturating_sub(1);
        self.holders.set(left);
        if left == 0 {
            held.frames -= self.memory() as u64;
            if let Some(twin) = self.twin() {
                twin.release(held);
            }
        }
    }

    /// The compressed frame, if it has been made.
    pub(super) fn twin(&self) -> Option<&Rc<Frame>> {
        self.deflated.get().and_then(Option::as_ref)
    }

    /// Bytes of memory that it takes.
    pub(super) fn memory(&self) -> usize {
        size_of::<Frame>() + 2 * size_of::<usize>() + self.bytes.len()
    }

    /// Whether it is too short to be worth sharing or compressing.
    pub(super) fn is_short(&self) -> bool {
        self.payload().len() < WORTHWHILE
    }

    /// The bytes of the frame.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The payload, as it was before compression only where it is not compressed.
    pub(super) fn payload(&self) -> &[u8] {
        &self.bytes[self.payload_at..]
    }

    /// The compressed frame, which is made when it is first asked for.
    pub(super) fn deflated(&self, deflater: &mut Deflater, held: &mut Held) -> Deflated {
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
            twin.hold(held);
        }
        match deflated {
            None => Deflated::Plain,
            Some(frame) if is_fresh => Deflated::Fresh(Rc::clone(frame)),
            Some(frame) => Deflated::Known(Rc::clone(frame)),
        }
    }

    /// `None` where compression saves too little to be worth the receiver's work.
    fn deflate(&self, deflater: &mut Deflater) -> Option<Rc<Frame>> {
        let payload = self.payload();
        if self.is_short() {
            return None;
        }
        let mut bytes = Vec::new();
        let limit = payload.len() / 10 * 9;
        let length = deflater.deflate(payload, limit).map(|deflated| {
            bytes.reserve_exact(ws::MAX_SERVER_HEADER + deflated.len());
            ws::encode_compressed(self.opcode, deflated, &mut bytes);
            deflated.len()
        });
        deflater.shrink();
        Some(Rc::new(Frame {
            payload_at: bytes.len() - length?,
            bytes: bytes.into_boxed_slice(),
            opcode: self.opcode,
            deflated: OnceCell::from(None),
            holders: Cell::new(0),
        }))
    }
}

/// An event on its way to many connections.
#[derive(Debug, Default)]
pub struct Delivery {
    /// The variants of the message.
    pub frames: Vec<Rc<Frame>>,
    /// Who gets which variant, by its index in `frames`. The engine sorts them; a connection
    /// that is named twice gets it twice.
    pub to: Vec<(super::ConnKey, u8)>,
    /// When its event had arrived here, in milliseconds of [`Now::mono`](super::Now),
    /// where that is known: for [`Counters::latency`](super::Counters::latency).
    pub since: Option<u64>,
}

/// The shortest payload that is compressed, in bytes: a shorter one fits a packet with room to
/// spare.
const WORTHWHILE: usize = 256;

#[cfg(all(test, feature = "deflate"))]
mod tests {
    use super::*;

    #[test]
    fn which_frames_are_compressed() {
        let mut deflater = Deflater::default();
        let mut held = Held::default();
        let long = "annotation ".repeat(30);
        // Eight pseudo-random bits a byte.
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
            (Frame::text(""), false),
        ] {
            let first = match frame.deflated(&mut deflater, &mut held) {
                Deflated::Fresh(twin) => twin,
                Deflated::Plain => {
                    assert!(!want);
                    assert!(matches!(
                        frame.deflated(&mut deflater, &mut held),
                        Deflated::Plain
                    ));
                    continue;
                }
                Deflated::Known(_) => panic!("it has not been asked for before"),
            };
            assert!(want);
            assert_eq!(first.bytes()[0], frame.bytes()[0] | 0x40);
            assert!(first.payload().len() <= frame.payload().len() / 10 * 9);
            let Deflated::Known(second) = frame.deflated(&mut deflater, &mut held) else {
                panic!("it is not compressed again");
            };
            assert!(Rc::ptr_eq(&first, &second));
            assert!(matches!(
                first.deflated(&mut deflater, &mut held),
                Deflated::Plain
            ));
        }
    }
}
