//! A database file that is restored, replaced, or removed while the server has it open.

use std::fs;
use std::thread;
use std::time::Duration;

use super::*;
use crate::model::Role;

/// A data directory with Joe, his token `t`, and the group `g`, and a backend on it, in which Joe
/// has logged in.
struct Site {
    _temp: tempfile::TempDir,
    path: PathBuf,
    backend: Embedded,
}

impl Site {
    fn new() -> Site {
        let temp = tempfile::tempdir().unwrap();
        let data = DataDir::open(temp.path()).unwrap();
        let path = data.database();
        let store = Store::open(&path).unwrap();
        store.add_user(JOE, None, 0).unwrap();
        store.add_token(JOE, &token("t"), 0, None).unwrap();
        store.add_group("g", ReadableBy::Members, 0).unwrap();
        drop(store);
        let mut site = Site {
            _temp: temp,
            path,
            backend: Embedded::open(&data, HistoryOptions::default(), Arc::default(), 0).unwrap(),
        };
        assert_eq!(site.log_in("t"), ["ready", "known"]);
        site
    }

    /// Opens a connection as a command does.
    fn store(&self) -> Store {
        Store::open(&self.path).unwrap()
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.path.with_file_name(name)
    }

    /// Copies the database as `cp` does.
    fn copy(&self, name: &str) -> PathBuf {
        let copy = self.beside(name);
        fs::copy(&self.path, &copy).unwrap();
        copy
    }

    /// Runs a turn with a login; returns its messages.
    fn log_in(&mut self, text: &str) -> Vec<String> {
        let events = turn(&mut self.backend, vec![authenticate(1, text)], 0);
        events.iter().map(short).collect()
    }

    /// Runs a turn without requests; returns its messages, sorted.
    fn changes(&mut self) -> Vec<String> {
        let events = turn(&mut self.backend, Vec::new(), 0);
        let mut changes: Vec<_> = events.iter().map(short).collect();
        changes.sort();
        changes
    }

    /// Joe gets a second token, logs in with it, and joins the group.
    fn go_on(&mut self) {
        self.store()
            .add_token(JOE, &token("later"), 0, None)
            .unwrap();
        self.store().set_member("g", JOE, Role::Member).unwrap();
        assert_eq!(self.log_in("later"), ["in 1 groups", "known"]);
    }
}

fn short(tell: &BackendEvent) -> String {
    match tell {
        BackendEvent::Health { ready: true } => "ready".to_owned(),
        BackendEvent::Health { ready: false } => "not ready".to_owned(),
        BackendEvent::Authenticated { reply, .. } => match reply {
            AuthReply::Known(_) => "known".to_owned(),
            AuthReply::Unknown => "unknown".to_owned(),
            AuthReply::Unavailable => "unavailable".to_owned(),
        },
        BackendEvent::TokenEnded { token, .. } => format!("token {} ended", token.0),
        BackendEvent::Memberships { memberships, .. } => format!("in {} groups", memberships.len()),
        other => format!("{other:?}"),
    }
}

/// Replaces the database with a copy.
type Replace = fn(&Path, &Path);

const WAYS: [(&str, Replace); 4] = [
    ("the backup API", |copy, path| {
        let mut db = rusqlite::Connection::open(path).unwrap();
        let progress = None::<fn(rusqlite::backup::Progress)>;
        db.restore("main", copy, progress).unwrap();
    }),
    ("mv", |copy, path| fs::rename(copy, path).unwrap()),
    ("rm, then cp", |copy, path| {
        fs::remove_file(path).unwrap();
        fs::copy(copy, path).unwrap();
    }),
    ("cp over it", |copy, path| {
        thread::sleep(TICK);
        fs::write(path, fs::read(copy).unwrap()).unwrap();
    }),
];

// D2
#[test]
fn restore_of_an_older_state_reports_everything_once() {
    for (way, replace) in WAYS {
        let mut site = Site::new();
        let copy = site.copy("copy");
        site.go_on();
        replace(&copy, &site.path);
        assert_eq!(site.changes(), ["in 0 groups", "token 2 ended"], "{way}");
        assert!(site.changes().is_empty(), "{way}");
        assert_eq!(site.log_in("later"), ["unknown"], "{way}");
        assert_eq!(site.log_in("t"), ["known"], "{way}");
    }
}

/// The sequence numbers of the change log, the counters of the file header, and the id of the new
/// token are the same again.
#[test]
fn older_state_with_equal_change_count_is_detected() {
    for (way, replace) in WAYS {
        let mut site = Site::new();
        let copy = site.copy("copy");
        site.go_on();
        replace(&copy, &site.path);
        let store = site.store();
        store.add_token(JOE, &token("other"), 0, None).unwrap();
        store.add_group("h", ReadableBy::Members, 0).unwrap();
        store.set_member("h", JOE, Role::Member).unwrap();
        drop(store);
        assert_eq!(site.changes(), ["in 1 groups", "token 2 ended"], "{way}");
        assert!(site.changes().is_empty(), "{way}");
        assert_eq!(site.log_in("later"), ["unknown"], "{way}");
        assert_eq!(site.log_in("other"), ["known"], "{way}");
    }
}

