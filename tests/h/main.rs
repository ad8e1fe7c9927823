//! The backend of h, with a PostgreSQL and a RabbitMQ of the tests' own.
#![allow(
    unreachable_pub,
    reason = "helpers are public to the modules of this binary"
)]

mod amqp_source;
#[cfg(feature = "h")]
mod away;
#[cfg(feature = "h")]
mod cost;
#[cfg(feature = "h")]
mod explain;
#[cfg(feature = "h")]
mod history;
#[cfg(feature = "h")]
mod instances;
#[cfg(feature = "h")]
mod large;
#[cfg(feature = "h")]
mod live;
#[cfg(feature = "h")]
mod order;
#[cfg(feature = "h")]
mod restarts;
#[cfg(feature = "h")]
mod store;
#[path = "../support/mod.rs"]
mod support;
