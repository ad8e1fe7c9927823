//! h-realtime: the Hypothesis Real Time API as one small server.
//!
//! The engine is a crate of its own, [`h_realtime_engine`]: WebSocket, HTTP, TLS, and the reactor,
//! without the application. Its documentation shows how to embed it. In this crate, it is named
//! `net`, and its modules `ws` and `http`.
//!
//! The modules, roughly from the lowest layer to the highest (`tests/conventions/layers.rs` lists the
//! permitted dependencies):
//!
//! | module | holds |
//! |---|---|
//! | [`model`] | the vocabulary that the modules below share |
//! | [`uri`] | normalization of URIs as in h, and the keys by which filters match pages |
//! | [`realtime`] | the API: messages, filters, the index, and the receivers of events |
//! | [`admin`] | publishing, metrics, health, and a page to try it with |
//! | [`backend`] | users, tokens, groups, and the processing of published events |
//! | `trust` | verification of server certificates when this program is the client |
//! | [`owner`] | users and groups of the host, by name |
//! | [`config`], [`logging`], [`cli`], `server` | settings, the log, commands, and the assembly of the server |
//!
//! The main path of a message and of an event through these modules is described in
//! `docs/ARCHITECTURE.md`, and at the top of [`realtime`].

#[cfg(not(any(feature = "sqlite", feature = "h")))]
compile_error!(
    "h-realtime needs a backend: enable the feature `sqlite` (users, tokens, and groups in a file), \
     `h` (the database and message queue of h), or both, for example with \
     `--no-default-features --features sqlite`"
);

pub mod admin;
pub mod backend;
pub mod backoff;
pub mod cli;
pub mod config;
pub mod exit;
pub mod logging;
pub mod model;
pub mod owner;
pub mod realtime;
mod server;
#[cfg(feature = "tls")]
pub mod trust;
pub mod uri;

use h_realtime_engine as net;
use h_realtime_engine::{http, log_throttle, ws};

/// Compiles the examples of README.md as documentation tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
