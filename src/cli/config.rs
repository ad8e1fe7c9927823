//! `h-realtime config`: the configuration checked, and shown.

use std::io::{self, Write};

use clap::{Args, Subcommand};

use super::exit::Exit;
use super::serve::ServeArgs;
use crate::config::{BackEndSettings, Settings, defaults, effective, warnings};
use crate::net::tls::TlsConfig;
use crate::owner::SocketFiles;

/// What `config` takes.
#[derive(Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check what a server would be started with, by these flags, the environment and the file:
    /// exit code 78 where it would not start
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
/// 78 with a line for each thing that is wrong, 74 if nothing can be printed.
pub fn run(args: ConfigArgs) -> Result<(), Exit> {
    match args.command {
        ConfigCommand::Check(args) => check(args),
        ConfigCommand::Show(args) => {
            let values = args.serve.sources().read()?;
            // Also where they do not go together: to show why is what this is for.
            match args.json {
                true => print(&format!("{}\n", super::settings_json::settings(&values))),
                false => print(&effective(&values)),
            }
        }
        ConfigCommand::Default => print(&defaults()),
    }
}

fn check(args: ServeArgs) -> Result<(), Exit> {
    let values = args.sources().read()?;
    let settings = values.settle()?;
    can_be_served(&settings)?;
    SocketFiles::of(&settings)?;
    if let Some((cert, key)) = &settings.tls {
        TlsConfig::from_pem_files(cert, key).map_err(|error| Exit::new(Exit::CONFIG, error))?;
    }
    for warning in warnings(&settings, &values) {
        writeln!(io::stderr(), "warning: {warning}")?;
    }
    match &values.file {
        Some(path) => print(&format!("{}: the configuration is good\n", path.display())),
        None => print("the configuration is good; there is no file\n"),
    }
}

/// Whether this build has what the settings ask for.
fn can_be_served(settings: &Settings) -> Result<(), Exit> {
    let (feature, is_there) = match &settings.back_end {
        BackEndSettings::Embedded(None) => ("sqlite", cfg!(feature = "sqlite")),
        BackEndSettings::Embedded(Some(_)) => {
            ("amqp", cfg!(feature = "sqlite") && cfg!(feature = "amqp"))
        }
        BackEndSettings::H(_) => ("h", cfg!(feature = "h")),
    };
    match is_there {
        true => Ok(()),
        false => {
            let message =
                format!("this build has no such back end: it needs the feature {feature}");
            Err(Exit::new(Exit::CONFIG, message))
        }
    }
}

fn print(text: &str) -> Result<(), Exit> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    Ok(())
}
