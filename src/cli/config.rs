//! `h-realtime config`: checks and prints the configuration.

use std::io::{self, Write};

use clap::{Args, Subcommand};

use super::exit::Exit;
use super::serve::ServeArgs;
use crate::config::{defaults, effective};

/// What `config` takes.
#[derive(Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check what a server would be started with, by these flags, the environment and the file:
    /// all that is wrong, and the exit code that the server would end with. Nothing is bound or
    /// connected to
    Check(ServeArgs),
    /// Print the values in force, a line each, and where each comes from; secrets are not shown
    Show(ShowArgs),
    /// Print a configuration file with all settings and their defaults
    Default,
}

#[derive(Args)]
struct ShowArgs {
    #[command(flatten)]
    serve: ServeArgs,
    /// Print a JSON object with a member for each setting
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// The exit code of `serve`, with one line for each problem. 74 if the output cannot be written.
pub fn run(args: ConfigArgs) -> Result<(), Exit> {
    match args.command {
        ConfigCommand::Check(args) => check(args),
        ConfigCommand::Show(args) => {
            let values = args.serve.sources().read()?;
            // Conflicting settings are printed as well: explaining conflicts is a purpose of this
            // command.
            match args.json {
                true => print(&format!("{}\n", super::settings_json::settings(&values))),
                false => print(&effective(&values)),
            }
        }
        ConfigCommand::Default => print(&defaults()),
    }
}

#[cfg(any(feature = "sqlite", feature = "h"))]
fn check(args: ServeArgs) -> Result<(), Exit> {
    use crate::net::raise_open_files;
    use crate::server::{facts, preflight};

    let facts = facts(raise_open_files());
    let checked = preflight::read(&args.sources(), facts)?;
    for warning in checked.warnings {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    let good = match &checked.values.file {
        Some(path) => format!("{}: the configuration is good", path.display()),
        None => {
            "the configuration is good: flags, environment, and defaults, without a file".to_owned()
        }
    };
    print(&format!("{good}\n{}\n", preflight::NOT_CHECKED))
}

#[cfg(not(any(feature = "sqlite", feature = "h")))]
fn check(_: ServeArgs) -> Result<(), Exit> {
    Err(super::serve::no_backend())
}

fn print(text: &str) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}
