//! How the server ends connections: the close codes, and clients that do not reply.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use h_realtime::model::Secret;
use h_realtime_engine::ws::OpCode;
use rustix::process::Signal;
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::support::{Client, PATIENCE, Received, Server, event};

/// 3000, and never 1000 or 1001, after which the official client would not reconnect.
#[test]
fn ended_credentials_close_their_connections() {
    let server = Server::start();
    let [joe, jane] = ["acct:joe@example.org", "acct:jane@example.org"];
    let token = server.user(joe);
    let revoked = server.run(&["token", "create", joe]);
    let janes = server.user(jane);
    let store = server.store();
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap();
    let soon = u64::try_from(now.as_millis()).unwrap() + 1_000;
    store
        .add_token(joe, &Secret("soon over".to_owned()), 0, Some(soon))
        .unwrap();

    let mut stays = [server.logged_in(&token), server.anonymous()];
    let mut ends = [
        (server.logged_in(&revoked), "token revoked"),
        (server.logged_in(&janes), "user deleted"),
        (server.logged_in("soon over"), "token expired"),
    ];
    for (client, _) in &mut ends {
        client.subscribe("/group", "__world__");
    }
    let revoked = store.token_of_secret(&Secret(revoked)).unwrap();
    store.revoke_token(revoked).unwrap();
    store.delete_user(jane).unwrap();
    for (client, reason) in &mut ends {
        let close = Received::Close(Some((3000, (*reason).to_owned())));
        assert_eq!(client.receive(), close);
    }
    // They receive nothing more, and are not treated as anonymous.
    let (_, answer) = server.publish(&event("create", json!({})).to_string());
    assert_eq!(answer["matched"], 0);
    for (client, _) in &mut ends {
        client.close(3000, "");
        client.expect_end();
    }
    for client in &mut stays {
        assert_eq!(client.drain(), []);
    }
    assert_eq!(server.metric("h_realtime_credentials_ended_total"), 3.0);
}

#[test]
fn shutdown_closes_all_connections_with_1012() {
    let mut server = Server::start();
    let mut clients = [(); 5].map(|()| server.anonymous());
    server.signal(Signal::TERM);
    for client in &mut clients {
        let close = Received::Close(Some((1012, "service restart".to_owned())));
        assert_eq!(client.receive(), close);
        client.close(1012, "");
        client.expect_end();
    }
    assert_eq!(server.wait().1, Some(0));
}

#[test]
fn second_signal_ends_the_server_immediately() {
    let mut server = Server::configured("[timeouts]\ndrain = \"10m\"\nclose = \"10m\"\n");
    let mut client = server.anonymous();
    server.signal(Signal::INT);
    assert!(matches!(client.receive(), Received::Close(Some((1012, _)))));
    // The close frame is not answered.
    let start = Instant::now();
    server.signal(Signal::INT);
    server.wait();
    assert!(start.elapsed() < PATIENCE);
    assert_eq!(client.receive(), Received::End);
}

#[test]
fn unanswered_close_frame_is_followed_by_a_cut() {
    let server = Server::configured("[timeouts]\nclose = \"300ms\"\nlinger = \"300ms\"\n");
    let mut client = server.anonymous();
    client.send("not JSON");
    assert!(matches!(client.receive(), Received::Close(Some((1007, _)))));
    client.send(r#"{"type":"ping","id":1}"#);
    assert_eq!(client.receive(), Received::End);
    // Connections half-closed by either side have ended, too.
    let mut client = server.anonymous();
    client.close(1000, "");
    assert!(matches!(client.receive(), Received::Close(Some((1000, _)))));
    client.expect_end();
    let deadline = Instant::now() + PATIENCE;
    while server.metric(r#"h_realtime_connections{state="closing"}"#) > 0.0 {
        assert!(Instant::now() < deadline, "the connection is still open");
    }
}

#[test]
fn idle_client_is_pinged_and_closed_without_a_pong() {
    let server = Server::configured("[timeouts]\nping = \"300ms\"\npong = \"500ms\"\n");
    let mut client = server.anonymous();
    assert_eq!(client.receive(), Received::Ping(Vec::new()));
    // A pong counts as activity, and so does any other input.
    client.send_frame(true, OpCode::Pong, b"");
    assert_eq!(client.receive(), Received::Ping(Vec::new()));
    client.send_frame(true, OpCode::Ping, b"me too");
    assert_eq!(client.receive(), Received::Pong(b"me too".to_vec()));
    assert_eq!(client.receive(), Received::Ping(Vec::new()));
    client.send("[]");
    assert_eq!(client.receive(), Received::Ping(Vec::new()));
    assert_eq!(client.receive(), Received::End);
    assert_eq!(
        server.metric(r#"h_realtime_disconnects_total{reason="timeout"}"#),
        1.0
    );
}

/// The close code is 1013, and other clients are not affected.
#[test]
fn client_that_does_not_read_is_closed() {
    let server = Server::start();
    let mut slow = with_small_buffer(&server);
    let mut other = server.anonymous();
    for client in [&mut slow, &mut other] {
        client.subscribe("/group", "__world__");
    }
    let event = event("create", json!({"text": "x".repeat(60_000)})).to_string();
    let batch = [event.as_str(); 10].join("\n");
    let mut batches = 0;
    while server.metric(r#"h_realtime_disconnects_total{reason="slow"}"#) == 0.0 {
        batches += 1;
        assert!(
            batches < 50,
            "30 MB are queued for a client that does not read"
        );
        assert_eq!(server.publish(&batch).0, 202);
        assert_eq!(other.drain().len(), 10);
        // More than the hard limit may be queued for a second; the events of a batch are held once.
        thread::sleep(Duration::from_millis(300));
    }
    assert!(server.metric("h_realtime_queued_bytes") <= 256.0 * 1024.0);
    assert_eq!(server.publish(&event).1["matched"], 1);
    // Everything before the close frame is complete.
    let mut received = 0;
    let close = loop {
        match slow.receive() {
            Received::Text(text) => {
                assert!(text.ends_with("}]}"), "{text}");
                received += 1;
            }
            other => break other,
        }
    };
    assert_eq!(
        close,
        Received::Close(Some((1013, "too slow in reading".to_owned())))
    );
    assert!(received < batches * 10);
    slow.close(1013, "");
    slow.expect_end();
}

/// Connects a client with a small receive buffer.
fn with_small_buffer(server: &Server) -> Client {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&server.address().into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Client::over(stream, "/ws", "")
}
