//! Changes to groups and their members made by commands.
//!
//! As in `accounts`, each method is one atomic change. The readers of a group are looked up for
//! every event, so changing them needs no entry in the change log. Changes of memberships are
//! logged.

use rusqlite::{OptionalExtension as _, Transaction, TransactionBehavior};

use super::ReadableBy;
use super::annotation::WORLD;
use super::directory::{from_millis, to_millis};
use super::store::{Store, StoreError};
use crate::backend::userid::is_word;
use crate::model::{Role, UnixMillis};

/// A group and its members, for `group list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupRow {
    /// The id that the API uses.
    pub id: String,
    /// The readers of the group.
    pub readable_by: ReadableBy,
    /// The time at which the group was added.
    pub created: UnixMillis,
    /// The userids and roles of its members, sorted by userid.
    pub members: Vec<(String, Role)>,
}

impl Store {
    /// Adds a group. A deleted group can be added again, without its former members.
    ///
    /// # Errors
    /// The id is invalid, or the group exists already.
    pub fn add_group(
        &self,
        id: &str,
        readable_by: ReadableBy,
        now: UnixMillis,
    ) -> Result<(), StoreError> {
        if !is_word(id) {
            return Err(StoreError::Invalid(format!(
                "{id:?} is not a valid group id; group ids contain no white space or control \
                 characters"
            )));
        }
        let added = self.db().execute(
            "INSERT INTO grp (id, readable_by, created) VALUES (?1, ?2, ?3)
             ON CONFLICT (id) DO UPDATE
                 SET readable_by = excluded.readable_by, created = excluded.created, deleted = NULL
                 WHERE deleted IS NOT NULL",
            (id, readable_by.as_str(), from_millis(now)),
        )?;
        if added == 0 {
            return Err(StoreError::Exists(format!("group {id} already exists")));
        }
        Ok(())
    }

    /// Changes the readers of a group.
    ///
    /// # Errors
    /// The group does not exist, or is `__world__`.
    pub fn set_readable_by(&self, id: &str, readable_by: ReadableBy) -> Result<(), StoreError> {
        if id == WORLD && readable_by != ReadableBy::World {
            return Err(StoreError::Invalid(format!(
                "group {WORLD} is always readable by everyone"
            )));
        }
        let changed = self.db().execute(
            "UPDATE grp SET readable_by = ?2 WHERE id = ?1 AND deleted IS NULL",
            (id, readable_by.as_str()),
        )?;
        require_group_change(changed, id)
    }

    /// Deletes a group and its memberships. From then on it has no readers.
    ///
    /// # Errors
    /// The group does not exist, or is `__world__`.
    pub fn delete_group(&self, id: &str, now: UnixMillis) -> Result<(), StoreError> {
        if id == WORLD {
            return Err(StoreError::Invalid(format!(
                "group {WORLD} contains everyone and cannot be deleted"
            )));
        }
        let change = Transaction::new_unchecked(self.db(), TransactionBehavior::Immediate)?;
        let deleted = change.execute(
            "UPDATE grp SET deleted = ?2, readable_by = 'members'
             WHERE id = ?1 AND deleted IS NULL",
            (id, from_millis(now)),
        )?;
        require_group_change(deleted, id)?;
        change.execute("DELETE FROM membership WHERE group_id = ?1", [id])?;
        Ok(change.commit()?)
    }

