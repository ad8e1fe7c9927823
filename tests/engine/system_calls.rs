//! The number of system calls of operations. A `recv` or `sendmsg` costs more than all processing
//! in between, so there is only one of each wherever possible.

use h_realtime::model::Plan;

use crate::sim::{ApiHarness, Calls, ClientEvent, OFFER, api, client_frame, handshake_with};

fn calls(reads: usize, writes: usize) -> Calls {
    Calls { reads, writes }
}

/// Opens connections, and resets the counters.
fn open_connections(size: usize) -> ApiHarness {
    let mut harness = ApiHarness::new(1);
    for number in 0..size {
        assert_eq!(harness.open(), number);
        harness.send(number, TEXT, FILTER);
        harness.calls(number);
    }
    harness
}

fn event(text: &str) -> Plan {
    api::event("__world__", text)
}

#[test]
fn handshake_takes_one_read_and_one_write() {
    for fields in ["", OFFER] {
        let mut harness = ApiHarness::new(1);
        let number = harness.connect();
        // A new connection without input for a while.
        harness.settle();
        assert_eq!(harness.calls(number), calls(0, 0));
        harness.say(number, &handshake_with("/ws", fields));
        harness.settle();
        assert_eq!(harness.receive_events(number), [ClientEvent::Open]);
        assert_eq!(harness.calls(number), calls(1, 1));
        // Input is available when the connection is accepted.
        let number = harness.connect();
        harness.say(number, &handshake_with("/ws", fields));
        harness.settle();
        assert_eq!(harness.receive_events(number), [ClientEvent::Open]);
        assert_eq!(harness.calls(number), calls(1, 1));
    }
}

#[test]
fn round_trip_takes_one_read_and_one_write() {
    for size in [1, 100] {
        let mut harness = open_connections(size);
        for number in 0..size {
            harness.say(number, &client_frame(TEXT, PING, MASK));
        }
        // All are ready in the same turn.
        harness.settle();
        for number in 0..size {
            assert_eq!(harness.calls(number), calls(1, 1), "{number} of {size}");
            assert_eq!(
                harness.receive_events(number),
                [ClientEvent::Text(PONG.to_owned())]
            );
        }
        // The same for a protocol ping.
        harness.send(0, 0x89, b"are you there?");
        assert_eq!(harness.calls(0), calls(1, 1));
        assert_eq!(
            harness.receive_events(0),
            [ClientEvent::Pong(b"are you there?".to_vec())]
        );
    }
}

#[test]
fn coalesced_messages_take_one_read_and_one_write() {
    let mut harness = open_connections(1);
    harness.say(0, &client_frame(TEXT, PING, MASK).repeat(16));
    harness.settle();
    assert_eq!(harness.calls(0), calls(1, 1));
    assert_eq!(
        harness.receive_events(0),
        vec![ClientEvent::Text(PONG.to_owned()); 16]
    );
}

#[test]
fn message_without_reply_takes_one_read() {
    let mut harness = open_connections(1);
    harness.send(0, TEXT, FILTER);
    assert_eq!(harness.calls(0), calls(1, 0));
    assert_eq!(harness.receive_events(0), []);
}

// With more receivers than are served in one turn.
#[test]
fn event_takes_one_write_per_receiver() {
    let mut harness = open_connections(CONNECTIONS);
    let bystander = harness.open();
    harness.calls(bystander);
    harness.publish(event("{}"));
    for number in 0..CONNECTIONS {
        assert_eq!(harness.calls(number), calls(0, 1), "{number}");
        assert_eq!(
            harness.receive_events(number),
            [ClientEvent::Text("{}".to_owned())]
        );
    }
    assert_eq!(harness.calls(bystander), calls(0, 0));
}

#[test]
fn burst_of_events_takes_one_write_per_receiver() {
    let mut harness = open_connections(CONNECTIONS);
    let texts: Vec<_> = (0..10).map(|event| format!("[{event}]")).collect();
    harness.publish_all(texts.iter().map(|text| event(text)));
    for number in 0..CONNECTIONS {
        assert_eq!(harness.calls(number), calls(0, 1), "{number}");
        let events = harness.receive_events(number);
        let want: Vec<_> = texts.iter().cloned().map(ClientEvent::Text).collect();
        assert_eq!(events, want);
    }
}

// Twice, since the first ping of a connection comes earlier.
#[test]
fn ping_and_pong_take_one_write_and_one_read() {
    let mut harness = open_connections(1);
    for _ in 0..2 {
        let mut turns = 0;
        while harness.receive_events(0) != [ClientEvent::Ping(Vec::new())] {
            assert_eq!(harness.calls(0), calls(0, 0), "the connection is idle");
            harness.wait();
            turns += 1;
            assert!(turns < 1000, "no ping was sent");
        }
        assert_eq!(harness.calls(0), calls(0, 1));
        harness.send(0, 0x8A, b"");
        assert_eq!(harness.calls(0), calls(1, 0));
    }
}

const TEXT: u8 = 0x81;
const MASK: [u8; 4] = [5, 6, 7, 8];
const PING: &[u8] = br#"{"type":"ping","id":1}"#;
const PONG: &str = r#"{"type": "pong", "ok": true, "reply_to": 1}"#;
const FILTER: &[u8] = br#"{"filter":{"match_policy":"include_any","actions":{},"clauses":[{"field":"/group","operator":"equals","value":"__world__"}]}}"#;
const CONNECTIONS: usize = 600;
