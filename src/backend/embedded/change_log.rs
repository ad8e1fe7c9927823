//! Changes in the database since the last read, for open connections.
//!
//! Owns: the position in the change log up to which everything has been reported.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};

use log::warn;

use super::directory::{Credential, Directory, LogEntry, LogPosition};
use crate::model::{BackendEvent, EndCause, TokenId};

/// A reader of the change log.
#[derive(Debug)]
pub(super) struct ChangeLogReader {
    /// The position of the last reported change.
    position: LogPosition,
    hasher: RandomState,
    /// The tokens that have logged in, with a hash of their credential. They include all tokens
    /// that open connections may have, and are rechecked if the log does not continue at the last
    /// position. The table never has more entries than there are tokens.
    logins: HashMap<TokenId, u64>,
}

/// A change of the rights on annotations that were published before.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Affected {
    /// The annotations of the author.
    Author(String),
    /// The annotations in the group, or readable by it.
    Group(String),
    /// Any annotation.
    All,
}

/// Unreported changes, and the position in the log after them.
#[derive(Debug)]
pub(super) struct Changes {
    events: Vec<BackendEvent>,
    /// The annotations that may have other readers.
    pub affected: Vec<Affected>,
    position: LogPosition,
    /// The number of rechecked tokens, if the log did not continue at the last position.
    rechecked: Option<usize>,
}

impl ChangeLogReader {
    /// Creates a reader that starts at the end of the log.
    pub(super) fn start(directory: &Directory<'_>) -> Result<ChangeLogReader, rusqlite::Error> {
        Ok(ChangeLogReader {
            position: directory.last_position()?,
            hasher: RandomState::new(),
            logins: HashMap::new(),
        })
    }

    /// Records a login with this token.
    pub(super) fn record_login(&mut self, token: TokenId, credential: &Credential) {
        self.logins.insert(token, self.hasher.hash_one(credential));
    }

    /// Returns the unreported changes. Querying the log by its primary key is as cheap as asking
    /// SQLite whether there was any write.
    pub(super) fn unreported(&self, directory: &Directory<'_>) -> Result<Changes, rusqlite::Error> {
        let mut changes = directory.changes_from(self.position.seq)?.into_iter();
        let first = changes.next().map(|change| change.position);
        if first.unwrap_or_default() != self.position {
            return self.recheck_all(directory);
        }

        let (mut events, mut affected) = (Vec::new(), Vec::new());
        let mut position = self.position;
        // Reports contain the current memberships, so one report per user suffices.
        let mut reported = HashSet::new();
        for mut change in changes {
            position = change.position;
            affected.extend(change.author.take().map(Affected::Author));
            affected.extend(change.group.take().map(Affected::Group));
            events.extend(to_event(change, directory, &mut reported)?);
        }
        Ok(Changes {
            events,
            affected,
            position,
            rechecked: None,
        })
    }

    /// Returns the changes if the log does not continue at the last position: it was trimmed before it
    /// was read, or the database was replaced or restored. Reports the current state of all tokens
    /// that have logged in.
    fn recheck_all(&self, directory: &Directory<'_>) -> Result<Changes, rusqlite::Error> {
        let mut events = Vec::new();
        let mut reported = HashSet::new();
        for (&token, &hash) in &self.logins {
            let credential = directory.credential(token)?;
            match credential.filter(|credential| self.hasher.hash_one(credential) == hash) {
                // This includes deleted users, whose tokens are deleted with them.
                None => events.push(revoked(token)),
                Some(Credential { userid, .. }) if reported.insert(userid.clone()) => {
                    events.extend(memberships(directory, userid)?);
                }
                Some(_) => {}
            }
        }
        Ok(Changes {
            events,
            affected: vec![Affected::All],
            position: directory.last_position()?,
            rechecked: Some(self.logins.len()),
        })
    }

