//! What others changed in the database since it was last looked at, as news for open connections.
//!
//! Owns: the place in the change log up to which everything has been told.

use std::collections::HashSet;

use super::directory::Directory;
use crate::model::{EndCause, Tell, TokenId};

/// A reader of the change log.
#[derive(Debug)]
pub(super) struct Watch {
    /// The last change that was told.
    position: i64,
    /// The tokens that somebody was let in with: all that can be open, should the log have been
    /// trimmed before it was read. There are at most as many as there are tokens.
    let_in: HashSet<TokenId>,
}

/// What has changed, and the place in the log after it.
#[derive(Debug)]
pub(super) struct News {
    tells: Vec<Tell>,
    position: i64,
}

impl Watch {
    /// A reader of what is changed from now on.
    pub fn start(directory: &Directory<'_>) -> Result<Watch, rusqlite::Error> {
        Ok(Watch {
            position: directory.last_change()?,
            let_in: HashSet::new(),
        })
    }

    /// Remembers that somebody was let in with this token.
    pub fn let_in(&mut self, token: TokenId) {
        self.let_in.insert(token);
    }

    /// The news that were not taken yet. A look into the log by its key costs as little as asking
    /// SQLite whether anybody wrote at all.
    pub fn news(&self, directory: &Directory<'_>) -> Result<News, rusqlite::Error> {
        let changes = directory.changes_after(self.position)?;
        let position = changes.last().map_or(self.position, |change| change.seq);
        let missed = changes
            .first()
            .is_some_and(|change| change.seq > self.position + 1);
        if missed {
            let tells = self.whatever_may_have_changed(directory)?;
            return Ok(News { tells, position });
        }

        let mut tells = Vec::new();
        // Memberships are told as they are now, so once is enough.
        let mut told = HashSet::new();
        for change in changes {
            match (change.kind.as_str(), change.userid, change.token) {
                ("token", _, Some(token)) => tells.push(revoked(token)),
                ("user", Some(userid), _) => tells.push(Tell::UserGone {
                    userid: userid.into(),
                }),
                ("memberships", Some(userid), _) if told.insert(userid.clone()) => {
                    tells.extend(memberships(directory, userid)?);
                }
                _ => {}
            }
        }
        Ok(News { tells, position })
    }

    /// What to tell when the log was trimmed before it was read: everything that is true now of
    /// anybody who was let in.
    fn whatever_may_have_changed(
        &self,
        directory: &Directory<'_>,
    ) -> Result<Vec<Tell>, rusqlite::Error> {
        let mut tells = Vec::new();
        let mut told = HashSet::new();
        for &token in &self.let_in {
            match directory.holder(token)? {
                // Covers a user who is gone too: their tokens went with them.
                None => tells.push(revoked(token)),
                Some(userid) if told.insert(userid.clone()) => {
                    tells.extend(memberships(directory, userid)?);
                }
                Some(_) => {}
            }
        }
        Ok(tells)
    }

    /// The news are being told: from here on they are old.
    pub fn take(&mut self, news: News) -> Vec<Tell> {
        self.position = news.position;
        for tell in &news.tells {
            if let Tell::TokenEnded { token, .. } = tell {
                self.let_in.remove(token);
            }
        }
        news.tells
    }
}

fn revoked(token: TokenId) -> Tell {
    let cause = EndCause::Revoked;
    Tell::TokenEnded { token, cause }
}

