//! Backups are complete, private, and never replace a file by accident. A restore is atomic.

use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;
use crate::backend::embedded::ReadableBy;
use crate::model::{Role, Secret};

const JOE: &str = "acct:joe@example.org";
const ANN: &str = "acct:ann@example.org";

fn secret(text: &str) -> Secret {
    Secret(text.to_owned())
}

/// Creates a database with Joe, who is muted, owns the group `g`, and has the tokens `a` and `b`.
fn database() -> (TempDir, PathBuf, Store) {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("db");
    let store = Store::open(&path).unwrap();
    store.add_user(JOE, Some("Joe"), 1).unwrap();
    store.set_muted(JOE, true).unwrap();
    store.add_group("g", ReadableBy::Members, 2).unwrap();
    store.set_member("g", JOE, Role::Owner).unwrap();
    store.add_token(JOE, &secret("a"), 3, None).unwrap();
    store.add_token(JOE, &secret("b"), 4, Some(50)).unwrap();
    (temp, path, store)
}

/// Returns all rows of all tables except the change log and SQLite's own tables.
fn dump(path: &Path) -> Vec<String> {
    let db = Connection::open(path).unwrap();
    let mut rows = Vec::new();
    for table in tables(&db).unwrap() {
        let mut query = db.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = query.column_count();
        let mut found = query.query([]).unwrap();
        while let Some(row) = found.next().unwrap() {
            let cells = (0..columns).map(|column| format!("{:?}", row.get_ref(column).unwrap()));
            rows.push(format!("{table}: {}", cells.collect::<Vec<_>>().join(", ")));
        }
    }
    rows
}

