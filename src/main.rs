//! The `h-realtime` program: arguments in, exit code out.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use h_realtime::cli::exit::Exit;
use h_realtime::cli::{Cli, log};

/// After a burst (an event to everybody, a storm of reconnecting clients) glibc keeps the
/// memory for itself where a few small blocks survive in it; mimalloc gives it back.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for, and come by the same way.
            let code = if error.use_stderr() { Exit::USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    let log = log::start();
    let result = cli.run();
    // Its last lines come before the last word.
    drop(log);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            let _ = writeln!(std::io::stderr(), "h-realtime: {}", exit.message);
            ExitCode::from(exit.code)
        }
    }
}
