//! The Real Time API, over a server process or simulated sockets.
#![allow(
    unreachable_pub,
    reason = "helpers are public to the modules of this binary"
)]

mod admin;
mod attacks_ends;
mod attacks_floods;
mod attacks_http;
mod attacks_slow;
mod attacks_work;
mod authorization;
mod close;
mod compression;
mod conformance;
mod credentials;
mod database_changes;
mod description;
mod event_stream;
mod events;
mod explain;
mod filters;
mod frames;
mod handshake;
mod history_storage;
mod interrupted_calls;
#[path = "../conformance/mod.rs"]
mod kit;
mod live_changes;
mod messages;
mod metrics;
mod origins;
mod proxied;
mod publishing;
mod publishing_chunked;
mod realtime_simulation;
mod search_filters;
mod slow_links;
mod standstill;
#[path = "../support/mod.rs"]
mod support;
mod tls_server;

use h_realtime_test_kit as sim;
