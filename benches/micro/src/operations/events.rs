//! Delivery of events to their subscribers.

use h_realtime::model::Plan;

use crate::harness::Harness;
use crate::messages::{
    BROWSER_HANDSHAKE, HANDSHAKE, clauses, event, filter, frame, keep, notification, page, sent,
    sent_as_block, sent_compressed, sent_with_cursor, stream_request, tagged_event,
};
use h_realtime_test_kit::api::Command;

use super::{Operation, Workload, harness};

pub const TO_ONE: Operation = Operation {
    name: "event to 1",
    description: "an event of 600 bytes to 1 subscriber of 1,000 connections",
    rounds: 500,
    prepare: |rounds| {
        let mut harness = harness();
        harness.open(CONNECTIONS, &[HANDSHAKE]);
        for number in 0..CONNECTIONS {
            harness.send([number], keep(frame(&filter(&[page(number)]))));
        }
        deliveries(
            harness,
            CONNECTIONS / 2,
            rounds,
            1,
            1,
            sent(&notification()),
        )
    },
};

pub const TO_1000: Operation = Operation {
    name: "event to 1000",
    description: "the same to 1,000 subscribers, each delivery",
    rounds: 10,
    prepare: |rounds| {
        let harness = subscribers(HANDSHAKE);
        deliveries(harness, 0, rounds, 1, CONNECTIONS, sent(&notification()))
    },
};

pub const TO_1000_STREAMS: Operation = Operation {
    name: "event to 1000 streams",
    description: "the same to 1,000 event streams, each delivery",
    rounds: 10,
    prepare: |rounds| {
        let mut harness = harness();
        harness.open(CONNECTIONS, &[keep(stream_request(&page(0)))]);
        start_history(&mut harness);
        let bytes = sent_as_block(&notification());
        deliveries(harness, 0, rounds, 1, CONNECTIONS, bytes)
    },
};

pub const TO_1000_CURSORS: Operation = Operation {
    name: "event to 1000 cursors",
    description: "the same to 1,000 WebSockets that use cursors, each delivery",
    rounds: 10,
    prepare: |rounds| {
        let mut harness = harness();
        let filter = filter(&[page(0)]).replacen('{', r#"{"since":"now","#, 1);
        harness.open(CONNECTIONS, &[HANDSHAKE, keep(frame(&filter))]);
        start_history(&mut harness);
        let bytes = sent_with_cursor(&notification());
        deliveries(harness, 0, rounds, 1, CONNECTIONS, bytes)
    },
};

pub const BURST: Operation = Operation {
    name: "burst of 10",
    description: "10 such events at once to 1,000, each delivery",
    rounds: 3,
    prepare: |rounds| {
        let harness = subscribers(HANDSHAKE);
        deliveries(harness, 0, rounds, 10, CONNECTIONS, sent(&notification()))
    },
};

pub const COMPRESSED: Operation = Operation {
    name: "event compressed",
    description: "such an event to 1,000 subscribers with compression, each delivery",
    rounds: 10,
    prepare: |rounds| {
        let harness = subscribers(BROWSER_HANDSHAKE);
        deliveries(
            harness,
            0,
            rounds,
            1,
            CONNECTIONS,
            sent_compressed(&notification()),
        )
    },
};

/// Publishes the first event, before which clients with cursors wait for the history.
fn start_history(harness: &mut Harness) {
    harness.publish([Command::Event(event(&page(0)))]);
    harness.take_written();
}

pub const TAGGED: Operation = Operation {
    name: "event with tags",
    description: "as event to 1, with the annotation's author and two tags",
    rounds: 500,
    prepare: |rounds| to_one_beside(rounds, 0, |_| String::new()),
};

pub const BESIDE_OTHER_SITES: Operation = Operation {
    name: "beside other sites",
    description: "the same, and 10,000 filters with wildcards for other sites",
    rounds: 500,
    prepare: |rounds| {
        to_one_beside(rounds, OTHERS, |number| {
            wildcard_filter(&format!("https://site-{number}.example.org/*"))
        })
    },
};

pub const BESIDE_OTHER_PATHS: Operation = Operation {
    name: "beside other paths",
    description: "the same, and 10,000 filters with wildcards for other paths of the same site",
    rounds: 500,
    prepare: |rounds| {
        to_one_beside(rounds, OTHERS, |number| {
            wildcard_filter(&format!("https://example.org/articles/other-{number}/*"))
        })
    },
};

pub const BESIDE_ALL: Operation = Operation {
    name: "beside include_all",
    description: "the same, and 10,000 filters that require the event's group and another author",
    rounds: 500,
    prepare: |rounds| {
        to_one_beside(rounds, OTHERS, |number| {
            let group = r#"{"field":"/group","operator":"equals","value":"__world__"}"#;
            let user = format!(
                r#"{{"field":"/user","operator":"one_of","value":"acct:user{number}@example.org"}}"#
            );
            clauses("include_all", &format!("{group},{user}"))
        })
    },
};

/// Returns a filter with a wildcard pattern.
fn wildcard_filter(pattern: &str) -> String {
    let clause = format!(r#"{{"field":"/wildcard_uri","operator":"one_of","value":"{pattern}"}}"#);
    clauses("include_any", &clause)
}

/// Publishes events with tags to one of 1,000 connections, beside `others` with these filters.
fn to_one_beside(rounds: u64, others: usize, filter_of: fn(usize) -> String) -> Workload {
    let mut harness = harness();
    harness.open(CONNECTIONS, &[HANDSHAKE]);
    for number in 0..CONNECTIONS {
        harness.send([number], keep(frame(&filter(&[page(number)]))));
    }
    harness.open(others, &[HANDSHAKE]);
    for number in 0..others {
        let message = keep(frame(&filter_of(number)));
        harness.send([CONNECTIONS + number], message);
    }
    harness.take_written();
    let about = page(CONNECTIONS / 2);
    let mut plans: Vec<Plan> = (0..rounds).map(|_| tagged_event(&about)).collect();
    Workload::new(harness, sent(&notification()), move |harness| {
        let from = plans.len() - 1;
        harness.publish(plans.drain(from..).map(Command::Event));
        harness.take_written();
        1
    })
}

/// Connections that all subscribe to the same page.
fn subscribers(handshake: &'static [u8]) -> Harness {
    let mut harness = harness();
    harness.open(CONNECTIONS, &[handshake, keep(frame(&filter(&[page(0)])))]);
    harness
}

/// Publishes `burst` events at once about a page with `receivers` subscribers.
fn deliveries(
    mut harness: Harness,
    about: usize,
    rounds: u64,
    burst: usize,
    receivers: usize,
    bytes: usize,
) -> Workload {
    harness.take_written();
    // Creating them is the backend's work and is not counted.
    let count = rounds as usize * burst;
    let mut plans: Vec<Plan> = (0..count).map(|_| event(&page(about))).collect();
    Workload::new(harness, bytes, move |harness| {
        let from = plans.len() - burst;
        harness.publish(plans.drain(from..).map(Command::Event));
        harness.take_written();
        (burst * receivers) as u64
    })
}

/// The number of connections with filters that no event matches.
const OTHERS: usize = 10_000;
/// The number of connections.
const CONNECTIONS: usize = 1000;
