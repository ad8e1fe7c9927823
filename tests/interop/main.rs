//! Programs of others: browsers, Python clients, proxies, and the Autobahn test suite.
#![allow(
    unreachable_pub,
    reason = "helpers are public to the modules of this binary"
)]

mod admin_page;
mod admin_page_connection;
mod admin_page_explain;
mod autobahn;
mod browser_client;
mod browser_recovery;
mod chat_example;
mod client_examples;
mod event_stream;
mod forward;
mod importer_example;
mod proxies;
mod python_client;
mod schemas;
#[path = "../support/mod.rs"]
mod support;
