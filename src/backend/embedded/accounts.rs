//! Changes to users and tokens made by commands.
//!
//! Each method is one atomic change. A running server learns of it through the change log that the
//! schema's triggers write.

use rusqlite::OptionalExtension as _;

use super::directory::{from_millis, to_millis, token_hash, token_id};
use super::store::{Store, StoreError};
use crate::backend::userid::is_userid;
use crate::model::{Role, Secret, TokenId, UnixMillis};

/// A user, for `user list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRow {
    /// The userid, `acct:name@authority`.
    pub userid: String,
    /// The name shown with annotations.
    pub display_name: Option<String>,
    /// Whether the user's annotations are shown to no other user.
    pub muted: bool,
    /// The number of valid tokens.
    pub tokens: u64,
    /// The number of groups of which the user is a member.
    pub groups: u64,
    /// The time at which the user was added.
    pub created: UnixMillis,
}

/// A token, for `token list`, without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// The id to pass to `token revoke`.
    pub id: TokenId,
    /// The user to whom the token belongs.
    pub userid: String,
    /// The time of creation.
    pub created: UnixMillis,
    /// The time of expiry; `None` means never.
    pub expires: Option<UnixMillis>,
}

impl TokenRow {
    /// Returns whether the token has expired.
    #[must_use]
    pub fn has_expired(&self, now: UnixMillis) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

impl Store {
    /// Adds a user.
    ///
    /// # Errors
    /// The userid or the display name is invalid, or the user exists already.
    pub fn add_user(
        &self,
        userid: &str,
        display_name: Option<&str>,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        if !is_userid(userid) {
            return Err(StoreError::Invalid(format!(
                "{userid:?} is not a valid userid; userids look like acct:joe.bloggs@example.org"
            )));
        }
        check_display_name(display_name)?;
        let added = self.db().execute(
            "INSERT INTO user (userid, display_name, created) VALUES (?1, ?2, ?3)
             ON CONFLICT (userid) DO NOTHING",
            (userid, display_name, from_millis(now)),
        )?;
        if added == 0 {
            return Err(StoreError::Exists(format!("{userid} already exists")));
        }
        Ok(())
    }

