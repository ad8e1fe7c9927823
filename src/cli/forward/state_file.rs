//! The state file of webhooks: the position, and the acknowledged events behind it.
//!
//! Owns: the format. The file is a log of lines of JSON. Each change is one line, which is synced to
//! the disk; a line that a crash has cut off is ignored. When the log has grown, it is replaced
//! atomically by one line.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::queue::Changes;
use crate::cli::listen::{claim, is_acceptable, read_at_most, replace_file};
use crate::exit::{Exit, of_io};
use crate::model::UnixMillis;

/// A state file that this process has locked.
pub(super) struct ForwardState {
    path: PathBuf,
    /// The log, to append to. `None` before the first write.
    log: Option<File>,
    /// The length of the log, and the length at which it is replaced.
    length: u64,
    replace_at: u64,
    _lock: File,
}

impl ForwardState {
    /// Locks and reads the file. It need not exist.
    ///
    /// # Errors
    /// Another process has locked it, it cannot be read, or it is not a state file.
    pub(super) fn open(path: &Path) -> Result<(Self, Changes), Exit> {
        let (path, lock) = claim(path)?;
        let (stored, length) = match read_at_most(&path, MAX_FILE)? {
            Some(text) => parse(&text).map_err(|reason| {
                let message = format!("{}: {reason}", path.display());
                Exit::new(Exit::DATA, message)
            })?,
            None => (Changes::default(), 0),
        };
        let state = ForwardState {
            path,
            log: None,
            length,
            // The first write replaces the file, which may end in an incomplete line.
            replace_at: 0,
            _lock: lock,
        };
        Ok((state, stored))
    }

    /// Returns the path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Stores changes. `snapshot` returns everything, for a new file.
    pub(super) fn save(
        &mut self,
        changes: &Changes,
        snapshot: impl FnOnce() -> Changes,
    ) -> Result<(), Exit> {
        let saved = match &mut self.log {
            Some(log) if self.length < self.replace_at => append(log, changes),
            _ => self.replace(&snapshot()),
        };
        let written = saved.map_err(|error| {
            // The line may be incomplete: the next write replaces the file.
            self.log = None;
            let path = self.path.display();
            let message = format!(
                "{path}: cannot store the position: {error}; the events after the stored position \
                 will be sent again"
            );
            Exit::new(of_io(error.kind()), message)
        })?;
        self.length += written;
        Ok(())
    }

    fn replace(&mut self, all: &Changes) -> io::Result<u64> {
        let line = line(all, Some(VERSION))?;
        replace_file(&self.path, &line, false)?;
        let mut log = OpenOptions::new().write(true).open(&self.path)?;
        log.seek(SeekFrom::End(0))?;
        self.log = Some(log);
        self.length = 0;
        self.replace_at = line.len() as u64 * 2 + MIN_GROWTH;
        Ok(line.len() as u64)
    }
}

fn append(log: &mut File, changes: &Changes) -> io::Result<u64> {
    let line = line(changes, None)?;
    log.write_all(&line)?;
    log.sync_data()?;
    Ok(line.len() as u64)
}

fn line(changes: &Changes, version: Option<u64>) -> io::Result<Vec<u8>> {
    let record = Record {
        version,
        cursor: changes.position.clone(),
        acknowledged: changes.acknowledged.clone(),
        failing: changes.failing.clone(),
    };
    let mut line = serde_json::to_vec(&record)?;
    line.push(b'\n');
    Ok(line)
}

/// Parses the log. Returns its content and its length.
fn parse(bytes: &[u8]) -> Result<(Changes, u64), String> {
    let damaged = || {
        "not a state file of forward, or damaged: give another --state, or remove the file to start \
         with --since"
            .to_owned()
    };
    let mut lines = bytes.split_inclusive(|&byte| byte == b'\n');
    let first: Record =
        serde_json::from_slice(lines.next().unwrap_or_default()).map_err(|_| damaged())?;
    match first.version {
        Some(VERSION) => {}
        Some(version) if version > VERSION => {
            return Err(
                "this state file is from a newer version of h-realtime: use that version, or give \
                 another --state"
                    .to_owned(),
            );
        }
        _ => return Err(damaged()),
    }
    let mut stored = Changes::default();
    merge(&mut stored, first);
    for line in lines {
        match serde_json::from_slice(line) {
            Ok(record) if line.ends_with(b"\n") => merge(&mut stored, record),
            // A crash has cut off the last line.
            _ if !line.ends_with(b"\n") => break,
            _ => return Err(damaged()),
        }
    }
    match &stored.position {
        Some(cursor) if !is_acceptable(cursor) => Err(damaged()),
        _ => Ok((stored, bytes.len() as u64)),
    }
}

fn merge(stored: &mut Changes, record: Record) {
    if record.cursor.is_some() {
        stored.position = record.cursor;
    }
    stored.acknowledged.extend(record.acknowledged);
    stored.failing.extend(record.failing);
}

