//! Connections that come, go, and stay.

use std::time::Duration;

use h_realtime_engine::Config;
use h_realtime_engine::ws::OpCode;

use crate::stage::Stage;
use crate::words::{
    BROWSER_HANDSHAKE, CLIENT_ID, HANDSHAKE, answer, control, filter, frame, keep, page,
};

use super::{Operation, Scene, config, stage};

pub const UPGRADE: Operation = Operation {
    name: "upgrade",
    what: "a browser connects and is answered 101",
    rounds: 500,
    prepare: |_| {
        let bytes = answer(BROWSER_HANDSHAKE).len();
        Scene::new(stage(), bytes, |stage| {
            let number = stage.connect();
            stage.say([number], BROWSER_HANDSHAKE);
            stage.take_written();
            1
        })
    },
};

pub const VISIT: Operation = Operation {
    name: "visit",
    what: "a browser connects, sets client id and filter, and leaves",
    rounds: 500,
    prepare: |_| visits(),
};

pub const HEARTBEAT: Operation = Operation {
    name: "heartbeat",
    what: "a ping to a silent connection, and its pong, 1,000 connected",
    rounds: 400,
    prepare: |_| heartbeats(),
};

pub const IDLE: Operation = Operation {
    name: "idle",
    what: "the clock's tick (2 a second), 1,000 connected with nothing due",
    rounds: 2000,
    prepare: |_| idleness(),
};

fn visits() -> Scene {
    let goodbye = 1000_u16.to_be_bytes();
    // What is answered to the close frame is a frame of four bytes.
    let bytes = answer(BROWSER_HANDSHAKE).len() + 2 + goodbye.len();
    let wishes = keep([frame(CLIENT_ID), frame(&filter(&[page(1)]))].concat());
    let goodbye = keep(control(OpCode::Close, &goodbye));
    Scene::new(stage(), bytes, move |stage| {
        let number = stage.connect();
        stage.say([number], BROWSER_HANDSHAKE);
        stage.say([number], wishes);
        stage.say([number], goodbye);
        stage.leave(number);
        stage.take_written();
        1
    })
}

fn heartbeats() -> Scene {
    let mut stage = stage();
    stage.open(CROWD, &[HANDSHAKE, keep(frame(CLIENT_ID))]);
    stage.take_written();
    let pong = keep(control(OpCode::Pong, &[]));
    Scene::new(stage, 2, move |stage| {
        stage.wait();
        let asked = stage.take_written();
        let count = asked.len() as u64;
        if count > 0 {
            stage.say(asked, pong);
        }
        count
    })
}

fn idleness() -> Scene {
    // Nobody is asked for a sign of life within the time that is looked at.
    let mut stage = Stage::new(Config {
        ping_interval: Duration::from_secs(7 * 86_400),
        ..config()
    });
    stage.open(CROWD, &[HANDSHAKE, keep(frame(CLIENT_ID))]);
    Scene::new(stage, 0, |stage| {
        stage.wait();
        1
    })
}

/// Connections that are idle.
const CROWD: usize = 1000;
