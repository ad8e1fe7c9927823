//! The rows of the paired mode: measures in which the servers are so close to each other that rounds
//! minutes apart cannot compare them.

use std::path::Path;

use super::super::servers::{Program, Spec};
use super::handshakes::upgrade;
use super::idle::heartbeats;
use super::parts::split_args;
use super::traffic::{fan_out, ping};
use super::{Arm, Measure, Sample, Scale};

/// A row of the paired mode.
pub struct Row {
    pub measure: Measure,
    /// The load does not determine when the servers work, so all are measured in the same slices.
    pub simultaneous: bool,
}

impl Row {
    /// Returns the name of the measure that the row repeats.
    pub fn name(&self) -> &str {
        self.measure.id.trim_start_matches(PAIRED)
    }
}

/// Returns all rows. `other` is the directory of another build of this project, which takes part.
pub fn rows(scale: &Scale, sample: &Sample, other: Option<&Path>) -> Vec<Row> {
    let in_turn = [
        ping(scale, 1, 1),
        ping(scale, 10, 1),
        ping(scale, 100, 16),
        fan_out(scale, sample, 1000, 1),
        fan_out(scale, sample, scale.most, 1),
        upgrade(scale),
    ];
    let mut rows: Vec<Row> = in_turn.map(|measure| row(measure, false)).into();
    rows.push(row(heartbeats(scale), true));
    for row in &mut rows {
        let like_ours = row
            .measure
            .arms
            .iter()
            .find_map(|arm| same_calls(arm, row.simultaneous));
        row.measure.arms.extend(like_ours);
    }
    if let Some(other) = other {
        for row in &mut rows {
            let ours = row
                .measure
                .arms
                .iter()
                .filter_map(|arm| of_other_build(arm, other));
            let ours: Vec<Arm> = ours.collect();
            row.measure.arms.extend(ours);
        }
    }
    rows
}

/// Returns the floor with the system calls and clock reads of this project's reactor: the cost of the
/// kernel with the same design.
fn same_calls(arm: &Arm, beats: bool) -> Option<Arm> {
    if arm.server.program != Program::Floor {
        return None;
    }
    let mut server = arm.server.clone();
    server.args.extend(split_args("--both --clocks 2"));
    if beats {
        server
            .args
            .extend(split_args("--beat 100 --batch 128 --stride 21"));
    }
    Some(Arm {
        name: "floor, same calls",
        server,
        load: arm.load.clone(),
        rare: false,
    })
}

/// Returns the same arm with another build of this project.
fn of_other_build(arm: &Arm, build: &Path) -> Option<Arm> {
    let name = match arm.server.program {
        Program::Api => "h-realtime, other",
        Program::Engine => "engine, other",
        _ => return None,
    };
    let server = Spec {
        build: Some(build.to_owned()),
        ..arm.server.clone()
    };
    Some(Arm {
        name,
        server,
        load: arm.load.clone(),
        rare: false,
    })
}

fn row(measure: Measure, simultaneous: bool) -> Row {
    let arms = measure.arms.into_iter();
    let measure = Measure {
        id: format!("{PAIRED}{}", measure.id),
        arms: arms
            .filter(|arm| NAMES.contains(&arm.name))
            .map(steady)
            .collect(),
        ..measure
    };
    Row {
        measure,
        simultaneous,
    }
}

/// Every server takes part in every round.
fn steady(arm: Arm) -> Arm {
    Arm { rare: false, ..arm }
}

/// The beginning of the name of each row.
pub const PAIRED: &str = "paired-";

const NAMES: [&str; 5] = [
    "h-realtime",
    "engine",
    "uWebSockets",
    "fastwebsockets",
    "floor",
];