#[derive(Deserialize, Serialize)]
struct Record {
    /// Identifies the format, in the first line.
    #[serde(
        rename = "h_realtime_forward",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    version: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    acknowledged: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    failing: Vec<(String, String, UnixMillis)>,
}

const VERSION: u64 = 1;
/// The log is replaced when it has grown to twice its initial length and by this number of bytes.
const MIN_GROWTH: u64 = 256 * 1024;
/// The number of bytes that are read: more than any state file has.
const MAX_FILE: u64 = 256 * 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn opened(path: &Path) -> Result<(ForwardState, Changes), (u8, String)> {
        ForwardState::open(path).map_err(|exit| (exit.code, exit.message))
    }

    fn changes(position: &str, acknowledged: &[(&str, &str)]) -> Changes {
        let owned = |&(id, cursor): &(&str, &str)| (id.to_owned(), cursor.to_owned());
        Changes {
            position: Some(position.to_owned()),
            acknowledged: acknowledged.iter().map(owned).collect(),
            failing: Vec::new(),
        }
    }

    fn save(state: &mut ForwardState, changes: &Changes) {
        let saved = state.save(changes, || Changes {
            failing: vec![("F".to_owned(), "c".to_owned(), 7)],
            ..Changes::default()
        });
        saved.unwrap_or_else(|exit| panic!("{}", exit.message));
    }

    #[test]
    fn appended_changes_are_read_back_without_an_incomplete_line() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("state");
        let (mut state, stored) = opened(&path).expect("a state file");
        assert_eq!(stored, Changes::default());
        // The first write has the snapshot.
        save(&mut state, &changes("ignored", &[]));
        save(&mut state, &changes("c1", &[("A", "c2")]));
        save(&mut state, &changes("c2", &[]));
        drop(state);
        let mut text = fs::read(&path).expect("a file");
        text.extend_from_slice(br#"{"cursor":"c3","ackn"#);
        fs::write(&path, &text).expect("a file");
        let (_, stored) = opened(&path).expect("a state file");
        assert_eq!(stored.position.as_deref(), Some("c2"));
        assert_eq!(stored.acknowledged, [("A".to_owned(), "c2".to_owned())]);
        assert_eq!(stored.failing, [("F".to_owned(), "c".to_owned(), 7)]);
    }

    #[test]
    fn every_cut_of_the_log_yields_an_earlier_state() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("state");
        let (mut state, _) = opened(&path).expect("a state file");
        save(&mut state, &changes("ignored", &[]));
        let first = fs::read(&path).expect("a file").len();
        for number in 1..5 {
            save(&mut state, &changes(&format!("c{number}"), &[]));
        }
        let text = fs::read(&path).expect("a file");
        for cut in first..text.len() {
            let (stored, _) = parse(&text[..cut]).unwrap_or_else(|error| panic!("{cut}: {error}"));
            let complete = text[first..cut]
                .iter()
                .filter(|&&byte| byte == b'\n')
                .count();
            let expected = (complete > 0).then(|| format!("c{complete}"));
            assert_eq!(stored.position, expected, "{cut}");
        }
    }

    #[test]
    fn write_after_a_failed_one_replaces_the_file() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("state");
        let (mut state, _) = opened(&path).expect("a state file");
        save(&mut state, &changes("ignored", &[]));
        // A disk that becomes full in the middle of a line, and has space again.
        let mut log = OpenOptions::new().append(true).open(&path).expect("a file");
        log.write_all(b"{\"cursor\":\"c").expect("written");
        state.log = Some(File::open(&path).expect("a file"));
        let failed = state.save(&changes("c1", &[]), Changes::default);
        assert!(failed.is_err());
        save(&mut state, &changes("c2", &[]));
        drop(state);
        let (_, stored) = opened(&path).expect("a state file");
        assert_eq!(stored.failing, [("F".to_owned(), "c".to_owned(), 7)]);
    }

    #[test]
    fn grown_log_is_replaced() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("state");
        let (mut state, _) = opened(&path).expect("a state file");
        let long = "c".repeat(1000);
        for _ in 0..1000 {
            save(&mut state, &changes(&long, &[]));
        }
        let length = fs::metadata(&path).expect("a file").len();
        assert!(length < 2 * MIN_GROWTH, "{length}");
    }

    #[test]
    fn damaged_and_foreign_files_are_refused_by_name() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("state");
        for text in [
            "",
            "{",
            "[]",
            "{}\n",
            "{\"h_realtime_listen\":1,\"cursor\":\"a\"}\n",
            "{\"h_realtime_forward\":2}\n",
            "{\"h_realtime_forward\":1,\"cursor\":\"a b\"}\n",
            "{\"h_realtime_forward\":1}\nx\n",
        ] {
            fs::write(&path, text).expect("a file");
            let (code, message) = opened(&path).err().expect("refused");
            assert_eq!(code, Exit::DATA, "{text}");
            assert!(message.contains("state"), "{message}");
            assert_eq!(fs::read_to_string(&path).expect("untouched"), text);
        }
        assert_eq!(opened(folder.path()).err().expect("refused").0, Exit::DATA);
    }
}
