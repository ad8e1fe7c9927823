//! Lookups: the user of a token, the groups of a user, and the readers of a group.

use rusqlite::{Connection, OptionalExtension as _, Row};
use sha2::{Digest as _, Sha256};

use crate::model::{Identity, Membership, Secret, TokenId, UnixMillis};

/// Read access to the database, in the queries that the server needs.
pub(super) struct Directory<'a> {
    db: &'a Connection,
}

/// The readers of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadableBy {
    /// All users, logged in or not.
    World,
    /// Its members.
    Members,
}

impl ReadableBy {
    /// Returns h's name of the setting.
    pub fn as_str(self) -> &'static str {
        match self {
            ReadableBy::World => "world",
            ReadableBy::Members => "members",
        }
    }

    pub(super) fn of_world(world: bool) -> Self {
        if world {
            ReadableBy::World
        } else {
            ReadableBy::Members
        }
    }
}

/// The attributes of an author that an event needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Author {
    pub display_name: Option<String>,
    pub muted: bool,
}

/// The identity of a connection that logged in with a token.
#[derive(Debug, Hash)]
pub(super) struct Credential {
    pub userid: String,
    pub hash: [u8; 32],
    pub expires: Option<UnixMillis>,
}

/// A position in the change log: the sequence number and nonce of a row. A different log has a
/// different nonce at the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct LogPosition {
    pub seq: i64,
    pub nonce: Option<i64>,
}

/// One row of the change log.
pub(super) struct LogEntry {
    pub position: LogPosition,
    pub kind: String,
    pub userid: Option<String>,
    pub token: Option<TokenId>,
    /// The author whose annotations may have other readers.
    pub author: Option<String>,
    /// The group whose annotations may have other readers.
    pub group: Option<String>,
}

impl<'a> Directory<'a> {
    pub(super) fn new(db: &'a Connection) -> Self {
        Directory { db }
    }

    /// Returns the identity of a token, or `None` if the token is unknown or has expired.
    pub(super) fn identity(
        &self,
        token: &Secret,
        now: UnixMillis,
    ) -> Result<Option<Identity>, rusqlite::Error> {
        let found = self
            .db
            .prepare_cached(
                "SELECT token.id, token.expires, user.id, user.userid
                 FROM token JOIN user ON user.id = token.user_id
                 WHERE token.hash = ?1 AND (token.expires IS NULL OR token.expires > ?2)",
            )?
            .query_row((token_hash(token), from_millis(now)), |row| {
                Ok((
                    token_id(row.get(0)?),
                    row.get::<_, Option<i64>>(1)?.map(to_millis),
                    row.get::<_, i64>(2)?,
                    row.get::<_, String>(3)?,
                ))
            })
            .optional()?;
        let Some((token, expires, user, userid)) = found else {
            return Ok(None);
        };
        Ok(Some(Identity {
            userid: userid.into(),
            memberships: self.memberships_of_row(user)?,
            token,
            expires,
        }))
    }

    /// Returns a user's memberships, sorted by group id; `None` if the user does not exist.
    pub(super) fn memberships(
        &self,
        userid: &str,
    ) -> Result<Option<Vec<Membership>>, rusqlite::Error> {
        let user = self
            .db
            .prepare_cached("SELECT id FROM user WHERE userid = ?1")?
            .query_row([userid], |row| row.get(0))
            .optional()?;
        user.map(|user| self.memberships_of_row(user)).transpose()
    }

    fn memberships_of_row(&self, user: i64) -> Result<Vec<Membership>, rusqlite::Error> {
        let mut query = self.db.prepare_cached(
            "SELECT group_id, role FROM membership WHERE user_id = ?1 ORDER BY group_id",
        )?;
        let mut rows = query.query([user])?;
        let mut memberships = Vec::new();
        while let Some(row) = rows.next()? {
            // The schema restricts roles to those of the model.
            if let Ok(role) = row.get_ref(1)?.as_str()?.parse() {
                let group = row.get_ref(0)?.as_str()?.into();
                memberships.push(Membership { group, role });
            }
        }
        Ok(memberships)
    }

