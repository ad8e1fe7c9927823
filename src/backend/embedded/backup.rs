//! Backups of the database as one file, and restores.
//!
//! A backup is made with `VACUUM INTO`: a consistent copy from one read transaction, without
//! deleted rows. A restore is one transaction on the existing database. The database thereby keeps
//! its sequence numbers, so that ids are never reused, and a running server follows through the
//! change log.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension as _, ffi};

use super::directory::{from_millis, token_id};
use super::file::is_same;
use super::store::{Store, StoreError};
use crate::backend::data_dir::{adopt, sync_directory_of};
use crate::backend::new_secret;
use crate::model::{TokenId, UnixMillis};

/// The contents of a database in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Users.
    pub users: u64,
    /// Tokens, expired ones too.
    pub tokens: u64,
    /// Groups.
    pub groups: u64,
}

/// The treatment of tokens that are in a backup and no longer in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokedTokens {
    /// They are restored like everything else, and become valid again.
    Restore,
    /// They are omitted.
    LeaveOut,
}

/// The result of a restore.
#[derive(Debug)]
pub struct Restored {
    /// The contents after the restore.
    pub contents: Contents,
    /// The tokens that were invalid before and are valid now, oldest first.
    pub revived: Vec<TokenId>,
    /// The file with the previous state, if there was one.
    pub before: Option<PathBuf>,
    /// The file with the damaged database, if there was one.
    pub damaged: Option<PathBuf>,
}

/// Replaces the contents of a database with those of a backup, in one transaction. A missing
/// database is created; a damaged one is moved aside.
///
/// # Errors
/// The backup cannot be read, is not a database of this program, or is damaged; or revoked tokens
/// are to be omitted, and no database tells which ones were revoked. In these cases nothing is
/// changed.
pub fn restore(
    database: &Path,
    from: &Path,
    revoked: RevokedTokens,
    now: UnixMillis,
) -> Result<Restored, StoreError> {
    let draft = stage(from, database)?;
    if revoked == RevokedTokens::LeaveOut && !database.exists() {
        return Err(nothing_to_compare(database));
    }
    let attempt = || Store::open(database)?.restore_from(&draft, revoked, now);
    match attempt() {
        Err(error) if error.is_damage() && revoked == RevokedTokens::Restore => {
            let damaged = set_aside(database)?;
            Ok(Restored {
                damaged: Some(damaged),
                ..attempt()?
            })
        }
        result => result,
    }
}

impl Store {
    /// Writes a backup to a new file with mode 0600. With `overwrite`, the complete backup replaces
    /// an existing file.
    ///
    /// # Errors
    /// `to` exists, cannot be written, or is the database itself; or the copy is damaged.
    pub fn backup(&self, to: &Path, overwrite: bool) -> Result<Contents, StoreError> {
        self.copy_to(to, overwrite, FileOwner::Process)
    }

    fn copy_to(
        &self,
        to: &Path,
        overwrite: bool,
        owner: FileOwner,
    ) -> Result<Contents, StoreError> {
        if !overwrite && to.symlink_metadata().is_ok() {
            let message = format!("{} exists; --force replaces it", to.display());
            return Err(StoreError::Exists(message));
        }
        if self
            .db()
            .path()
            .is_some_and(|own| is_same(Path::new(own), to))
        {
            let message = format!("{} is the database itself", to.display());
            return Err(StoreError::Invalid(message));
        }
        let draft = DraftFile::beside(to, owner)?;
        draft.fill_from(self.db())?;
        let copy = Connection::open(&draft.path)?;
        check_integrity(&copy, to)?;
        let contents = Contents::of(&copy)?;
        drop(copy);
        draft.keep_as(to)?;
        Ok(contents)
    }

    /// Replaces the contents of the database with those of a draft, which has the same schema.
    fn restore_from(
        &self,
        draft: &DraftFile,
        revoked: RevokedTokens,
        now: UnixMillis,
    ) -> Result<Restored, StoreError> {
        let own = PathBuf::from(self.db().path().unwrap_or_default());
        let had_users = "SELECT EXISTS (SELECT 1 FROM sqlite_sequence WHERE name = 'user')";
        let had_users: bool = self.db().query_row(had_users, [], |row| row.get(0))?;
        if !had_users && revoked == RevokedTokens::LeaveOut {
            return Err(nothing_to_compare(&own));
        }
        let before = had_users.then(|| suffixed(&own, ".before-restore"));
        if let Some(before) = &before {
            self.copy_to(before, true, FileOwner::OfDirectory)?;
        }
        self.db()
            .execute("ATTACH ?1 AS draft", [text(&draft.path)?])?;
        let revived = self.replace_rows(revoked, now);
        self.db().execute("DETACH draft", [])?;
        let revived = revived?;
        Ok(Restored {
            contents: Contents::of(self.db())?,
            revived: if had_users { revived } else { Vec::new() },
            before,
            damaged: None,
        })
    }

