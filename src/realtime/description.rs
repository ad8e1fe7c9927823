//! The description of the server for programs: `GET /ws` as JSON, and `/asyncapi.yaml`.
//!
//! Owns: both responses, and their validators for caches. Must not know: the credentials of a
//! request. The description is the same for all clients and depends on no annotation: its only value
//! that changes with events is the oldest cursor, which every client is sent in the report of a gap.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde_json::{Value, json};

use super::filter::{WILDCARD_POINTER, max_clauses};
use super::history::History;
use super::message::MAX_ID_LEN;
use super::{ApiSettings, Realtime};
use crate::http::{Request, Response};
use crate::model::{API_DOCUMENT, Field};

/// Returns whether a request for `/ws` is for the description instead of a WebSocket: it has no
/// `Upgrade`, and names JSON in `Accept`. As in h, any other request is an invalid handshake.
pub(super) fn is_requested(request: &Request<'_>) -> bool {
    // RFC 9110 §7.8: "A server that receives an Upgrade header field in an HTTP/1.0 request MUST
    // ignore that Upgrade field."
    let has_upgrade = request.minor_version > 0 && request.has_header("upgrade");
    matches!(request.method, "GET" | "HEAD")
        && !has_upgrade
        && request.headers("accept").any(names_json)
}

/// Returns whether a field `Accept` names `application/json` itself, rather than by a wildcard.
fn names_json(field: &[u8]) -> bool {
    let ranges = field.split(|&byte| byte == b',');
    ranges
        .filter_map(|range| str::from_utf8(range).ok())
        .any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
            media.eq_ignore_ascii_case("application/json") && weight != Some(0.0)
        })
}

impl Realtime {
    /// Returns the response with the description.
    pub(super) fn description(&self, request: &Request<'_>) -> Response {
        let text = describe(&self.settings, &self.history).to_string();
        let tag = entity_tag(&text);
        let response = match status(request, &tag) {
            412 => changed(),
            status => Response::json(status, text),
        };
        readable(response.with("ETag", tag))
            .with("Cache-Control", "no-cache")
            .with("Vary", "Accept")
    }
}

/// Returns the response with the AsyncAPI document. The connection ends after it, so that a client
/// that does not read it cannot request it many times.
pub(super) fn api_document(request: &Request<'_>) -> Response {
    if !matches!(request.method, "GET" | "HEAD") {
        let body = r#"{"ok": false, "error": "method_not_allowed", "reason": "The resource does not allow this method."}"#;
        return Response::json(405, body).with("Allow", "GET, HEAD");
    }
    let tag = entity_tag(API_DOCUMENT);
    let response = match status(request, &tag) {
        412 => changed(),
        status => Response::new(status, "application/yaml", API_DOCUMENT.as_bytes()),
    };
    readable(response.with("ETag", tag))
        .with("Cache-Control", "max-age=3600")
        .closing()
}

fn describe(settings: &ApiSettings, history: &History) -> Value {
    let limits = json!({
        "message_bytes": settings.max_message,
        "id_characters": MAX_ID_LEN,
        "filter_values": settings.max_terms,
        "filter_clauses": max_clauses(settings.max_terms),
    });
    let oldest = history
        .is_ready()
        .then(|| history.oldest_cursor().encode().to_string());
    let history = (settings.history.memory > 0).then(|| {
        json!({
            "window_seconds": settings.history.window / 1000,
            "memory_bytes": settings.history.memory,
            "oldest": oldest,
        })
    });
    json!({
        "name": env!("CARGO_PKG_NAME"),
        "version": env!("CARGO_PKG_VERSION"),
        "transports": {"websocket": "/ws", "sse": "/sse"},
        "fields": fields(),
        "operators": OPERATORS,
        "match_policies": MATCH_POLICIES,
        "limits": limits,
        "history": history,
        "documentation": "/asyncapi.yaml",
    })
}

/// Returns a validator of a text, which is the same on all servers of one version.
fn entity_tag(text: &str) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

/// Evaluates the conditions of a request in the order of RFC 9110 §13.2.2. Returns 412 if the client
/// wants another version only, and 304 if it has this one already.
fn status(request: &Request<'_>, tag: &str) -> u16 {
    let names = |field: &str, is_named: &dyn Fn(&[u8]) -> bool| {
        let mut given = request
            .headers(field)
            .flat_map(|field| field.split(|&byte| byte == b','));
        given.any(|given| given.trim_ascii() == b"*" || is_named(given.trim_ascii()))
    };
    // §13.1.1: "An origin server MUST use the strong comparison function when comparing entity tags
    // for If-Match".
    if request.has_header("if-match") && !names("if-match", &|given| given == tag.as_bytes()) {
        return 412;
    }
    // §13.1.2: "A recipient MUST use the weak comparison function when comparing entity tags for
    // If-None-Match".
    let is_same = |given: &[u8]| given.strip_prefix(b"W/").unwrap_or(given) == tag.as_bytes();
    match names("if-none-match", &is_same) {
        true => 304,
        false => 200,
    }
}

/// Returns the response to a request for another version.
fn changed() -> Response {
    let body =
        r#"{"ok": false, "error": "precondition_failed", "reason": "The resource has changed."}"#;
    Response::json(412, body)
}

