//! Makes the allocator return memory to the system while the server is idle.
//!
//! mimalloc returns memory that has been free for a second, but checks for it only when it
//! allocates or frees a page. A server whose clients have disconnected does neither, and would keep
//! all of its memory.

use std::hint::black_box;

/// Allocates and frees a block that takes a whole page. This takes a microsecond, and the block is
/// never written to.
pub(super) fn trigger_purge() {
    if cfg!(feature = "mimalloc") {
        drop(black_box(Vec::<u8>::with_capacity(OWN_PAGE)));
    }
}

/// In bytes: twice the size of the largest block that mimalloc places on a shared page.
const OWN_PAGE: usize = 1 << 20;
