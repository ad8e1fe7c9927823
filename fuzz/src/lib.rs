//! The checks of the fuzz targets: one function per target, which takes bytes and panics on a
//! failure.
//!
//! The functions do not depend on libFuzzer, so `tests/corpus.rs` runs them over the committed
//! corpus with any compiler. Each compares the product with a simpler, independent implementation:
//! the standard library, another crate, a naive search, or the text of the specification.
#![forbid(unsafe_code)]

mod api;
mod chunked;
mod clients;
mod close;
mod cursor;
mod decoder;
mod differential;
mod engine;
mod events;
mod extensions;
mod filter;
mod head;
mod history;
mod inflate;
mod proxy;
mod small;
mod uri;

use h_realtime_test_kit as sim;

pub use api::client_message;
pub use chunked::chunked_body;
pub use clients::client_log;
pub use close::close_payload;
pub use cursor::cursor;
pub use decoder::frame_decoder;
pub use differential::frame_differential;
pub use engine::engine_ops;
pub use events::event_body;
pub use extensions::extensions;
pub use filter::filter;
pub use head::request_head;
pub use history::history_file;
pub use inflate::inflate;
pub use proxy::proxy_header;
pub use small::{mask, utf8};
pub use uri::uri_normalize;

/// The name of a target, which is also that of its file and its corpus, and its function.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("chunked_body", chunked_body),
    ("client_log", client_log),
    ("client_message", client_message),
    ("close_payload", close_payload),
    ("cursor", cursor),
    ("engine_ops", engine_ops),
    ("event_body", event_body),
    ("extensions", extensions),
    ("filter", filter),
    ("frame_decoder", frame_decoder),
    ("frame_differential", frame_differential),
    ("history_file", history_file),
    ("inflate", inflate),
    ("mask", mask),
    ("proxy_header", proxy_header),
    ("request_head", request_head),
    ("uri_normalize", uri_normalize),
    ("utf8", utf8),
];
