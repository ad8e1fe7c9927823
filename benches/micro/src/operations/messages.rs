//! What clients say, and what they are answered.

use crate::words::{self, CLIENT_ID, HANDSHAKE, PONG, filter, frame, keep, page, sent};

use super::{Operation, Scene, stage};

pub const PING: Operation = Operation {
    name: "ping",
    what: "a JSON ping and its pong, alone in its turn",
    rounds: 2000,
    prepare: |_| pings(1, 1),
};

pub const PING_OF_100: Operation = Operation {
    name: "ping of 100",
    what: "the same, of 100 connections that are ready together",
    rounds: 20,
    prepare: |_| pings(100, 1),
};

pub const PIPELINED: Operation = Operation {
    name: "ping of 16 pipelined",
    what: "the same, 16 in one read of one connection",
    rounds: 200,
    prepare: |_| pings(1, 16),
};

pub const FILTER: Operation = Operation {
    name: "filter",
    what: "a filter of one page in place of another, 1,000 connected",
    rounds: 1000,
    prepare: |_| filters(),
};

/// So many connections say ping so often, all at once.
fn pings(connections: usize, times: usize) -> Scene {
    let mut stage = stage();
    stage.open(connections, &[HANDSHAKE]);
    let words = keep(frame(words::PING).repeat(times));
    Scene::new(stage, sent(PONG), move |stage| {
        stage.say(0..connections, words);
        stage.take_written();
        (connections * times) as u64
    })
}

fn filters() -> Scene {
    let mut stage = stage();
    stage.open(OTHERS, &[HANDSHAKE, keep(frame(CLIENT_ID))]);
    for number in 0..OTHERS {
        stage.say([number], keep(frame(&filter(&[page(number)]))));
    }
    // Two pages that nobody else asks for.
    let words = [OTHERS, OTHERS + 1].map(|number| keep(frame(&filter(&[page(number)]))));
    let mut turns = words.into_iter().cycle();
    Scene::new(stage, 0, move |stage| {
        stage.say([OTHERS / 2], turns.next().expect("it has no end"));
        1
    })
}

/// Connections that have filters.
const OTHERS: usize = 1000;
