//! Shared code of the tests of the real server: a server process on free ports, and a client that
//! can send anything.
#![allow(dead_code, unused_imports)] // Every test binary uses a part of it.

mod activation;
pub mod admin_page;
mod client;
mod event_stream;
mod events;
#[cfg(feature = "h")]
mod h;
mod hook;
mod load;
mod other_user;
#[cfg(feature = "h")]
mod postgres;
mod process;
mod program;
mod python;
#[cfg(feature = "amqp")]
mod rabbitmq;
mod reconnecting;
mod scripted;
pub mod scripted_stream;
mod server;
mod site;
#[cfg(feature = "tls")]
mod tls;
mod webdriver;

pub use activation::activated;
pub use client::{Answer, Client, Received, connect, deflate, inflate};
pub use event_stream::EventStream;
pub use events::{event, filter};
#[cfg(feature = "h")]
pub use h::{
    BEHIND_CHECKPOINT, OF_GROUP, PUBLIC, Site, action_and_id, annotation_event, user_event,
};
pub use hook::{Hook, HookReply, HookRequest};
pub use load::{Delay, LoadTest, Stopwatch, cpu, reset};
pub use other_user::{OTHER_USER, as_other_user, give, is_root, program_for_all};
#[cfg(feature = "h")]
pub use postgres::{Postgres, Transaction, sql};
pub use process::free_port;
pub use program::{Program, eventually};
pub use python::{interpreter, python};
#[cfg(feature = "amqp")]
pub use rabbitmq::{Publisher, RabbitMq};
pub use reconnecting::{NewClients, ReconnectingClients};
pub use scripted::{Subscribed, scripted, subscribed, switching};
pub use server::{METRICS_KEY, PROGRAM, Server, http};
pub use site::{SiteRequest, SiteResponse, serve_page, serve_pages, serve_site};
#[cfg(feature = "tls")]
pub use tls::{TlsServer, hello};
pub use webdriver::{Browser, CONTROL, ENTER, TAB};

/// Generous for a loaded machine; only a failing test waits this long.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(20);