    /// Marks changes as reported.
    pub(super) fn commit(&mut self, changes: Changes) -> Vec<BackendEvent> {
        let mut ended = 0;
        for event in &changes.events {
            if let BackendEvent::TokenEnded { token, .. } = event {
                self.logins.remove(token);
                ended += 1;
            }
        }
        if let Some(count) = changes.rechecked {
            warn!(
                "change log does not continue at seq={}: the database was restored or replaced, or \
                 changed more than 10000 times at once; rechecked all tokens that were used to \
                 log in: checked={count} ended={ended}",
                self.position.seq
            );
        }
        self.position = changes.position;
        changes.events
    }
}

fn revoked(token: TokenId) -> BackendEvent {
    let cause = EndCause::Revoked;
    BackendEvent::TokenEnded { token, cause }
}

/// Converts one log entry into a backend event. The memberships of a user are reported only once.
fn to_event(
    change: LogEntry,
    directory: &Directory<'_>,
    reported: &mut HashSet<String>,
) -> Result<Option<BackendEvent>, rusqlite::Error> {
    Ok(match (change.kind.as_str(), change.userid, change.token) {
        ("token", _, Some(token)) => Some(revoked(token)),
        ("user", Some(userid), _) => Some(BackendEvent::UserDeleted {
            userid: userid.into(),
        }),
        ("memberships", Some(userid), _) if reported.insert(userid.clone()) => {
            memberships(directory, userid)?
        }
        _ => None,
    })
}

