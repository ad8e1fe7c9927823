//! HTTP requests: opening handshakes, `/_status`, and the descriptions of the server.
//!
//! Owns: the credentials in a request, the check of its origin, and the JSON responses. Must not
//! know: the users of tokens.

use std::borrow::Cow;

use crate::http::{Origin, Request, Response, Upgrade, check_upgrade, http_date, percent_decode};
use crate::model::UnixMillis;

use super::description;

/// The interpretation of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// A WebSocket handshake with these credentials.
    WebSocket(Upgrade, Credentials<'a>),
    /// A request for an event stream.
    EventStream,
    /// A request for the description of the server.
    Description,
    /// An immediate response.
    Response(Response),
}

/// The credentials in a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credentials<'a> {
    /// None.
    Anonymous,
    /// An invalid token: empty, or not text.
    Invalid,
    /// A token.
    Token(Cow<'a, str>),
}

/// Interprets a request.
pub(super) fn route<'a>(request: &Request<'a>, now: UnixMillis) -> Route<'a> {
    match &*percent_decode(request.path) {
        "/ws" => match check_upgrade(request) {
            Ok(upgrade) => Route::WebSocket(upgrade, credentials(request)),
            Err(_) if description::is_requested(request) => Route::Description,
            Err(_) => Route::Response(bad_handshake()),
        },
        "/sse" => Route::EventStream,
        "/asyncapi.yaml" => Route::Response(description::api_document(request)),
        "/_status" if accepts_json(request) => Route::Response(status(now)),
        _ => Route::Response(not_found()),
    }
}

/// Returns whether a handshake's origin is allowed. A request without an `Origin` field does not
/// come from a web page, since browsers always send it. A repeated field and an invalid origin,
/// such as `null`, are not allowed.
pub(super) fn is_origin_allowed(request: &Request<'_>, origins: &[Origin]) -> bool {
    let mut fields = request.headers("origin");
    let Some(field) = fields.next().filter(|_| !origins.is_empty()) else {
        return true;
    };
    let origin = std::str::from_utf8(field).ok().and_then(Origin::parse);
    fields.next().is_none() && origin.is_some_and(|origin| origins.contains(&origin))
}

/// Returns whether the request enables tracing of its connection, with h's words for true.
pub(super) fn requests_tracing(request: &Request<'_>) -> bool {
    request.last_param("debug").is_some_and(|value| {
        let value = value.trim();
        let yes = ["true", "t", "yes", "y", "on", "1"];
        yes.iter().any(|yes| yes.eq_ignore_ascii_case(value))
    })
}

/// Returns the response to a page whose origin is not allowed.
pub(super) fn forbidden_origin() -> Response {
    let body = r#"{"ok": false, "error": "forbidden_origin", "reason": "Pages of this origin may not connect."}"#;
    // RFC 6455 §4.2.2: "If the server does not wish to accept this connection, it MUST return an
    // appropriate HTTP error code (e.g., 403 Forbidden)".
    Response::json(403, body).closing()
}

/// Returns the response to an invalid token, if these are rejected.
pub(super) fn unauthorized() -> Response {
    let body = r#"{"ok": false, "error": "invalid_token", "reason": "The access token is unknown or has ended."}"#;
    // RFC 6750 §3.1 defines the name of this error.
    Response::json(401, body)
        .with("WWW-Authenticate", r#"Bearer error="invalid_token""#)
        .closing()
}

/// Returns the response while tokens cannot be checked. The client is not served as anonymous, even
/// if invalid tokens are accepted: a valid user would wait for events that never come.
pub(super) fn unavailable() -> Response {
    let body = r#"{"ok": false, "error": "unavailable", "reason": "The access token cannot be checked now. Please try again."}"#;
    Response::json(503, body)
        .with("Retry-After", RETRY_AFTER)
        .closing()
}

/// Returns the credentials by h's rules. The last `access_token` in the query takes precedence over
/// the header, even if it is empty. h joins repeated headers with a comma, which never results in a
/// valid token.
pub(super) fn credentials<'a>(request: &Request<'a>) -> Credentials<'a> {
    if let Some(token) = request.last_param("access_token") {
        return match token.is_empty() {
            true => Credentials::Invalid,
            false => Credentials::Token(token),
        };
    }
    let mut headers = request.headers("authorization");
    let token = headers
        .next()
        .and_then(|value| value.strip_prefix(b"Bearer "));
    let Some(token) = token else {
        return Credentials::Anonymous;
    };
    match std::str::from_utf8(token.trim_ascii()) {
        Ok(token) if !token.is_empty() && headers.next().is_none() => {
            Credentials::Token(token.into())
        }
        _ => Credentials::Invalid,
    }
}

fn bad_handshake() -> Response {
    let body = r#"{"ok": false, "error": "bad_handshake", "reason": "Handshake failed. Are you a WebSocket client?"}"#;
    // RFC 6455 §4.2.2: "a |Sec-WebSocket-Version| header field indicating the version(s) the
    // server is capable of understanding".
    Response::json(400, body).with("Sec-WebSocket-Version", "13")
}

fn not_found() -> Response {
    let body = r#"{"ok": false, "error": "not_found", "reason": "These are not the droids you are looking for."}"#;
    Response::json(404, body)
}

