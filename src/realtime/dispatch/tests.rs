//! Replies to clients: h's replies as recorded, and the intended differences.

use crate::net::Message;
use crate::realtime::testing::{Output, TestApi, identity};
use crate::realtime::{ApiCounters, ApiSettings};

fn api() -> TestApi {
    let mut api = TestApi::new(ApiSettings::default());
    api.open(0);
    api
}

/// Returns the only reply to a text, or `""` if there is none.
fn reply_to(api: &mut TestApi, text: &str) -> String {
    match &api.text(0, text)[..] {
        [] => String::new(),
        [Output::Reply(text)] => text.clone(),
        other => panic!("{text}: {other:?}"),
    }
}

fn error(kind: &str, description: &str, id: &str) -> String {
    let error = format!(r#"{{"type": "{kind}", "description": "{description}"}}"#);
    format!(r#"{{"type": "error", "error": {error}, "ok": false, "reply_to": {id}}}"#)
}

fn pong(id: &str) -> String {
    format!(r#"{{"type": "pong", "ok": true, "reply_to": {id}}}"#)
}

#[test]
fn pings_are_answered_with_their_id() {
    let big = "1".repeat(256);
    for (id, echoed) in [
        ("1", true),
        ("-0", true),
        ("1e2", true),
        ("1E400", true),
        ("0.10", true),
        (big.as_str(), true),
        ("true", false),
        ("\"1\"", false),
        ("null", false),
        ("[]", false),
    ] {
        let expected = if echoed { pong(id) } else { String::new() };
        let text = format!(r#"{{"type":"ping","id":{id},"extra":[1]}}"#);
        assert_eq!(reply_to(&mut api(), &text), expected);
    }
    assert_eq!(reply_to(&mut api(), r#"{"type":"ping"}"#), "");
    assert_eq!(reply_to(&mut api(), r#"{"type":"ping","Id":1}"#), "");
    assert_eq!(
        reply_to(&mut api(), " \r\n\t{\"id\":3,\"type\":\"ping\"} \n"),
        pong("3")
    );
}

#[test]
fn whoami_returns_the_userid() {
    let mut api = api();
    let text = r#"{"type":"whoami","id":1}"#;
    let anonymous = r#"{"type": "whoyouare", "userid": null, "ok": true, "reply_to": 1}"#;
    assert_eq!(reply_to(&mut api, text), anonymous);
    api.open_as(1, identity("acct:a@x", 1, &[]));
    let known = r#"{"type": "whoyouare", "userid": "acct:a@x", "ok": true, "reply_to": 1}"#;
    assert_eq!(api.text(1, text), [Output::Reply(known.into())]);
}

#[test]
fn unknown_types_are_errors() {
    for (type_, shown) in [
        (r#""foo""#, r#"\"foo\""#),
        (r#""PING""#, r#"\"PING\""#),
        ("null", "null"),
        ("1.0", "1.0"),
        ("true", "true"),
        // h would print Infinity.
        ("1e400", "1e400"),
    ] {
        let text = format!(r#"{{"type":{type_},"id":5}}"#);
        let expected = error(
            "invalid_type",
            &format!("invalid message type: {shown}"),
            "5",
        );
        assert_eq!(reply_to(&mut api(), &text), expected);
    }
    for text in [
        r#"{"type":[],"id":1}"#,
        r#"{"type":{},"id":2}"#,
        r#"{"type":["ping"],"id":3}"#,
        r#"{"type":"foo"}"#,
        r#"{"type":"foo","id":true}"#,
    ] {
        assert_eq!(reply_to(&mut api(), text), "", "{text}");
    }
}

#[test]
fn client_ids_are_strings_or_null() {
    let missing = |id| error("invalid_data", r#"\"value\" is missing"#, id);
    let no_string = |id| error("invalid_data", r#"\"value\" must be a string or null"#, id);
    for (text, expected) in [
        (
            r#"{"type":"client_id","value":"abc","id":1}"#,
            String::new(),
        ),
        (r#"{"type":"client_id","value":null,"id":1}"#, String::new()),
        (r#"{"type":"client_id","id":2}"#, missing("2")),
        (r#"{"type":"client_id"}"#, String::new()),
        (
            r#"{"messageType":"client_id","value":"a","id":1}"#,
            String::new(),
        ),
        (r#"{"messageType":"client_id","id":2}"#, missing("2")),
        // h stores any JSON.
        (
            r#"{"type":"client_id","value":{"a":1},"id":4}"#,
            no_string("4"),
        ),
        (r#"{"type":"client_id","value":5,"id":5}"#, no_string("5")),
        (
            r#"{"type":"client_id","value":"\ud800","id":5}"#,
            no_string("5"),
        ),
    ] {
        assert_eq!(reply_to(&mut api(), text), expected, "{text}");
    }
}

#[test]
fn filters_are_validated() {
    let failed = |id| error("invalid_data", "failed to parse filter", id);
    let clause = |clause: &str| {
        format!(
            r#"{{"type":"filter","id":1,"filter":{{"match_policy":"include_any","clauses":[{clause}],"actions":{{}}}}}}"#
        )
    };
    for (text, expected) in [
        (
            r#"{"type":"filter","id":1}"#.to_owned(),
            error("invalid_data", r#"\"filter\" is missing"#, "1"),
        ),
        (r#"{"type":"filter"}"#.into(), String::new()),
        (r#"{"filter":{},"id":2}"#.into(), failed("2")),
        (r#"{"filter":{}}"#.into(), String::new()),
        (
            r#"{"filter":{},"messageType":"client_id","value":"v","id":3}"#.into(),
            failed("3"),
        ),
        (
            r#"{"type":"filter","filter":[],"id":1}"#.into(),
            failed("1"),
        ),
        (clause(""), String::new()),
        (clause(r#"{"field":"/nope"}"#), String::new()),
        (clause(r#"{"field":"/id","value":["a"]}"#), String::new()),
        // h silently ignores these, or stores them.
        (clause("null"), failed("1")),
        (clause(r#"{"field":"/uri"}"#), failed("1")),
        (
            clause(r#"{"field":"/references","value":{"a":1}}"#),
            failed("1"),
        ),
        (
            clause(r#"{"field":"/uri","value":"http://[::1"}"#),
            failed("1"),
        ),
    ] {
        assert_eq!(reply_to(&mut api(), &text), expected, "{text}");
    }
}

#[test]
fn refused_filter_keeps_the_previous_one() {
    let mut api = TestApi::new(ApiSettings {
        max_terms: 2,
        ..ApiSettings::default()
    });
    api.open(0);
    api.filter(0, "/id", &["a", "b"]);
    let terms = |api: &TestApi| api.realtime.counters().terms;
    assert_eq!(terms(&api), 2);
    let three = r#"{"filter":{"match_policy":"include_any","clauses":[{"field":"/id","value":["a","c","d"]}],"actions":0},"id":1}"#;
    let expected = error(
        "invalid_data",
        "filter has more than 2 values (repetitions count)",
        "1",
    );
    assert_eq!(reply_to(&mut api, three), expected);
    assert_ne!(reply_to(&mut api, r#"{"filter":[],"id":1}"#), "");
    assert_eq!(terms(&api), 2);
    api.filter(0, "/id", &[]);
    assert_eq!(terms(&api), 0);
}

fn filter_of(values: impl Iterator<Item = String>, id: &str) -> String {
    let values: Vec<_> = values.map(|value| format!("{value:?}")).collect();
    let values = values.join(",");
    format!(
        r#"{{"filter":{{"match_policy":"include_any","clauses":[{{"field":"/id","value":[{values}]}}],"actions":0}},"id":{id}}}"#
    )
}

// M7
#[test]
fn large_filters_beyond_the_total_are_refused() {
    let mut api = TestApi::new(ApiSettings {
        filters_total: 4_300,
        ..ApiSettings::default()
    });
    for index in 0..4 {
        api.open(index);
    }
    let values = |client: u32, count: u32| (0..count).map(move |n| format!("{client}/{n}"));
    let mut set = |client, count| api.text(client, &filter_of(values(client, count), "1"));
    assert_eq!(set(0, 60), []);
    let full = error(
        "invalid_data",
        "no memory for this filter now: filters of all clients take too much; use at most 16 \
         values, or try again later",
        "1",
    );
    assert_eq!(set(1, 20), [Output::Reply(full.clone())]);
    assert_eq!(set(1, 17), [Output::Reply(full.clone())]);
    assert_eq!(set(1, 16), []);
    assert_eq!(set(2, 16), []);
    // The total is exceeded now. A filter may still shrink.
    assert_eq!(set(0, 61), [Output::Reply(full)]);
    assert_eq!(set(0, 59), []);
    // Terms that are already present take no further memory.
    let shared = filter_of(values(0, 17), "1");
    assert_eq!(api.text(0, &shared), []);
    assert_eq!(api.text(3, &shared), []);
    let counters = api.realtime.counters();
    assert_eq!(counters.errors.filters_full, 3);
    assert_eq!(counters.subscriptions, 16 + 16 + 17 + 17);
    assert!((3_000..5_000).contains(&counters.filter_bytes));
}

// M12
#[test]
fn message_with_a_long_numeric_id_is_refused() {
    let mut api = api();
    let long = "7".repeat(257);
    let expected = error(
        "invalid_data",
        r#"\"id\" has more than 256 characters"#,
        "null",
    );
    let text = format!(r#"{{"type":"ping","id":{long}}}"#);
    assert_eq!(reply_to(&mut api, &text), expected);
    let text = filter_of(["a".to_owned()].into_iter(), &long);
    assert_eq!(reply_to(&mut api, &text), expected);
    let counters = api.realtime.counters();
    assert_eq!((counters.errors.long_id, counters.terms), (2, 0));
}

// M12
#[test]
fn long_type_is_truncated_in_the_error() {
    let mut api = api();
    // The opening quotation mark counts as a character.
    for (type_, shown) in [
        ("a".repeat(254), format!(r#"\"{}\""#, "a".repeat(254))),
        ("a".repeat(255), format!(r#"\"{}..."#, "a".repeat(255))),
        ("a".repeat(60_000), format!(r#"\"{}..."#, "a".repeat(255))),
    ] {
        let text = format!(r#"{{"type":"{type_}","id":1}}"#);
        let description = format!("invalid message type: {shown}");
        let expected = error("invalid_type", &description, "1");
        assert_eq!(reply_to(&mut api, &text), expected);
    }
}

/// The reply to any message of 64 KiB is short.
// M12
#[test]
fn replies_are_short_for_all_messages() {
    const MOST: usize = 2048;
    let mut api = api();
    let mut longest = 0;
    let fillers = [
        "a",
        "\\u0000",
        "\u{7f}",
        "\\ud800",
        "\\udfff",
        "\\n",
        "\\\"",
        "\\\\",
        "ü",
        "☃",
        "😀",
        "\\ud83d\\ude00",
        "\u{2028}",
    ];
    let digits = ["1", "-1", "1.", "1e", "0."];
    let long = |filler: &str| filler.repeat(60_000 / filler.len());
    let number = |start: &str| format!("{start}{}", "9".repeat(60_000));
    let mut strings: Vec<String> = fillers
        .iter()
        .map(|filler| format!("\"{}\"", long(filler)))
        .collect();
    strings.extend(digits.iter().map(|start| number(start)));
    strings.push(format!("[{}]", vec!["1"; 20_000].join(",")));
    for value in &strings {
        for id in ["1", &"9".repeat(256), &number("1"), &number("0."), value] {
            for text in [
                format!(r#"{{"type":{value},"id":{id}}}"#),
                format!(r#"{{"type":null,"messageType":{value},"id":{id}}}"#),
                format!(r#"{{"type":"client_id","value":{value},"id":{id}}}"#),
                format!(r#"{{"type":"filter","filter":{value},"id":{id}}}"#),
                format!(r#"{{"filter":{{"match_policy":{value}}},"id":{id}}}"#),
                filter_of(std::iter::repeat_n("a".into(), 201), id),
                format!(r#"{{"type":"whoami","x":{value},"id":{id}}}"#),
                format!(r#"{{"type":"ping","x":{value},"id":{id}}}"#),
            ] {
                let sent: usize = api
                    .text(0, &text)
                    .iter()
                    .map(|outputs| match outputs {
                        Output::Reply(reply) => reply.len(),
                        other => panic!("{other:?}"),
                    })
                    .sum();
                longest = longest.max(sent);
                assert!(sent <= MOST, "{sent} bytes in reply to {}", &text[..100]);
            }
        }
    }
    assert!(longest > 800, "{longest}");
}

// R11
#[test]
fn work_is_charged_by_the_content_of_a_message() {
    let mut api = api();
    let mut work = |text: &str| {
        api.text(0, text);
        api.take_work()
    };
    let ping = work(r#"{"type":"ping","id":1}"#);
    assert!((1..1_000).contains(&ping), "{ping}");
    assert!(work(r#"{"type":"whoami","id":1}"#) > ping);
    let values = |count: u32| filter_of((0..count).map(|n| n.to_string()), "1");
    let (one, all, over) = (work(&values(1)), work(&values(200)), work(&values(10_000)));
    assert!(one > ping + 500, "{one}");
    assert!(all > 50 * one, "{all}");
    // The filter is rejected, but the values up to the limit have been processed.
    assert!(over > all, "{over}");
    let padded = format!(r#"{{"type":"ping","id":1,"x":"{}"}}"#, "x".repeat(10_000));
    assert!(work(&padded) > ping + 10_000);
    api.request(1, "/ws", "");
    let anonymous = api.take_work();
    api.request(1, "/ws?access_token=x", "");
    assert!(api.take_work() > anonymous + 10_000);
}

#[test]
fn invalid_json_closes_and_non_object_json_does_not() {
    let mut api = api();
    for text in [
        "",
        "  \n ",
        "hello",
        "NaN",
        "{'type':'ping'}",
        r#"{"type":"ping","id":NaN}"#,
    ] {
        let close = Output::Close(0, 1007, "invalid message format".into());
        assert_eq!(api.text(0, text), [close], "{text}");
    }
    for text in [
        "null",
        "true",
        "5",
        "[]",
        r#"[{"type":"ping","id":1}]"#,
        "\"a\"",
    ] {
        assert_eq!(api.text(0, text), [], "{text}");
    }
    let deep = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    assert_eq!(api.text(0, &deep), []);
    let deep = format!(r#"{{"type":"ping","id":1,"x":{deep}}}"#);
    assert_eq!(reply_to(&mut api, &deep), pong("1"));
}

#[test]
fn binary_messages_are_parsed_as_json() {
    let hex = |text: &str| -> Vec<u8> {
        let digits = text.as_bytes().chunks(2);
        let byte = |pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.map(byte).collect()
    };
    for (bytes, expected) in [
        (r#"{"type":"ping","id":1}"#.into(), pong("1")),
        (
            hex(
                "fffe7b002200740079007000650022003a002200700069006e00670022002c0022006900640022003a0031007d00",
            ),
            pong("1"),
        ),
        (
            hex(
                "007b002200740079007000650022003a002200700069006e00670022002c0022006900640022003a0032007d",
            ),
            pong("2"),
        ),
        (
            hex(
                "fffe00007b0000002200000074000000790000007000000065000000220000003a0000002200000070000000690000006e00000067000000220000002c000000220000006900000064000000220000003a000000330000007d000000",
            ),
            pong("3"),
        ),
        (
            hex("7b2274797065223a22c3bc222c226964223a347d"),
            error("invalid_type", r#"invalid message type: \"\\u00fc\""#, "4"),
        ),
        (
            hex("efbbbf7b2274797065223a2270696e67222c226964223a357d"),
            pong("5"),
        ),
    ] {
        let outputs = api().message(0, Message::Binary(&bytes));
        assert_eq!(outputs, [Output::Reply(expected)]);
    }
    let latin1 = hex("7b2274797065223a22fc222c226964223a317d");
    let close = Output::Close(0, 1007, "invalid message format".into());
    assert_eq!(api().message(0, Message::Binary(&latin1)), [close]);
    assert_eq!(
        reply_to(&mut api(), "\u{feff}{\"type\":\"ping\",\"id\":1}"),
        pong("1")
    );
}

#[test]
fn messages_are_counted() {
    let mut api = api();
    for text in [
        r#"{"type":"ping","id":1}"#,
        r#"{"type":"ping"}"#,
        r#"{"type":"whoami","id":1}"#,
        r#"{"type":"client_id","value":1,"id":1}"#,
        r#"{"filter":1,"id":1}"#,
        r#"{"type":"x","id":1}"#,
        "[]",
        "x",
    ] {
        api.text(0, text);
    }
    let ApiCounters {
        messages,
        errors,
        without_id,
        ..
    } = api.realtime.counters();
    assert_eq!((messages.ping, messages.whoami), (2, 1));
    assert_eq!(
        (messages.client_id, messages.filter, messages.unknown),
        (1, 1, 1)
    );
    assert_eq!((errors.not_json, errors.not_object), (1, 1));
    assert_eq!((errors.invalid_type, errors.invalid_data), (1, 1));
    assert_eq!((errors.invalid_filter, without_id), (1, 1));
}

mod acknowledgements;
