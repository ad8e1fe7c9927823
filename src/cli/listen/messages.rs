//! Messages that the client sends when it connects, and the interpretation of received messages.
//! Must not know sockets.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::sanitize::printable;

/// The `id` of the filter message, which its reply repeats.
const FILTER: u64 = 1;

/// Returns the messages to send on a new connection, in order. `whoami` comes last: messages are
/// handled in order, so its reply shows that the filter is in place. With `since`, the filter is sent
/// even without clauses, since events of the user have cursors, too. With `ack`, the server is asked
/// for its interpretation of the filter.
pub(super) fn opening(
    client_id: &str,
    filter: &Value,
    since: Option<&str>,
    ack: bool,
) -> Vec<String> {
    let mut messages = vec![json!({"type": "client_id", "value": client_id}).to_string()];
    let clauses = filter.get("clauses").and_then(Value::as_array);
    let has_clauses = clauses.is_some_and(|clauses| !clauses.is_empty());
    if has_clauses || since.is_some() {
        let mut message = json!({"type": "filter", "filter": filter, "id": FILTER});
        if let Some(members) = message.as_object_mut() {
            members.extend(since.map(|since| ("since".to_owned(), since.into())));
            members.extend(ack.then(|| ("ack".to_owned(), true.into())));
        }
        messages.push(message.to_string());
    }
    messages.push(json!({"type": "whoami", "id": 2}).to_string());
    messages
}

/// A classified text message.
#[derive(Debug, PartialEq)]
pub(super) enum ServerMessage<'a> {
    /// An event, as the line to print, and its cursor.
    Event(Cow<'a, str>, Option<Cow<'a, str>>),
    /// The position has moved without an event.
    Mark(Cow<'a, str>),
    /// The filter is in place, on a connection that uses cursors.
    FilterSet(FilterReply),
    /// The history does not reach back to the last event of the client id. Contains the oldest
    /// possible cursor.
    Gap(Option<String>),
    /// The reply to `whoami`: the userid, or `None` if anonymous.
    Identity(Option<String>),
    /// The server rejected the filter, with this description. No annotations would be sent.
    FilterRejected(String),
    /// The server cannot resume from the cursor, for this reason.
    CursorRejected(String),
    /// Anything else, as a line for the user.
    Other(String),
}

/// The reply to a filter with `since` or `ack`.
#[derive(Debug, Default, Deserialize, PartialEq)]
pub(super) struct FilterReply {
    pub cursor: Option<String>,
    /// `None` without `since`.
    pub recovered: Option<bool>,
    /// The oldest possible cursor, if there is a gap.
    pub oldest: Option<String>,
    /// The server's interpretation of the filter. `None` from servers without the extended language,
    /// and if it is omitted.
    filter: Option<Value>,
    /// The interpretation is incomplete, or omitted.
    #[serde(default)]
    truncated: bool,
    #[serde(default)]
    ignored: Vec<IgnoredClause>,
}

/// A clause that has no effect, or not the requested one.
#[derive(Debug, Deserialize, PartialEq)]
struct IgnoredClause {
    field: String,
    reason: String,
}

impl FilterReply {
    /// Returns whether the server has interpreted the whole filter. The error describes the parts that
    /// it has ignored.
    pub(super) fn confirms(&self) -> Result<bool, String> {
        if self.ignored.is_empty() {
            return Ok(self.filter.is_some() || self.truncated);
        }
        let ignored = self.ignored.iter();
        let parts: Vec<_> = ignored
            .map(|clause| format!("{}: {}", clause.field, clause.reason))
            .collect();
        Err(printable(&parts.join("; ")))
    }
}

