//! The identities of connections: users, stored once each, and their connections.
//!
//! Owns: the identity of every logged-in connection. Must not know: sockets, or the permissions of
//! users. A user is stored for as long as it has a connection.

use std::rc::Rc;

use crate::model::{Identity, Membership, TokenId, UnixMillis};
use crate::net::{ConnKey, Now};

use token_status::{TokenDeadlines, TokenStatus};

use super::digest::Digester;
use super::group_table::{Group, GroupTable, Links, Member};
use super::slab::{ConnMap, NONE};

/// The connected users.
pub(super) struct Principals {
    digester: Rc<Digester>,
    /// The login of each connection.
    by_conn: ConnMap,
    /// The logins, grouped by user.
    table: GroupTable<Principal, Login>,
    deadlines: TokenDeadlines,
    /// The former states of connected users after changes of memberships.
    changes: Vec<Principal>,
}

/// A user, shared by the user's connections.
#[derive(Default)]
pub(super) struct Principal {
    userid: Box<str>,
    /// Sorted by group.
    memberships: Box<[Membership]>,
    /// The hash of the userid.
    hash: u64,
}

/// A walk through all logins, which may change meanwhile: a login that exists from its beginning to its
/// end is visited at least once. It goes downwards, since logins are moved to lower indices only.
pub(super) struct LoginWalk {
    /// The index below which logins have not been visited.
    end: u32,
}

/// The identity of one connection.
#[derive(Clone, Copy)]
struct Login {
    key: ConnKey,
    token: TokenId,
    /// The expiry by the wall clock.
    expires: UnixMillis,
    links: Links,
    status: TokenStatus,
}

impl LoginWalk {
    /// Begins a walk.
    pub(super) fn new() -> Self {
        LoginWalk { end: u32::MAX }
    }
}

impl Principal {
    /// Creates a user without a connection.
    pub(super) fn supposed(userid: Box<str>, mut memberships: Vec<Membership>) -> Self {
        memberships.sort_unstable();
        Principal {
            userid,
            memberships: memberships.into(),
            hash: 0,
        }
    }

    /// Returns all memberships, sorted by group.
    pub(super) fn memberships(&self) -> &[Membership] {
        &self.memberships
    }

    /// Returns the userid in the stored spelling.
    pub(super) fn userid(&self) -> &str {
        &self.userid
    }

    /// Returns the membership in a group.
    pub(super) fn membership(&self, group: &str) -> Option<&Membership> {
        let at = self
            .memberships
            .binary_search_by(|membership| (*membership.group).cmp(group));
        self.memberships.get(at.ok()?)
    }

    /// Replaces the memberships. Returns the user before, if they differ.
    fn set_memberships(&mut self, mut memberships: Vec<Membership>) -> Option<Principal> {
        memberships.sort_unstable();
        if *self.memberships == *memberships {
            return None;
        }
        Some(Principal {
            userid: self.userid.clone(),
            memberships: std::mem::replace(&mut self.memberships, memberships.into()),
            hash: self.hash,
        })
    }
}

impl Principals {
    /// Creates an empty table.
    pub(super) fn new(digester: Rc<Digester>) -> Self {
        Principals {
            digester,
            by_conn: ConnMap::default(),
            table: GroupTable::default(),
            deadlines: TokenDeadlines::default(),
            changes: Vec::new(),
        }
    }

    /// Assigns an identity to a connection. It contains the newest data of the user, which also
    /// applies to the user's other connections.
    pub(super) fn log_in(&mut self, key: ConnKey, identity: Identity, now: Now) {
        // The answer may be late, with another connection in the same slot by now.
        if self.has_successor(key) {
            return self.set_memberships(&identity.userid, identity.memberships);
        }
        self.remove_login(key);
        let hash = self.digester.userid(&identity.userid).table_hash();
        let user = Principal {
            userid: identity.userid,
            hash,
            ..Principal::default()
        };
        let expires = identity.expires.unwrap_or(NEVER);
        let login = Login {
            key,
            token: identity.token,
            expires,
            ..Login::default()
        };
        let (user, login) = self.table.insert(user, login);
        self.by_conn.set(key, login);
        let is_new = self.table.only_member(user).is_some();
        if let Some(user) = self.table.group_mut(user) {
            let before = user.set_memberships(identity.memberships);
            self.changes.extend(before.filter(|_| !is_new));
        }
        self.deadlines.log_in(key, expires, now);
    }

