//! The identity of a client: valid and invalid tokens in the query and in the header.

use h_realtime::model::Secret;
use serde_json::Value;

use crate::support::{Client, Server, connect};

#[test]
fn token_is_read_from_query_then_header() {
    let server = Server::start();
    add_tokens(&server);
    for (target, fields, whose) in TABLE {
        let mut client = Client::open(server.address(), target, fields);
        assert_eq!(whoami(&mut client), whose.userid(), "{target} {fields:?}");
    }
}

#[test]
fn unknown_token_is_refused_if_configured() {
    let server = Server::verbose("[auth]\ninvalid_token = \"reject\"\n");
    add_tokens(&server);
    for (target, fields, whose) in TABLE {
        let mut client = Client::raw(connect(server.address()));
        client.request_websocket(target, fields);
        let answer = client.answer(false).unwrap();
        if *whose != Unknown {
            assert_eq!(answer.status(), 101, "{target} {fields:?}");
            assert_eq!(whoami(&mut client), whose.userid(), "{target} {fields:?}");
            continue;
        }
        assert_eq!(answer.status(), 401, "{target} {fields:?}");
        let reason = "The access token is unknown or has ended.";
        let body = format!(r#"{{"ok": false, "error": "invalid_token", "reason": "{reason}"}}"#);
        assert_eq!(answer.body, body);
        let challenge = r#"Bearer error="invalid_token""#;
        assert_eq!(answer.field("WWW-Authenticate"), Some(challenge));
        assert_eq!(answer.field("Connection"), Some("close"));
        assert_eq!(secret_in(&answer.head), None);
        client.expect_end();
    }
    // Requests that are refused for other reasons are logged.
    let mut client = Client::raw(connect(server.address()));
    client.send_raw(
        b"GET /ws?access_token=alices-secret HTTP/1.1\r\nAuthorization : bobs-secret\r\n\r\n",
    );
    assert_eq!(client.answer(false).unwrap().status(), 400);
    client.expect_end();
    let log = server.log_with("refused");
    assert!(log.contains("DEBUG"), "{log}");
    assert_eq!(secret_in(&log), None);
}

#[test]
fn token_is_only_checked_for_valid_handshakes() {
    let server = Server::configured("[auth]\ninvalid_token = \"reject\"\n");
    for (target, fields, status) in [
        (
            "/ws?access_token=unknown",
            "Sec-WebSocket-Version: 13\r\n",
            400,
        ),
        ("/nope?access_token=unknown", "", 404),
        ("/_status?access_token=unknown", "", 200),
        ("/_status", "Authorization: Bearer unknown\r\n", 200),
    ] {
        let mut client = Client::raw(connect(server.address()));
        client.request_websocket(target, fields);
        assert_eq!(client.answer(false).unwrap().status(), status, "{target}");
    }
}

#[test]
fn userid_keeps_its_stored_spelling() {
    let server = Server::start();
    for (userid, ascii) in [
        ("acct:Jo.Ann@example.org", "acct:Jo.Ann@example.org"),
        (
            "acct:zoë😀@example.org",
            r"acct:zo\u00eb\ud83d\ude00@example.org",
        ),
        ("acct:a@b@c", "acct:a@b@c"),
        (r#"acct:"\@c"#, r#"acct:\"\\@c"#),
    ] {
        let token = server.user(userid);
        let answer = server
            .logged_in(&token)
            .ask(r#"{"type": "whoami", "id": 1}"#);
        let want =
            format!(r#"{{"type": "whoyouare", "userid": "{ascii}", "ok": true, "reply_to": 1}}"#);
        assert_eq!(answer, want);
    }
}

/// The owner of the token in a request.
#[derive(Clone, Copy, PartialEq)]
enum Owner {
    Alices,
    Bobs,
    /// The token is unknown or has expired.
    Unknown,
    /// No token.
    None,
}

impl Owner {
    fn userid(self) -> Value {
        match self {
            Alices => ALICE.into(),
            Bobs => BOB.into(),
            Unknown | Owner::None => Value::Null,
        }
    }
}

use Owner::{Alices, Bobs, Unknown};

/// Target, fields, and the owner of the token.
const TABLE: &[(&str, &str, Owner)] = &[
    ("/ws", "", Owner::None),
    ("/ws?access_token=alices-secret", "", Alices),
    ("/ws?a=b&access_token=alices-secret&c", "", Alices),
    ("/%77s?access%5Ftoken=alices%2Dsecret", "", Alices),
    ("/ws", "Authorization: Bearer alices-secret\r\n", Alices),
    (
        "/ws",
        "authorization:Bearer    alices-secret   \r\n",
        Alices,
    ),
    // The query wins, even if it is invalid.
    ("/ws?access_token=alices-secret", BOBS_HEADER, Alices),
    ("/ws?access_token=unknown-secret", BOBS_HEADER, Unknown),
    ("/ws?access_token=", BOBS_HEADER, Unknown),
    ("/ws?access_token", BOBS_HEADER, Unknown),
    ("/ws?token=alices-secret", BOBS_HEADER, Bobs),
    // The last of several values counts.
    (
        "/ws?access_token=alices-secret&access_token=bobs-secret",
        "",
        Bobs,
    ),
    (
        "/ws?access_token=unknown-secret&access_token=bobs-secret",
        "",
        Bobs,
    ),
    ("/ws?access_token=alices-secret&access_token=", "", Unknown),
    // The name is case-sensitive, and only `&` is a separator.
    ("/ws?ACCESS_TOKEN=alices-secret", "", Owner::None),
    ("/ws?a=b;access_token=alices-secret", "", Owner::None),
    // A query is decoded like a form; a header is not.
    ("/ws?access_token=bobs+secret+with+spaces", "", Bobs),
    ("/ws?access_token=bobs%20secret%20with%20spaces", "", Bobs),
    (
        "/ws?access_token=bobs%2Bsecret%2Bwith%2Bspaces",
        "",
        Unknown,
    ),
    (
        "/ws",
        "Authorization: Bearer bobs secret with spaces\r\n",
        Bobs,
    ),
    (
        "/ws",
        "Authorization: Bearer bobs+secret+with+spaces\r\n",
        Unknown,
    ),
    // Invalid tokens.
    ("/ws?access_token=alices-secret%20", "", Unknown),
    ("/ws?access_token=alices-secret%00", "", Unknown),
    ("/ws?access_token=%00", "", Unknown),
    ("/ws?access_token=%ff", "", Unknown),
    // One case-sensitive scheme, followed by a token.
    (
        "/ws",
        "Authorization: bearer alices-secret\r\n",
        Owner::None,
    ),
    (
        "/ws",
        "Authorization: BEARER alices-secret\r\n",
        Owner::None,
    ),
    (
        "/ws",
        "Authorization: Bearer\talices-secret\r\n",
        Owner::None,
    ),
    ("/ws", "Authorization: Bearer \r\n", Owner::None),
    ("/ws", "Authorization: Basic YWxpY2U6eA==\r\n", Owner::None),
    ("/ws", "Authorization: Token alices-secret\r\n", Owner::None),
    ("/ws", "Authorization: alices-secret\r\n", Owner::None),
    ("/ws", "Authorization:\r\n", Owner::None),
    ("/ws", "Cookie: access_token=alices-secret\r\n", Owner::None),
    // h joins repeated fields with a comma, which is not valid in a token.
    (
        "/ws",
        "Authorization: Bearer alices-secret, Bearer bobs-secret\r\n",
        Unknown,
    ),
    (
        "/ws",
        "Authorization: Bearer alices-secret\r\nAuthorization: Bearer bobs-secret\r\n",
        Unknown,
    ),
    // Tokens that are unknown, have expired, or belonged to a deleted user.
    ("/ws", "Authorization: Bearer unknown-secret\r\n", Unknown),
    ("/ws", "Authorization: Bearer ALICES-SECRET\r\n", Unknown),
    ("/ws", "Authorization: Bearer expired-secret\r\n", Unknown),
    ("/ws?access_token=expired-secret", "", Unknown),
    ("/ws?access_token=carols-secret", "", Unknown),
];

const BOBS_HEADER: &str = "Authorization: Bearer bobs-secret\r\n";
const ALICE: &str = "acct:alice@example.org";
const BOB: &str = "acct:bob@example.org";
const CAROL: &str = "acct:carol@example.org";

fn add_tokens(server: &Server) {
    let store = server.store();
    for userid in [ALICE, BOB, CAROL] {
        store.add_user(userid, None, 0).unwrap();
    }
    for (userid, token, expires) in [
        (ALICE, "alices-secret", Some(u64::MAX >> 1)),
        (ALICE, "expired-secret", Some(1)),
        (BOB, "bobs-secret", None),
        (BOB, "bobs secret with spaces", None),
        (CAROL, "carols-secret", None),
    ] {
        store
            .add_token(userid, &Secret(token.to_owned()), 0, expires)
            .unwrap();
    }
    store.delete_user(CAROL).unwrap();
}

/// Returns a line with a token: all tokens contain this word.
fn secret_in(text: &str) -> Option<&str> {
    text.lines()
        .find(|line| line.to_ascii_lowercase().contains("secret"))
}

fn whoami(client: &mut Client) -> Value {
    let answer = client.ask(r#"{"type": "whoami", "id": 1}"#);
    serde_json::from_str::<Value>(&answer).unwrap()["userid"].take()
}
