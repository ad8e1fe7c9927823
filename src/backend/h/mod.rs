//! h's own PostgreSQL database and message queue, in place of the embedded back end.
//!
//! Owns: what h's tables say of a token, a user and an annotation, and what an event of h's
//! message queue becomes. Must not know: connections, filters, and how a plan goes out.
//! Only reads: h itself is the only one that writes.

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
pub use thread::{Asker, Clocks, Events, Questions, questions, start};
