//! A simulated network around the engine, the same for the same seed.
//!
//! Owns: sockets with the readiness of mio on Linux, a clock, clients that behave well and
//! badly, an application, and the oracles that judge what comes of it. A test either plays
//! random operations ([`ops::run`]) or drives a [`World`] by hand. A [`Stage`] has the Real Time
//! API in place of the application, and no oracles.
#![allow(dead_code, unused_imports, reason = "each test uses a part of it")]

pub mod api;
pub mod app;
pub mod backlog;
pub mod client;
pub mod contract;
pub mod frames;
pub mod ops;
pub mod oracle;
pub mod rng;
pub mod seeds;
pub mod socket;
pub mod stage;
pub mod world;

pub use app::{Command, Said, pad};
pub use client::{Client, Conduct};
pub use frames::{Heard, OFFER, client_frame, deflate, handshake, handshake_with};
pub use socket::{Calls, End, Faults, Limits, ROOMY};
pub use stage::Stage;
pub use world::World;