/// A user's memberships as news; none if the user is gone, of which there are other news.
fn memberships(directory: &Directory<'_>, userid: String) -> Result<Option<Tell>, rusqlite::Error> {
    let memberships = directory.memberships(&userid)?;
    Ok(memberships.map(|memberships| Tell::Memberships {
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

    /// A file with Joe, Ann and two groups: what the commands write to, and what the server reads.
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

    /// The news in short, which are then old.
    fn taken(watch: &mut Watch, reader: &Store) -> Vec<String> {
        let news = watch.news(&reader.directory()).unwrap();
        let short = watch.take(news).into_iter().map(|tell| match tell {
            Tell::TokenEnded { token, .. } => format!("token {}", token.0),
            Tell::UserGone { userid } => format!("gone {userid}"),
            Tell::Memberships {
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
    fn what_another_connection_changes_is_told_in_order() {
        let (_temp, writer, reader) = two_connections();
        let mut watch = Watch::start(&reader.directory()).unwrap();
        assert!(taken(&mut watch, &reader).is_empty());

        let token = writer.add_token(JOE, &secret("a"), 0, None).unwrap();
        writer.add_user("acct:new@example.org", None, 0).unwrap();
        writer.set_muted(JOE, true).unwrap();
        assert!(taken(&mut watch, &reader).is_empty());

        writer.set_member("one", JOE, Role::Member).unwrap();
        writer.set_member("two", ANN, Role::Owner).unwrap();
        let expected = [format!("{JOE} one=member"), format!("{ANN} two=owner")];
        assert_eq!(taken(&mut watch, &reader), expected);
        assert!(taken(&mut watch, &reader).is_empty());

        writer.set_member("one", JOE, Role::Admin).unwrap();
        assert_eq!(taken(&mut watch, &reader), [format!("{JOE} one=admin")]);
        // Said again, nothing has changed.
        writer.set_member("one", JOE, Role::Admin).unwrap();
        assert!(taken(&mut watch, &reader).is_empty());

        writer.revoke_token(token).unwrap();
        writer.remove_member("one", JOE).unwrap();
        assert_eq!(
            taken(&mut watch, &reader),
            [format!("token {}", token.0), format!("{JOE} ")]
        );
    }

    #[test]
    fn a_user_who_goes_is_told_once_and_one_who_comes_back_is_another() {
        let (_temp, writer, reader) = two_connections();
        writer.add_token(JOE, &secret("a"), 0, None).unwrap();
        writer.set_member("one", JOE, Role::Member).unwrap();
        let mut watch = Watch::start(&reader.directory()).unwrap();
        writer.delete_user(JOE).unwrap();
        assert_eq!(taken(&mut watch, &reader), [format!("gone {JOE}")]);
        writer.add_user(JOE, None, 0).unwrap();
        assert!(taken(&mut watch, &reader).is_empty());
    }

    #[test]
    fn changes_by_sql_of_other_programs_are_told_too() {
        let (_temp, writer, reader) = two_connections();
        let token = writer.add_token(JOE, &secret("a"), 0, None).unwrap();
        writer.set_member("one", JOE, Role::Member).unwrap();
        let mut watch = Watch::start(&reader.directory()).unwrap();
        writer
            .db()
            .execute_batch(
                "UPDATE token SET expires = 1;
                 DELETE FROM grp WHERE id = 'one';
                 UPDATE user SET userid = 'acct:joseph@example.org' WHERE userid LIKE '%joe%';",
            )
            .unwrap();
        // By now Joe has another name, under which nobody is logged in yet.
        assert_eq!(
            taken(&mut watch, &reader),
            [format!("token {}", token.0), format!("gone {JOE}")]
        );
    }

    #[test]
    fn a_trimmed_log_makes_it_tell_all_that_may_have_changed() {
        let (_temp, writer, reader) = two_connections();
        let kept = writer.add_token(JOE, &secret("a"), 0, None).unwrap();
        let ended = writer.add_token(JOE, &secret("b"), 0, None).unwrap();
        let of_deleted = writer.add_token(ANN, &secret("c"), 0, None).unwrap();
        let mut watch = Watch::start(&reader.directory()).unwrap();
        for token in [kept, ended, of_deleted] {
            watch.let_in(token);
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

        let mut news = taken(&mut watch, &reader);
        news.sort();
        let expected = [
            format!("{JOE} one=member"),
            format!("token {}", ended.0),
            format!("token {}", of_deleted.0),
        ];
        assert_eq!(news, expected);
        assert!(taken(&mut watch, &reader).is_empty());
    }
}
