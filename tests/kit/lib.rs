//! A simulated network around the engine, deterministic for a seed.
//!
//! Contains sockets with the readiness of mio on Linux, a clock, well-behaved and misbehaving
//! clients, an application, and oracles that check the results. A test either runs random
//! operations ([`ops::run`]) or drives a [`World`] step by step. A [`ApiHarness`] runs the Real Time API
//! instead of the application, without oracles. All of them run their turns in an [`environment`].
//!
//! Embedders have no use for it: it belongs to the tests, fuzz targets, and benchmarks of this
//! repository.

pub mod acts;
pub mod api;
pub mod app;
pub mod client;
pub mod contract;
pub mod environment;
pub mod frames;
pub mod harness;
pub mod ops;
pub mod oracle;
pub mod rng;
pub mod seeds;
pub mod socket;
pub mod world;

pub use app::{Command, Payload, pad};
pub use client::{Behavior, Client};
pub use frames::{ClientEvent, OFFER, client_frame, deflate, handshake, handshake_with};
pub use harness::ApiHarness;
pub use socket::{Calls, End, Faults, Limits, ROOMY};
pub use world::World;
