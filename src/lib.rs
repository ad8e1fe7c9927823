//! h-realtime: the Hypothesis Real Time API as one small server.
//!
//! The layers, each knowing only those named after it:
//!
//! | module | holds |
//! |---|---|
//! | [`ws`] | RFC 6455 without a socket: bytes in, events out |
//! | [`http`] | one request head, the upgrade, responses; also without a socket |
//! | [`net`] | the engine: a mio reactor over `ws` and `http`; an application is a [`net::Handler`] |
//! | [`realtime`] | the Real Time API: messages, filters, who hears of what |
//! | [`model`] | the vocabulary that the modules below share |
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod http;
pub mod model;
pub mod net;
pub mod realtime;
pub mod ws;
