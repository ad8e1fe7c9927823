//! h's own PostgreSQL database and message queue, in place of the embedded backend.
//!
//! Owns: the interpretation of h's tables, and the conversion of events from h's message queue into
//! plans. Must not know: connections, filters, and the delivery of plans. This module only reads; h
//! alone writes.

mod annotation_state;
mod backlog;
mod client;
mod connection;
mod database;
mod drop_log;
mod event;
mod history;
mod history_queries;
mod ids;
mod in_flight;
mod payload;
mod pending;
mod plan;
mod policy_facts;
mod read_state;
mod read_states;
mod row;
mod sql;
mod sweep_state;
mod thread;
mod url;
mod urls;
mod worker;

pub use backlog::{Limits, MAX_EVENTS};
pub use client::{DatabaseClient, DatabaseSettings, SWEEP_BATCH, TokenStatus, Unavailable};
pub use event::{AnnotationEvent, user_plan};
pub use history::{HistoryOptions, Planned};
pub use pending::Pending;
pub use thread::{Clocks, Events, start};