fn status(now: UnixMillis) -> Response {
    let date = http_date(now);
    Response::json(200, r#"{"status": "okay"}"#)
        .with(
            "Cache-Control",
            "max-age=0, must-revalidate, no-cache, no-store",
        )
        .with("Expires", date.clone())
        .with("Last-Modified", date)
        .with("Pragma", "no-cache")
}

/// RFC 9110 §12.5.1. Without the field, any media type is acceptable.
fn accepts_json(request: &Request<'_>) -> bool {
    let mut ranges = request
        .headers("accept")
        .flat_map(|value| value.split(|&byte| byte == b','))
        .filter_map(|range| std::str::from_utf8(range.trim_ascii()).ok())
        .filter(|range| !range.is_empty())
        .peekable();
    ranges.peek().is_none()
        || ranges.any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let refused = parts
                .filter_map(|part| part.strip_prefix("q=")?.parse().ok())
                .any(|weight: f32| weight == 0.0);
            matches!(&*media, "*/*" | "application/*" | "application/json") && !refused
        })
}

/// In seconds. The official client ignores it and uses its own delays.
const RETRY_AFTER: &str = "5";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Head, parse_head};
    use crate::realtime::testing::HANDSHAKE;

    /// Returns `Ok` with the credentials of a handshake, or the response.
    fn routed(target: &str, fields: &[u8]) -> Result<String, Response> {
        let head = [b"GET ", target.as_bytes(), HANDSHAKE, fields, b"\r\n"].concat();
        read_head(&head)
    }

    fn read_head(head: &[u8]) -> Result<String, Response> {
        let parsed = parse_head(head, 8192, |request| match route(request, 0) {
            Route::WebSocket(_, credentials) => Ok(format!("{credentials:?}")),
            Route::EventStream => Ok("EventStream".to_owned()),
            Route::Description => Ok("Description".to_owned()),
            Route::Response(response) => Err(response),
        });
        match parsed {
            Ok(Head::Complete(routed)) => routed,
            _ => panic!("no whole head"),
        }
    }

    #[test]
    fn credentials_follow_hs_rules() {
        let bearer = b"Authorization: Bearer h\r\n";
        for (target, fields, expected) in [
            ("/ws", &b""[..], "Anonymous"),
            ("/%77s?x=1", b"", "Anonymous"),
            ("/ws", bearer, "Token(\"h\")"),
            ("/ws?access_token=q", bearer, "Token(\"q\")"),
            (
                "/ws?access_token=1&access_token=a+b%20c",
                b"",
                "Token(\"a b c\")",
            ),
            ("/ws?access_token=1&access_token=", bearer, "Invalid"),
            ("/ws?access_token", bearer, "Invalid"),
            ("/ws?ACCESS_TOKEN=q", b"", "Anonymous"),
            ("/ws", b"Authorization: Bearer    h   \r\n", "Token(\"h\")"),
            (
                "/ws",
                b"authorization: Bearer a, Bearer b\r\n",
                "Token(\"a, Bearer b\")",
            ),
            ("/ws", b"Authorization: bearer h\r\n", "Anonymous"),
            ("/ws", b"Authorization: BEARER h\r\n", "Anonymous"),
            ("/ws", b"Authorization: Bearer\th\r\n", "Anonymous"),
            ("/ws", b"Authorization: Bearer\r\n", "Anonymous"),
            ("/ws", b"Authorization: Bearer \r\n", "Anonymous"),
            ("/ws", b"Authorization: Basic YTpi\r\n", "Anonymous"),
            ("/ws", b"Authorization: h\r\n", "Anonymous"),
            ("/ws", b"Authorization: Bearer \xff\r\n", "Invalid"),
            (
                "/ws",
                b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
                "Invalid",
            ),
        ] {
            assert_eq!(
                routed(target, fields).as_deref(),
                Ok(expected),
                "{target} {fields:x?}"
            );
        }
    }

    #[test]
    fn other_requests_get_immediate_responses() {
        for (target, status) in [
            ("/", 404),
            ("/ws/", 404),
            ("//ws", 404),
            ("/WS", 404),
            ("/api/annotations/x", 404),
            ("http://localhost/ws/", 404),
            ("http://localhost/_status", 200),
            ("/_status/", 404),
            ("/_status?sentry", 200),
        ] {
            assert_eq!(
                routed(target, b"").unwrap_err().status.0,
                status,
                "{target}"
            );
        }
        let refused = read_head(b"GET /ws HTTP/1.1\r\nHost: a\r\nAccept: text/html\r\n\r\n");
        let refused = refused.unwrap_err();
        assert_eq!(refused.status.0, 400);
        assert!(
            refused
                .body
                .starts_with(br#"{"ok": false, "error": "bad_handshake""#)
        );
        assert_eq!(refused.fields, [("Sec-WebSocket-Version", "13".into())]);
        let described = b"GET /ws HTTP/1.1\r\nHost: a\r\nAccept: application/json\r\n\r\n";
        assert_eq!(read_head(described).as_deref(), Ok("Description"));
        assert_eq!(routed("/sse", b"").as_deref(), Ok("EventStream"));
    }

    #[test]
    fn status_requires_that_json_is_accepted() {
        for (method, accept, status) in [
            ("GET", "", 200),
            ("HEAD", "", 200),
            ("POST", "", 200),
            ("GET", "Accept: */*\r\n", 200),
            ("GET", "Accept: application/json\r\n", 200),
            ("GET", "Accept: text/html, Application/*;q=0.1\r\n", 200),
            ("GET", "Accept:\r\n", 200),
            ("GET", "Accept: text/html\r\n", 404),
            ("GET", "Accept: text/html, application/json;q=0\r\n", 404),
        ] {
            let head = format!("{method} /_status HTTP/1.1\r\nHost: a\r\n{accept}\r\n");
            let answer = read_head(head.as_bytes()).unwrap_err();
            assert_eq!(answer.status.0, status, "{head}");
        }
        let answer = super::status(784_111_777_000);
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert!(answer.fields.contains(&("Expires", date.into())));
    }
}
