//! The modes: each applies one kind of load and reports on it.

mod echo;
mod fan_out;
mod handshake;
mod hold;
mod hostile;
mod idle;
mod measured;
mod slices;
mod tail;
mod unread;
mod watch;

use crate::Result;
use crate::cli::Mode;
use crate::report::Report;

/// Runs a mode.
///
/// # Errors
///
/// Returns an error if the server or the run fails: the figures of a failed run are meaningless.
pub fn run(mode: &Mode) -> Result<Report> {
    let name = mode.name();
    match mode {
        Mode::Idle(args) => idle::run(name, args),
        Mode::Echo(args) => echo::run(name, args, args.depth.unwrap_or(1)),
        Mode::Pipelined(args) => echo::run(name, args, args.depth.unwrap_or(16)),
        Mode::FanOut(args) => fan_out::run(name, args, false),
        Mode::Selective(args) => fan_out::run(name, args, true),
        Mode::Handshake(args) => handshake::run(name, args, 0),
        Mode::Storm(args) if args.probe.every_ms == 0 => {
            Err("storm needs --probe MILLISECONDS".into())
        }
        Mode::Hostile(args) => hostile::run(name, args),
        Mode::Hold(args) => hold::run(name, args),
        Mode::Watch(args) => watch::run(name, args),
        Mode::Storm(args) => handshake::run(name, args, args.common.connections),
    }
}
