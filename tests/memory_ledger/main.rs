//! The ledger of memory against the allocator.

mod ledger;
mod peer;
#[path = "../sim/mod.rs"]
mod sim;
mod site;
#[cfg(feature = "tls")]
mod tls;
mod wire;

use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

#[cfg(not(feature = "tls"))]
mod tls {
    pub fn tls() -> Option<super::peer::Tls> {
        None
    }
}
