//! What is read from a real PostgreSQL with the tables of h: who a token is, and what becomes of
//! an event.
#![cfg(feature = "h")]

mod away;
mod deliveries;
mod events;
#[path = "../support/mod.rs"]
mod support;
mod tokens;
mod world;
