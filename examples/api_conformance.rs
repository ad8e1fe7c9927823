//! Checks whether a server of the Hypothesis Real Time API behaves like h, and which extensions of
//! h-realtime it supports.
//!
//! ```text
//! cargo run --example api_conformance -- ws://127.0.0.1:5001/ws
//! ```

#[path = "../tests/conformance/mod.rs"]
mod conformance;

use std::io;
use std::process::ExitCode;

use clap::Parser;

use conformance::program::{Arguments, run};

fn main() -> io::Result<ExitCode> {
    let arguments = Arguments::parse();
    Ok(match run(&arguments, &mut io::stdout().lock())? {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}
