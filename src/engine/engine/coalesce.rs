//! Concatenation of several frames for one connection. Copying short frames is cheaper than a
//! vectored write, and the next connection often gets the same frames.
//!
//! Owns: the frames concatenated last. They are retained, so that pointer equality identifies them.

use std::rc::Rc;

use crate::frame::Frame;

#[derive(Default)]
pub(super) struct CoalescedWrite {
    frames: Vec<Rc<Frame>>,
    bytes: Vec<u8>,
}

impl CoalescedWrite {
    /// Returns the concatenated bytes of the frames, or `None` if they are too long.
    pub(super) fn bytes(&mut self, frames: &[Rc<Frame>]) -> Option<&[u8]> {
        if !self.holds(frames) {
            let size: usize = frames.iter().map(|frame| frame.bytes().len()).sum();
            if size > MAX_SIZE {
                return None;
            }
            self.frames.clear();
            self.frames.extend_from_slice(frames);
            self.bytes.clear();
            for frame in frames {
                self.bytes.extend_from_slice(frame.bytes());
            }
        }
        Some(&self.bytes)
    }

    /// Releases the frames.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
    }

    fn holds(&self, frames: &[Rc<Frame>]) -> bool {
        self.frames.len() == frames.len()
            && self
                .frames
                .iter()
                .zip(frames)
                .all(|(ours, theirs)| Rc::ptr_eq(ours, theirs))
    }
}

/// Maximum number of bytes to concatenate. For longer output, the overhead of a vectored write is
/// negligible.
const MAX_SIZE: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_match_the_requested_frames() {
        let [a, b, long] = ["a", "b", &"c".repeat(MAX_SIZE)].map(Frame::text);
        let mut coalesced = CoalescedWrite::default();
        let (ab, ba) = (
            [Rc::clone(&a), Rc::clone(&b)],
            [Rc::clone(&b), Rc::clone(&a)],
        );
        for _ in 0..2 {
            assert_eq!(coalesced.bytes(&ab), Some(&b"\x81\x01a\x81\x01b"[..]));
            assert_eq!(coalesced.bytes(&ab), Some(&b"\x81\x01a\x81\x01b"[..]));
            assert_eq!(coalesced.bytes(&ba), Some(&b"\x81\x01b\x81\x01a"[..]));
            assert_eq!(coalesced.bytes(&[Rc::clone(&a), Rc::clone(&long)]), None);
            coalesced.clear();
        }
        let longest = [Frame::text(&"c".repeat(MAX_SIZE - 4))];
        assert_eq!(longest[0].bytes().len(), MAX_SIZE);
        assert!(coalesced.bytes(&longest).is_some());
        coalesced.clear();
        // Frames are not retained after `clear`.
        drop((ab, ba));
        assert_eq!([&a, &b, &long].map(Rc::strong_count), [1, 1, 1]);
    }
}
