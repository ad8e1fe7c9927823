//! What tests of the real server share: a server process on free ports, and a client that can
//! say anything.
#![allow(dead_code, unused_imports)] // Every test file uses some of it.

mod activation;
pub mod admin_page;
mod client;
mod crowd;
mod events;
#[cfg(feature = "h")]
mod h;
mod kept;
mod other_user;
#[cfg(feature = "h")]
mod postgres;
mod program;
mod python;
#[cfg(feature = "amqp")]
mod rabbitmq;
mod scripted;
mod server;
mod siege;
mod site;
#[cfg(feature = "tls")]
mod tls;
mod webdriver;

pub use activation::activated;
pub use client::{Answer, Client, Received, connect, deflate};
pub use crowd::{Crowd, Newcomers};
pub use events::{event, filter};
#[cfg(feature = "h")]
pub use h::{BEHIND_CHECKPOINT, OF_GROUP, PUBLIC, Site, annotation_event, heard, user_event};
pub use kept::free_port;
pub use other_user::{OTHER_USER, as_other_user, give, is_root, program_for_all};
#[cfg(feature = "h")]
pub use postgres::{Postgres, Transaction, sql};
pub use program::{Program, eventually};
pub use python::{interpreter, python};
#[cfg(feature = "amqp")]
pub use rabbitmq::{Publisher, RabbitMq};
pub use scripted::{scripted, switching};
pub use server::{METRICS_KEY, PROGRAM, Server, http};
pub use siege::{Delay, Siege, Stopwatch, cpu, reset};
pub use site::serve_page;
#[cfg(feature = "tls")]
pub use tls::{TlsServer, hello};
pub use webdriver::{Browser, CONTROL, ENTER, TAB};

/// Long enough for a loaded machine; no test waits for it unless it fails.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