fn names(folder: &Path) -> Vec<String> {
    let entries = folder.read_dir().unwrap().map(Result::unwrap);
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn backup_is_complete_and_private_to_the_owner() {
    let (temp, path, store) = database();
    let to = temp.path().join("backup");
    let expected = Contents {
        users: 1,
        tokens: 2,
        groups: 2,
    };
    assert_eq!(store.backup(&to, false).unwrap(), expected);
    assert_eq!(dump(&to), dump(&path));
    assert_eq!(dump(&to).len(), 6);
    let mode = fs::metadata(&to).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(names(temp.path()), ["backup", "db"]);
    // The backup is a database with which a server could start.
    assert_eq!(Store::open(&to).unwrap().users(0).unwrap().len(), 1);
}

#[test]
fn backup_overwrites_only_with_force_and_never_the_database() {
    let (temp, path, store) = database();
    let to = temp.path().join("backup");
    fs::write(&to, "something").unwrap();
    let refused = store.backup(&to, false).unwrap_err();
    assert!(matches!(refused, StoreError::Exists(_)), "{refused:?}");
    assert_eq!(fs::read(&to).unwrap(), b"something");
    store.backup(&to, true).unwrap();
    assert_eq!(dump(&to), dump(&path));

    let link = temp.path().join("link");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for own in [&path, &link] {
        let refused = store.backup(own, true).unwrap_err();
        assert!(matches!(refused, StoreError::Invalid(_)), "{refused:?}");
    }
    let nowhere = store.backup(&temp.path().join("none/backup"), false);
    assert!(matches!(nowhere, Err(StoreError::File(..))), "{nowhere:?}");
    assert_eq!(names(temp.path()), ["backup", "db", "link"]);
}

#[test]
fn restore_recovers_everything_and_lists_revived_tokens() {
    let (temp, path, store) = database();
    let backup = temp.path().join("backup");
    store.backup(&backup, false).unwrap();
    let then = dump(&path);
    store.delete_user(JOE).unwrap();
    store.add_user(ANN, None, 5).unwrap();
    let later = store.add_token(ANN, &secret("c"), 6, None).unwrap();
    let now = dump(&path);

    let restored = restore(&path, &backup, RevokedTokens::Restore, 40).unwrap();
    assert_eq!(dump(&path), then);
    assert_eq!(restored.revived, [TokenId(1), TokenId(2)]);
    let before = restored.before.unwrap();
    assert_eq!(dump(&before), now);
    // Ids are never reused, not even one that was assigned before the restore.
    let next = store.add_token(JOE, &secret("d"), 7, None).unwrap();
    assert_eq!(next, TokenId(later.0 + 1));

    // Restore the previous state. The token that has expired meanwhile stays invalid.
    let restored = restore(&path, &before, RevokedTokens::Restore, 60).unwrap();
    assert_eq!(dump(&path), now);
    assert_eq!(restored.revived, [later]);
    assert_eq!(names(temp.path()), ["backup", "db", "db.before-restore"]);
    let restored = restore(&path, &backup, RevokedTokens::Restore, 60).unwrap();
    assert_eq!(restored.revived, [TokenId(1)]);
}

#[test]
fn revoked_tokens_can_be_left_out_of_a_restore() {
    let (temp, path, store) = database();
    let backup = temp.path().join("backup");
    store.backup(&backup, false).unwrap();
    store.revoke_token(TokenId(1)).unwrap();
    store.add_token(JOE, &secret("c"), 6, None).unwrap();
    store.remove_member("g", JOE).unwrap();
    let restored = restore(&path, &backup, RevokedTokens::LeaveOut, 40).unwrap();
    assert!(restored.revived.is_empty());
    let ids: Vec<_> = store
        .tokens(None)
        .unwrap()
        .iter()
        .map(|row| row.id)
        .collect();
    assert_eq!(ids, [TokenId(2)]);
    assert_eq!(store.groups().unwrap()[1].members.len(), 1);

    // Without a database that tells which tokens were revoked, nothing is restored.
    let other = temp.path().join("other");
    for _ in 0..2 {
        let refused = restore(&other, &backup, RevokedTokens::LeaveOut, 40).unwrap_err();
        assert!(matches!(refused, StoreError::Invalid(_)), "{refused:?}");
        drop(Store::open(&other));
    }
}

#[test]
fn restore_creates_a_missing_database() {
    let (temp, path, store) = database();
    store.revoke_token(TokenId(2)).unwrap();
    let backup = temp.path().join("backup");
    store.backup(&backup, false).unwrap();
    let other = temp.path().join("other");
    let restored = restore(&other, &backup, RevokedTokens::Restore, 0).unwrap();
    assert_eq!(dump(&other), dump(&path));
    assert!(restored.revived.is_empty() && restored.before.is_none());
    // Ids continue after those of the backup.
    let store = Store::open(&other).unwrap();
    let next = store.add_token(JOE, &secret("c"), 5, None).unwrap();
    assert_eq!(next, TokenId(3));
    let mode = fs::metadata(&other).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn invalid_backup_changes_nothing() {
    let (temp, path, store) = database();
    let present = dump(&path);
    let backup = temp.path().join("backup");
    store.backup(&backup, false).unwrap();
    let whole = fs::read(&backup).unwrap();
    let edited = |sql: &str| {
        fs::write(&backup, &whole).unwrap();
        Connection::open(&backup)
            .unwrap()
            .execute_batch(sql)
            .unwrap();
        fs::read(&backup).unwrap()
    };
    let cases = [
        (
            "text",
            b"Only a text, but one that is long enough.".repeat(9),
        ),
        ("nothing", Vec::new()),
        ("half of it", whole[..whole.len() / 2].to_vec()),
        ("newer", edited("PRAGMA user_version = 99")),
        ("another program's", edited("PRAGMA user_version = 0")),
        ("without a table", edited("DROP TABLE membership")),
        (
            "with a token without a user",
            edited("PRAGMA foreign_keys = off; DELETE FROM user"),
        ),
    ];
    for (name, contents) in cases {
        fs::write(&backup, contents).unwrap();
        let refused = restore(&path, &backup, RevokedTokens::Restore, 0).unwrap_err();
        assert!(
            matches!(&refused, StoreError::Unusable(at, _) if *at == backup),
            "{name}: {refused:?}"
        );
        assert_eq!(dump(&path), present, "{name}");
    }
    fs::remove_file(&backup).unwrap();
    for missing in [&backup, &path] {
        assert!(restore(&path, missing, RevokedTokens::Restore, 0).is_err());
    }
    assert_eq!(dump(&path), present);
    let left: Vec<_> = names(temp.path())
        .into_iter()
        .filter(|name| name != "db")
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn restores_move_damaged_databases_aside_under_unique_names() {
    let (temp, path, store) = database();
    let backup = temp.path().join("backup");
    store.backup(&backup, false).unwrap();
    drop(store);
    let whole = fs::read(&path).unwrap();
    let mut torn = whole.clone();
    torn[4096..].fill(7);
    let mut kept = Vec::new();
    for damage in [
        &b"Only a text, but one that is long enough.".repeat(9),
        &torn,
        &torn,
    ] {
        fs::write(&path, damage).unwrap();
        assert!(restore(&path, &backup, RevokedTokens::LeaveOut, 0).is_err());
        let restored = restore(&path, &backup, RevokedTokens::Restore, 0).unwrap();
        let damaged = restored.damaged.unwrap();
        assert_eq!(&fs::read(&damaged).unwrap(), damage);
        assert_eq!(dump(&path), dump(&backup));
        kept.push(damaged);
    }
    // None has replaced another.
    let names: Vec<_> = kept.iter().map(|path| path.file_name().unwrap()).collect();
    assert_eq!(names, ["db.damaged", "db.damaged.2", "db.damaged.3"]);
    assert!(kept.iter().all(|path| path.exists()));
}

/// The backup was made by `.backup` of SQLite's shell from a database of the first version, in WAL
/// mode.
#[test]
fn backup_of_the_first_version_can_be_restored() {
    let (temp, path, _store) = database();
    let backup = temp.path().join("backup");
    let old = Connection::open(&backup).unwrap();
    old.pragma_update(None, "journal_mode", "WAL").unwrap();
    old.execute_batch(include_str!("../schema.sql")).unwrap();
    old.execute_batch(
        "INSERT INTO user (userid, created) VALUES ('acct:ann@example.org', 7);
         PRAGMA user_version = 1",
    )
    .unwrap();
    drop(old);
    let restored = restore(&path, &backup, RevokedTokens::Restore, 0).unwrap();
    assert_eq!(restored.contents.users, 1);
    assert_eq!(Store::open(&path).unwrap().users(0).unwrap()[0].userid, ANN);
}
