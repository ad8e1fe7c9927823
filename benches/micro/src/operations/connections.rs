//! Short-lived and idle connections.

use std::time::Duration;

use h_realtime_engine::ws::OpCode;

use crate::harness::Harness;
use crate::messages::{
    BROWSER_HANDSHAKE, CLIENT_ID, HANDSHAKE, control, filter, frame, keep, page, response,
    stream_request,
};

use super::{Operation, Workload, config, harness};

pub const UPGRADE: Operation = Operation {
    name: "upgrade",
    description: "a browser connects and is answered 101",
    rounds: 500,
    prepare: |_| {
        let bytes = response(BROWSER_HANDSHAKE).len();
        let mut harness = harness();
        harness.connect();
        harness.finish_turn();
        Workload::new(harness, bytes, |harness| {
            // The next one is accepted in the turn in which the one before is answered.
            let next = harness.connect();
            harness.send([next - 1], BROWSER_HANDSHAKE);
            harness.take_written();
            1
        })
    },
};

pub const VISIT: Operation = Operation {
    name: "visit",
    description: "a browser connects, sets client id and filter, and leaves",
    rounds: 500,
    prepare: |_| short_visits(),
};

pub const HEARTBEAT: Operation = Operation {
    name: "heartbeat",
    description: "a ping to a silent connection, and its pong, 1,000 connected",
    rounds: 400,
    prepare: |_| heartbeats(),
};

pub const IDLE: Operation = Operation {
    name: "idle",
    description: "the clock's tick (2 a second), 1,000 connected with nothing due",
    rounds: 2000,
    prepare: |_| idle_ticks(),
};

pub const COMMENT: Operation = Operation {
    name: "comment",
    description: "a comment to a silent event stream, 1,000 connected",
    rounds: 400,
    prepare: |_| comments(),
};

fn short_visits() -> Workload {
    let close_frame = 1000_u16.to_be_bytes();
    // The response to the close frame is a frame of four bytes.
    let bytes = response(BROWSER_HANDSHAKE).len() + 2 + close_frame.len();
    let subscription = keep([frame(CLIENT_ID), frame(&filter(&[page(1)]))].concat());
    let close_frame = keep(control(OpCode::Close, &close_frame));
    let mut harness = harness();
    harness.connect();
    harness.finish_turn();
    Workload::new(harness, bytes, move |harness| {
        // The next one is accepted in the turn in which this one is answered.
        harness.connect();
        harness.send([0], BROWSER_HANDSHAKE);
        harness.send([0], subscription);
        harness.send([0], close_frame);
        harness.disconnect(0);
        harness.take_written();
        1
    })
}

fn heartbeats() -> Workload {
    let mut harness = harness();
    harness.open(CONNECTIONS, &[HANDSHAKE, keep(frame(CLIENT_ID))]);
    harness.take_written();
    let pong = keep(control(OpCode::Pong, &[]));
    Workload::new(harness, 2, move |harness| {
        harness.wait();
        let pinged = harness.take_written();
        let count = pinged.len() as u64;
        if count > 0 {
            harness.send(pinged, pong);
        }
        count
    })
}

fn comments() -> Workload {
    let mut harness = harness();
    harness.open(CONNECTIONS, &[keep(stream_request(&page(0)))]);
    harness.take_written();
    Workload::new(harness, 3, |harness| {
        harness.wait();
        harness.take_written().len() as u64
    })
}

fn idle_ticks() -> Workload {
    // No ping is due within the measured time.
    let mut harness = Harness::new(config().ping_interval(Duration::from_secs(7 * 86_400)));
    harness.open(CONNECTIONS, &[HANDSHAKE, keep(frame(CLIENT_ID))]);
    Workload::new(harness, 0, |harness| {
        harness.wait();
        1
    })
}

/// The number of idle connections.
const CONNECTIONS: usize = 1000;