    /// Returns the readers of a group; `None` if the group does not exist.
    pub(super) fn readable_by(&self, group: &str) -> Result<Option<ReadableBy>, rusqlite::Error> {
        self.db
            .prepare_cached("SELECT readable_by = 'world' FROM grp WHERE id = ?1")?
            .query_row([group], |row| row.get(0).map(ReadableBy::of_world))
            .optional()
    }

    /// Returns whether a group has at least one moderator.
    pub(super) fn is_moderated(&self, group: &str) -> Result<bool, rusqlite::Error> {
        self.db
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM membership WHERE group_id = ?1 AND role <> 'member')",
            )?
            .query_row([group], |row| row.get(0))
    }

    /// Returns the attributes of an author, or the defaults if the author has no row here. A deleted
    /// user stays muted.
    pub(super) fn author(&self, userid: &str) -> Result<Author, rusqlite::Error> {
        let author = self
            .db
            .prepare_cached("SELECT display_name, muted FROM user WHERE userid = ?1")?
            .query_row([userid], |row| {
                Ok(Author {
                    display_name: row.get(0)?,
                    muted: row.get(1)?,
                })
            })
            .optional()?;
        if let Some(author) = author {
            return Ok(author);
        }
        let muted = self
            .db
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM muted_author WHERE userid = ?1)")?
            .query_row([userid], |row| row.get(0))?;
        Ok(Author {
            display_name: None,
            muted,
        })
    }

    /// Returns the identity of a token, expired or not; `None` if the token does not exist.
    pub(super) fn credential(&self, token: TokenId) -> Result<Option<Credential>, rusqlite::Error> {
        self.db
            .prepare_cached(
                "SELECT user.userid, token.hash, token.expires
                 FROM token JOIN user ON user.id = token.user_id
                 WHERE token.id = ?1",
            )?
            .query_row([token.0.cast_signed()], |row| {
                Ok(Credential {
                    userid: row.get(0)?,
                    hash: row.get(1)?,
                    expires: row.get::<_, Option<i64>>(2)?.map(to_millis),
                })
            })
            .optional()
    }

    /// Returns the last position in the change log, or the default if the log is empty.
    pub(super) fn last_position(&self) -> Result<LogPosition, rusqlite::Error> {
        let position = self
            .db
            .prepare_cached("SELECT seq, nonce FROM change ORDER BY seq DESC LIMIT 1")?
            .query_row([], position)
            .optional()?;
        Ok(position.unwrap_or_default())
    }

    /// Returns the remaining changes from sequence number `seq` onwards, in order.
    pub(super) fn changes_from(&self, seq: i64) -> Result<Vec<LogEntry>, rusqlite::Error> {
        self.db
            .prepare_cached(
                "SELECT seq, nonce, kind, userid, token, author, grp FROM change
                 WHERE seq >= ?1 ORDER BY seq",
            )?
            .query_map([seq], |row| {
                Ok(LogEntry {
                    position: position(row)?,
                    kind: row.get(2)?,
                    userid: row.get(3)?,
                    token: row.get::<_, Option<i64>>(4)?.map(token_id),
                    author: row.get(5)?,
                    group: row.get(6)?,
                })
            })?
            .collect()
    }
}

fn position(row: &Row<'_>) -> Result<LogPosition, rusqlite::Error> {
    Ok(LogPosition {
        seq: row.get(0)?,
        nonce: row.get(1)?,
    })
}

/// Returns the stored form of a token. A plain hash suffices, since a token has 256 bits of
/// randomness and cannot be guessed.
pub(super) fn token_hash(token: &Secret) -> [u8; 32] {
    Sha256::digest(token.0.as_bytes()).into()
}

/// SQLite's row ids are signed, but this schema only has positive ones.
pub(super) fn token_id(rowid: i64) -> TokenId {
    TokenId(rowid.cast_unsigned())
}

pub(super) fn to_millis(stored: i64) -> UnixMillis {
    UnixMillis::try_from(stored).unwrap_or(0)
}

pub(super) fn from_millis(time: UnixMillis) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}
