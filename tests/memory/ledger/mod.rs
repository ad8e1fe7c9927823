//! The ledger of memory against the allocator.

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
