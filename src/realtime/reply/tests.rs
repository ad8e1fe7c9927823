//! The text of replies.

use super::*;

fn written(write: impl FnOnce(&mut String)) -> String {
    let mut out = String::new();
    write(&mut out);
    out
}

#[test]
fn pong_and_whoyouare_match_h() {
    assert_eq!(
        written(|out| pong(out, "1e400")),
        r#"{"type": "pong", "ok": true, "reply_to": 1e400}"#
    );
    assert_eq!(
        written(|out| whoyouare(out, None, "1")),
        r#"{"type": "whoyouare", "userid": null, "ok": true, "reply_to": 1}"#
    );
    assert_eq!(
        written(|out| whoyouare(out, Some("acct:Zoë@x"), "1")),
        r#"{"type": "whoyouare", "userid": "acct:Zo\u00eb@x", "ok": true, "reply_to": 1}"#
    );
}

#[test]
fn rejections_have_names_in_metrics_and_in_the_log() {
    for (rejection, name) in [
        (Rejection::InvalidType("1"), "invalid_type"),
        (Rejection::MissingValue, "invalid_data"),
        (Rejection::InvalidValue, "invalid_data"),
        (Rejection::MissingFilter, "invalid_data"),
        (Rejection::InvalidFilter, "invalid_filter"),
        (Rejection::TooManyTerms { limit: 1 }, "too_many_terms"),
        (Rejection::TooManyClauses { limit: 1 }, "too_many_terms"),
        (Rejection::FiltersFull { at_most: 1 }, "filters_full"),
        (
            Rejection::InvalidCursor(SinceError::Future),
            "invalid_cursor",
        ),
        (Rejection::LongId { limit: 1 }, "long_id"),
    ] {
        assert_eq!(rejection.as_str(), name);
    }
}

#[test]
fn errors_match_h() {
    for (rejection, kind, description) in [
        (
            Rejection::InvalidType("null"),
            "invalid_type",
            "invalid message type: null",
        ),
        (
            Rejection::MissingValue,
            "invalid_data",
            r#"\"value\" is missing"#,
        ),
        (
            Rejection::InvalidValue,
            "invalid_data",
            r#"\"value\" must be a string or null"#,
        ),
        (
            Rejection::MissingFilter,
            "invalid_data",
            r#"\"filter\" is missing"#,
        ),
        (
            Rejection::InvalidFilter,
            "invalid_data",
            "failed to parse filter",
        ),
        (
            Rejection::TooManyTerms { limit: 200 },
            "invalid_data",
            "filter has more than 200 values (repetitions count)",
        ),
    ] {
        let expected = format!(
            r#"{{"type": "error", "error": {{"type": "{kind}", "description": "{description}"}}, "ok": false, "reply_to": -7}}"#
        );
        assert_eq!(written(|out| error(out, rejection, "-7")), expected);
    }
}

/// As recorded from h.
#[test]
fn invalid_type_is_quoted_twice() {
    for (type_, expected) in [
        (r#""foo""#, r#"\"foo\""#),
        (r#""""#, r#"\"\""#),
        (
            "\"ü☃😀\u{2028}\"",
            r#"\"\\u00fc\\u2603\\ud83d\\ude00\\u2028\""#,
        ),
        (r#""\ud800""#, r#"\"\\ud800\""#),
        (r#""\uD83D\uDE00""#, r#"\"\\ud83d\\ude00\""#),
        (
            "\"\\u0000\\u0001\\t\\n\\\"\\\\\\/\u{7f}</\"",
            r#"\"\\u0000\\u0001\\t\\n\\\"\\\\/\\u007f</\""#,
        ),
        (r#""\b\f\r""#, r#"\"\\b\\f\\r\""#),
        ("1.0", "1.0"),
        ("true", "true"),
    ] {
        let actual = written(|out| error(out, Rejection::InvalidType(type_), "1"));
        let expected = format!(r#""description": "invalid message type: {expected}"}}"#);
        assert!(actual.contains(&expected), "{type_}: {actual}");
    }
}
