//! The file of `--state`: the newest cursor, across restarts of the command.
//!
//! Owns: the format, the atomic replacement, and the lock against a second process. The lock is a
//! file of its own, since each replacement gives the state file a new inode.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::json;

use crate::exit::{Exit, of_io};

/// A state file that this process has locked.
pub(super) struct StateFile {
    path: PathBuf,
    _lock: File,
}

impl StateFile {
    /// Locks the file, and returns it with its cursor, or `None` if it does not exist.
    ///
    /// # Errors
    /// Another process has locked it, it cannot be read, or it is not a state file.
    pub(super) fn open(path: &Path) -> Result<(Self, Option<String>), Exit> {
        let (path, lock) = claim(path)?;
        let cursor = read(&path)?;
        Ok((StateFile { path, _lock: lock }, cursor))
    }

    /// Returns the path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the cursor. After a crash at any point, the file has the old cursor or the new one.
    pub(super) fn save(&self, cursor: &str) -> Result<(), Exit> {
        let text = format!("{}\n", json!({FORMAT: VERSION, "cursor": cursor}));
        replace_file(&self.path, text.as_bytes(), true).map_err(|error| {
            let path = self.path.display();
            let message = format!(
                "{path}: cannot store the cursor: {error}; the events after the stored cursor \
                 will be repeated"
            );
            Exit::new(of_io(error.kind()), message)
        })
    }
}

/// Resolves the path of a state file, and locks it. The file need not exist.
///
/// # Errors
/// Another process has locked it, or it is not a file.
pub(in crate::cli) fn claim(path: &Path) -> Result<(PathBuf, File), Exit> {
    // A symbolic link stays in place: its target is replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if fs::metadata(&path).is_ok_and(|found| !found.is_file()) {
        let message = format!(
            "{}: not a regular file: give another --state",
            path.display()
        );
        return Err(Exit::new(Exit::DATA, message));
    }
    let lock = lock(&path)?;
    Ok((path, lock))
}

/// Reads at most `limit` bytes of a file. Returns `None` if it does not exist.
pub(in crate::cli) fn read_at_most(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, Exit> {
    let mut bytes = Vec::new();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(path, &error)),
    };
    let read = file.take(limit).read_to_end(&mut bytes);
    read.map_err(|error| unreadable(path, &error))?;
    Ok(Some(bytes))
}

/// Replaces a file atomically: after a crash at any point, it has the old text or the new one. It is
/// readable by others only if `is_public`, and if the file mode creation mask permits that.
pub(in crate::cli) fn replace_file(path: &Path, text: &[u8], is_public: bool) -> io::Result<()> {
    let draft = suffixed(path, ".tmp");
    // A process that was killed may have left its draft.
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(if is_public { 0o666 } else { 0o600 })
        .open(&draft)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(directory)?.sync_all()
}

/// Locks a file that this process replaces, by another file next to it.
fn lock(path: &Path) -> Result<File, Exit> {
    let lock = suffixed(path, ".lock");
    let failed = |error: &io::Error| {
        let message = format!(
            "{}: cannot lock the state file: {error}; its directory must exist and be writable",
            lock.display()
        );
        Exit::new(of_io(error.kind()), message)
    };
    let opened = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&lock);
    let file = opened.map_err(|error| failed(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let message = format!(
                "{}: another process uses this state file: give each its own --state",
                path.display()
            );
            Err(Exit::new(Exit::UNAVAILABLE, message))
        }
        Err(TryLockError::Error(error)) => Err(failed(&error)),
    }
}

fn read(path: &Path) -> Result<Option<String>, Exit> {
    let Some(bytes) = read_at_most(path, MAX_FILE)? else {
        return Ok(None);
    };
    match serde_json::from_slice(&bytes) {
        Ok(Stored { version, .. }) if version > VERSION => {
            let message = format!(
                "{}: this state file is from a newer version of h-realtime: use that version, or \
                 give another --state",
                path.display()
            );
            Err(Exit::new(Exit::DATA, message))
        }
        Ok(Stored {
            cursor: Some(cursor),
            ..
        }) if is_acceptable(&cursor) => Ok(Some(cursor)),
        _ => {
            let message = format!(
                "{}: not a state file of listen, or damaged: give another --state, or remove the \
                 file to start with --since",
                path.display()
            );
            Err(Exit::new(Exit::DATA, message))
        }
    }
}

