//! TLS for the engine's connections.
//!
//! Owns: all use of the TLS library, so that changing the library or its version affects only this
//! directory. Must not know: the meaning of the plaintext, or when a connection is read, written,
//! or dropped.

mod chain;
mod config;
mod link;
mod records;
mod suites;

pub use config::{TlsConfig, TlsConfigError};
pub use link::TlsLink;

#[cfg(test)]
mod tests;
