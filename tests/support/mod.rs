//! What tests of the real server share: a server process on free ports, and a client that can
//! say anything.
#![allow(dead_code, unused_imports)] // Every test file uses some of it.

mod client;
mod program;
mod server;

pub use client::{Client, Received};
pub use program::{Program, eventually};
pub use server::{PROGRAM, Server, http};

/// Long enough for a loaded machine; no test waits for it unless it fails.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