/// Classifies `text`.
pub(super) fn classify(text: &str) -> ServerMessage<'_> {
    let unrecognized =
        || ServerMessage::Other(format!("unrecognized message: {}", printable(text)));
    let Ok(Envelope { kind, cursor }) = serde_json::from_str(text) else {
        return unrecognized();
    };
    match (kind.as_ref(), cursor) {
        ("annotation-notification" | "session-change", cursor) => {
            ServerMessage::Event(one_line(text), cursor)
        }
        ("cursor", Some(cursor)) => ServerMessage::Mark(cursor),
        ("filter", _) => match serde_json::from_str(text) {
            Ok(FilterReply {
                recovered: None,
                filter: None,
                ..
            })
            | Err(_) => unrecognized(),
            Ok(reply) => ServerMessage::FilterSet(reply),
        },
        ("recovery", _) => match serde_json::from_str(text) {
            Ok(FilterReply {
                recovered: Some(false),
                oldest,
                ..
            }) => ServerMessage::Gap(oldest),
            _ => unrecognized(),
        },
        ("whoyouare", _) => match serde_json::from_str(text) {
            Ok(Identity { userid }) => ServerMessage::Identity(userid),
            Err(_) => unrecognized(),
        },
        ("debug", _) => ServerMessage::Other(format!("debug: {}", printable(text))),
        ("error", _) => match serde_json::from_str(text) {
            Ok(ErrorReply { error, reply_to }) => {
                let description = printable(&error.description);
                match reply_to {
                    Value::Number(id) if id.as_u64() == Some(FILTER) => match error.kind.as_deref()
                    {
                        Some("invalid_cursor") => ServerMessage::CursorRejected(description),
                        _ => ServerMessage::FilterRejected(description),
                    },
                    _ => ServerMessage::Other(format!("error: {description}")),
                }
            }
            Err(_) => ServerMessage::Other(format!("error: {}", printable(text))),
        },
        _ => ServerMessage::Other(format!("reply: {}", printable(text))),
    }
}

/// Returns JSON on one line. Line breaks inside JSON strings are always escaped, so an unescaped
/// one is white space between tokens.
fn one_line(json: &str) -> Cow<'_, str> {
    if json.contains(['\n', '\r']) {
        json.replace(['\n', '\r'], " ").into()
    } else {
        json.into()
    }
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    cursor: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Identity {
    userid: Option<String>,
}

#[derive(Deserialize)]
struct ErrorReply {
    error: Description,
    #[serde(default)]
    reply_to: Value,
}

#[derive(Deserialize)]
struct Description {
    #[serde(rename = "type", default)]
    kind: Option<String>,
    description: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opening_has_the_filter_between_client_id_and_whoami() {
        let filter = json!({
            "match_policy": "include_any",
            "clauses": [
                {"field": "/uri", "operator": "one_of", "value": ["https://a.example/\"x\""], "case_sensitive": false},
                {"field": "/id", "operator": "one_of", "value": ["A"], "case_sensitive": true},
            ],
            "actions": {"create": true, "update": true, "delete": true},
        });
        let expected = [
            r#"{"type":"client_id","value":"c0ffee"}"#,
            concat!(
                r#"{"type":"filter","filter":{"match_policy":"include_any","clauses":["#,
                r#"{"field":"/uri","operator":"one_of","value":["https://a.example/\"x\""],"case_sensitive":false},"#,
                r#"{"field":"/id","operator":"one_of","value":["A"],"case_sensitive":true}],"#,
                r#""actions":{"create":true,"update":true,"delete":true}},"id":1}"#
            ),
            r#"{"type":"whoami","id":2}"#,
        ];
        assert_eq!(opening("c0ffee", &filter, None, false), expected);
        let confirmed = opening("c0ffee", &filter, None, true);
        assert_eq!(
            confirmed[1],
            expected[1].replace("\"id\":1}", "\"id\":1,\"ack\":true}")
        );
        let resumed = opening("c0ffee", &filter, Some("-cursor"), false);
        let since = expected[1].replace("\"id\":1}", "\"id\":1,\"since\":\"-cursor\"}");
        assert_eq!(resumed[1], since);
    }

