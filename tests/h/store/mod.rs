//! Reads a real PostgreSQL with h's tables: the identity of a token, and the plan of an event.
#![cfg(feature = "h")]

mod away;
mod deliveries;
mod events;
mod tokens;
pub mod world;
