//! The command: `load MODE URL …`.

use std::process::ExitCode;

use clap::Parser;
use load::cli::Cli;
use load::modes;

fn main() -> ExitCode {
    let cli = Cli::parse();
    match modes::run(&cli.mode) {
        Ok(report) => {
            if let Err(error) = report.print(cli.mode.common()) {
                eprintln!("load: {error}");
                return ExitCode::FAILURE;
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}
