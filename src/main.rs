//! The `h-realtime` program: arguments in, exit code out.

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use h_realtime::cli::Cli;
use h_realtime::config::rust_log_level;
use h_realtime::exit::Exit;
use h_realtime::logging;
use log::LevelFilter;

/// After a burst (a broadcast event, or many clients that reconnect at once), glibc retains memory
/// in which a few small blocks survive. mimalloc returns it to the system.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // First of all: until this is done, any signal ends the process.
    h_realtime::cli::catch_signals(std::env::args_os().nth(1).as_deref());
    refuse_huge_pages();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap also returns requested help and version output as errors.
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

/// Starts logging at the level of `RUST_LOG`. For the server this is one of several sources of the
/// level, and its configuration reports invalid values.
fn start_log() {
    let level = std::env::var("RUST_LOG").ok();
    let level = level.as_deref().and_then(rust_log_level);
    let level = level.and_then(|level| level.parse().ok());
    if let Err(error) = logging::start(level.unwrap_or(LevelFilter::Info)) {
        let _ = writeln!(
            std::io::stderr(),
            "h-realtime: cannot start logging: {error}"
        );
    }
}

/// Disables transparent huge pages. With 2 MB pages instead of 4 KB pages, a small heap would take
/// more than twice the memory that it needs, and idle connections would keep the pages of their
/// neighbors in memory. Errors are ignored: a kernel that does not support the call has no such
/// pages.
fn refuse_huge_pages() {
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
