//! Messages of clients, and their replies.

use h_realtime_engine::ws::OpCode;

use crate::support::{Received, Server};

#[test]
fn messages_get_the_expected_replies() {
    let server = Server::start();
    let mut client = server.anonymous();
    for (message, answer) in MESSAGES {
        client.send(message);
        let want: Vec<_> = answer
            .iter()
            .map(|text| Received::Text(expand(text)))
            .collect();
        assert_eq!(client.drain(), want, "{message}");
    }
}

#[test]
fn numeric_id_is_echoed_verbatim() {
    let server = Server::start();
    let mut client = server.anonymous();
    let long = "1".repeat(256);
    for id in [
        "0",
        "-0",
        "1",
        "-7",
        "1.0",
        "0.10",
        "1e2",
        "1E+2",
        "1e-2",
        "-1.50E-07",
        "1e400",
        "-1E400",
        "9007199254740993",
        "18446744073709551616",
        "1e16",
        &long,
    ] {
        for message in [
            format!(r#"{{"type":"ping","id":{id}}}"#),
            format!("{{\"id\" : \t{id}\r\n , \"type\":\"ping\"}}"),
            format!(r#"{{"id":"other","id":{id},"type":"ping"}}"#),
        ] {
            let want = format!(r#"{{"type": "pong", "ok": true, "reply_to": {id}}}"#);
            assert_eq!(client.ask(&message), want);
        }
        let want =
            format!(r#"{{"type": "whoyouare", "userid": null, "ok": true, "reply_to": {id}}}"#);
        assert_eq!(
            client.ask(&format!(r#"{{"type":"whoami","id":{id}}}"#)),
            want
        );
        let error = client.ask(&format!(r#"{{"type":"x","id":{id}}}"#));
        assert!(
            error.ends_with(&format!(r#""ok": false, "reply_to": {id}}}"#)),
            "{error}"
        );
    }
    for id in [
        "true",
        "false",
        "null",
        r#""1""#,
        r#""""#,
        "[]",
        "[1]",
        "{}",
        r#"{"id":1}"#,
        // The last one counts.
        r#"1,"id":"1""#,
        r#"1,"i\u0064":null"#,
    ] {
        for rest in [
            r#""type":"ping""#,
            r#""type":"whoami""#,
            r#""type":"unknown""#,
            r#""type":"client_id""#,
            r#""type":"filter","filter":5"#,
            r#""a":1"#,
        ] {
            client.send(&format!(r#"{{"id":{id},{rest}}}"#));
        }
        assert_eq!(client.drain(), [], "{id}");
    }
}

#[test]
fn messages_without_numeric_id_are_counted() {
    let server = Server::start();
    let mut client = server.anonymous();
    for message in [
        r#"{"type":"ping"}"#,
        r#"{"type":"x","id":true}"#,
        r#"{"id":"1"}"#,
    ] {
        client.send(message);
    }
    assert_eq!(client.drain(), []);
    assert_eq!(server.metric("h_realtime_messages_without_id_total"), 3.0);
    assert_eq!(
        server.metric(r#"h_realtime_client_errors_total{reason="invalid_type"}"#),
        2.0
    );
}

#[test]
fn client_messages_may_arrive_in_any_order() {
    let server = Server::start();
    let messages = [
        r#"{"filter":{"match_policy":"include_any","clauses":[{"field":"/uri","operator":"one_of","value":["http://127.0.0.1:18800/doc1"],"case_sensitive":false}],"actions":{"create":true,"update":true,"delete":true}}}"#,
        r#"{"messageType":"client_id","value":"5c0c6c7a8340d069d4c6105471e516c5"}"#,
        r#"{"type":"whoami","id":1}"#,
    ];
    for order in [
        [0, 1, 2],
        [0, 2, 1],
        [1, 0, 2],
        [1, 2, 0],
        [2, 0, 1],
        [2, 1, 0],
    ] {
        let mut client = server.anonymous();
        for at in order {
            client.send(messages[at]);
        }
        let whoyouare = r#"{"type": "whoyouare", "userid": null, "ok": true, "reply_to": 1}"#;
        assert_eq!(
            client.drain(),
            [Received::Text(whoyouare.to_owned())],
            "{order:?}"
        );
    }
    assert_eq!(server.metric("h_realtime_client_errors_total"), 0.0);
    assert_eq!(
        server.metric(r#"h_realtime_client_messages_total{type="filter"}"#),
        6.0
    );
    assert_eq!(
        server.metric(r#"h_realtime_client_messages_total{type="client_id"}"#),
        6.0
    );
}

#[test]
fn binary_messages_are_accepted() {
    let server = Server::start();
    let mut client = server.anonymous();
    let text = r#"{"type":"ü☃","id":1}"#;
    let utf16 = |unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect::<Vec<_>>();
    let utf32 = |unit: fn(u32) -> [u8; 4]| {
        text.chars()
            .flat_map(|char| unit(char.into()))
            .collect::<Vec<_>>()
    };
    let want = r#"{"type": "error", "error": {"type": "invalid_type", "description": "invalid message type: \"\\u00fc\\u2603\""}, "ok": false, "reply_to": 1}"#;
    for bytes in [
        text.as_bytes().to_vec(),
        [b"\xef\xbb\xbf", text.as_bytes()].concat(),
        utf16(u16::to_le_bytes),
        utf16(u16::to_be_bytes),
        [&b"\xff\xfe"[..], &utf16(u16::to_le_bytes)].concat(),
        [&b"\xfe\xff"[..], &utf16(u16::to_be_bytes)].concat(),
        utf32(u32::to_le_bytes),
        utf32(u32::to_be_bytes),
        [&b"\xff\xfe\0\0"[..], &utf32(u32::to_le_bytes)].concat(),
        [&b"\0\0\xfe\xff"[..], &utf32(u32::to_be_bytes)].concat(),
    ] {
        client.send_frame(true, OpCode::Binary, &bytes);
        assert_eq!(
            client.receive(),
            Received::Text(want.to_owned()),
            "{bytes:x?}"
        );
    }
}

#[test]
fn invalid_json_ends_the_connection() {
    let server = Server::start();
    let mut count = 0.0;
    let nested = "[".repeat(60_000);
    let texts = [
        "",
        " \n ",
        "x",
        "{",
        "}",
        "[1",
        r#"{"type":"#,
        r#"{"type":"ping","id":1,}"#,
        r#"{"type":"ping","id":01}"#,
        r#"{"type":"ping","id":.5}"#,
        r#"{"type":"ping","id":1.}"#,
        r#"{"type":"ping","id":+1}"#,
        r#"{"type":"ping","id":0x1}"#,
        r#"{"type":"ping","id":NaN}"#,
        r#"{"type":"ping","id":-Infinity}"#,
        r#"{"type":"ping","id":1} // x"#,
        "{'type':'ping'}",
        r#"{"type":"ping","id":1}{}"#,
        "{\"type\":\"pi\u{1}ng\",\"id\":1}",
        r#"{"a":"\x"}"#,
        r#"{"a":"\u12"}"#,
        "NaN",
        "Infinity",
        "nul",
        "\u{feff}\u{feff}{}",
        &nested,
    ];
    let texts = texts.map(|text| (OpCode::Text, text.as_bytes()));
    let bytes = [
        &b"{\"type\":\"\xfc\",\"id\":1}"[..], // Latin-1
        b"\xff\xfe{\0}",
        b"{\0}\0\0",
        b"\0",
    ];
    let bytes = bytes.map(|bytes| (OpCode::Binary, bytes));
    for (opcode, payload) in texts.into_iter().chain(bytes) {
        let mut client = server.anonymous();
        client.send(r#"{"type":"ping","id":1}"#);
        client.send_frame(true, opcode, payload);
        client.send(r#"{"type":"ping","id":2}"#);
        client.send_frame(true, OpCode::Ping, b"there?");
        let pong = r#"{"type": "pong", "ok": true, "reply_to": 1}"#;
        assert_eq!(client.receive(), Received::Text(pong.to_owned()));
        let close = Received::Close(Some((1007, "invalid message format".to_owned())));
        assert_eq!(
            client.receive(),
            close,
            "{}",
            String::from_utf8_lossy(payload)
        );
        // Nothing is sent after the close frame, and the client's own ends the connection.
        client.close(1000, "");
        client.expect_end();
        count += 1.0;
    }
    assert_eq!(
        server.metric(r#"h_realtime_client_errors_total{reason="not_json"}"#),
        count
    );
    assert_eq!(
        server.metric(r#"h_realtime_disconnects_total{reason="server"}"#),
        count
    );
}

#[test]
fn json_other_than_objects_is_ignored_and_counted() {
    let server = Server::start();
    let mut client = server.anonymous();
    let nested = format!("{}{}", "[".repeat(30_000), "]".repeat(30_000));
    let texts = [
        "null",
        "true",
        " 1 ",
        "-1e400",
        "\"x\"",
        "\"\\ud800\"",
        "[]",
        r#"[{"type":"ping","id":1}]"#,
        &nested,
    ];
    for text in texts {
        client.send(text);
        assert_eq!(client.drain(), [], "{text}");
    }
    let passed_over = server.metric(r#"h_realtime_client_errors_total{reason="not_object"}"#);
    assert_eq!(passed_over, texts.len() as f64);
}

#[test]
fn long_type_is_truncated_in_the_reply() {
    let server = Server::start();
    let mut client = server.anonymous();
    for count in [10, 21, 22, 10_000, 16_000] {
        // Each of these four-byte characters becomes two escapes.
        let kind = "😀".repeat(count);
        let answer = client.ask(&format!(r#"{{"id":1,"type":"{kind}"}}"#));
        let shown = r"\\ud83d\\ude00".repeat(count.min(21));
        assert!(answer.contains(&shown), "{count}");
        assert_eq!(answer.contains("..."), count > 21, "{count}");
        assert!(answer.len() < 1024, "{count}");
    }
}

#[test]
fn overlong_id_is_an_error() {
    let server = Server::start();
    let mut client = server.anonymous();
    for length in [257, 6_000, 60_000] {
        let id = "1".repeat(length);
        let answer = client.ask(&format!(r#"{{"type":"ping","id":{id}}}"#));
        let want = r#"{"type": "error", "error": {"type": "invalid_data", "description": "\"id\" has more than 256 characters"}, "ok": false, "reply_to": null}"#;
        assert_eq!(answer, want, "{length}");
    }
    let long_id = r#"h_realtime_client_errors_total{reason="long_id"}"#;
    assert_eq!(server.metric(long_id), 3.0);
}

/// Returns the text of an error reply from its short form `ID TYPE DESCRIPTION`.
fn expand(answer: &str) -> String {
    if answer.starts_with('{') {
        return answer.to_owned();
    }
    let mut parts = answer.splitn(3, ' ');
    let [id, kind, description] = [(); 3].map(|()| parts.next().unwrap());
    format!(
        r#"{{"type": "error", "error": {{"type": "{kind}", "description": "{description}"}}, "ok": false, "reply_to": {id}}}"#
    )
}

/// Messages of one connection, and their replies.
const MESSAGES: &[(&str, &[&str])] = &[
    (
        r#"{"type":"ping","id":1}"#,
        &[r#"{"type": "pong", "ok": true, "reply_to": 1}"#],
    ),
    (
        r#"{"type":"whoami","id":2}"#,
        &[r#"{"type": "whoyouare", "userid": null, "ok": true, "reply_to": 2}"#],
    ),
    (
        " \r\n\t{\"type\":\"ping\",\"id\":3} \n",
        &[r#"{"type": "pong", "ok": true, "reply_to": 3}"#],
    ),
    (
        "\u{feff}{\"type\":\"ping\",\"id\":4}",
        &[r#"{"type": "pong", "ok": true, "reply_to": 4}"#],
    ),
    (
        r#"{"type":"ping","id":5,"x":[{}]}"#,
        &[r#"{"type": "pong", "ok": true, "reply_to": 5}"#],
    ),
    // The last of repeated keys counts, however it is escaped.
    (
        r#"{"type":"whoami","type":"\u0070ing","id":1,"id":6}"#,
        &[r#"{"type": "pong", "ok": true, "reply_to": 6}"#],
    ),
    // Client ids.
    (r#"{"type":"client_id","value":"abc","id":10}"#, &[]),
    (r#"{"type":"client_id","value":"","id":11}"#, &[]),
    (r#"{"type":"client_id","value":null,"id":12}"#, &[]),
    (
        r#"{"type":"client_id","id":13}"#,
        &[r#"13 invalid_data \"value\" is missing"#],
    ),
    (r#"{"type":"client_id","value":5,"id":14}"#, &[NO_STRING_14]),
    (
        r#"{"type":"client_id","value":{"a":1},"id":14}"#,
        &[NO_STRING_14],
    ),
    (
        r#"{"type":"client_id","value":["a"],"id":14}"#,
        &[NO_STRING_14],
    ),
    (
        r#"{"type":"client_id","value":false,"id":14}"#,
        &[NO_STRING_14],
    ),
    (
        r#"{"type":"client_id","value":"\ud800","id":14}"#,
        &[NO_STRING_14],
    ),
    (r#"{"type":"client_id"}"#, &[]),
    // The untyped form of old clients.
    (r#"{"messageType":"client_id","value":"abc","id":20}"#, &[]),
    (
        r#"{"type":null,"messageType":"client_id","value":"abc","id":21}"#,
        &[],
    ),
    (
        r#"{"messageType":"client_id","id":22}"#,
        &[r#"22 invalid_data \"value\" is missing"#],
    ),
    (
        r#"{"messageType":"ping","id":23}"#,
        &["23 invalid_type invalid message type: null"],
    ),
    (
        r#"{"messageType":"filter","id":24}"#,
        &["24 invalid_type invalid message type: null"],
    ),
    (
        r#"{"type":"ping","messageType":"client_id","id":25}"#,
        &[r#"{"type": "pong", "ok": true, "reply_to": 25}"#],
    ),
    // Filters; their content is tested elsewhere.
    (
        r#"{"type":"filter","id":30}"#,
        &[r#"30 invalid_data \"filter\" is missing"#],
    ),
    (
        r#"{"type":"filter","filter":null,"id":31}"#,
        &["31 invalid_data failed to parse filter"],
    ),
    (
        r#"{"filter":{},"id":32}"#,
        &["32 invalid_data failed to parse filter"],
    ),
    (
        r#"{"filter":{},"messageType":"client_id","value":"v","id":33}"#,
        &["33 invalid_data failed to parse filter"],
    ),
    (
        r#"{"type":null,"filter":null,"id":34}"#,
        &["34 invalid_data failed to parse filter"],
    ),
    (
        r#"{"filter":{},"type":"ping","id":35}"#,
        &[r#"{"type": "pong", "ok": true, "reply_to": 35}"#],
    ),
    (
        r#"{"filter":{},"type":"x","id":36}"#,
        &[r#"36 invalid_type invalid message type: \"x\""#],
    ),
    (
        r#"{"type":"filter","filter":{"match_policy":"include_any","clauses":[],"actions":{}},"id":37}"#,
        &[],
    ),
    // Unknown types.
    (
        r#"{"id":40}"#,
        &["40 invalid_type invalid message type: null"],
    ),
    (
        r#"{"type":null,"id":41}"#,
        &["41 invalid_type invalid message type: null"],
    ),
    (
        r#"{"type":"","id":42}"#,
        &[r#"42 invalid_type invalid message type: \"\""#],
    ),
    (
        r#"{"type":"ping ","id":43}"#,
        &[r#"43 invalid_type invalid message type: \"ping \""#],
    ),
    (
        r#"{"type":"PING","id":44}"#,
        &[r#"44 invalid_type invalid message type: \"PING\""#],
    ),
    (
        r#"{"TYPE":"ping","id":45}"#,
        &["45 invalid_type invalid message type: null"],
    ),
    (
        r#"{"type":1.0,"id":46}"#,
        &["46 invalid_type invalid message type: 1.0"],
    ),
    (
        r#"{"type":1e400,"id":47}"#,
        &["47 invalid_type invalid message type: 1e400"],
    ),
    (
        r#"{"type":true,"id":48}"#,
        &["48 invalid_type invalid message type: true"],
    ),
    (
        "{\"type\":\"ü☃😀\u{2028}\",\"id\":49}",
        &[r#"49 invalid_type invalid message type: \"\\u00fc\\u2603\\ud83d\\ude00\\u2028\""#],
    ),
    (
        "{\"type\":\"\\ud800\\u0000\\t\\\"\\\\\\/\u{7f}<\",\"id\":50}",
        &[r#"50 invalid_type invalid message type: \"\\ud800\\u0000\\t\\\"\\\\/\\u007f<\""#],
    ),
    (r#"{"type":"x"}"#, &[]),
    // As in h, which fails to look these up and does not reply.
    (r#"{"type":[],"id":51}"#, &[]),
    (r#"{"type":{"a":1},"id":52}"#, &[]),
    (r#"{"type":["ping"],"id":53}"#, &[]),
    // Keys are case-sensitive.
    (r#"{"type":"ping","ID":1}"#, &[]),
    ("{}", &[]),
];

const NO_STRING_14: &str = r#"14 invalid_data \"value\" must be a string or null"#;