    /// Removes a connection's identity, if it has one.
    pub(super) fn log_out(&mut self, key: ConnKey) {
        if self.login(key).is_some() {
            self.remove_login(key);
        }
    }

    /// Returns the user of a connection; `None` is anonymous.
    pub(super) fn of(&self, key: ConnKey) -> Option<&Principal> {
        let login = self.login(key)?;
        self.table.group(self.table.group_of(login))
    }

    /// Replaces a user's memberships. Does nothing if the user is not connected.
    pub(super) fn set_memberships(&mut self, userid: &str, memberships: Vec<Membership>) {
        let user = self.find(userid);
        if let Some(user) = user.and_then(|user| self.table.group_mut(user)) {
            self.changes.extend(user.set_memberships(memberships));
        }
    }

    /// Takes the former states of users after changes of memberships since the last call.
    pub(super) fn take_changes(&mut self) -> Vec<Principal> {
        std::mem::take(&mut self.changes)
    }

    /// Returns the connections of a user.
    pub(super) fn connections_of(&self, userid: &str) -> Vec<ConnKey> {
        let user = self.find(userid).into_iter();
        user.flat_map(|user| self.table.members_of(user))
            .map(|login| login.key)
            .collect()
    }

    /// Returns the connections that logged in with a token. Scans all logins: revocations are rare,
    /// and another table would cost memory for every connection.
    pub(super) fn connections_with(&self, token: TokenId) -> Vec<ConnKey> {
        self.table
            .members()
            .filter(|login| login.token == token)
            .map(|login| login.key)
            .collect()
    }

    /// Appends the tokens of at most `count` further logins. Returns whether there are more.
    pub(super) fn next_tokens(
        &self,
        walk: &mut LoginWalk,
        count: usize,
        out: &mut Vec<TokenId>,
    ) -> bool {
        let end = (walk.end as usize).min(self.table.member_end());
        let start = end.saturating_sub(count);
        walk.end = start as u32;
        let members = self.table.members_in(start as u32..end as u32);
        out.extend(members.map(|login| login.token));
        start > 0
    }

    /// Returns the number of logged-in connections.
    pub(super) fn logins(&self) -> usize {
        self.table.len()
    }

    /// Returns the number of distinct users.
    pub(super) fn users(&self) -> usize {
        self.table.group_count()
    }

    /// Releases unused memory after many connections have closed. The work is subtracted from `budget`;
    /// some is left if that reaches zero.
    pub(super) fn shrink(&mut self, budget: &mut usize) {
        self.by_conn.trim();
        while let Some((_, to)) = self.table.next_move(budget) {
            if let Some(login) = self.table.member(to) {
                self.by_conn.set(login.key, to);
            }
        }
        self.shrink_deadlines();
    }

    /// Removes the identity of the connection in this key's arena slot, whichever it is. A
    /// connection that closed before it opened is not logged out before its slot is reused.
    fn remove_login(&mut self, key: ConnKey) {
        let at = self.by_conn.take(key);
        if let Some(login) = self.table.remove(at) {
            self.deadlines.expiring -= usize::from(login.expires_by_itself());
        }
    }

    /// Returns whether a later connection in this key's arena slot has an identity.
    fn has_successor(&self, key: ConnKey) -> bool {
        let login = self.table.member(self.by_conn.get(key));
        // Generations count connections and wrap around after 2^32.
        login.is_some_and(|login| {
            let ahead = login.key.generation().wrapping_sub(key.generation());
            (1..1 << 31).contains(&ahead)
        })
    }

    fn login(&self, key: ConnKey) -> Option<&Login> {
        let login = self.table.member(self.by_conn.get(key));
        login.filter(|login| login.key == key)
    }

    fn login_mut(&mut self, key: ConnKey) -> Option<&mut Login> {
        let login = self.table.member_mut(self.by_conn.get(key));
        login.filter(|login| login.key == key)
    }

    /// Returns the index of a user.
    fn find(&self, userid: &str) -> Option<u32> {
        let hash = self.digester.userid(userid).table_hash();
        self.table.find(hash, |user| &*user.userid == userid)
    }
}

impl Group for Principal {
    fn table_hash(&self) -> u64 {
        self.hash
    }

    fn has_same_key(&self, other: &Self) -> bool {
        self.userid == other.userid
    }
}

