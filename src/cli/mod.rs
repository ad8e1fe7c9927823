//! The command line: arguments and commands.
//!
//! Owns: arguments, help, and the output of commands. Must not know how settings are read, which is
//! in `config`, or how the server works. A command that edits the database does so itself, whether
//! or not a server is using it. A running server detects the change. The exit codes are in `exit`.
//!
//! | file | holds |
//! |---|---|
//! | `serve` | `serve`, and the flags that are sources of settings |
//! | `config`, `settings_json` | `config`: checking and printing the configuration |
//! | `user`, `token`, `group` | users, tokens, and groups in the embedded database |
//! | `backup` | `backup` and `restore` |
//! | `publish`, `explain` | clients of the admin listener |
//! | `listen` | `listen`: a client of the API |
//! | `forward` | `forward`: webhooks and feeds, with the client of `listen` |
//! | `filter_flags` | the flags that select annotations, and their filter |
//! | `generate`, `completions` | `man` and `completions` |
//! | `console`, `json`, `sanitize` | input and output of commands |
//!
//! To add a command: add a variant to `Command`, and a file with its arguments and a function that
//! runs it. Help, manual pages, and completions follow from the arguments.

#[cfg(feature = "sqlite")]
mod backup;
mod completions;
mod config;
#[cfg(feature = "sqlite")]
mod console;
mod explain;
mod filter_flags;
mod forward;
mod generate;
#[cfg(feature = "sqlite")]
mod group;
#[cfg(feature = "sqlite")]
mod json;
mod listen;
mod publish;
mod sanitize;
mod serve;
mod settings_json;
#[cfg(feature = "sqlite")]
mod token;
#[cfg(feature = "sqlite")]
mod user;

use std::ffi::OsStr;

use clap::{CommandFactory, Parser, Subcommand};

use crate::exit::Exit;

#[cfg(feature = "sqlite")]
use crate::config::data_directory;
#[cfg(feature = "sqlite")]
use crate::model::unix_now;

/// The Hypothesis Real Time API as one small server: clients open a WebSocket and are notified
/// immediately when an annotation is created, updated, or deleted.
///
/// The default command is `serve`.
// No `Debug`: the arguments of `listen` may contain a token.
#[derive(Parser)]
#[command(name = "h-realtime", version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the API and the admin interface (the default command)
    Serve(serve::ServeArgs),
    /// Check and print the configuration
    Config(config::ConfigArgs),
    /// Add, show, change, mute, and delete users
    #[cfg(feature = "sqlite")]
    User(OnDatabase<user::UserArgs>),
    /// Create, list, revoke, and prune access tokens
    #[cfg(feature = "sqlite")]
    Token(OnDatabase<token::TokenArgs>),
    /// Add, show, change, and delete groups and their members
    #[cfg(feature = "sqlite")]
    Group(OnDatabase<group::GroupArgs>),
    /// Write a backup of users, tokens, and groups to a file; the server may be running
    #[cfg(feature = "sqlite")]
    Backup(OnData<backup::BackupArgs>),
    /// Replace users, tokens, and groups with those of a backup; the server may be running
    #[cfg(feature = "sqlite")]
    Restore(OnDatabase<backup::RestoreArgs>),
    /// Publish events, and print how many connections each one matches
    ///
    /// The input is a sequence of JSON objects, one for each event, for example one per line. Each
    /// event is sent as soon as it is read, so the input may be an endless pipe. If the server
    /// rejects an event, the command stops; earlier events remain published.
    Publish(publish::PublishArgs),
    /// Say whether a connection is notified of an annotation, and if not, why
    ///
    /// The running server evaluates the filter, the permissions, and all other rules, without
    /// publishing or storing anything. The answer may contain any annotation: the command needs the
    /// publish key.
    Explain(explain::ExplainArgs),
    /// Connect to a server, and print each event as a line of JSON
    ///
    /// Events (annotations created, updated, or deleted, and changes of your groups) go to standard
    /// output, everything else to standard error. The command reconnects after a lost connection,
    /// with exponential backoff and random jitter, until Ctrl-C. The server then sends the events in
    /// the meantime, and the command reports a gap if the server no longer has all of them. Across
    /// restarts of the command, this requires --state. Servers without a history, such as h, send
    /// only new events.
    Listen(Box<listen::ListenArgs>),
    /// Send events to a receiver over HTTP (webhooks), or keep an Atom feed of them
    ///
    /// The command is a client of a server, and needs no access to its host. It resumes after
    /// interruptions of the server, of the receiver, and of its own, and sends each event at least
    /// once.
    Forward(Box<forward::ForwardArgs>),
    /// Write the manual pages to a directory
    Man(generate::ManArgs),
    /// Print the completion script of a shell
    Completions(generate::CompletionsArgs),
}

