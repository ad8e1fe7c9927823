//! The history of h's backend: its contents at the start, and sweeps for changes without an event.
#![cfg(feature = "h")]

mod cost;
mod feed;
mod fill;
mod load;
mod outages;
mod sweep;
