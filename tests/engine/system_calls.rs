//! How many system calls things cost. A `recv` or a `sendmsg` is dearer than all that is done
//! between them, so there is one of each where there can be.

use h_realtime::model::Plan;

use crate::sim::{Calls, Heard, OFFER, Stage, api, client_frame, handshake_with};

fn calls(reads: usize, writes: usize) -> Calls {
    Calls { reads, writes }
}

/// A server with so many open connections that nothing is counted of yet.
fn crowd(size: usize) -> Stage {
    let mut stage = Stage::new(1);
    for number in 0..size {
        assert_eq!(stage.open(), number);
        stage.send(number, TEXT, FILTER);
        stage.calls(number);
    }
    stage
}

fn event(text: &str) -> Plan {
    api::event("__world__", text)
}

#[test]
fn a_handshake_costs_one_read_and_one_write() {
    for fields in ["", OFFER] {
        let mut stage = Stage::new(1);
        let number = stage.connect();
        // The connection is new, and then nothing comes for a while.
        stage.settle();
        assert_eq!(stage.calls(number), calls(0, 0));
        stage.say(number, &handshake_with("/ws", fields));
        stage.settle();
        assert_eq!(stage.hear(number), [Heard::Open]);
        assert_eq!(stage.calls(number), calls(1, 1));
        // It is there when the connection is accepted.
        let number = stage.connect();
        stage.say(number, &handshake_with("/ws", fields));
        stage.settle();
        assert_eq!(stage.hear(number), [Heard::Open]);
        assert_eq!(stage.calls(number), calls(1, 1));
    }
}

#[test]
fn a_round_trip_costs_one_read_and_one_write() {
    for size in [1, 100] {
        let mut stage = crowd(size);
        for number in 0..size {
            stage.say(number, &client_frame(TEXT, PING, MASK));
        }
        // All are ready in the same turn.
        stage.settle();
        for number in 0..size {
            assert_eq!(stage.calls(number), calls(1, 1), "{number} of {size}");
            assert_eq!(stage.hear(number), [Heard::Text(PONG.to_owned())]);
        }
        // So does a ping of the protocol.
        stage.send(0, 0x89, b"are you there?");
        assert_eq!(stage.calls(0), calls(1, 1));
        assert_eq!(stage.hear(0), [Heard::Pong(b"are you there?".to_vec())]);
    }
}

#[test]
fn messages_that_come_together_cost_one_read_and_one_write() {
    let mut stage = crowd(1);
    stage.say(0, &client_frame(TEXT, PING, MASK).repeat(16));
    stage.settle();
    assert_eq!(stage.calls(0), calls(1, 1));
    assert_eq!(stage.hear(0), vec![Heard::Text(PONG.to_owned()); 16]);
}

#[test]
fn a_message_without_an_answer_costs_one_read() {
    let mut stage = crowd(1);
    stage.send(0, TEXT, FILTER);
    assert_eq!(stage.calls(0), calls(1, 0));
    assert_eq!(stage.hear(0), []);
}

// With more receivers than are served in one turn.
#[test]
fn an_event_costs_each_receiver_one_write() {
    let mut stage = crowd(CROWD);
    let bystander = stage.open();
    stage.calls(bystander);
    stage.publish(event("{}"));
    for number in 0..CROWD {
        assert_eq!(stage.calls(number), calls(0, 1), "{number}");
        assert_eq!(stage.hear(number), [Heard::Text("{}".to_owned())]);
    }
    assert_eq!(stage.calls(bystander), calls(0, 0));
}

#[test]
fn a_burst_of_events_costs_each_receiver_one_write() {
    let mut stage = crowd(CROWD);
    let texts: Vec<_> = (0..10).map(|event| format!("[{event}]")).collect();
    stage.publish_all(texts.iter().map(|text| event(text)));
    for number in 0..CROWD {
        assert_eq!(stage.calls(number), calls(0, 1), "{number}");
        let heard = stage.hear(number);
        let want: Vec<_> = texts.iter().cloned().map(Heard::Text).collect();
        assert_eq!(heard, want);
    }
}

// Twice, since the first ping of a connection comes sooner than the others.
#[test]
fn a_heartbeat_costs_one_write_and_one_read() {
    let mut stage = crowd(1);
    for _ in 0..2 {
        let mut turns = 0;
        while stage.hear(0) != [Heard::Ping(Vec::new())] {
            assert_eq!(stage.calls(0), calls(0, 0), "it is idle");
            stage.wait();
            turns += 1;
            assert!(turns < 1000, "no ping comes");
        }
        assert_eq!(stage.calls(0), calls(0, 1));
        stage.send(0, 0x8A, b"");
        assert_eq!(stage.calls(0), calls(1, 0));
    }
}

const TEXT: u8 = 0x81;
const MASK: [u8; 4] = [5, 6, 7, 8];
const PING: &[u8] = br#"{"type":"ping","id":1}"#;
const PONG: &str = r#"{"type": "pong", "ok": true, "reply_to": 1}"#;
const FILTER: &[u8] = br#"{"filter":{"match_policy":"include_any","actions":{},"clauses":[{"field":"/group","operator":"equals","value":"__world__"}]}}"#;
const CROWD: usize = 600;