pub(in crate::cli) fn unreadable(path: &Path, error: &io::Error) -> Exit {
    let code = match error.kind() {
        ErrorKind::PermissionDenied => Exit::NO_PERMISSION,
        _ => Exit::NO_INPUT,
    };
    Exit::new(code, format!("{}: {error}", path.display()))
}

/// Returns whether a cursor can be stored and sent: a short string of printable ASCII characters.
pub(in crate::cli) fn is_acceptable(cursor: &str) -> bool {
    (1..=MAX_CURSOR).contains(&cursor.len()) && cursor.bytes().all(|byte| byte.is_ascii_graphic())
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    name.into()
}

#[derive(Deserialize)]
struct Stored {
    #[serde(rename = "h_realtime_listen")]
    version: u64,
    cursor: Option<String>,
}

/// The key that identifies the format, with the version as its value.
const FORMAT: &str = "h_realtime_listen";
const VERSION: u64 = 1;
/// The maximum length of a cursor in bytes. Those of this server have 36.
pub(in crate::cli) const MAX_CURSOR: usize = 1024;
/// The number of bytes that are read: more than any state file has.
const MAX_FILE: u64 = 8192;

#[cfg(test)]
mod tests {
    use super::*;

    fn opened(path: &Path) -> Result<(StateFile, Option<String>), (u8, String)> {
        StateFile::open(path).map_err(|exit| (exit.code, exit.message))
    }

    #[test]
    fn saved_cursor_is_read_back_and_replaces_a_left_draft() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("state");
        fs::write(suffixed(&path, ".tmp"), "left").expect("a draft");
        let (state, none) = opened(&path).expect("a state file");
        assert_eq!(none, None);
        for cursor in ["first", "second"] {
            state.save(cursor).expect("saved");
        }
        drop(state);
        let (_, cursor) = opened(&path).expect("a state file");
        assert_eq!(cursor.as_deref(), Some("second"));
        assert!(!suffixed(&path, ".tmp").exists());
    }

    #[test]
    fn symbolic_link_to_the_state_file_stays_a_link() {
        let folder = tempfile::tempdir().expect("a directory");
        let (path, link) = (folder.path().join("state"), folder.path().join("link"));
        opened(&path)
            .expect("a state file")
            .0
            .save("a")
            .expect("saved");
        std::os::unix::fs::symlink(&path, &link).expect("a link");
        opened(&link)
            .expect("a state file")
            .0
            .save("b")
            .expect("saved");
        assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
        assert_eq!(opened(&path).expect("a state file").1.as_deref(), Some("b"));
    }

    #[test]
    fn damaged_and_foreign_files_are_refused_by_name() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("state");
        let long = "c".repeat(MAX_CURSOR + 1);
        for text in [
            String::new(),
            "{".to_owned(),
            "[]".to_owned(),
            r#"{"cursor": "a"}"#.to_owned(),
            r#"{"h_realtime_listen": 1}"#.to_owned(),
            r#"{"h_realtime_listen": 1, "cursor": ""}"#.to_owned(),
            r#"{"h_realtime_listen": 1, "cursor": "a b"}"#.to_owned(),
            r#"{"h_realtime_listen": 2, "cursor": "a"}"#.to_owned(),
            format!(r#"{{"h_realtime_listen": 1, "cursor": "{long}"}}"#),
            " ".repeat(10_000),
        ] {
            fs::write(&path, &text).expect("a file");
            let (code, message) = opened(&path).err().expect("refused");
            assert_eq!(code, Exit::DATA, "{text}");
            assert!(message.contains("state"), "{message}");
            assert_eq!(fs::read_to_string(&path).expect("untouched"), text);
        }
        let (code, _) = opened(folder.path()).err().expect("refused");
        assert_eq!(code, Exit::DATA);
    }

    #[test]
    fn second_user_of_a_state_file_is_refused() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("state");
        let (state, _) = opened(&path).expect("a state file");
        state.save("a").expect("saved");
        let (code, message) = opened(&path).err().expect("refused");
        assert_eq!(code, Exit::UNAVAILABLE);
        assert!(message.contains("another process"), "{message}");
        drop(state);
        assert!(opened(&path).is_ok());
    }
}
