//! Publishing over the real admin listener: accepted and refused requests, and the notifications
//! that arrive.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Client, PATIENCE, Received, Server, http};

/// Returns the smallest accepted annotation.
fn minimal(id: &str) -> Value {
    json!({"id": id, "user": AUTHOR, "uri": PAGE, "permissions": {"read": ["group:__world__"]}})
}

fn create(annotation: &Value) -> Value {
    json!({"topic": "annotation", "action": "create", "annotation": annotation})
}

/// Returns a valid line of a body.
fn event(id: &str) -> String {
    create(&minimal(id)).to_string()
}

fn reader(server: &Server) -> Client {
    let mut reader = server.anonymous();
    reader.subscribe("/uri", PAGE);
    reader
}

fn received_texts(client: &mut Client) -> Vec<String> {
    let text = |received| match received {
        Received::Text(text) => text,
        other => panic!("{other:?}"),
    };
    client.drain().into_iter().map(text).collect()
}

/// Returns the ids of the received annotations.
fn ids(client: &mut Client) -> Vec<String> {
    let id = |text: String| {
        let message: Value = serde_json::from_str(&text).unwrap();
        message["payload"][0]["id"].as_str().unwrap().to_owned()
    };
    received_texts(client).into_iter().map(id).collect()
}

fn post(server: &Server, target: &str, body: &str) -> (u16, Value) {
    let request = format!(
        "POST {target} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        server.admin,
        server.publish_key(),
        body.len()
    );
    let (status, _, body) = http(server.admin, request.as_bytes());
    (status, serde_json::from_str(&body).unwrap())
}

#[test]
fn body_is_one_object_or_lines_and_returns_matches() {
    let server = Server::start();
    let (mut one, mut other) = (reader(&server), server.anonymous());
    other.subscribe("/id", "B");
    let pretty = serde_json::to_string_pretty(&create(&minimal("A"))).unwrap();
    let lines = format!("{}\r\n\n{}\n{}\n", event("A"), event("B"), event("C"));
    for (target, body, answer) in [
        ("/events", &pretty, json!({"accepted": 1, "matched": 1})),
        ("/events", &lines, json!({"accepted": 3, "matched": 4})),
        (
            "/events?each=1",
            &lines,
            json!({"accepted": 3, "matched": 4, "each": [1, 2, 1]}),
        ),
        (
            "/events?each=0",
            &lines,
            json!({"accepted": 3, "matched": 4}),
        ),
    ] {
        assert_eq!(post(&server, target, body), (202, answer), "{target}");
    }
    let lines = ["A", "B", "C"];
    let expected = [&["A"], &lines[..], &lines, &lines].concat();
    assert_eq!(ids(&mut one), expected);
    assert_eq!(ids(&mut other), ["B", "B", "B"]);
}

#[test]
fn body_with_an_invalid_line_publishes_nothing() {
    let server = Server::start();
    let mut reader = reader(&server);
    let with = |key: &str, value: Value| {
        let mut annotation = minimal("X");
        annotation[key] = value;
        create(&annotation).to_string()
    };
    let good = event("A");
    for (bad, reason) in [
        ("nonsense".to_owned(), "not JSON at column 2"),
        ("[]".to_owned(), "not a JSON object"),
        ("{\"topic\":\"weather\"}".to_owned(), "topic must be"),
        (with("id", json!("")), "annotation.id is empty"),
        (with("user", json!(null)), "annotation.user is missing"),
        (with("uri", json!(null)), "annotation.uri is missing"),
        (with("permissions", json!(null)), "permissions.read"),
        (
            with("permissions", json!({"read": ["everyone"]})),
            "has \"everyone\"",
        ),
        (with("tags", json!("one")), "annotation.tags must be"),
        (
            json!({"topic": "annotation", "action": "delete", "annotation_id": "A"}).to_string(),
            "annotation is missing",
        ),
    ] {
        for (body, line) in [
            (format!("{good}\n{bad}"), 2),
            (format!("{good}\n\n{good}\n{bad}\n{good}\n"), 4),
        ] {
            let (status, answer) = server.publish(&body);
            assert_eq!(status, 400, "{body}");
            assert_eq!(answer["error"], "invalid_event");
            assert_eq!(answer["line"], line, "{body}");
            let found = answer["reason"].as_str().unwrap();
            assert!(found.contains(reason), "{bad}: {found}");
        }
    }
    assert_eq!(server.publish("").0, 400);
    assert_eq!(ids(&mut reader), [] as [&str; 0]);
    assert_eq!(server.metric("h_realtime_events_received_total"), 0.0);
    assert_eq!(server.publish(&good).0, 202);
    assert_eq!(ids(&mut reader), ["A"]);
}