    /// Replaces all rows with those of the attached database `draft`, which has the same schema.
    fn replace_rows(
        &self,
        revoked: RevokedTokens,
        now: UnixMillis,
    ) -> Result<Vec<TokenId>, StoreError> {
        let change = rusqlite::Transaction::new_unchecked(
            self.db(),
            rusqlite::TransactionBehavior::Immediate,
        )?;
        change.execute_batch("PRAGMA defer_foreign_keys = true")?;
        if revoked == RevokedTokens::LeaveOut {
            let left_out =
                "DELETE FROM draft.token WHERE hash NOT IN (SELECT hash FROM main.token)";
            change.execute(left_out, [])?;
        }
        let revived = change
            .prepare(
                "SELECT id FROM draft.token
                 WHERE (expires IS NULL OR expires > ?1)
                   AND hash NOT IN (SELECT hash FROM main.token
                                    WHERE expires IS NULL OR expires > ?1)
                 ORDER BY id",
            )?
            .query_map([from_millis(now)], |row| row.get(0).map(token_id))?
            .collect::<Result<Vec<_>, _>>()?;
        let tables = tables(&change)?;
        for table in &tables {
            change.execute(&format!("DELETE FROM main.{table}"), [])?;
        }
        for table in &tables {
            let copy = format!("INSERT INTO main.{table} SELECT * FROM draft.{table}");
            change.execute(&copy, [])?;
        }
        // Sequence numbers continue after the larger of both databases. The change log restarts
        // with a marker beyond every position that a server has read, which makes servers recheck
        // everything.
        change.execute_batch(
            "UPDATE main.sqlite_sequence SET seq = max(seq, coalesce(
                 (SELECT seq FROM draft.sqlite_sequence AS other WHERE other.name = main.sqlite_sequence.name), 0));
             INSERT INTO main.sqlite_sequence (name, seq)
                 SELECT name, seq FROM draft.sqlite_sequence
                 WHERE name NOT IN (SELECT name FROM main.sqlite_sequence);
             DELETE FROM main.change;
             INSERT INTO main.change (kind) VALUES ('token');",
        )?;
        change.commit()?;
        Ok(revived)
    }
}

fn nothing_to_compare(database: &Path) -> StoreError {
    let message = "no database exists that could tell which tokens were revoked";
    StoreError::Invalid(format!("{}: {message}", database.display()))
}

/// Moves an unusable database file aside, together with SQLite's companion files, and returns its
/// new path.
fn set_aside(database: &Path) -> Result<PathBuf, StoreError> {
    let aside = unused_name(suffixed(database, ".damaged"));
    for beside in ["-journal", "-wal", "-shm"] {
        let moved = fs::rename(suffixed(database, beside), suffixed(&aside, beside));
        if let Err(error) = moved
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(StoreError::File(suffixed(database, beside), error));
        }
    }
    fs::rename(database, &aside)
        .and_then(|()| sync_directory_of(database))
        .map_err(|error| StoreError::File(database.to_owned(), error))?;
    Ok(aside)
}

/// Returns `path` if it is unused, and otherwise the first unused one with a number appended.
fn unused_name(path: PathBuf) -> PathBuf {
    let is_free = |path: &PathBuf| path.symlink_metadata().is_err();
    let numbered = (2..=u32::MAX).map(|number| suffixed(&path, &format!(".{number}")));
    let mut names = std::iter::once(path.clone()).chain(numbered);
    names.find(is_free).unwrap_or(path)
}

/// Copies a backup to a draft beside the database, checks it, and migrates it to this version's
/// schema.
fn stage(from: &Path, database: &Path) -> Result<DraftFile, StoreError> {
    let metadata = fs::metadata(from).and_then(|metadata| match metadata.is_dir() {
        true => Err(io::ErrorKind::IsADirectory.into()),
        false => Ok(metadata),
    });
    metadata.map_err(|error| StoreError::File(from.to_owned(), error))?;
    if is_same(from, database) {
        let message = format!("{} is the database itself", from.display());
        return Err(StoreError::Invalid(message));
    }
    let draft = DraftFile::beside(database, FileOwner::OfDirectory)?;
    let staged = || -> Result<(), StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        draft.fill_from(&Connection::open_with_flags(from, flags)?)?;
        let copy = Store::open_existing(&draft.path)?;
        check_tables(copy.db(), from)?;
        check_integrity(copy.db(), from)
    };
    staged().map_err(|error| match error {
        StoreError::Unusable(_, reason) => StoreError::Unusable(from.to_owned(), reason),
        // Only the draft is written.
        StoreError::Sqlite(cause) if is_write_error(&cause) => StoreError::Sqlite(cause),
        StoreError::Sqlite(cause) => StoreError::Unusable(from.to_owned(), cause.to_string()),
        error @ StoreError::Newer { .. } => {
            StoreError::Unusable(from.to_owned(), error.to_string())
        }
        error => error,
    })?;
    Ok(draft)
}