/// Returns a user's memberships as an event; none if the user has been deleted, which is reported by
/// another event.
fn memberships(
    directory: &Directory<'_>,
    userid: String,
) -> Result<Option<BackendEvent>, rusqlite::Error> {
    let memberships = directory.memberships(&userid)?;
    Ok(memberships.map(|memberships| BackendEvent::Memberships {
        userid: userid.into(),
        memberships,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::embedded::{ReadableBy, Store};
    use crate::model::{Role, Secret};

    const JOE: &str = "acct:joe@example.org";
    const ANN: &str = "acct:ann@example.org";

    fn secret(text: &str) -> Secret {
        Secret(text.to_owned())
    }

    /// Creates a file with Joe, Ann, and two groups, opened once to write and once to read.
    fn two_connections() -> (tempfile::TempDir, Store, Store) {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("db");
        let writer = Store::open(&path).unwrap();
        for user in [JOE, ANN] {
            writer.add_user(user, None, 0).unwrap();
        }
        for group in ["one", "two"] {
            writer.add_group(group, ReadableBy::Members, 0).unwrap();
        }
        let reader = Store::open(&path).unwrap();
        (temp, writer, reader)
    }

    fn record_login(change_log: &mut ChangeLogReader, reader: &Store, token: TokenId) {
        let credential = reader.directory().credential(token).unwrap().unwrap();
        change_log.record_login(token, &credential);
    }

    /// Takes the changes in a short form.
    fn taken(change_log: &mut ChangeLogReader, reader: &Store) -> Vec<String> {
        let changes = change_log.unreported(&reader.directory()).unwrap();
        let short = change_log
            .commit(changes)
            .into_iter()
            .map(|event| match event {
                BackendEvent::TokenEnded { token, .. } => format!("token {}", token.0),
                BackendEvent::UserDeleted { userid } => format!("gone {userid}"),
                BackendEvent::Memberships {
                    userid,
                    memberships,
                } => {
                    let groups: Vec<_> = memberships
                        .iter()
                        .map(|m| format!("{}={}", m.group, m.role.as_str()))
                        .collect();
                    format!("{userid} {}", groups.join(","))
                }
                other => format!("{other:?}"),
            });
        short.collect()
    }

    #[test]
    fn changes_of_other_connections_are_reported_in_order() {
        let (_temp, writer, reader) = two_connections();
        let mut change_log = ChangeLogReader::start(&reader.directory()).unwrap();
        assert!(taken(&mut change_log, &reader).is_empty());

        let token = writer.add_token(JOE, &secret("a"), 0, None).unwrap();
        writer.add_user("acct:new@example.org", None, 0).unwrap();
        writer.set_muted(JOE, true).unwrap();
        assert!(taken(&mut change_log, &reader).is_empty());

        writer.set_member("one", JOE, Role::Member).unwrap();
        writer.set_member("two", ANN, Role::Owner).unwrap();
        let expected = [format!("{JOE} one=member"), format!("{ANN} two=owner")];
        assert_eq!(taken(&mut change_log, &reader), expected);
        assert!(taken(&mut change_log, &reader).is_empty());

        writer.set_member("one", JOE, Role::Admin).unwrap();
        assert_eq!(
            taken(&mut change_log, &reader),
            [format!("{JOE} one=admin")]
        );
        // Setting the same role again changes nothing.
        writer.set_member("one", JOE, Role::Admin).unwrap();
        assert!(taken(&mut change_log, &reader).is_empty());

        writer.revoke_token(token).unwrap();
        writer.remove_member("one", JOE).unwrap();
        assert_eq!(
            taken(&mut change_log, &reader),
            [format!("token {}", token.0), format!("{JOE} ")]
        );
    }

    #[test]
    fn deleted_user_is_reported_once_and_recreated_user_is_distinct() {
        let (_temp, writer, reader) = two_connections();
        writer.add_token(JOE, &secret("a"), 0, None).unwrap();
        writer.set_member("one", JOE, Role::Member).unwrap();
        let mut change_log = ChangeLogReader::start(&reader.directory()).unwrap();
        writer.delete_user(JOE).unwrap();
        assert_eq!(taken(&mut change_log, &reader), [format!("gone {JOE}")]);
        writer.add_user(JOE, None, 0).unwrap();
        assert!(taken(&mut change_log, &reader).is_empty());
    }

    #[test]
    fn changes_by_sql_of_other_programs_are_reported() {
        let (_temp, writer, reader) = two_connections();
        let token = writer.add_token(JOE, &secret("a"), 0, None).unwrap();
        writer.set_member("one", JOE, Role::Member).unwrap();
        let mut change_log = ChangeLogReader::start(&reader.directory()).unwrap();
        writer
            .db()
            .execute_batch(
                "UPDATE token SET expires = 1;
                 DELETE FROM grp WHERE id = 'one';
                 UPDATE user SET userid = 'acct:joseph@example.org' WHERE userid LIKE '%joe%';",
            )
            .unwrap();
        // Joe has a new userid by now, under which no client is logged in yet.
        assert_eq!(
            taken(&mut change_log, &reader),
            [format!("token {}", token.0), format!("gone {JOE}")]
        );
    }

    #[test]
    fn trimmed_log_reports_all_possible_changes() {
        let (_temp, writer, reader) = two_connections();
        let kept = writer.add_token(JOE, &secret("a"), 0, None).unwrap();
        let ended = writer.add_token(JOE, &secret("b"), 0, None).unwrap();
        let of_deleted = writer.add_token(ANN, &secret("c"), 0, None).unwrap();
        let mut change_log = ChangeLogReader::start(&reader.directory()).unwrap();
        for token in [kept, ended, of_deleted] {
            record_login(&mut change_log, &reader, token);
        }
        writer.set_member("one", JOE, Role::Member).unwrap();
        writer.revoke_token(ended).unwrap();
        writer.delete_user(ANN).unwrap();
        writer
            .db()
            .execute_batch(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)
                 INSERT INTO change (kind, token) SELECT 'token', 1000000 FROM n;",
            )
            .unwrap();
        let rows: i64 = writer
            .db()
            .query_row("SELECT count(*) FROM change", [], |row| row.get(0))
            .unwrap();
        assert_eq!(rows, 10_000);

        let mut changes = taken(&mut change_log, &reader);
        changes.sort();
        let expected = [
            format!("{JOE} one=member"),
            format!("token {}", ended.0),
            format!("token {}", of_deleted.0),
        ];
        assert_eq!(changes, expected);
        assert!(taken(&mut change_log, &reader).is_empty());
    }
}
