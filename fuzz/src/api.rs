//! A client's message and its reply, from the incoming frame to the outgoing one.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::sim::ApiHarness;
use crate::sim::ClientEvent;

/// Input: a byte, of which the lowest bit selects a binary message, and the message.
pub fn client_message(input: &[u8]) {
    let Some((kind, message)) = input.split_first() else {
        return;
    };
    let is_binary = kind & 1 == 1;
    let text = std::str::from_utf8(message).ok();
    if !is_binary && text.is_none() {
        // Decoder errors are covered by another target.
        return;
    }
    let mut harness = ApiHarness::new(20);
    let me = harness.open();
    harness.send(me, if is_binary { 0x82 } else { 0x81 }, message);
    let events = harness.receive_events(me);
    let is_alive = match events.as_slice() {
        [] => true,
        [ClientEvent::Text(reply)] => {
            check_reply(reply);
            true
        }
        [ClientEvent::Close(Some((1007, reason)))] => {
            assert_eq!(reason, "invalid message format");
            false
        }
        other => panic!("{other:?}"),
    };
    if let Some(text) = text.filter(|_| !is_binary) {
        check_text(text, &events);
    }
    if is_alive {
        harness.send(me, 0x81, br#"{"type":"ping","id":-7.50e+1}"#);
        let pong = r#"{"type": "pong", "ok": true, "reply_to": -7.50e+1}"#;
        assert_eq!(
            harness.receive_events(me),
            [ClientEvent::Text(pong.to_owned())]
        );
    }
}

/// Checks that a reply is a JSON object in ASCII with the members that clients use.
fn check_reply(reply: &str) {
    assert!(reply.is_ascii() && reply.len() <= 2048, "{reply}");
    let reply: Members<'_> = serde_json::from_str(reply).expect("JSON");
    let has = |key: &str| reply.contains_key(key);
    let of = |key: &str| reply.get(key).map(|value| value.get());
    match of("type") {
        // The reply to a message with a number that is too long to be repeated.
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

/// Checks the reply to a text as far as its main members determine it.
fn check_text(text: &str, events: &[ClientEvent]) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let is_json = serde_json::from_str::<&RawValue>(text).is_ok();
    let is_closed = matches!(events, [ClientEvent::Close(_)]);
    assert_eq!(is_closed, !is_json, "{text}");
    // Keys that are not Unicode text make this fail; such messages are not checked here.
    let Ok(message) = serde_json::from_str::<Members<'_>>(text) else {
        return;
    };
    let of = |key: &str| message.get(key).map(|value| value.get());
    let id = of("id").filter(|id| is_number(Some(id)));
    if id.is_some_and(|id| id.len() > MAX_ID) {
        let [ClientEvent::Text(reply)] = events else {
            panic!("{events:?} to {text}");
        };
        assert!(reply.ends_with(r#""reply_to": null}"#), "{reply}");
        return;
    }
    let (Some(id), [ClientEvent::Text(reply)]) = (id, events) else {
        let asks = matches!(of("type"), Some(r#""ping""# | r#""whoami""#));
        assert!(events.is_empty() && !(asks && id.is_some()), "{text}");
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