impl Member for Login {
    fn links(&self) -> &Links {
        &self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

impl Default for Login {
    fn default() -> Self {
        Login {
            key: ConnKey::new(NONE, 0),
            token: TokenId(0),
            expires: NEVER,
            links: Links::default(),
            status: TokenStatus::Valid,
        }
    }
}

const NEVER: UnixMillis = UnixMillis::MAX;
// Every logged-in connection takes this much memory.
const _: () = assert!(size_of::<Login>() <= 40);

mod token_status;
mod verify;

pub(super) use token_status::EndAction;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;
    use crate::realtime::testing::{Random, identity, key};

    fn principals() -> Principals {
        Principals::new(Rc::new(Digester::new([1, 2, 3, 4])))
    }

    #[test]
    fn user_is_shared_and_removed_with_the_last_connection() {
        let mut principals = principals();
        principals.log_in(
            key(0),
            identity("acct:a@x", 1, &[("g", Role::Member)]),
            Now::default(),
        );
        principals.log_in(
            key(1),
            identity("acct:a@x", 2, &[("h", Role::Owner)]),
            Now::default(),
        );
        principals.log_in(key(2), identity("acct:b@x", 3, &[]), Now::default());
        assert_eq!((principals.logins(), principals.users()), (3, 2));

        let user = principals.of(key(0)).unwrap();
        assert_eq!(user.userid(), "acct:a@x");
        assert!(user.membership("g").is_none(), "the newer identity holds");
        assert_eq!(user.membership("h").map(|m| m.role), Some(Role::Owner));
        let memberships = identity("", 0, &[("z", Role::Member), ("a", Role::Admin)]).memberships;
        principals.set_memberships("acct:a@x", memberships);
        principals.set_memberships("acct:other@x", vec![]);
        let user = principals.of(key(1)).unwrap();
        assert!(user.membership("z").is_some() && user.membership("a").is_some());

        assert_eq!(principals.connections_of("acct:a@x"), [key(1), key(0)]);
        assert_eq!(principals.connections_of("acct:A@x"), []);
        assert_eq!(principals.connections_with(TokenId(2)), [key(1)]);
        principals.log_out(key(1));
        principals.log_out(key(1));
        assert_eq!(principals.connections_of("acct:a@x"), [key(0)]);
        principals.log_out(key(0));
        assert!(principals.of(key(0)).is_none());
        assert_eq!((principals.logins(), principals.users()), (1, 1));
    }

    #[test]
    fn reused_slot_does_not_inherit_the_identity() {
        let mut principals = principals();
        let (old, new) = (key(2), ConnKey::new(2, 2));
        principals.log_in(old, identity("acct:a@x", 1, &[]), Now::default());
        assert!(principals.of(new).is_none());
        principals.log_out(new);
        assert!(principals.of(old).is_some());
        principals.log_in(new, identity("acct:b@x", 2, &[]), Now::default());
        principals.log_out(old);
        assert_eq!(principals.of(new).map(Principal::userid), Some("acct:b@x"));
        assert_eq!((principals.logins(), principals.users()), (1, 1));

        let memberships = &[("g", Role::Member)];
        principals.log_in(old, identity("acct:a@x", 3, &[]), Now::default());
        principals.log_in(old, identity("acct:b@x", 3, memberships), Now::default());
        let user = principals
            .of(new)
            .expect("a late answer does not remove the identity");
        assert_eq!(user.userid(), "acct:b@x");
        assert!(
            user.membership("g").is_some(),
            "its memberships are applied"
        );
        assert!(principals.of(old).is_none());
        assert_eq!((principals.logins(), principals.users()), (1, 1));
    }

    // M1
    #[test]
    fn memory_is_released_after_many_logouts() {
        let mut principals = principals();
        let mut random = Random(7);
        for n in 0..5000 {
            let user = format!("acct:{}@x", n % 500);
            let identity = identity(&user, n, &[("g", Role::Member)]);
            principals.log_in(key(n as u32), identity, Now::default());
        }
        let before = principals.table.bytes();
        let remaining: Vec<u32> = (0..5000).filter(|_| random.below(50) == 0).collect();
        for n in (0..5000).filter(|n| !remaining.contains(n)) {
            principals.log_out(key(n));
        }
        principals.shrink(&mut usize::MAX.clone());
        assert!(principals.table.bytes() < before / 8);
        for n in remaining {
            let user = principals.of(key(n)).unwrap();
            assert_eq!(user.userid(), format!("acct:{}@x", n % 500));
            assert!(user.membership("g").is_some());
            let connections = principals.connections_of(&format!("acct:{}@x", n % 500));
            assert!(connections.contains(&key(n)));
            principals.log_out(key(n));
        }
        assert_eq!((principals.logins(), principals.users()), (0, 0));
    }
}