/// Lets web pages of every origin read a response: it contains nothing about users.
fn readable(response: Response) -> Response {
    response
        .with("Access-Control-Allow-Origin", "*")
        .with("X-Content-Type-Options", "nosniff")
}

/// Returns the fields of clauses.
fn fields() -> Vec<&'static str> {
    let terms = Field::ALL.into_iter().map(Field::pointer);
    terms.chain([WILDCARD_POINTER]).collect()
}

/// The operators of clauses.
const OPERATORS: [&str; 3] = ["equals", "one_of", "not_one_of"];
const MATCH_POLICIES: [&str; 2] = ["include_any", "include_all"];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Head, parse_head};
    use crate::realtime::digest::Digester;
    use crate::realtime::filter::{FilterView, parse};

    fn with<T>(fields: &str, method: &str, read: impl FnOnce(&Request<'_>) -> T) -> T {
        let head = format!("{method} /ws HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        match parse_head(head.as_bytes(), 8192, |request| read(request)) {
            Ok(Head::Complete(read)) => read,
            _ => panic!("no whole head"),
        }
    }

    #[test]
    fn description_requires_json_by_name_and_no_upgrade() {
        for (method, fields, expected) in [
            ("GET", "Accept: application/json\r\n", true),
            (
                "HEAD",
                "Accept: text/html, Application/JSON;q=0.5\r\n",
                true,
            ),
            (
                "GET",
                "Accept: text/html\r\nAccept: application/json\r\n",
                true,
            ),
            ("POST", "Accept: application/json\r\n", false),
            ("GET", "Accept: application/json;q=0\r\n", false),
            ("GET", "Accept: application/json; q=0.0\r\n", false),
            ("GET", "Accept: */*\r\n", false),
            ("GET", "Accept: application/*\r\n", false),
            ("GET", "Accept: application/jsonp\r\n", false),
            ("GET", "Accept:\r\n", false),
            ("GET", "", false),
            (
                "GET",
                "Accept: application/json\r\nUpgrade: websocket\r\n",
                false,
            ),
            ("GET", "Accept: application/json\r\nUpgrade: h2c\r\n", false),
        ] {
            assert_eq!(
                with(fields, method, is_requested),
                expected,
                "{method} {fields}"
            );
        }
        let old = b"GET /ws HTTP/1.0\r\nAccept: application/json\r\nUpgrade: websocket\r\n\r\n";
        let parsed = parse_head(old, 8192, is_requested);
        assert!(matches!(parsed, Ok(Head::Complete(true))));
    }

    #[test]
    fn unchanged_document_is_not_sent_again() {
        let response = with("", "GET", api_document);
        assert_eq!(response.status.0, 200);
        let tag = response.fields.iter().find(|(name, _)| *name == "ETag");
        let tag = &tag.expect("a tag").1;
        for (fields, status) in [
            (format!("If-None-Match: {tag}\r\n"), 304),
            (format!("If-None-Match: \"x\", W/{tag}\r\n"), 304),
            ("If-None-Match: *\r\n".to_owned(), 304),
            ("If-None-Match: \"x\"\r\n".to_owned(), 200),
            (format!("If-Match: {tag}\r\n"), 200),
            (format!("If-Match: \"x\", {tag}\r\n"), 200),
            ("If-Match: *\r\n".to_owned(), 200),
            (format!("If-Match: {tag}\r\nIf-None-Match: {tag}\r\n"), 304),
            ("If-Match: \"x\"\r\n".to_owned(), 412),
            (
                format!("If-Match: W/{tag}\r\nIf-None-Match: {tag}\r\n"),
                412,
            ),
            ("If-Match:\r\n".to_owned(), 412),
        ] {
            assert_eq!(
                with(&fields, "HEAD", api_document).status.0,
                status,
                "{fields}"
            );
        }
        assert_eq!(with("", "POST", api_document).status.0, 405);
        assert!(response.body.starts_with(b"# The Real Time API"));
    }

    #[test]
    fn entity_tags_are_quoted_and_differ_between_texts() {
        let [one, other] = ["a", "b"].map(entity_tag);
        assert_ne!(one, other);
        assert!(one.len() > 2 && one.starts_with('"') && one.ends_with('"'));
    }

    #[test]
    fn described_language_is_that_of_the_filter() {
        assert_eq!(fields().len(), Field::ALL.len() + 1);
        let digester = Digester::new([0; 4]);
        for policy in MATCH_POLICIES {
            for operator in OPERATORS {
                let clause =
                    |field| json!({"field": field, "operator": operator, "value": "https://a/b"});
                let clauses: Vec<_> = fields().into_iter().map(clause).collect();
                let filter = json!({"match_policy": policy, "clauses": clauses, "actions": {}});
                let mut view = FilterView::default();
                let parsed = parse(&filter.to_string(), 200, &digester, Some(&mut view), &mut 0);
                assert!(parsed.is_ok(), "{filter}");
                assert_eq!(view.ignored, [], "{filter}");
            }
        }
    }

    #[test]
    fn disabled_history_is_null_and_an_unready_one_has_no_oldest_cursor() {
        let mut settings = ApiSettings::default();
        let history = History::new(settings.history);
        let described = describe(&settings, &history);
        assert_eq!(described["history"]["window_seconds"], 604_800);
        assert_eq!(described["history"]["oldest"], Value::Null);
        settings.history.memory = 0;
        assert_eq!(describe(&settings, &history)["history"], Value::Null);
    }
}
