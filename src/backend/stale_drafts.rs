//! Removes drafts in a data directory that killed processes have left behind.
//!
//! A file is written under a temporary name, which ends with a dot and random characters, and is
//! renamed or linked when it is complete.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Removes the drafts of servers, which only the server that holds the lock writes, and drafts of
/// commands that have not been modified for a day. Returns the paths of the removed files.
pub(super) fn remove(directory: &Path, now: SystemTime) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let entries = entries.filter_map(Result::ok);
    // While there is a journal, the super-journal decides whether its transaction is rolled back.
    let has_journal = directory.join(JOURNAL).symlink_metadata().is_ok();
    let is_stale = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        let of = |files: &[&str]| draft_of(name).is_some_and(|file| files.contains(&file));
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        let of_command = of(COMMAND_FILES) || (is_super_journal(name) && !has_journal);
        is_file && (of(SERVER_FILES) || (of_command && is_old(entry, now)))
    };
    let stale = entries.filter(is_stale).map(|entry| entry.path());
    stale.filter(|path| fs::remove_file(path).is_ok()).collect()
}

/// Returns the name of the file for which a draft was written.
fn draft_of(name: &str) -> Option<&str> {
    let name = name.strip_suffix("-journal").unwrap_or(name);
    let (file, random) = name.rsplit_once('.')?;
    let is_random = random.len() == RANDOM
        && random
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    is_random.then_some(file)
}

/// Returns whether this is a super-journal of SQLite, which a transaction on the database and a
/// draft has while it is committed.
fn is_super_journal(name: &str) -> bool {
    let random = name.strip_prefix(SUPER_JOURNAL);
    random.is_some_and(|it| it.len() == 9 && it.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn is_old(entry: &fs::DirEntry, now: SystemTime) -> bool {
    let modified = entry.metadata().and_then(|metadata| metadata.modified());
    let age = modified.ok().and_then(|time| now.duration_since(time).ok());
    age.is_some_and(|age| age > DAY)
}

const SERVER_FILES: &[&str] = &["publish.key", "admin.address"];
const COMMAND_FILES: &[&str] = &["h-realtime.sqlite", "h-realtime.sqlite.before-restore"];
const JOURNAL: &str = "h-realtime.sqlite-journal";
const SUPER_JOURNAL: &str = "h-realtime.sqlite-mj";
/// The number of characters that [`new_secret`](super::new_secret) generates.
const RANDOM: usize = 43;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::new_secret;

    #[test]
    fn only_drafts_of_servers_and_old_drafts_of_commands_are_removed() {
        let temp = tempfile::tempdir().unwrap();
        let write = |name: String| {
            let path = temp.path().join(name);
            fs::write(&path, "x").unwrap();
            path
        };
        let kept: Vec<_> = [
            "publish.key",
            "admin.address",
            "h-realtime.sqlite",
            "h-realtime.sqlite.before-restore",
            "h-realtime.sqlite.damaged",
            "publish.key.old",
            "h-realtime.sqlite-journal",
            "h-realtime.sqlite-mj",
            "h-realtime.sqlite-mjournal99",
        ]
        .map(|name| write(name.to_owned()))
        .into();
        let of_others = write(new_secret("notes.").unwrap());
        let mut drafts: Vec<_> = [
            "publish.key.",
            "admin.address.",
            "h-realtime.sqlite.",
            "h-realtime.sqlite.before-restore.",
        ]
        .map(|prefix| write(new_secret(prefix).unwrap()))
        .into();
        let journal = new_secret("h-realtime.sqlite.").unwrap() + "-journal";
        drafts.push(write(journal));

        let super_journal = write("h-realtime.sqlite-mj1A2B3C9FF".to_owned());

        let removed = remove(temp.path(), SystemTime::now());
        assert_eq!(removed.len(), 2, "{removed:?}");
        assert!(!drafts[0].exists() && !drafts[1].exists());
        let removed = remove(temp.path(), SystemTime::now() + 2 * DAY);
        assert_eq!(removed.len(), 3, "{removed:?}");
        assert!(drafts.iter().all(|path| !path.exists()));
        assert!(kept.iter().all(|path| path.exists()) && of_others.exists());
        // It is needed as long as there is a journal.
        assert!(super_journal.exists());
        fs::remove_file(temp.path().join(JOURNAL)).unwrap();
        assert_eq!(
            remove(temp.path(), SystemTime::now()),
            [""; 0].map(PathBuf::from)
        );
        let removed = remove(temp.path(), SystemTime::now() + 2 * DAY);
        assert_eq!(removed, [super_journal]);
    }
}