/// The states differ only in rows that are not in the change log, and the counters in the file
/// header are equal. Only `ctime` shows that SQLite's page cache is stale.
#[test]
fn overwritten_file_with_equal_counters_is_reread() {
    let mut site = Site::new();
    let copy = site.copy("copy");
    let rename = "UPDATE user SET display_name = 'Joe'";
    site.store().db().execute(rename, []).unwrap();
    site.changes();
    let is_named = |site: &Site| {
        let store = site.backend.store.as_ref().unwrap();
        store
            .directory()
            .author(JOE)
            .unwrap()
            .display_name
            .is_some()
    };
    assert!(is_named(&site));
    thread::sleep(TICK);
    fs::write(&site.path, fs::read(copy).unwrap()).unwrap();
    let other = "acct:other@example.org";
    site.store().add_user(other, None, 0).unwrap();
    assert!(site.changes().is_empty());
    assert!(!is_named(&site));
}

#[test]
fn replacement_right_after_open_is_detected() {
    let site = Site::new();
    let copy = site.copy("copy");
    let store = site.store();
    fs::rename(copy, &site.path).unwrap();
    let view = store.view().map(drop);
    assert!(matches!(view, Err(StoreError::Replaced(_))), "{view:?}");
}

// D2
#[test]
fn no_token_logs_in_without_a_database() {
    let mut site = Site::new();
    let away = site.beside("away");
    fs::rename(&site.path, &away).unwrap();
    assert_eq!(site.log_in("t"), ["not ready", "unavailable"]);
    assert_eq!(site.log_in("t"), ["unavailable"]);
    assert!(site.changes().is_empty());
    assert!(!site.path.exists(), "the server makes no new one");

    // The file is changed under its other name and then moved back.
    let store = Store::open(&away).unwrap();
    let first = store.token_of_secret(&token("t")).unwrap();
    store.revoke_token(first).unwrap();
    drop(store);
    fs::rename(&away, &site.path).unwrap();
    assert_eq!(site.log_in("t"), ["ready", "token 1 ended", "unknown"]);
}

#[test]
fn invalid_file_is_left_alone_until_it_is_a_database() {
    let mut site = Site::new();
    let copy = site.copy("copy");
    let whole = fs::read(&copy).unwrap();
    let half = &whole[..whole.len() / 2];
    let text = b"This is a text file, long enough to have a header.".repeat(99);
    for contents in [b"", half, &text[..]] {
        fs::write(&site.path, contents).unwrap();
        assert_eq!(site.log_in("t"), ["not ready", "unavailable"]);
        assert_eq!(site.log_in("t"), ["unavailable"]);
        assert_eq!(fs::read(&site.path).unwrap(), contents);
        fs::write(&site.path, &whole).unwrap();
        assert_eq!(site.log_in("t"), ["ready", "known"]);
    }
}

#[test]
fn newer_database_is_not_read() {
    let mut site = Site::new();
    let set_version = |version: &str| {
        let db = rusqlite::Connection::open(&site.path).unwrap();
        db.pragma_update(None, "user_version", version).unwrap();
        db.execute_batch("CREATE TABLE later (a); DROP TABLE later")
            .unwrap();
    };
    set_version("99");
    assert_eq!(site.log_in("t"), ["not ready", "unavailable"]);
    let last_error = site.backend.last_error.clone().unwrap();
    assert!(last_error.contains("version 99"), "{last_error}");
    assert!(last_error.contains("h-realtime.sqlite"), "{last_error}");
}

#[test]
fn restored_older_schema_is_migrated() {
    let mut site = Site::new();
    let old = rusqlite::Connection::open(site.beside("old")).unwrap();
    old.execute_batch(include_str!("../schema.sql")).unwrap();
    old.pragma_update(None, "user_version", "1").unwrap();
    drop(old);
    (WAYS[0].1)(&site.beside("old"), &site.path);
    assert_eq!(site.log_in("t"), ["token 1 ended", "unknown"]);
    assert!(site.changes().is_empty());
}

#[test]
fn emptied_change_log_is_reported_once() {
    let mut site = Site::new();
    site.store().db().execute("DELETE FROM change", []).unwrap();
    assert_eq!(site.changes(), ["in 0 groups"]);
    assert!(site.changes().is_empty());
    site.store().set_member("g", JOE, Role::Member).unwrap();
    assert_eq!(site.changes(), ["in 1 groups"]);
    assert!(site.changes().is_empty());
}

#[test]
fn lock_of_another_program_is_waited_for() {
    let mut site = Site::new();
    let store = site.backend.store.as_ref().unwrap();
    store.db().busy_timeout(Duration::ZERO).unwrap();
    let other = rusqlite::Connection::open(&site.path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert_eq!(site.log_in("t"), ["not ready", "unavailable"]);
    let last_error = site.backend.last_error.clone().unwrap();
    assert!(last_error.contains("locked"), "{last_error}");
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(site.log_in("t"), ["ready", "known"]);
}

/// Longer than the granularity of file times, which the kernel takes from its timer tick.
const TICK: Duration = Duration::from_millis(30);
