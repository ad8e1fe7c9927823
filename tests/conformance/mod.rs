//! The conformance kit: compares a server with recordings of h, and checks the extensions of this
//! project.
//!
//! The tests of this project and the program `examples/api_conformance.rs` use it. `transcript` reads
//! the recordings (`tests/data/transcripts`), `player` plays them, and `differences` lists the
//! intended differences with their reasons.
//!
//! In responses to requests, the status code, the body, `Content-Type`, and the fields of the
//! WebSocket handshake are compared. The order of the fields is not compared, nor are these fields,
//! which differ in all responses:
//!
//! - `Date`, which contains the time;
//! - `Content-Length` and `Sec-WebSocket-Version` in a 101, which h adds: RFC 9110 §8.6 forbids the
//!   former, and RFC 6455 §4.2.2 has the latter only when a version is refused;
//! - `Connection: close`, which this server sends whenever the connection ends, and h does not.
//!
//! Notifications are compared as JSON including the order of their keys: whitespace and escapes are
//! ignored. Replies are compared as text.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each of its users needs a part of it"
)]

pub mod client;
pub mod connection;
pub mod differences;
pub mod extensions;
pub mod player;
pub mod program;
mod session;
mod summary;
pub mod tally;
pub mod target;
pub mod transcript;