#[test]
fn members_that_the_official_client_needs_are_added() {
    let server = Server::start();
    server.run(&["user", "add", AUTHOR, "--display-name", "Ann Author"]);
    let mut reader = reader(&server);
    server.publish(&event("A"));
    let received_texts = received_texts(&mut reader);
    let mut message: Value = serde_json::from_str(&received_texts[0]).unwrap();
    let annotation = message["payload"][0].as_object_mut().unwrap();
    for key in ["created", "updated"] {
        let time = annotation.remove(key).unwrap();
        let shape: String = time
            .as_str()
            .unwrap()
            .chars()
            .map(|c| if c.is_ascii_digit() { '0' } else { c })
            .collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000000+00:00");
    }
    let expected = json!({
        "type": "annotation-notification", "options": {"action": "create"}, "payload": [{
            "id": "A", "user": AUTHOR, "uri": PAGE, "text": "", "tags": [], "group": "__world__",
            "permissions": {"read": ["group:__world__"], "admin": [AUTHOR], "update": [AUTHOR],
                            "delete": [AUTHOR]},
            "target": [{"source": PAGE}], "document": {}, "links": {}, "actions": [],
            "mentions": [], "user_info": {"display_name": "Ann Author"}, "flagged": false,
            "hidden": false,
        }],
    });
    assert_eq!(message, expected);
}