    /// Returns all users, sorted by userid.
    ///
    /// # Errors
    /// The database cannot be read. The same holds for the other lists.
    pub fn users(&self, now: UnixMillis) -> Result<Vec<UserRow>, StoreError> {
        let mut query = self.db().prepare(
            "SELECT userid, display_name, muted,
                    (SELECT count(*) FROM token
                     WHERE user_id = user.id AND (expires IS NULL OR expires > ?1)),
                    (SELECT count(*) FROM membership WHERE user_id = user.id),
                    created
             FROM user ORDER BY userid",
        )?;
        let rows = query.query_map([from_millis(now)], |row| {
            Ok(UserRow {
                userid: row.get(0)?,
                display_name: row.get(1)?,
                muted: row.get(2)?,
                tokens: row.get::<_, i64>(3)?.unsigned_abs(),
                groups: row.get::<_, i64>(4)?.unsigned_abs(),
                created: to_millis(row.get(5)?),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Returns one user.
    ///
    /// # Errors
    /// The user does not exist.
    pub fn user(&self, userid: &str, now: UnixMillis) -> Result<UserRow, StoreError> {
        let mut users = self.users(now)?.into_iter();
        let found = users.find(|user| user.userid == userid);
        found.ok_or_else(|| missing_user(userid))
    }

    /// Returns the groups of a user with the user's roles, sorted by group id.
    ///
    /// # Errors
    /// The user does not exist.
    pub fn groups_of(&self, userid: &str) -> Result<Vec<(String, Role)>, StoreError> {
        let memberships = self.directory().memberships(userid)?;
        let memberships = memberships.ok_or_else(|| missing_user(userid))?;
        let groups = memberships.into_iter();
        Ok(groups.map(|at| (at.group.to_string(), at.role)).collect())
    }

    /// Changes or removes the display name of a user.
    ///
    /// # Errors
    /// The name is invalid, or the user does not exist.
    pub fn set_display_name(&self, userid: &str, name: Option<&str>) -> Result<(), StoreError> {
        check_display_name(name)?;
        let changed = self.db().execute(
            "UPDATE user SET display_name = ?2 WHERE userid = ?1",
            (userid, name),
        )?;
        require_user_change(changed, userid)
    }

    /// Mutes or unmutes a user (h's NIPSA).
    ///
    /// # Errors
    /// The user does not exist.
    pub fn set_muted(&self, userid: &str, muted: bool) -> Result<(), StoreError> {
        let changed = self.db().execute(
            "UPDATE user SET muted = ?2 WHERE userid = ?1",
            (userid, muted),
        )?;
        require_user_change(changed, userid)
    }

    /// Deletes a user with all tokens and memberships.
    ///
    /// # Errors
    /// The user does not exist.
    pub fn delete_user(&self, userid: &str) -> Result<(), StoreError> {
        let deleted = self
            .db()
            .execute("DELETE FROM user WHERE userid = ?1", [userid])?;
        require_user_change(deleted, userid)
    }

    pub(super) fn user_row(&self, userid: &str) -> Result<i64, StoreError> {
        self.db()
            .query_row("SELECT id FROM user WHERE userid = ?1", [userid], |row| {
                row.get(0)
            })
            .optional()?
            .ok_or_else(|| missing_user(userid))
    }
}

impl Store {
    /// Stores the hash of a token for a user. The token is valid until `expires`, or forever.
    ///
    /// # Errors
    /// The user does not exist.
    pub fn add_token(
        &self,
        userid: &str,
        token: &Secret,
        now: UnixMillis,
        expires: Option<UnixMillis>,
    ) -> Result<TokenId, StoreError> {
        let user = self.user_row(userid)?;
        self.db().execute(
            "INSERT INTO token (user_id, hash, created, expires) VALUES (?1, ?2, ?3, ?4)",
            (
                user,
                token_hash(token),
                from_millis(now),
                expires.map(from_millis),
            ),
        )?;
        Ok(token_id(self.db().last_insert_rowid()))
    }

    /// Returns the tokens of one user or of all users, oldest first.
    ///
    /// # Errors
    /// The user does not exist.
    pub fn tokens(&self, userid: Option<&str>) -> Result<Vec<TokenRow>, StoreError> {
        let user = userid.map(|userid| self.user_row(userid)).transpose()?;
        let mut query = self.db().prepare(
            "SELECT token.id, user.userid, token.created, token.expires
             FROM token JOIN user ON user.id = token.user_id
             WHERE ?1 IS NULL OR user.id = ?1 ORDER BY token.id",
        )?;
        let rows = query.query_map([user], |row| {
            Ok(TokenRow {
                id: token_id(row.get(0)?),
                userid: row.get(1)?,
                created: to_millis(row.get(2)?),
                expires: row.get::<_, Option<i64>>(3)?.map(to_millis),
            })
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Revokes a token.
    ///
    /// # Errors
    /// No token has this id.
    pub fn revoke_token(&self, token: TokenId) -> Result<(), StoreError> {
        let deleted = self
            .db()
            .execute("DELETE FROM token WHERE id = ?1", [token.0.cast_signed()])?;
        if deleted == 0 {
            return Err(StoreError::Missing(format!(
                "token {} does not exist",
                token.0
            )));
        }
        Ok(())
    }

    /// Returns the id of a token given its secret.
    ///
    /// # Errors
    /// The token is unknown.
    pub fn token_of_secret(&self, token: &Secret) -> Result<TokenId, StoreError> {
        self.db()
            .query_row(
                "SELECT id FROM token WHERE hash = ?1",
                [token_hash(token)],
                |row| row.get(0).map(token_id),
            )
            .optional()?
            .ok_or_else(|| StoreError::Missing("no such token".to_owned()))
    }

    /// Deletes the tokens that expired before `time`, and returns their number.
    ///
    /// # Errors
    /// The database cannot be written.
    pub fn delete_tokens_expired_before(&self, time: UnixMillis) -> Result<usize, StoreError> {
        Ok(self
            .db()
            .execute("DELETE FROM token WHERE expires < ?1", [from_millis(time)])?)
    }
}

fn check_display_name(name: Option<&str>) -> Result<(), StoreError> {
    match name {
        Some(name) if name.trim().is_empty() => Err(StoreError::Invalid(
            "the display name is empty; omit it to show none".to_owned(),
        )),
        Some(name) if name.contains(char::is_control) => Err(StoreError::Invalid(
            "the display name contains control characters".to_owned(),
        )),
        _ => Ok(()),
    }
}

fn require_user_change(changed: usize, userid: &str) -> Result<(), StoreError> {
    if changed == 0 {
        return Err(missing_user(userid));
    }
    Ok(())
}

fn missing_user(userid: &str) -> StoreError {
    StoreError::Missing(format!(
        "user {userid} does not exist; add it with: h-realtime user add {userid}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOE: &str = "acct:joe@example.org";

    fn store() -> Store {
        let store = Store::in_memory().unwrap();
        store.add_user(JOE, Some("Joe"), 1).unwrap();
        store
    }

    #[test]
    fn duplicate_and_invalid_users_are_refused() {
        let store = store();
        let cases = [
            (JOE, None),
            ("joe", None),
            ("acct:joe@", None),
            ("acct:ann@example.org", Some("A\nnn")),
            ("acct:ann@example.org", Some(" ")),
        ];
        for (userid, name) in cases {
            assert!(
                store.add_user(userid, name, 1).is_err(),
                "{userid} {name:?}"
            );
        }
        let expected = UserRow {
            userid: JOE.to_owned(),
            display_name: Some("Joe".to_owned()),
            muted: false,
            tokens: 0,
            groups: 0,
            created: 1,
        };
        assert_eq!(store.users(1).unwrap(), [expected]);
    }

    #[test]
    fn unknown_users_and_tokens_are_missing() {
        let store = store();
        let none = "acct:none@example.org";
        let results = [
            store.set_muted(none, true),
            store.set_display_name(none, Some("N")),
            store.groups_of(none).map(drop),
            store.delete_user(none),
            store
                .add_token(none, &Secret("t".to_owned()), 1, None)
                .map(drop),
            store.tokens(Some(none)).map(drop),
            store.revoke_token(TokenId(9)),
            store.token_of_secret(&Secret("t".to_owned())).map(drop),
            store.set_member("__world__", none, Role::Member),
            store.set_member("none", JOE, Role::Member),
            store.remove_member("__world__", JOE),
        ];
        for result in results {
            assert!(matches!(result, Err(StoreError::Missing(_))), "{result:?}");
        }
    }

    #[test]
    fn display_names_are_changed_and_removed() {
        let store = store();
        for name in [Some("Joseph"), None] {
            store.set_display_name(JOE, name).unwrap();
            assert_eq!(store.users(1).unwrap()[0].display_name.as_deref(), name);
        }
        assert!(store.set_display_name(JOE, Some("")).is_err());
    }

    // CVE-2021-33880
    #[test]
    fn only_token_hash_is_stored_and_token_ids_are_never_reused() {
        let store = store();
        let secret = Secret("hrt-very-secret".to_owned());
        let first = store.add_token(JOE, &secret, 1, None).unwrap();
        assert_eq!(store.token_of_secret(&secret).unwrap(), first);
        let stored: Vec<u8> = store
            .db()
            .query_row("SELECT hash FROM token", [], |row| row.get(0))
            .unwrap();
        assert_eq!(stored, token_hash(&secret));
        // A SHA-256 hash, which does not start with any part of the token.
        assert_eq!(stored[..4], [0x80, 0x50, 0x03, 0x68]);
        store.revoke_token(first).unwrap();
        let second = store.add_token(JOE, &secret, 1, None).unwrap();
        assert_ne!(first, second);
    }

    #[test]
    fn expired_tokens_are_listed_until_they_are_deleted() {
        let store = store();
        for (name, expires) in [("a", None), ("b", Some(50)), ("c", Some(100))] {
            let secret = Secret(name.to_owned());
            store.add_token(JOE, &secret, 7, expires).unwrap();
        }
        assert_eq!(store.users(60).unwrap()[0].tokens, 2);
        assert_eq!(store.tokens(None).unwrap().len(), 3);
        assert_eq!(store.delete_tokens_expired_before(60).unwrap(), 1);
        let rows = store.tokens(Some(JOE)).unwrap();
        let short: Vec<_> = rows.iter().map(|row| (row.created, row.expires)).collect();
        assert_eq!(short, [(7, None), (7, Some(100))]);
        assert_eq!(store.tokens(None).unwrap(), rows);
    }
}
