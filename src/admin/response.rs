//! Responses of the admin listener.
//!
//! Owns: the JSON of errors, and the fields that all responses of a kind share. Must not know: the
//! reasons of errors.

use crate::http::Response;
use crate::net::Verdict;

/// Returns a JSON response with an error.
pub(super) fn error(status: u16, error: &str, reason: &str) -> Response {
    let body = serde_json::json!({"ok": false, "error": error, "reason": reason});
    Response::json(status, body.to_string())
}

/// Returns a verdict with an error.
pub(super) fn reject<C>(status: u16, name: &str, reason: &str) -> Verdict<C> {
    Verdict::Respond(error(status, name, reason))
}

/// Returns the verdict on a method other than `allowed`.
pub(super) fn not_allowed<C>(allowed: &'static str) -> Verdict<C> {
    let response = error(
        405,
        "method_not_allowed",
        "The resource does not allow this method.",
    );
    Verdict::Respond(response.with("Allow", allowed))
}

/// Adds the field that keeps a response out of caches.
pub(super) fn uncached(response: Response) -> Response {
    response.with("Cache-Control", "no-store")
}
