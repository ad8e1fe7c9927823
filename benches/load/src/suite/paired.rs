//! The paired mode: all servers of a row run side by side, and are measured in short slices in turn.
//!
//! The speed of a shared machine changes within seconds, by more than the differences between these
//! servers. Slices of a fraction of a second, compared with those next to them, are hardly affected.
//! A round has one slice of each server; its order is reversed in every other round (A B C, C B A),
//! so that a steady change cancels out.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use indicatif::ProgressBar;
use load::Result;
use load::pool::progress;
use serde_json::{Value, json};

use super::measures::{Arm, Row};
use super::results::Results;
use super::servers::{self, Places, Running};

/// How much to measure.
pub struct Extent {
    pub rounds: u64,
    pub sessions: u64,
    pub slice_ms: u64,
}

/// Rounds with the same processes.
struct Session<'a> {
    row: &'a Row,
    /// In the order in which they are started.
    arms: &'a [&'a Arm],
    rounds: u64,
    extent: &'a Extent,
    places: &'a Places,
    bar: &'a ProgressBar,
}

/// A server with its load, which waits for commands.
struct Side<'a> {
    arm: &'a Arm,
    load: Child,
    commands: Option<ChildStdin>,
    reports: BufReader<ChildStdout>,
    /// Ended after its load.
    _server: Running,
}

/// Measures one row in several sessions. Each starts the servers anew, in another order: of thousands
/// of connections, those opened last are the first in the kernel's hash tables, and up to a tenth
/// cheaper.
pub fn measure(
    row: &Row,
    extent: &Extent,
    places: &Places,
    results: &mut Results,
    file: &Path,
) -> Result<()> {
    let arms = row.measure.arms.iter();
    let mut arms: Vec<&Arm> = arms.filter(|arm| places.has(&arm.server)).collect();
    let bar = progress("paired", extent.rounds);
    bar.set_message(row.measure.id.clone());
    let sessions = extent.sessions.min(extent.rounds);
    for session in 0..sessions {
        // The reverse of the order before, and in the next pair of sessions begun elsewhere.
        arms.reverse();
        if session % 2 == 0 && session > 0 {
            arms.rotate_left(1);
        }
        let rounds = (extent.rounds + session) / sessions;
        let session = Session {
            row,
            arms: &arms,
            rounds,
            extent,
            places,
            bar: &bar,
        };
        run_session(&session, results, file)?;
    }
    bar.finish_and_clear();
    Ok(())
}

/// Starts the servers, and measures some rounds. Each is added to the results at once, so that an
/// interrupted run keeps the completed ones.
fn run_session(session: &Session<'_>, results: &mut Results, file: &Path) -> Result<()> {
    let Session { row, extent, .. } = session;
    let mut sides = Vec::new();
    for arm in session.arms {
        sides.push(Side::start(arm, session.places)?);
    }
    // Caches, branch predictors, and the clock of an idle processor.
    round(row, extent, &mut sides, false)?;
    for number in 0..session.rounds {
        let reports = round(row, extent, &mut sides, number % 2 == 1)?;
        for (side, report) in sides.iter().zip(reports) {
            results.add(&row.measure, side.arm, report);
        }
        results.write(file)?;
        session.bar.inc(1);
    }
    sides.into_iter().try_for_each(Side::end)
}

/// Measures one slice of each server. Returns the reports in the order of the sides.
fn round(row: &Row, extent: &Extent, sides: &mut [Side], is_reversed: bool) -> Result<Vec<Value>> {
    if row.simultaneous {
        for side in sides.iter_mut() {
            side.begin(extent.slice_ms)?;
        }
        return sides.iter_mut().map(Side::report).collect();
    }
    let mut reports = vec![Value::Null; sides.len()];
    let mut order: Vec<usize> = (0..sides.len()).collect();
    if is_reversed {
        order.reverse();
    }
    for index in order {
        sides[index].begin(extent.slice_ms)?;
        reports[index] = sides[index].report()?;
    }
    Ok(reports)
}

impl<'a> Side<'a> {
    fn start(arm: &'a Arm, places: &Places) -> Result<Side<'a>> {
        let server = servers::start(&arm.server, places)?;
        let mut command = places.pinned(1, &places.load());
        command.args(arm.load.iter().map(|word| server.fill(word, places)));
        command.args(["--pid", &server.pid().to_string()]);
        command.args(["--slices", "--deadline", "7200", "--json", "-"]);
        let mut load = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let (commands, reports) = (load.stdin.take(), load.stdout.take());
        let mut side = Side {
            arm,
            load,
            commands,
            reports: BufReader::new(reports.ok_or("no output")?),
            _server: server,
        };
        side.line()?;
        Ok(side)
    }

    fn begin(&mut self, millis: u64) -> Result<()> {
        let commands = self.commands.as_mut().ok_or("no input")?;
        Ok(writeln!(commands, "{millis}")?)
    }

    fn report(&mut self) -> Result<Value> {
        let mut report: Value = serde_json::from_str(&self.line()?)?;
        // Not figures, and the same in each round.
        if let Some(fields) = report.as_object_mut() {
            fields.remove("connections");
        }
        Ok(report)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.reports.read_line(&mut line)? {
            0 => Err(format!("the load on {} failed", self.arm.name).into()),
            _ => Ok(line),
        }
    }

    fn end(mut self) -> Result<()> {
        self.commands = None;
        self.load.wait()?;
        Ok(())
    }
}

impl Drop for Side<'_> {
    fn drop(&mut self) {
        let _ = self.load.kill();
        let _ = self.load.wait();
    }
}

/// Returns the facts of the run that its results file needs to be understood.
pub fn facts(extent: &Extent, machine: &Value) -> Value {
    json!({
        "date": machine["date"],
        "version": machine["versions"]["h-realtime"],
        "slice_ms": extent.slice_ms,
        "sessions": extent.sessions,
    })
}
