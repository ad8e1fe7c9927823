//! A client's message and what it is answered, from the frame in to the frame out.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::sim::Heard;
use crate::sim::Stage;

/// A byte whose lowest bit says whether the message is binary, and the message.
pub fn client_message(input: &[u8]) {
    let Some((kind, message)) = input.split_first() else {
        return;
    };
    let is_binary = kind & 1 == 1;
    let text = std::str::from_utf8(message).ok();
    if !is_binary && text.is_none() {
        // The decoder's own business.
        return;
    }
    let mut stage = Stage::new(20);
    let me = stage.open();
    stage.send(me, if is_binary { 0x82 } else { 0x81 }, message);
    let heard = stage.hear(me);
    let is_alive = match heard.as_slice() {
        [] => true,
        [Heard::Text(reply)] => {
            check_reply(reply);
            true
        }
        [Heard::Close(Some((1007, reason)))] => {
            assert_eq!(reason, "invalid message format");
            false
        }
        other => panic!("{other:?}"),
    };
    if let Some(text) = text.filter(|_| !is_binary) {
        check_text(text, &heard);
    }
    if is_alive {
        stage.send(me, 0x81, br#"{"type":"ping","id":-7.50e+1}"#);
        let pong = r#"{"type": "pong", "ok": true, "reply_to": -7.50e+1}"#;
        assert_eq!(stage.hear(me), [Heard::Text(pong.to_owned())]);
    }
}

/// A JSON object in ASCII, with what clients look at.
fn check_reply(reply: &str) {
    assert!(reply.is_ascii() && reply.len() <= 2048, "{reply}");
    let reply: Members<'_> = serde_json::from_str(reply).expect("JSON");
    let has = |key: &str| reply.contains_key(key);
    let of = |key: &str| reply.get(key).map(|value| value.get());
    match of("type") {
        // To a message with a number that is too long to be repeated.
        Some(r#""error""#) if of("reply_to") == Some("null") => {
            assert_eq!(of("ok"), Some("false"));
            return;
        }
        _ => assert!(is_number(of("reply_to"))),
    }
    match of("type") {
        Some(r#""pong""#) => assert_eq!(of("ok"), Some("true")),
        Some(r#""whoyouare""#) => {
            assert_eq!((of("ok"), of("userid")), (Some("true"), Some("null")));
        }
        Some(r#""error""#) => assert!(of("ok") == Some("false") && has("error")),
        other => panic!("{other:?}"),
    }
}

/// What must be answered to a text, as far as a short look at it tells.
fn check_text(text: &str, heard: &[Heard]) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
    let is_closed = matches!(heard, [Heard::Close(_)]);
    assert_eq!(is_closed, !is_json, "{text}");
    // Keys that are no Unicode text make this fail; nothing is said of such messages here.
    let Ok(message) = serde_json::from_str::<Members<'_>>(text) else {
        return;
    };
    let of = |key: &str| message.get(key).map(|value| value.get());
    let id = of("id").filter(|id| is_number(Some(id)));
    if id.is_some_and(|id| id.len() > MAX_ID) {
        let [Heard::Text(reply)] = heard else {
            panic!("{heard:?} to {text}");
        };
        assert!(reply.ends_with(r#""reply_to": null}"#), "{reply}");
        return;
    }
    let (Some(id), [Heard::Text(reply)]) = (id, heard) else {
        let asks = matches!(of("type"), Some(r#""ping""# | r#""whoami""#));
        assert!(heard.is_empty() && !(asks && id.is_some()), "{text}");
        return;
    };
    let reply: Members<'_> = serde_json::from_str(reply).expect("JSON");
    assert_eq!(reply["reply_to"].get(), id);
    let expected = match of("type") {
        Some(r#""ping""#) => r#""pong""#,
        Some(r#""whoami""#) => r#""whoyouare""#,
        _ => r#""error""#,
    };
    if !of("type").is_some_and(|type_| type_.contains('\\')) {
        assert_eq!(reply["type"].get(), expected);
    }
}

/// The longest number that is repeated.
const MAX_ID: usize = 256;

type Members<'a> = BTreeMap<String, &'a RawValue>;

fn is_number(value: Option<&str>) -> bool {
    value.is_some_and(|value| value.starts_with(|c: char| c == '-' || c.is_ascii_digit()))
}
