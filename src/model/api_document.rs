//! The machine-readable description of the API, which both listeners serve.

/// The AsyncAPI document.
pub const API_DOCUMENT: &str = include_str!("../../docs/asyncapi.yaml");
