//! Serializes replies to clients, byte for byte as h does.
//!
//! Owns: the text of replies: Python's `json.dumps` with its separators, in ASCII. Must not know:
//! the receiver of a reply, or how it is sent. Every function appends to `out`.

use super::json;
use super::resume::SinceError;
use crate::uri::PatternError;

pub(super) use interpretation::{MAX_LEN as MAX_INTERPRETATION, TRUNCATED, interpretation};

/// The reason why a message was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejection<'a> {
    /// Unknown type; contains its JSON text.
    InvalidType(&'a str),
    /// `client_id` without `value`.
    MissingValue,
    /// A client id that is neither a string nor null.
    InvalidValue,
    /// A `filter` message without the member `filter`.
    MissingFilter,
    /// A malformed filter.
    InvalidFilter,
    /// A filter with an invalid wildcard pattern.
    InvalidPattern(PatternError),
    /// A filter with more values than the limit.
    TooManyTerms { limit: usize },
    /// A filter with more clauses than the limit.
    TooManyClauses { limit: usize },
    /// A filter that exceeds the memory limit of all filters.
    FiltersFull { at_most: usize },
    /// The cursor in `since` is invalid.
    InvalidCursor(SinceError),
    /// A number in `id` with more characters than the limit. The reply does not repeat it.
    LongId { limit: usize },
}

impl Rejection<'_> {
    /// Returns the name in metrics and in the log.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Rejection::InvalidType(_) => "invalid_type",
            Rejection::MissingValue | Rejection::InvalidValue | Rejection::MissingFilter => {
                "invalid_data"
            }
            Rejection::InvalidFilter | Rejection::InvalidPattern(_) => "invalid_filter",
            Rejection::TooManyTerms { .. } | Rejection::TooManyClauses { .. } => "too_many_terms",
            Rejection::FiltersFull { .. } => "filters_full",
            Rejection::InvalidCursor(_) => "invalid_cursor",
            Rejection::LongId { .. } => "long_id",
        }
    }
}

/// The contents of the reply to a filter.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FilterReply<'a> {
    /// The text of [`interpretation`]; empty without one.
    pub interpretation: &'a str,
    /// With `since`: the cursor from which the connection resumes.
    pub cursor: Option<&'a str>,
    /// The oldest possible cursor, if events before it are missing.
    pub oldest: Option<&'a str>,
}

