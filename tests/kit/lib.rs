//! A simulated network around the engine, deterministic for a seed.
//!
//! Contains sockets with the readiness of mio on Linux, a clock, well-behaved and misbehaving
//! clients, an application, and oracles that check the results. All simulations are a [`Sim`] around
//! their handler. A test either runs random operations ([`ops::run`]) or drives a [`World`] step by
//! step, which is the `Sim` of the application. An [`ApiHarness`] runs the Real Time API instead,
//! without oracles. A [`Crowd`](crowd::Crowd) is a server with up to a million connections.
//!
//! Embedders have no use for it: it belongs to the tests, fuzz targets, and benchmarks of this
//! repository.

pub mod acts;
pub mod api;
pub mod app;
pub mod client;
pub mod contract;
pub mod crowd;
pub mod environment;
pub mod frames;
pub mod harness;
pub mod liveness;
pub mod ops;
pub mod oracle;
pub mod rng;
pub mod seeds;
pub mod sim;
pub mod socket;
pub mod world;

pub use app::{Command, Payload, pad};
pub use client::{Behavior, Client};
pub use frames::{ClientEvent, OFFER, client_frame, deflate, handshake, handshake_with};
pub use harness::ApiHarness;
pub use sim::{Checked, PollerFaults, Sim};
pub use socket::{Calls, End, Faults, Limits, ROOMY};
pub use world::World;
