//! Sequences of events: none is lost or reordered, and clients that do not read do not delay
//! others.

use std::thread;

use rustix::process::Signal;
use serde_json::Value;
use socket2::SockRef;

use crate::support::{
    Client, PATIENCE, PUBLIC, Received, Server, Site, action_and_id, annotation_event, connect,
    eventually, user_event,
};

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn events_arrive_in_order() {
    let site = Site::new();
    let server = site.server("");
    let mut clients = vec![server.anonymous(), server.user_of_h("nogroups")];
    clients.push(server.user_of_h("alice"));
    let readers: Vec<_> = clients
        .into_iter()
        .map(|mut client| {
            client.subscribe("/id", PUBLIC);
            thread::spawn(move || read_all(client))
        })
        .collect();
    let publisher = site.publisher();
    let session = |n: usize| user_event(&number(n), "acct:alice@localhost", "open1234");
    let users = site.publisher();
    thread::scope(|scope| {
        scope.spawn(move || users.publish_all("user", (0..SESSIONS).map(session)));
        publisher.publish_all("annotation", all());
    });
    let all: Vec<String> = (0..EVENTS).map(number).collect();
    for (reader, is_alice) in readers.into_iter().zip([false, false, true]) {
        let (annotations, sessions) = reader.join().unwrap();
        assert_eq!(annotations, all);
        if is_alice {
            // The last ones may still be in flight: there is no order between the two keys.
            assert_eq!(sessions, all[..sessions.len()]);
        } else {
            assert!(sessions.is_empty(), "{sessions:?}");
        }
    }
    eventually(PATIENCE, || {
        (server.metric("h_realtime_queue_events_total") == (EVENTS + SESSIONS) as f64).then_some(())
    });
    assert_eq!(server.metric("h_realtime_queue_events_dropped_total"), 0.0);
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn slow_readers_are_closed_and_do_not_delay_others() {
    let site = Site::new();
    // More in all than the kernel accepts for one connection (4 MiB) and the server queues (256
    // KiB).
    let longer =
        "SET text = repeat('long ', 1000) WHERE id = '00000001-1111-11e6-8000-000000000001'";
    site.sql(&format!("UPDATE annotation {longer}"));
    let server = site.server("");
    let mut reader = server.anonymous();
    reader.subscribe("/id", PUBLIC);
    let mut stalled: Vec<Client> = (0..5).map(|_| stalled(&server)).collect();
    let reader = thread::spawn(move || read_all(reader));
    site.publisher().publish_all("annotation", all());
    let (annotations, _) = reader.join().unwrap();
    let expected: Vec<String> = (0..EVENTS).map(number).collect();
    assert_eq!(annotations, expected);
    let slow = r#"h_realtime_disconnects_total{reason="slow"}"#;
    eventually(PATIENCE, || (server.metric(slow) == 5.0).then_some(()));
    // Their queues exceeded the limit, and they are closed with 1013.
    for client in &mut stalled {
        // From here on the server's close is read behind the data that the kernel still holds.
        SockRef::from(&client.stream)
            .set_recv_buffer_size(1 << 20)
            .unwrap();
        let end = loop {
            match client.receive() {
                Received::Text(_) => {}
                other => break other,
            }
        };
        assert!(
            matches!(end, Received::Close(Some((1013, _))) | Received::End),
            "{end:?}"
        );
    }
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn suspended_server_catches_up() {
    let site = Site::new();
    let server = site.server("");
    let mut client = server.anonymous();
    client.subscribe("/id", PUBLIC);
    server.signal(Signal::STOP);
    site.publisher().publish_all("annotation", all());
    let reader = thread::spawn(move || read_all(client));
    server.signal(Signal::CONT);
    let expected: Vec<String> = (0..EVENTS).map(number).collect();
    assert_eq!(reader.join().unwrap().0, expected);
}

/// Connects a client with the smallest receive buffer, which does not read.
fn stalled(server: &Server) -> Client {
    let stream = connect(server.address());
    SockRef::from(&stream).set_recv_buffer_size(1024).unwrap();
    let mut client = Client::over(stream, "/ws", "");
    client.subscribe("/id", PUBLIC);
    client
}

/// Returns the actions of all notifications up to the last one, and of all session changes received
/// before it.
fn read_all(mut client: Client) -> (Vec<String>, Vec<String>) {
    let (mut annotations, mut sessions) = (Vec::new(), Vec::new());
    while annotations.len() < EVENTS {
        let message = client.json();
        if message["type"] == "session-change" {
            sessions.push(message["action"].as_str().unwrap().to_owned());
        } else {
            annotations.push(action_and_id(&message).0.to_owned());
        }
    }
    (annotations, sessions)
}

/// Distinguishable events: an action unknown to h is passed on unchanged.
fn all() -> impl Iterator<Item = Value> {
    (0..EVENTS).map(|n| annotation_event(&number(n), PUBLIC))
}

fn number(n: usize) -> String {
    format!("n{n:05}")
}

const EVENTS: usize = 2000;
const SESSIONS: usize = 200;
