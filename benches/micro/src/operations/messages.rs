//! Messages of clients and their replies.

use crate::messages::{self, CLIENT_ID, HANDSHAKE, PONG, filter, frame, keep, page, sent};

use super::{Operation, Workload, harness};

pub const PING: Operation = Operation {
    name: "ping",
    description: "a JSON ping and its pong, alone in its turn",
    rounds: 2000,
    prepare: |_| pings(1, 1),
};

pub const PING_OF_100: Operation = Operation {
    name: "ping of 100",
    description: "the same for 100 connections that are ready together",
    rounds: 20,
    prepare: |_| pings(100, 1),
};

pub const PIPELINED: Operation = Operation {
    name: "ping of 16 pipelined",
    description: "the same, 16 in one read of one connection",
    rounds: 200,
    prepare: |_| pings(1, 16),
};

pub const FILTER: Operation = Operation {
    name: "filter",
    description: "replacing a filter of one page, 1,000 connected",
    rounds: 1000,
    prepare: |_| filters(),
};

/// `connections` connections send `times` pings each, all at once.
fn pings(connections: usize, times: usize) -> Workload {
    let mut harness = harness();
    harness.open(connections, &[HANDSHAKE]);
    let pings = keep(frame(messages::PING).repeat(times));
    Workload::new(harness, sent(PONG), move |harness| {
        harness.send(0..connections, pings);
        harness.take_written();
        (connections * times) as u64
    })
}

fn filters() -> Workload {
    let mut harness = harness();
    harness.open(OTHERS, &[HANDSHAKE, keep(frame(CLIENT_ID))]);
    for number in 0..OTHERS {
        harness.send([number], keep(frame(&filter(&[page(number)]))));
    }
    // Two pages without other subscribers.
    let filters = [OTHERS, OTHERS + 1].map(|number| keep(frame(&filter(&[page(number)]))));
    let mut turns = filters.into_iter().cycle();
    Workload::new(harness, 0, move |harness| {
        harness.send([OTHERS / 2], turns.next().expect("an infinite iterator"));
        1
    })
}

/// The number of connections with filters.
const OTHERS: usize = 1000;
