//! TLS for the engine's connections.
//!
//! Owns: everything that names the TLS library, so that another version or another library is
//! a change of this directory. Must not know: what the plaintext means, or when a connection
//! is read, written or given up.

mod chain;
mod config;
mod link;
mod records;
mod suites;

pub use config::{TlsConfig, TlsConfigError};
pub use link::TlsLink;

#[cfg(test)]
mod tests;
