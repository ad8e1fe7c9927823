//! Has the allocator give memory back to the system while nothing happens.
//!
//! mimalloc gives back what has been free for a second, but looks for it only when it takes a
//! page into use or frees one. A server whose clients have left does neither, and would keep
//! all that they had.

use std::hint::black_box;

/// Takes a block that is a page of its own, and frees it. A microsecond, and nothing is written
/// to it.
pub(super) fn nudge() {
    if cfg!(feature = "mimalloc") {
        drop(black_box(Vec::<u8>::with_capacity(OWN_PAGE)));
    }
}

/// In bytes: twice the largest block that mimalloc puts beside others.
const OWN_PAGE: usize = 1 << 20;
