//! The program: commands, settings, signals, listening sockets, files, and logs.
#![allow(
    unreachable_pub,
    reason = "helpers are public to the modules of this binary"
)]

mod activation;
mod client_log;
mod commands;
mod completions;
mod config;
mod data_directory;
mod draining;
mod exit_codes;
mod explain;
mod forward;
mod forward_feed;
mod forward_kept;
mod forward_rights;
mod forward_rounds;
mod huge_pages;
mod listen;
mod listen_ends;
mod listen_filters;
mod listen_hostile;
mod listen_sse;
mod listen_sse_server;
mod listen_state;
mod logging;
mod many_connections;
mod notify;
mod preflight;
mod reload;
mod restart;
mod shutdown;
mod signals;
#[path = "../support/mod.rs"]
mod support;
mod unix_sockets;
mod unread_log;