/// Returns whether writing failed, as on a full disk.
fn is_write_error(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|error| match error.code {
        ErrorCode::DiskFull => true,
        ErrorCode::SystemIoFailure => !READ_ERRORS.contains(&error.extended_code),
        _ => false,
    })
}

/// Checks that a database has the tables of this version's schema.
fn check_tables(db: &Connection, path: &Path) -> Result<(), StoreError> {
    let definition = "SELECT sql FROM sqlite_schema WHERE name = ?1";
    let model = Store::in_memory()?;
    for table in tables(model.db())? {
        let of = |db: &Connection| {
            db.query_row(definition, [&table], |row| row.get::<_, String>(0))
                .optional()
        };
        if of(db)? != of(model.db())? {
            let reason = format!("the table {table} of h-realtime is missing or differs");
            return Err(StoreError::Unusable(path.to_owned(), reason));
        }
    }
    Ok(())
}

fn check_integrity(db: &Connection, path: &Path) -> Result<(), StoreError> {
    let found: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    let orphans = db.prepare("PRAGMA foreign_key_check")?.exists([])?;
    if found == "ok" && !orphans {
        return Ok(());
    }
    let reason = if orphans {
        "rows refer to missing rows"
    } else {
        &found
    };
    Err(StoreError::Unusable(
        path.to_owned(),
        format!("the database is damaged: {reason}"),
    ))
}

/// Returns the tables that hold the database's contents.
fn tables(db: &Connection) -> Result<Vec<String>, rusqlite::Error> {
    db.prepare(
        "SELECT name FROM main.sqlite_schema
         WHERE type = 'table' AND name <> 'change' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
    )?
    .query_map([], |row| row.get(0))?
    .collect()
}

impl Contents {
    fn of(db: &Connection) -> Result<Contents, rusqlite::Error> {
        let query = "SELECT (SELECT count(*) FROM main.user), (SELECT count(*) FROM main.token),
                            (SELECT count(*) FROM main.grp WHERE deleted IS NULL)";
        db.query_row(query, [], |row| {
            let count = |column| row.get(column).map(i64::unsigned_abs);
            Ok(Contents {
                users: count(0)?,
                tokens: count(1)?,
                groups: count(2)?,
            })
        })
    }
}

/// The owner of a new file that root creates.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FileOwner {
    /// Root.
    Process,
    /// The owner of the data directory, for files that the server's user must read.
    OfDirectory,
}

/// A file that is being written under a temporary name. Dropping it deletes the file unless it was
/// kept.
struct DraftFile {
    path: PathBuf,
}

impl DraftFile {
    /// Creates an empty file with mode 0600 in the directory of `path`.
    fn beside(path: &Path, owner: FileOwner) -> Result<DraftFile, StoreError> {
        let of_draft = |error| StoreError::File(path.to_owned(), error);
        let path = std::path::absolute(path).map_err(of_draft)?;
        let suffix = new_secret(".").map_err(io::Error::from).map_err(of_draft)?;
        let draft = DraftFile {
            path: suffixed(&path, &suffix),
        };
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(&draft.path).map_err(of_draft)?;
        if owner == FileOwner::OfDirectory {
            adopt(&file, &draft.path).map_err(of_draft)?;
        }
        Ok(draft)
    }

    /// Copies a database into the empty file.
    fn fill_from(&self, db: &Connection) -> Result<(), StoreError> {
        db.execute("VACUUM INTO ?1", [text(&self.path)?])?;
        Ok(())
    }

    /// Syncs the file and renames it to its final name.
    fn keep_as(self, path: &Path) -> Result<(), StoreError> {
        File::open(&self.path)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&self.path, path))
            .and_then(|()| sync_directory_of(path))
            .map_err(|error| StoreError::File(path.to_owned(), error))
    }
}

impl Drop for DraftFile {
    fn drop(&mut self) {
        // After a rename, the file no longer exists under this name.
        for beside in ["", "-journal"] {
            let _ = fs::remove_file(suffixed(&self.path, beside));
        }
    }
}

/// Returns a path as UTF-8, which SQLite requires.
fn text(path: &Path) -> Result<&str, StoreError> {
    path.to_str()
        .ok_or_else(|| StoreError::Invalid(format!("{} is not valid UTF-8", path.display())))
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// SQLite's errors of reading a file.
const READ_ERRORS: [i32; 2] = [ffi::SQLITE_IOERR_READ, ffi::SQLITE_IOERR_SHORT_READ];

#[cfg(test)]
mod tests;
