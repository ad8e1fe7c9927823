//! The engine over simulated sockets and a simulated clock.
#![allow(
    unreachable_pub,
    reason = "helpers are public to the modules of this binary"
)]

mod chunked;
mod closing;
mod compression;
mod deadlines;
mod drain;
mod edge_contract;
mod event_stream;
mod fairness;
mod handler;
mod keys;
mod limits;
mod places;
mod proxies;
mod readiness;
mod reasons;
mod reload;
mod simulation;
mod slow_links;
mod slow_readers;
mod standstill;
mod system_calls;
mod texts;
mod tls;
mod totals;
mod turns;
mod writing;

use h_realtime_test_kit as sim;