    #[test]
    fn no_filter_is_sent_without_clauses_and_cursor() {
        let filter = json!({"match_policy": "include_any", "clauses": [], "actions": {}});
        assert_eq!(opening("x", &filter, None, false).len(), 2);
        let resumed = opening("x", &filter, Some("now"), false);
        assert!(resumed[1].contains(r#""clauses":[]"#), "{resumed:?}");
    }

    #[test]
    fn filter_is_confirmed_by_its_interpretation_even_if_that_is_omitted() {
        let reply = |more: &str| {
            let text = format!(r#"{{"type":"filter","ok":true,"reply_to":1,{more}}}"#);
            match classify(&text) {
                ServerMessage::FilterSet(reply) => reply.confirms(),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(reply(r#""filter":{},"ignored":[]"#), Ok(true));
        assert_eq!(
            reply(r#""truncated":true,"cursor":"c","recovered":true"#),
            Ok(true)
        );
        assert_eq!(reply(r#""cursor":"c","recovered":true"#), Ok(false));
        let ignored = r#""filter":{},"ignored":[{"clause":0,"field":"/a","reason":"b"},{"clause":1,"field":"/c","reason":"d"}]"#;
        assert_eq!(reply(ignored), Err("/a: b; /c: d".to_owned()));
    }

    #[test]
    fn messages_are_classified() {
        let other = |line: &str| ServerMessage::Other(line.to_owned());
        for (text, expected) in [
            (
                "{\"type\": \"session-change\", \"userid\": 1,\r\n\"model\": {\"a\": \"\\n\"}}",
                ServerMessage::Event(
                    "{\"type\": \"session-change\", \"userid\": 1,  \"model\": {\"a\": \"\\n\"}}"
                        .into(),
                    None,
                ),
            ),
            (
                r#"{"payload":[],"type":"annotation-notification"}"#,
                ServerMessage::Event(
                    r#"{"payload":[],"type":"annotation-notification"}"#.into(),
                    None,
                ),
            ),
            (
                r#"{"type":"annotation-notification","payload":[{"cursor":"no"}],"cursor":"c1"}"#,
                ServerMessage::Event(
                    r#"{"type":"annotation-notification","payload":[{"cursor":"no"}],"cursor":"c1"}"#
                        .into(),
                    Some("c1".into()),
                ),
            ),
            (
                r#"{"type":"cursor","cursor":"c2"}"#,
                ServerMessage::Mark("c2".into()),
            ),
            (
                r#"{"type":"cursor"}"#,
                other(r#"reply: {"type":"cursor"}"#),
            ),
            (
                r#"{"type":"filter","ok":true,"reply_to":1,"cursor":"c3","recovered":true}"#,
                ServerMessage::FilterSet(FilterReply {
                    cursor: Some("c3".to_owned()),
                    recovered: Some(true),
                    ..FilterReply::default()
                }),
            ),
            (
                r#"{"type":"filter","ok":true}"#,
                other(r#"unrecognized message: {"type":"filter","ok":true}"#),
            ),
            (
                r#"{"type":"recovery","recovered":false,"oldest":"c4"}"#,
                ServerMessage::Gap(Some("c4".to_owned())),
            ),
            (
                r#"{"type":"error","error":{"type":"invalid_cursor","description":"in the future"},"reply_to":1}"#,
                ServerMessage::CursorRejected("in the future".to_owned()),
            ),
            (
                r#"{"type":"whoyouare","userid":"acct:joe@example.org","ok":true}"#,
                ServerMessage::Identity(Some("acct:joe@example.org".to_owned())),
            ),
            (
                r#"{"type":"whoyouare","userid":null}"#,
                ServerMessage::Identity(None),
            ),
            (
                r#"{"type":"whoyouare","userid":7}"#,
                other(r#"unrecognized message: {"type":"whoyouare","userid":7}"#),
            ),
            (
                r#"{"type":"error","error":{"description":"no\u001bgood"},"ok":false}"#,
                other("error: no good"),
            ),
            (
                r#"{"type":"error","error":{"description":"too many"},"ok":false,"reply_to":1}"#,
                ServerMessage::FilterRejected("too many".to_owned()),
            ),
            (
                r#"{"type":"error","error":{"description":"no"},"ok":false,"reply_to":2}"#,
                other("error: no"),
            ),
            (r#"{"type":"error"}"#, other(r#"error: {"type":"error"}"#)),
            (
                r#"{"type":"pong","ok":true}"#,
                other(r#"reply: {"type":"pong","ok":true}"#),
            ),
            (
                r#"{"type":"debug","event":"client_id","is_set":true}"#,
                other(r#"debug: {"type":"debug","event":"client_id","is_set":true}"#),
            ),
            (
                r#"{"type":1}"#,
                other(r#"unrecognized message: {"type":1}"#),
            ),
            ("{", other("unrecognized message: {")),
            ("[]", other("unrecognized message: []")),
            ("", other("unrecognized message: ")),
        ] {
            assert_eq!(classify(text), expected, "{text}");
        }
    }
}
