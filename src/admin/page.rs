//! The page on the admin listener, and its files.
//!
//! Owns: the table of files, and the policy for the browser. Must not know: the data that the page
//! displays, which it requests by itself.

use std::borrow::Cow;

use crate::http::Response;
use crate::model::API_DOCUMENT;

use super::response::uncached;

/// Returns the text of the page. `ws_url` is the URL that it suggests to connect to.
pub(super) fn render(ws_url: &str) -> String {
    PAGE.replace("{{WS_URL}}", &escape_attribute(ws_url))
}

/// Returns the response with the page.
pub(super) fn page(text: &str) -> Response {
    file("text/html; charset=utf-8", text.as_bytes().to_vec())
        .with("Content-Security-Policy", PAGE_POLICY)
        .with("Referrer-Policy", "no-referrer")
}

/// Returns the response with a file of the page, if the path names one.
pub(super) fn asset(path: &str) -> Option<Response> {
    let (_, kind, text) = ASSETS.iter().find(|asset| asset.0 == path)?;
    Some(file(kind, text.as_bytes()))
}

/// Returns the response with the AsyncAPI document.
pub(super) fn api_document() -> Response {
    file("application/yaml", API_DOCUMENT.as_bytes())
}

fn file(kind: &'static str, body: impl Into<Cow<'static, [u8]>>) -> Response {
    uncached(Response::new(200, kind, body)).with("X-Content-Type-Options", "nosniff")
}

pub(super) fn escape_attribute(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('"', "&quot;")
        .replace('<', "&lt;")
}

/// The source of the page.
pub(super) const PAGE: &str = include_str!("page/index.html");

/// The files of the page: path, type, and text.
pub(super) const ASSETS: [(&str, &str, &str); 12] = [
    (
        "/page.css",
        "text/css; charset=utf-8",
        include_str!("page/page.css"),
    ),
    ("/common.js", SCRIPT, include_str!("page/common.js")),
    ("/causes.js", SCRIPT, include_str!("page/causes.js")),
    ("/connection.js", SCRIPT, include_str!("page/connection.js")),
    ("/console.js", SCRIPT, include_str!("page/console.js")),
    ("/explain.js", SCRIPT, include_str!("page/explain.js")),
    ("/overview.js", SCRIPT, include_str!("page/overview.js")),
    ("/charts.js", SCRIPT, include_str!("page/charts.js")),
    ("/history.js", SCRIPT, include_str!("page/history.js")),
    ("/log.js", SCRIPT, include_str!("page/log.js")),
    ("/metrics.js", SCRIPT, include_str!("page/metrics.js")),
    ("/tail.js", SCRIPT, include_str!("page/tail.js")),
];
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// Allows only what the page needs, so that text that the page displays cannot make it do anything
/// else.
const PAGE_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self' ws: wss:; img-src data:; form-action 'none'; \
    base-uri 'none'; frame-ancestors 'none'";