    /// Returns all groups with their members, sorted by id.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn groups(&self) -> Result<Vec<GroupRow>, StoreError> {
        self.groups_like(None)
    }

    /// Returns a group with its members.
    ///
    /// # Errors
    /// The group does not exist.
    pub fn group(&self, id: &str) -> Result<GroupRow, StoreError> {
        let found = self.groups_like(Some(id))?.into_iter().next();
        found.ok_or_else(|| missing_group(id))
    }

    fn groups_like(&self, id: Option<&str>) -> Result<Vec<GroupRow>, StoreError> {
        let mut groups: Vec<GroupRow> = Vec::new();
        let mut query = self.db().prepare(
            "SELECT grp.id, grp.readable_by = 'world', user.userid, membership.role, grp.created
             FROM grp
             LEFT JOIN membership ON membership.group_id = grp.id
             LEFT JOIN user ON user.id = membership.user_id
             WHERE grp.deleted IS NULL AND (?1 IS NULL OR grp.id = ?1)
             ORDER BY grp.id, user.userid",
        )?;
        let mut rows = query.query([id])?;
        while let Some(row) = rows.next()? {
            let id: String = row.get(0)?;
            if groups.last().is_none_or(|last| last.id != id) {
                groups.push(GroupRow {
                    id,
                    readable_by: ReadableBy::of_world(row.get(1)?),
                    created: to_millis(row.get(4)?),
                    members: Vec::new(),
                });
            }
            let role = row.get::<_, Option<String>>(3)?;
            let role = role.and_then(|role| role.parse().ok());
            if let (Some(group), Some(userid), Some(role)) = (groups.last_mut(), row.get(2)?, role)
            {
                group.members.push((userid, role));
            }
        }
        Ok(groups)
    }

    /// Makes a user a member of a group, or changes the user's role in it.
    ///
    /// # Errors
    /// The group or the user does not exist.
    pub fn set_member(&self, group: &str, userid: &str, role: Role) -> Result<(), StoreError> {
        let change = Transaction::new_unchecked(self.db(), TransactionBehavior::Immediate)?;
        let user = self.user_row(userid)?;
        let is_there = change
            .query_row(
                "SELECT 1 FROM grp WHERE id = ?1 AND deleted IS NULL",
                [group],
                |_| Ok(()),
            )
            .optional()?;
        if is_there.is_none() {
            return Err(missing_group(group));
        }
        change.execute(
            "INSERT INTO membership (user_id, group_id, role) VALUES (?1, ?2, ?3)
             ON CONFLICT (user_id, group_id) DO UPDATE SET role = excluded.role
             WHERE role <> excluded.role",
            (user, group, role.as_str()),
        )?;
        Ok(change.commit()?)
    }

    /// Removes a user from a group.
    ///
    /// # Errors
    /// The user is not a member of the group.
    pub fn remove_member(&self, group: &str, userid: &str) -> Result<(), StoreError> {
        let removed = self.db().execute(
            "DELETE FROM membership WHERE group_id = ?1
             AND user_id = (SELECT id FROM user WHERE userid = ?2)",
            (group, userid),
        )?;
        if removed == 0 {
            return Err(StoreError::Missing(format!(
                "{userid} is not a member of {group}"
            )));
        }
        Ok(())
    }
}

fn require_group_change(changed: usize, id: &str) -> Result<(), StoreError> {
    match changed {
        0 => Err(missing_group(id)),
        _ => Ok(()),
    }
}

fn missing_group(id: &str) -> StoreError {
    StoreError::Missing(format!(
        "group {id} does not exist; add it with: h-realtime group add {id}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOE: &str = "acct:joe@example.org";

    fn store() -> Store {
        let store = Store::in_memory().unwrap();
        store.add_user(JOE, Some("Joe"), 1).unwrap();
        store.add_group("g", ReadableBy::Members, 1).unwrap();
        store
    }

    #[test]
    fn group_members_have_one_role() {
        let store = store();
        assert!(store.add_group("g", ReadableBy::World, 1).is_err());
        assert!(store.add_group("a b", ReadableBy::World, 1).is_err());
        store.set_member("g", JOE, Role::Member).unwrap();
        store.set_member("g", JOE, Role::Owner).unwrap();
        let [world, group] = &store.groups().unwrap()[..] else {
            panic!("two groups");
        };
        assert_eq!((&*world.id, world.members.len()), ("__world__", 0));
        assert_eq!(group.readable_by, ReadableBy::Members);
        assert_eq!(group.members, [(JOE.to_owned(), Role::Owner)]);
        assert_eq!(store.group("g").unwrap(), *group);
        store.remove_member("g", JOE).unwrap();
        assert!(store.groups().unwrap()[1].members.is_empty());
    }

    #[test]
    fn deleted_group_is_missing_for_commands_and_private_for_events() {
        let store = store();
        store.set_readable_by("g", ReadableBy::World).unwrap();
        store.set_member("g", JOE, Role::Owner).unwrap();
        store.delete_group("g", 2).unwrap();
        assert_eq!(store.groups().unwrap().len(), 1);
        let memberships = store.directory().memberships(JOE).unwrap().unwrap();
        assert_eq!(memberships.len(), 0);
        let readable_by = store.directory().readable_by("g").unwrap();
        assert_eq!(readable_by, Some(ReadableBy::Members));
        let results = [
            store.group("g").map(drop),
            store.delete_group("g", 3),
            store.set_readable_by("g", ReadableBy::World),
            store.set_member("g", JOE, Role::Member),
        ];
        for result in results {
            assert!(matches!(result, Err(StoreError::Missing(_))), "{result:?}");
        }
        // The group can be added again, without its former members.
        store.add_group("g", ReadableBy::World, 4).unwrap();
        let group = store.group("g").unwrap();
        assert_eq!((group.created, group.members.len()), (4, 0));
        assert_eq!(group.readable_by, ReadableBy::World);
    }

    #[test]
    fn world_group_is_neither_deleted_nor_made_private() {
        let store = store();
        let results = [
            store.delete_group(WORLD, 1),
            store.set_readable_by(WORLD, ReadableBy::Members),
        ];
        for result in results {
            assert!(matches!(result, Err(StoreError::Invalid(_))), "{result:?}");
        }
        store.set_readable_by(WORLD, ReadableBy::World).unwrap();
    }
}
