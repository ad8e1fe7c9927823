//! The commands that a person runs.
//!
//! Owns: arguments, what is printed, and exit codes. Must not know: how anything is stored.

#[cfg(feature = "sqlite")]
mod console;
pub mod exit;
mod failure;
#[cfg(feature = "sqlite")]
pub mod group;
#[cfg(feature = "sqlite")]
pub mod token;
#[cfg(feature = "sqlite")]
pub mod user;
