//! Events on their way to those who asked for them.

use h_realtime::model::Plan;

use crate::api::Command;
use crate::stage::Stage;
use crate::words::{
    BROWSER_HANDSHAKE, HANDSHAKE, event, filter, frame, keep, notification, page, sent,
    sent_compressed,
};

use super::{Operation, Scene, stage};

pub const TO_ONE: Operation = Operation {
    name: "event to 1",
    what: "an event of 600 bytes to the one of 1,000 that asked for it",
    rounds: 500,
    prepare: |rounds| {
        let mut stage = stage();
        stage.open(CROWD, &[HANDSHAKE]);
        for number in 0..CROWD {
            stage.say([number], keep(frame(&filter(&[page(number)]))));
        }
        deliveries(stage, CROWD / 2, rounds, 1, 1, sent(&notification()))
    },
};

pub const TO_1000: Operation = Operation {
    name: "event to 1000",
    what: "the same to 1,000 that asked for it, each delivery",
    rounds: 10,
    prepare: |rounds| {
        let stage = crowd(HANDSHAKE);
        deliveries(stage, 0, rounds, 1, CROWD, sent(&notification()))
    },
};

pub const BURST: Operation = Operation {
    name: "burst of 10",
    what: "10 such events at once to 1,000, each delivery",
    rounds: 3,
    prepare: |rounds| {
        let stage = crowd(HANDSHAKE);
        deliveries(stage, 0, rounds, 10, CROWD, sent(&notification()))
    },
};

pub const COMPRESSED: Operation = Operation {
    name: "event compressed",
    what: "such an event to 1,000 that compress, each delivery",
    rounds: 10,
    prepare: |rounds| {
        let stage = crowd(BROWSER_HANDSHAKE);
        deliveries(stage, 0, rounds, 1, CROWD, sent_compressed(&notification()))
    },
};

/// Connections that all ask for the same page.
fn crowd(handshake: &'static [u8]) -> Stage {
    let mut stage = stage();
    stage.open(CROWD, &[handshake, keep(frame(&filter(&[page(0)])))]);
    stage
}

/// `burst` events at once about a page, for which `receivers` have asked.
fn deliveries(
    mut stage: Stage,
    about: usize,
    rounds: u64,
    burst: usize,
    receivers: usize,
    bytes: usize,
) -> Scene {
    stage.take_written();
    // To make them is the back end's work.
    let count = rounds as usize * burst;
    let mut plans: Vec<Plan> = (0..count).map(|_| event(&page(about))).collect();
    Scene::new(stage, bytes, move |stage| {
        let from = plans.len() - burst;
        stage.happen(plans.drain(from..).map(Command::Event));
        stage.take_written();
        (burst * receivers) as u64
    })
}

/// Connections there are.
const CROWD: usize = 1000;
