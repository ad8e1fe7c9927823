//! h's back end, with a real PostgreSQL and a real RabbitMQ.

#[path = "../support/mod.rs"]
mod support;

mod cost;
mod instances;
mod large;
mod live;
mod order;
