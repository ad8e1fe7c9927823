//! The `h-realtime` program: arguments in, exit code out.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use h_realtime::cli::Cli;
use h_realtime::cli::exit::Exit;
use h_realtime::config::rust_log_level;
use h_realtime::logging;
use log::LevelFilter;

/// After a burst (an event to everybody, a storm of reconnecting clients) glibc keeps the
/// memory for itself where a few small blocks survive in it; mimalloc gives it back.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Before all else: until then, any signal ends the process.
    h_realtime::cli::catch_signals(std::env::args_os().nth(1).as_deref());
    refuse_huge_pages();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are asked for, and come by the same way.
            let code = if error.use_stderr() { Exit::USAGE } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    start_log();
    let result = cli.run();
    logging::finish();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(exit) => {
            if !exit.message.is_empty() {
                let _ = writeln!(std::io::stderr(), "h-realtime: {}", exit.message);
            }
            ExitCode::from(exit.code)
        }
    }
}

/// `RUST_LOG` says how much; for the server it is one of several ways to say so, and what is wrong
/// with it is told there.
fn start_log() {
    let level = std::env::var("RUST_LOG").ok();
    let level = level.as_deref().and_then(rust_log_level);
    let level = level.and_then(|level| level.parse().ok());
    if let Err(error) = logging::start(level.unwrap_or(LevelFilter::Info)) {
        let _ = writeln!(std::io::stderr(), "h-realtime: there is no log: {error}");
    }
}

/// Memory comes in pages of 4 KB. In transparent ones of 2 MB a small heap would take twice what
/// it needs and more, and who is idle would cost what its neighbours on a page do. Where the
/// kernel does not know of them, there are none.
fn refuse_huge_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
