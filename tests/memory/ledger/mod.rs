//! Compares the ledger of memory with the allocator.

mod account;
mod peer;
mod site;
#[cfg(feature = "tls")]
mod tls;
mod wire;

#[cfg(not(feature = "tls"))]
mod tls {
    pub fn tls() -> Option<super::peer::Tls> {
        None
    }
}
