//! `h-realtime backup` and `h-realtime restore`: the embedded database as a single file.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::console::{Console, open_store};
use crate::backend::DataDir;
use crate::backend::advice::about;
use crate::backend::embedded::{Contents, Restored, RevokedTokens, StoreError, restore};
use crate::exit::Exit;
use crate::exit::of_io;
use crate::model::UnixMillis;

/// Arguments of `backup`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  h-realtime backup /var/backups/h-realtime.sqlite --force

The backup does not contain the publish key, which is the file publish.key in the data directory.")]
pub(super) struct BackupArgs {
    /// The file to write, readable by its owner only
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
#[command(after_help = "\
Restores the state at the time of the backup: users, tokens, groups, and members added since then
are removed, and those removed since then are restored. That includes tokens revoked since then: the
command prints their ids, and --keep-revocations omits them.

A running server applies the change within a second, and closes connections of tokens that no longer
exist.

The previous state is kept as h-realtime.sqlite.before-restore in the data directory.")]
pub(super) struct RestoreArgs {
    /// A file written by `h-realtime backup`
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Omit tokens of the backup that are no longer in the database
    #[arg(long)]
    keep_revocations: bool,
}

/// Writes a backup of the database in a data directory.
///
/// # Errors
/// [`Exit::USAGE`] for `-`, [`Exit::DATA`] for a file that exists already, and errors from writing
/// the file and opening the database.
pub(super) fn run_backup(args: &BackupArgs, data: &Path) -> Result<(), Exit> {
    let database = DataDir::existing(data)?.database();
    if args.file == Path::new("-") {
        let message = "a backup cannot be written to standard output; for a file named -, use ./-";
        return Err(Exit::new(Exit::USAGE, message));
    }
    let store = open_store(&database)?;
    let contents = store.backup(&args.file, args.force);
    let contents = contents.map_err(|error| of_output(error, &args.file, &database))?;
    let out = &mut io::stdout().lock();
    writeln!(
        out,
        "backed up to {} ({})",
        args.file.display(),
        counts(contents)
    )?;
    Ok(())
}

/// Restores the database in a data directory from a backup.
///
/// # Errors
/// [`Exit::NO_INPUT`] for a backup that does not exist, [`Exit::DATA`] for an unusable one, and
/// errors from opening the database.
pub(super) fn run_restore(args: &RestoreArgs, data: &Path, now: UnixMillis) -> Result<(), Exit> {
    let revoked = match args.keep_revocations {
        true => RevokedTokens::LeaveOut,
        false => RevokedTokens::Restore,
    };
    let data = DataDir::existing(data)?;
    let database = data.database();
    // A missing database is replaced, but only in a directory that a server has used.
    if !database.exists() && !data.publish_key_file().exists() {
        let message = format!(
            "{}: not the data directory of a server; give it with --data, or create a database with \
             --create",
            data.path().display()
        );
        return Err(Exit::new(Exit::UNAVAILABLE, message));
    }
    let restored = restore(&database, &args.file, revoked, now);
    let restored = restored.map_err(|error| of_input(error, &args.file, &database))?;
    let mut console = Console {
        input: &mut io::empty(),
        out: &mut io::stdout().lock(),
        messages: &mut io::stderr().lock(),
    };
    report(&restored, &args.file, &mut console)
}

/// Converts errors about the output file. The advice in errors about the database does not apply to
/// them. SQLite does not report which of the two files an error concerns.
fn of_output(error: StoreError, file: &Path, database: &Path) -> Exit {
    match &error {
        StoreError::File(path, cause) if path == file => {
            Exit::new(of_io(cause.kind()), about(file, cause))
        }
        _ if error.lacks_file_name() => {
            let exit = Exit::from(error);
            let message = format!(
                "{} to {}: {}",
                database.display(),
                file.display(),
                exit.message
            );
            Exit::new(exit.code, message)
        }
        _ => Exit::from(error),
    }
}

/// Converts errors about the backup, and distinguishes them from errors about the database.
fn of_input(error: StoreError, file: &Path, database: &Path) -> Exit {
    match &error {
        StoreError::File(path, cause) if path == file => {
            Exit::new(Exit::NO_INPUT, about(file, cause))
        }
        StoreError::Unusable(path, reason) if path == file => {
            Exit::new(Exit::DATA, format!("{}: {reason}", file.display()))
        }
        _ => Exit::from(error).in_database(database),
    }
}

fn report(restored: &Restored, file: &Path, console: &mut Console<'_>) -> Result<(), Exit> {
    if let Some(damaged) = &restored.damaged {
        writeln!(
            console.messages,
            "The database was unusable; moved it to {}.",
            damaged.display()
        )?;
    }
    if let Some(before) = &restored.before {
        writeln!(
            console.messages,
            "The previous state is in {}.",
            before.display()
        )?;
    }
    if !restored.revived.is_empty() {
        let shown = restored.revived.iter().take(MOST_IDS);
        let mut ids: Vec<String> = shown.map(|token| token.0.to_string()).collect();
        if restored.revived.len() > MOST_IDS {
            ids.push("…".to_owned());
        }
        writeln!(
            console.messages,
            "Revoked tokens that are valid again: {} (ids: {}). Revoke one with `h-realtime token revoke \
             ID`; or restore the previous state, and then the backup with --keep-revocations.",
            restored.revived.len(),
            ids.join(", ")
        )?;
    }
    let counts = counts(restored.contents);
    writeln!(console.out, "restored {} ({counts})", file.display())?;
    Ok(())
}

fn counts(contents: Contents) -> String {
    format!(
        "users: {}, tokens: {}, groups: {}",
        contents.users, contents.tokens, contents.groups
    )
}

/// The maximum number of ids to print.
const MOST_IDS: usize = 20;
