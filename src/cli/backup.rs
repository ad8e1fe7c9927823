//! `h-realtime backup` and `h-realtime restore`: the embedded database as a single file.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use clap::Args;

use super::console::Console;
use super::exit::Exit;
use super::failure::of_io;
use crate::backend::DataDir;
use crate::backend::advice::about;
use crate::backend::embedded::{Contents, Restored, Revoked, Store, StoreError, restore};
use crate::model::UnixMillis;

/// Arguments of `backup`.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  h-realtime backup /var/backups/h-realtime.sqlite --force

The publish key is not in the backup; it is the file publish.key in the data directory.")]
pub struct BackupArgs {
    /// The file to write; only its owner can read it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Replace the file if it exists
    #[arg(long)]
    force: bool,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
#[command(after_help = "\
Everything becomes as it was when the backup was made: users, tokens, groups, and members that
were added since are gone, and those that were removed are back. That includes tokens that were
revoked since: the command prints their ids, and --keep-revocations leaves them out.

A running server follows within a second. It closes the connections whose tokens are gone.

The state before the restore is kept as h-realtime.sqlite.before-restore in the data directory.")]
pub struct RestoreArgs {
    /// A file that `h-realtime backup` has written
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Leave out the tokens of the backup that are no longer in the database
    #[arg(long)]
    keep_revocations: bool,
}

/// Writes a backup of the database in a data directory.
///
/// # Errors
/// [`Exit::USAGE`] for `-`, [`Exit::DATA`] for a file that exists already, and errors from writing
/// the file and opening the database.
pub fn run_backup(args: &BackupArgs, data: &Path) -> Result<(), Exit> {
    let database = DataDir::existing(data)?.database();
    if args.file == Path::new("-") {
        let message = "a backup is written to a file, not to standard output; ./- is a file's name";
        return Err(Exit::new(Exit::USAGE, message));
    }
    let store = Store::open_existing(&database);
    let store = store.map_err(|error| Exit::from(error).in_database(&database))?;
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
pub fn run_restore(args: &RestoreArgs, data: &Path, now: UnixMillis) -> Result<(), Exit> {
    let revoked = match args.keep_revocations {
        true => Revoked::LeaveOut,
        false => Revoked::Restore,
    };
    let data = DataDir::existing(data)?;
    let database = data.database();
    // A missing database is replaced, but only in a directory that a server has used.
    if !database.exists() && !data.publish_key_file().exists() {
        let message = format!(
            "{}: this is not the data directory of a server; name that with --data, or create a \
             database with --create",
            data.path().display()
        );
        return Err(Exit::new(Exit::UNAVAILABLE, message));
    }
    let restored = restore(&database, &args.file, revoked, now);
    let restored = restored.map_err(|error| of_input(error, &args.file, &database))?;
    let mut console = Console {
        input: &mut io::empty(),
        out: &mut io::stdout().lock(),
        words: &mut io::stderr().lock(),
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
        _ if error.is_unnamed() => {
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
            console.words,
            "The database could not be used. It is now {}.",
            damaged.display()
        )?;
    }
    if let Some(before) = &restored.before {
        writeln!(
            console.words,
            "The state before is in {}.",
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
            console.words,
            "Tokens that did not work before and do now: {} (ids: {}). End one with `h-realtime token \
             revoke ID`; or restore the state before, and then the backup with --keep-revocations.",
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

/// The maximum number of IDs to print.
const MOST_IDS: usize = 20;
