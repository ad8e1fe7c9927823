//! Programs of others: browsers, Python clients, proxies, and the Autobahn test suite.

mod admin_page;
mod admin_page_connection;
mod autobahn;
mod browser_client;
mod client_examples;
mod proxies;
mod python_client;
mod schemas;
#[path = "../support/mod.rs"]
mod support;