/// Writes the reply to `ping`.
pub(super) fn pong(out: &mut String, id: &str) {
    out.push_str(r#"{"type": "pong", "ok": true, "reply_to": "#);
    out.push_str(id);
    out.push('}');
}

/// Writes the reply to `whoami`; `None` is anonymous.
pub(super) fn whoyouare(out: &mut String, userid: Option<&str>, id: &str) {
    out.push_str(r#"{"type": "whoyouare", "userid": "#);
    match userid {
        Some(userid) => push_string(out, userid),
        None => out.push_str("null"),
    }
    out.push_str(r#", "ok": true, "reply_to": "#);
    out.push_str(id);
    out.push('}');
}

/// Writes the reply to a filter.
pub(super) fn filter(out: &mut String, reply: &FilterReply<'_>, id: &str) {
    out.push_str(r#"{"type": "filter", "ok": true, "reply_to": "#);
    out.push_str(id);
    if !reply.interpretation.is_empty() {
        out.push_str(", ");
        out.push_str(reply.interpretation);
    }
    if let Some(cursor) = reply.cursor {
        out.push_str(r#", "cursor": "#);
        push_string(out, cursor);
        out.push_str(match reply.oldest {
            None => r#", "recovered": true"#,
            Some(_) => r#", "recovered": false"#,
        });
    }
    if let Some(oldest) = reply.oldest {
        out.push_str(r#", "oldest": "#);
        push_string(out, oldest);
    }
    out.push('}');
}

/// Writes the notice that events are missing, for a client that does not use cursors.
pub(super) fn gap(out: &mut String, oldest: &str) {
    out.push_str(r#"{"type": "recovery", "recovered": false, "oldest": "#);
    push_string(out, oldest);
    out.push('}');
}

/// Writes a cursor mark.
pub(super) fn mark(out: &mut String, cursor: &str) {
    out.push_str(r#"{"type": "cursor", "cursor": "#);
    push_string(out, cursor);
    out.push('}');
}

/// Writes the notification that an annotation has become unreadable: its deletion, in the format of
/// events.
pub(super) fn retraction(out: &mut String, id: &str) {
    out.push_str(
        r#"{"type":"annotation-notification","options":{"action":"delete"},"payload":[{"id":"#,
    );
    push_string(out, id);
    out.push_str("}]}");
}

/// Writes the reply to a rejected message.
pub(super) fn error(out: &mut String, rejection: Rejection<'_>, id: &str) {
    let (kind, description) = describe(rejection);
    out.push_str(r#"{"type": "error", "error": {"type": ""#);
    out.push_str(kind);
    out.push_str(r#"", "description": "#);
    push_string(out, &description);
    out.push_str(r#"}, "ok": false, "reply_to": "#);
    out.push_str(id);
    out.push('}');
}

/// Returns the type of an error, and its description.
pub(super) fn describe(rejection: Rejection<'_>) -> (&'static str, String) {
    match rejection {
        Rejection::InvalidType(type_) => {
            let mut description = String::from("invalid message type: ");
            push_excerpt(&mut description, type_);
            ("invalid_type", description)
        }
        Rejection::MissingValue => ("invalid_data", "\"value\" is missing".to_owned()),
        Rejection::InvalidValue => (
            "invalid_data",
            "\"value\" must be a string or null".to_owned(),
        ),
        Rejection::MissingFilter => ("invalid_data", "\"filter\" is missing".to_owned()),
        Rejection::InvalidFilter => ("invalid_data", "failed to parse filter".to_owned()),
        Rejection::InvalidPattern(error) => (
            "invalid_data",
            format!("invalid value of /wildcard_uri: {error}"),
        ),
        Rejection::TooManyTerms { limit } => (
            "invalid_data",
            format!("filter has more than {limit} values (repetitions count)"),
        ),
        Rejection::TooManyClauses { limit } => (
            "invalid_data",
            format!("filter has more than {limit} clauses"),
        ),
        Rejection::FiltersFull { at_most } => (
            "invalid_data",
            format!(
                "no memory for this filter now: filters of all clients take too much; use at \
                 most {at_most} values, or try again later"
            ),
        ),
        Rejection::InvalidCursor(SinceError::Malformed) => (
            "invalid_cursor",
            "\"since\" must be a cursor from this server, an RFC 3339 time, or \"now\"".to_owned(),
        ),
        Rejection::InvalidCursor(SinceError::Future) => (
            "invalid_cursor",
            "\"since\" is later than all events of this server".to_owned(),
        ),
        Rejection::LongId { limit } => (
            "invalid_data",
            format!("\"id\" has more than {limit} characters"),
        ),
    }
}

/// Writes the first [`MAX_EXCERPT`] characters of a JSON value like [`push_value`], with a mark if it
/// is truncated. Replies must not amplify the text of a client.
fn push_excerpt(out: &mut String, value: &str) {
    let max = out.len() + MAX_EXCERPT;
    push_value(out, value, max);
    if let Some((end, _)) = out.char_indices().nth(max) {
        out.truncate(end);
        out.push_str(ELLIPSIS);
    }
}

/// Writes a JSON value: strings in Python's encoding, other values unchanged. Stops soon after the
/// length of `out` exceeds `max`.
fn push_value(out: &mut String, value: &str, max: usize) {
    let Some(content) = json::string_content(value) else {
        let cut = value.char_indices().nth(max);
        out.push_str(cut.map_or(value, |(end, _)| &value[..end]));
        return;
    };
    out.push('"');
    let mut chars = content.chars();
    let mut units = [0; 2];
    while out.len() <= max
        && let Some(char) = chars.next()
    {
        if char != '\\' {
            push_units(out, char.encode_utf16(&mut units));
            continue;
        }
        // Write one UTF-16 unit at a time, so that lone surrogates are preserved.
        let unit = match chars.next() {
            Some('u') => {
                let (digits, rest) = chars.as_str().split_at_checked(4).unwrap_or_default();
                chars = rest.chars();
                u16::from_str_radix(digits, 16).unwrap_or_default()
            }
            Some('b') => 8,
            Some('f') => 12,
            Some('n') => 10,
            Some('r') => 13,
            Some('t') => 9,
            Some('"') => u16::from(b'"'),
            Some('/') => u16::from(b'/'),
            _ => u16::from(b'\\'),
        };
        push_units(out, &[unit]);
    }
    out.push('"');
}

/// Writes a text as a JSON string.
pub(super) fn push_string(out: &mut String, text: &str) {
    out.push('"');
    let mut units = [0; 2];
    for char in text.chars() {
        push_units(out, char.encode_utf16(&mut units));
    }
    out.push('"');
}

/// Writes UTF-16 units like Python's encoder: everything except printable ASCII is escaped,
/// including U+007F.
fn push_units(out: &mut String, units: &[u16]) {
    for &unit in units {
        match u8::try_from(unit) {
            Ok(b'"') => out.push_str("\\\""),
            Ok(b'\\') => out.push_str("\\\\"),
            Ok(b'\n') => out.push_str("\\n"),
            Ok(b'\r') => out.push_str("\\r"),
            Ok(b'\t') => out.push_str("\\t"),
            Ok(8) => out.push_str("\\b"),
            Ok(12) => out.push_str("\\f"),
            Ok(ascii @ b' '..=b'~') => out.push(char::from(ascii)),
            _ => {
                out.push_str("\\u");
                let nibbles = [unit >> 12, unit >> 8 & 15, unit >> 4 & 15, unit & 15];
                out.extend(
                    nibbles
                        .iter()
                        .filter_map(|&n| char::from_digit(n.into(), 16)),
                );
            }
        }
    }
}

mod interpretation;

/// The number of characters of a client's text that an error repeats, as JSON.
const MAX_EXCERPT: usize = 256;
/// Marks truncated text.
const ELLIPSIS: &str = "...";

#[cfg(test)]
mod tests;
