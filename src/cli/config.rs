//! `h-realtime config`: checks and prints the configuration.

use std::io::{self, Write};

use clap::{Args, Subcommand};

use super::serve::ServeArgs;
use crate::config::{defaults, effective};
use crate::exit::Exit;

/// Arguments of `config`.
#[derive(Args)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check the configuration from these flags, the environment, and the file, and report all
    /// problems with the exit code that `serve` would return. Binds and connects to nothing
    Check(ServeArgs),
    /// Print the effective value of each setting and its source; secrets are masked
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
pub(super) fn run(args: ConfigArgs) -> Result<(), Exit> {
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

fn check(args: ServeArgs) -> Result<(), Exit> {
    use crate::net::raise_open_files;
    use crate::server::preflight;

    let context = preflight::check_context(raise_open_files());
    let checked = preflight::read(&args.sources(), context)?;
    for warning in checked.warnings {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    let good = match &checked.values.file {
        Some(path) => format!("{}: the configuration is valid", path.display()),
        None => "the configuration is valid (flags, environment, and defaults; no file)".to_owned(),
    };
    print(&format!("{good}\n{}\n", preflight::NOT_CHECKED))
}

fn print(text: &str) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}
