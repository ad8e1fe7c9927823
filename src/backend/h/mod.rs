//! h's own PostgreSQL database and message queue, in place of the embedded backend.
//!
//! Owns: the interpretation of h's tables, and the conversion of events from h's message queue into
//! plans. Must not know: connections, filters, and the delivery of plans. This module only reads; h
//! alone writes.

mod backlog;
mod database;
mod drops;
mod event;
mod facts;
mod ids;
mod links;
mod payload;
mod pending;
mod plan;
mod policy_facts;
mod read;
mod room;
mod row;
mod session;
mod sql;
mod store;
mod thread;
mod time;
mod told;
mod url;
mod userid;
mod worker;

pub use backlog::{Limits, MAX_EVENTS};
pub use event::{AnnotationEvent, user_plan};
pub use pending::Pending;
pub use store::{Away, SWEPT, Settings, Standing, Store};
pub use thread::{Clocks, Events, start};
