//! What is read from a real PostgreSQL with the tables of h: who a token is, and what becomes of
//! an event.
#![cfg(feature = "h")]

mod away;
mod deliveries;
mod events;
mod tokens;
mod world;