#[test]
fn numbers_and_unknown_keys_are_passed_on_verbatim() {
    let server = Server::start();
    let mut reader = reader(&server);
    let kept = [
        r#""x-price":1.50"#,
        r#""x-big":123456789012345678901234567890"#,
        r#""x-zero":-0.0"#,
        r#""x-nested":{"b":[1,{"a":null}],"a":true}"#,
        r#""text":"née \u0000 \"x\" 💬""#,
    ];
    let annotation = event("A").replacen(
        r#""id":"A""#,
        &[&kept.join(","), r#""id":"A""#].join(","),
        1,
    );
    assert_eq!(server.publish(&annotation).0, 202);
    let text = received_texts(&mut reader).remove(0);
    for part in kept {
        assert!(text.contains(part), "{part}: {text}");
    }
}

// CVE-2021-33880
#[test]
fn publishing_needs_the_key_and_refusals_are_identical() {
    let server = Server::start();
    let mut reader = reader(&server);
    let key = server.publish_key();
    let body = event("A");
    let answer = |field: &str| {
        let request = format!(
            "POST /events HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n\
             {field}\r\n{body}",
            server.admin,
            body.len()
        );
        let (status, head, body) = http(server.admin, request.as_bytes());
        let is_date = |line: &&str| line.starts_with("Date:");
        let head: Vec<_> = head.lines().filter(|line| !is_date(line)).collect();
        (status, head.join("\r\n"), body)
    };
    let without = answer("");
    assert_eq!(without.0, 401);
    assert!(without.1.contains("\r\nWWW-Authenticate: Bearer"));
    for field in [
        "Authorization: Bearer \r\n".to_owned(),
        "Authorization: Bearer wrong\r\n".to_owned(),
        format!("Authorization: Bearer {}\r\n", &key[..key.len() - 1]),
        format!("Authorization: Bearer {key}x\r\n"),
        format!("Authorization: Bearer {}\r\n", key.to_lowercase()),
        format!("Authorization: Basic {key}\r\n"),
        format!("Authorization: {key}\r\n"),
        format!("Authorization: Bearer {key}\r\nAuthorization: Bearer {key}\r\n"),
        format!("X-Authorization: Bearer {key}\r\n"),
    ] {
        assert_eq!(answer(&field), without, "{field}");
    }
    let lower = format!("Authorization: bearer {key}\r\n");
    assert_eq!(answer(&lower).0, 202);
    assert_eq!(ids(&mut reader).len(), 1);
    let query = format!("/events?access_token={key}&key={key}");
    let request = format!(
        "POST {query} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
        server.admin
    );
    assert_eq!(http(server.admin, request.as_bytes()).0, 401);
    assert_eq!(ids(&mut reader), [] as [&str; 0]);
    assert!(!server.log().contains(&key));
    // A user's token is not a publish key.
    let token = server.user(AUTHOR);
    assert_eq!(
        answer(&format!("Authorization: Bearer {token}\r\n")),
        without
    );
    assert_eq!(answer(&format!("Authorization: Bearer {key}\r\n")).0, 202);
}

#[test]
fn body_length_is_limited() {
    let server = Server::start();
    let line = event("A");
    let padding = " ".repeat(MAX_BODY - line.len());
    assert_eq!(server.publish(&format!("{line}{padding}")).0, 202);
    // A body whose announced length exceeds the limit is refused at once.
    for length in [MAX_BODY + 1, 1 << 40, 999_999_999_999_999_999] {
        let request = format!(
            "POST /events HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\
             Content-Length: {length}\r\n\r\n",
            server.admin,
            server.publish_key()
        );
        assert_eq!(http(server.admin, request.as_bytes()).0, 413, "{length}");
    }
}

/// Returns the head of a request to publish `body`, which asks to close the connection.
fn head(server: &Server, body: &str, fields: &str) -> String {
    format!(
        "POST /events HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\nContent-Length: {}\r\n\
         {fields}\r\n",
        server.admin,
        server.publish_key(),
        body.len()
    )
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn rest(mut stream: TcpStream) -> String {
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn expect_100_continue_gets_100_or_a_refusal() {
    let server = Server::start();
    let mut reader = reader(&server);
    let body = event("A");
    let fields = "Expect: 100-continue\r\nConnection: close\r\n";
    let mut stream = connect(server.admin);
    stream
        .write_all(head(&server, &body, fields).as_bytes())
        .unwrap();
    let mut permission = [0; 25];
    stream.read_exact(&mut permission).unwrap();
    assert_eq!(&permission, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(body.as_bytes()).unwrap();
    let answer = rest(stream);
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert_eq!(ids(&mut reader), ["A"]);

    // A client that does not wait for the 100 does not need it.
    let request = head(&server, &body, fields) + &body;
    let (status, _, _) = http(server.admin, request.as_bytes());
    assert_eq!(status, 202);
    // A client does not have to send a body that will be refused.
    let wrong = head(&server, &body, fields).replace("Bearer ", "Bearer x");
    assert_eq!(http(server.admin, wrong.as_bytes()).0, 401);
    let large = head(&server, &" ".repeat(MAX_BODY + 1), fields);
    let (status, _, reason) = http(server.admin, large.as_bytes());
    assert_eq!(status, 413);
    assert!(reason.contains("must not exceed 1 MiB"), "{reason}");
}

#[test]
fn requests_may_arrive_byte_by_byte_and_pipelined() {
    let server = Server::start();
    let mut reader = reader(&server);
    let body = event("A");
    let request =
        head(&server, &body, "") + &body + &head(&server, &body, "Connection: close\r\n") + &body;
    let mut stream = connect(server.admin);
    for byte in request.as_bytes() {
        stream.write_all(&[*byte]).unwrap();
    }
    let answers = rest(stream);
    assert_eq!(answers.matches("HTTP/1.1 202 ").count(), 2, "{answers}");

    let mut stream = connect(server.admin);
    stream.write_all(request.as_bytes()).unwrap();
    let answers = rest(stream);
    assert_eq!(answers.matches("HTTP/1.1 202 ").count(), 2, "{answers}");
    assert_eq!(ids(&mut reader), ["A"; 4]);
}

/// An event is not sent to its originating client, if it is known; a `null` excludes none.
#[test]
fn event_is_not_sent_to_its_originating_client() {
    let server = Server::start();
    let (mut named, mut unnamed) = (reader(&server), reader(&server));
    named.send(r#"{"messageType": "client_id", "value": "me"}"#);
    named.drain();
    for (sender, matched) in [(json!("me"), 1), (json!("you"), 2), (json!(null), 2)] {
        let mut event = create(&minimal("A"));
        event["src_client_id"] = sender;
        let (_, answer) = server.publish(&event.to_string());
        assert_eq!(answer["matched"], matched);
    }
    assert_eq!((ids(&mut named).len(), ids(&mut unnamed).len()), (2, 3));
}

#[test]
fn session_changes_reach_all_connections_of_the_user_only() {
    let server = Server::start();
    let token = server.user(AUTHOR);
    let (mut first, mut second) = (server.logged_in(&token), server.logged_in(&token));
    let mut other = reader(&server);
    let model = json!({"userid": AUTHOR, "groups": [{"id": "g", "name": "G", "public": false}],
                       "features": {}, "preferences": {"x": 1.50}});
    let event = json!({"topic": "user", "type": "group-join", "userid": AUTHOR, "group": "g",
                       "session_model": model});
    let answer = json!({"accepted": 1, "matched": 2});
    assert_eq!(server.publish(&event.to_string()), (202, answer));
    let expected = json!({"type": "session-change", "action": "group-join", "model": model});
    for client in [&mut first, &mut second] {
        assert_eq!(client.json(), expected);
    }
    assert_eq!(other.drain(), []);
}

// R7, W6
/// A connection that never reads is cut once too much output is queued; neither publishers nor
/// other readers are delayed.
#[test]
fn slow_reader_delays_neither_publishers_nor_readers() {
    let server = Server::start();
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.address().into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut slow = Client::over(stream, "/ws", "");
    slow.subscribe("/uri", PAGE);
    let mut quick = reader(&server);

    let mut annotation = minimal("A");
    annotation["text"] = json!("x".repeat(200_000));
    let event = create(&annotation).to_string();
    let mut longest = Duration::ZERO;
    let mut count = 0;
    while server.metric("h_realtime_disconnects_total") == 0.0 {
        let since = Instant::now();
        assert_eq!(server.publish(&event).0, 202);
        longest = longest.max(since.elapsed());
        assert_eq!(quick.drain().len(), 1);
        count += 1;
        assert!(count < 200, "it was never cut");
    }
    assert!(longest < Duration::from_secs(5), "{longest:?}");
    assert!(slow_ends(&mut slow) < count);
    assert_eq!(quick.drain(), []);
}

/// Returns the number of messages before the end, which must be the one for slow readers.
fn slow_ends(slow: &mut Client) -> usize {
    let mut count = 0;
    loop {
        match slow.receive() {
            Received::Text(_) => count += 1,
            Received::Close(Some((code, _))) => {
                assert_eq!(code, 1013);
                return count;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// While the backend is busy with large requests, others time out.
#[test]
fn publisher_with_503_has_published_nothing() {
    let server = Server::configured("[timeouts]\npublish = \"100ms\"\nping = \"1h\"");
    let mut reader = server.anonymous();
    let ids: Vec<String> = (0..6).map(|number| format!("last-{number}")).collect();
    let watched = [&ids[..], &["end".to_owned()]].concat();
    let clause = json!({"field": "/id", "operator": "one_of", "value": watched});
    reader.send(&crate::support::filter(json!([clause])).to_string());
    assert_eq!(reader.drain(), []);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let publish = |id| {
            let fill = event("fill") + "\n";
            let body = fill.repeat(MAX_BODY / 2 / fill.len()) + &event(id);
            server.publish(&body).0
        };
        let threads = ids.iter().map(|id| scope.spawn(move || publish(id)));
        let threads: Vec<_> = threads.collect();
        let join = threads.into_iter().map(|thread| thread.join().unwrap());
        join.collect()
    });
    assert!(
        statuses.contains(&503),
        "the backend was not busy: {statuses:?}"
    );
    // The backend processes requests in order: once this one is answered, all are.
    crate::support::eventually(3 * PATIENCE, || {
        let (status, _) = server.publish(&event("end"));
        assert!([202, 503].contains(&status), "{status}");
        (status == 202).then_some(())
    });
    let published = ids
        .iter()
        .zip(&statuses)
        .filter(|(_, status)| **status == 202);
    let mut expected: Vec<&str> = published.map(|(id, _)| &**id).chain(["end"]).collect();
    let mut received = self::ids(&mut reader);
    expected.sort_unstable();
    received.sort_unstable();
    assert_eq!(received, expected, "{statuses:?}");
    let cancelled = "h_realtime_publish_refusals_total{reason=\"cancelled\"}";
    assert!(server.metric(cancelled) >= 1.0);
}

const PAGE: &str = "https://example.org/page";
const AUTHOR: &str = "acct:author@example.org";
/// The maximum length of a body, in bytes.
const MAX_BODY: usize = 1024 * 1024;
