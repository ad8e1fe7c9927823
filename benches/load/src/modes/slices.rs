//! Slices: short measurements on command, so that servers running side by side can be measured in
//! turn.

use std::io::{self, BufRead, Write};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::Result;
use crate::cli::Common;
use crate::pool::ConnPool;
use crate::report::{Mark, Report};
use crate::server::Server;

/// Reads lines from standard input until its end. Each is the duration of a slice in milliseconds,
/// and is answered with the report of that slice in one line. The first answer, before any command,
/// is an empty line: the connections are open.
///
/// `slice` applies the load and returns the number of operations. Between slices, a load that
/// busy-waits sends and reads nothing, and another one answers pings.
pub(super) fn serve(
    common: &Common,
    pool: &mut ConnPool,
    server: &Server,
    operation: &str,
    mut slice: impl FnMut(&mut ConnPool, Duration) -> Result<u64>,
) -> Result<Report> {
    println!();
    let commands = commands();
    while let Some(time) = next(common, pool, &commands)? {
        let mark = Mark::new(server.process, pool.spun)?;
        let operations = slice(pool, time)?;
        let span = mark.end(pool.spun)?;
        if operations == 0 {
            return Err("no operation completed within a slice".into());
        }
        let mut report = Report::new("slice", common);
        report.set("operations", operations);
        report.number("wall_s", span.wall);
        report.cpu(operation, span.server, operations);
        report.busy(&span);
        println!("{}", report.json());
        io::stdout().flush()?;
    }
    Ok(Report::new("slices", common))
}

/// Reads the durations from standard input on a thread of their own. An invalid line ends the run.
fn commands() -> Receiver<Duration> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let millis = line.ok().and_then(|line| line.trim().parse().ok());
            let Some(millis) = millis else { break };
            if sender.send(Duration::from_millis(millis)).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Waits for the next command. `None` is the end.
fn next(
    common: &Common,
    pool: &mut ConnPool,
    commands: &Receiver<Duration>,
) -> Result<Option<Duration>> {
    if common.spin {
        return Ok(commands.recv().ok());
    }
    loop {
        match commands.try_recv() {
            Ok(time) => return Ok(Some(time)),
            Err(TryRecvError::Disconnected) => return Ok(None),
            Err(TryRecvError::Empty) => pool.turn(BETWEEN, &mut |_, _| Ok(()))?,
        }
    }
}

/// Waits until the server has finished the work of a slice. The kernel adds the CPU time of a running
/// thread to its total only at a tick, or when it sleeps.
pub(super) fn settle(pool: &mut ConnPool) -> Result<()> {
    let end = Instant::now() + SETTLE;
    while Instant::now() < end {
        pool.turn(SETTLE, &mut |_, _| Ok(()))?;
    }
    Ok(())
}

/// How long a server needs at most for the work after its last response.
const SETTLE: Duration = Duration::from_millis(2);
/// The longest delay of a command.
const BETWEEN: Duration = Duration::from_millis(5);