/// Arguments of a command that works on a data directory.
#[cfg(feature = "sqlite")]
#[derive(clap::Args)]
struct OnData<A: clap::Args> {
    /// The data directory, instead of the configured one
    #[arg(long, value_name = "DIR", global = true, value_hint = clap::ValueHint::DirPath)]
    data: Option<String>,
    #[command(flatten)]
    args: A,
}

/// Like [`OnData`], for a command that can start with an empty database.
#[cfg(feature = "sqlite")]
#[derive(clap::Args)]
struct OnDatabase<A: clap::Args> {
    /// Create the data directory and the database if they do not exist
    #[arg(long, global = true)]
    create: bool,
    #[command(flatten)]
    on: OnData<A>,
}

#[cfg(feature = "sqlite")]
impl<A: clap::Args> OnData<A> {
    /// Returns the data directory and the arguments of the command.
    fn split(self) -> Result<(std::path::PathBuf, A), Exit> {
        let data = data_directory(self.data.map(Into::into))?;
        Ok((data, self.args))
    }
}

#[cfg(feature = "sqlite")]
impl<A: clap::Args> OnDatabase<A> {
    /// Like [`OnData::split`]. Creates the database first if requested.
    fn split(self) -> Result<(std::path::PathBuf, A), Exit> {
        let (data, args) = self.on.split()?;
        if self.create {
            console::create(&data)?;
        }
        Ok((data, args))
    }
}

impl Cli {
    /// Runs the command.
    ///
    /// # Errors
    /// [`Exit`] with the message and the exit code.
    pub fn run(self) -> Result<(), Exit> {
        match self.command.unwrap_or(Command::Serve(self.serve)) {
            Command::Serve(args) => serve::run(args),
            Command::Config(args) => config::run(args),
            #[cfg(feature = "sqlite")]
            Command::User(on) => on
                .split()
                .and_then(|(data, args)| user::run(args, &data, unix_now())),
            #[cfg(feature = "sqlite")]
            Command::Token(on) => on
                .split()
                .and_then(|(data, args)| token::run(args, &data, unix_now())),
            #[cfg(feature = "sqlite")]
            Command::Group(on) => on
                .split()
                .and_then(|(data, args)| group::run(args, &data, unix_now())),
            #[cfg(feature = "sqlite")]
            Command::Backup(on) => on
                .split()
                .and_then(|(data, args)| backup::run_backup(&args, &data)),
            #[cfg(feature = "sqlite")]
            Command::Restore(on) => on
                .split()
                .and_then(|(data, args)| backup::run_restore(&args, &data, unix_now())),
            Command::Publish(args) => publish::run(args),
            Command::Explain(args) => explain::run(args),
            Command::Listen(args) => listen::run(*args),
            Command::Forward(args) => forward::run(*args),
            Command::Man(args) => generate::man(&args, Cli::command()),
            Command::Completions(args) => generate::print_completions(&args, Cli::command()),
        }
    }
}

/// Catches the signals that the server handles, if the first argument is one of the server's. The
/// signals end other commands. The arguments are parsed later.
pub fn catch_signals(first: Option<&OsStr>) {
    if is_for_server(first) {
        crate::server::catch_signals();
    }
}

fn is_for_server(first: Option<&OsStr>) -> bool {
    first.is_none_or(|first| first == "serve" || first.as_encoded_bytes().starts_with(b"-"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_is_the_default_command() {
        for line in [
            "h-realtime",
            "h-realtime --listen ws://127.0.0.1:1",
            "h-realtime serve --listen ws://127.0.0.1:1 --listen unix:/a",
        ] {
            assert!(Cli::try_parse_from(line.split(' ')).is_ok(), "{line}");
        }
        assert!(Cli::try_parse_from(["h-realtime", "--bogus"]).is_err());
    }
}
