//! The identities of connections: users, stored once each, and their connections.
//!
//! Owns: the identity of every logged-in connection. Must not know: sockets, or the permissions of
//! users. A user is stored for as long as it has a connection.

use std::rc::Rc;

use hashbrown::HashTable;

use crate::model::{Identity, Membership, TokenId, UnixMillis};
use crate::net::{ConnKey, Now};

use token_status::{TokenDeadlines, TokenStatus};

use super::digest::Digester;
use super::slab::{ConnMap, NONE, Slab};

/// The connected users.
pub struct Principals {
    digester: Rc<Digester>,
    by_conn: ConnMap,
    logins: Slab<Login>,
    users: Slab<Principal>,
    /// Indices into `users`, by userid.
    table: HashTable<u32>,
    deadlines: TokenDeadlines,
}

/// A user, shared by the user's connections.
#[derive(Default)]
pub struct Principal {
    userid: Box<str>,
    /// Sorted by group.
    memberships: Box<[Membership]>,
    bucket: u64,
    /// The head of the list of the user's logins.
    head: u32,
}

/// The identity of one connection, linked with the user's other logins.
#[derive(Clone, Copy)]
struct Login {
    key: ConnKey,
    token: TokenId,
    /// The expiry by the wall clock.
    expires: UnixMillis,
    user: u32,
    next: u32,
    prev: u32,
    status: TokenStatus,
}

impl Principal {
    /// Returns the userid in the stored spelling.
    pub fn userid(&self) -> &str {
        &self.userid
    }

    /// Returns the membership in a group.
    pub fn membership(&self, group: &str) -> Option<&Membership> {
        let at = self
            .memberships
            .binary_search_by(|membership| (*membership.group).cmp(group));
        self.memberships.get(at.ok()?)
    }

    fn set_memberships(&mut self, mut memberships: Vec<Membership>) {
        memberships.sort_unstable();
        self.memberships = memberships.into();
    }
}

impl Principals {
    /// Creates an empty table.
    pub fn new(digester: Rc<Digester>) -> Self {
        Principals {
            digester,
            by_conn: ConnMap::default(),
            logins: Slab::default(),
            users: Slab::default(),
            table: HashTable::new(),
            deadlines: TokenDeadlines::default(),
        }
    }

    /// Assigns an identity to a connection. It contains the newest data of the user, which also
    /// applies to the user's other connections.
    pub fn log_in(&mut self, key: ConnKey, identity: Identity, now: Now) {
        // The answer may be late, with another connection in the same slot by now.
        if self.has_successor(key) {
            return self.set_memberships(&identity.userid, identity.memberships);
        }
        self.vacate(key);
        let user = match self.find(&identity.userid) {
            Some(user) => user,
            None => {
                let bucket = self.digester.userid(&identity.userid).table_hash();
                self.add_user(Principal {
                    userid: identity.userid,
                    bucket,
                    ..Principal::default()
                })
            }
        };
        if let Some(user) = self.users.get_mut(user) {
            user.set_memberships(identity.memberships);
        }
        let expires = identity.expires.unwrap_or(NEVER);
        self.attach(Login {
            key,
            token: identity.token,
            expires,
            user,
            ..Login::default()
        });
        self.deadlines.log_in(key, expires, now);
    }

    /// Removes a connection's identity, if it has one.
    pub fn log_out(&mut self, key: ConnKey) {
        if self.login(key).is_some() {
            self.vacate(key);
        }
    }

    /// Returns the user of a connection; `None` is anonymous.
    pub fn of(&self, key: ConnKey) -> Option<&Principal> {
        let login = self.login(key)?;
        self.users.get(login.user)
    }

    /// Replaces a user's memberships. Does nothing if the user is not connected.
    pub fn set_memberships(&mut self, userid: &str, memberships: Vec<Membership>) {
        let user = self.find(userid);
        if let Some(user) = user.and_then(|user| self.users.get_mut(user)) {
            user.set_memberships(memberships);
        }
    }

    /// Returns the connections of a user.
    pub fn connections_of(&self, userid: &str) -> Vec<ConnKey> {
        let user = self.find(userid).and_then(|user| self.users.get(user));
        let mut at = user.map_or(NONE, |user| user.head);
        let mut keys = Vec::new();
        while let Some(login) = self.logins.get(at) {
            keys.push(login.key);
            at = login.next;
        }
        keys
    }

    /// Returns the connections that logged in with a token. Scans all logins: revocations are rare,
    /// and another table would cost memory for every connection.
    pub fn connections_with(&self, token: TokenId) -> Vec<ConnKey> {
        self.live_logins()
            .filter(|login| login.token == token)
            .map(|login| login.key)
            .collect()
    }

    /// Returns the tokens of all connections, without duplicates.
    pub fn tokens(&self) -> Vec<TokenId> {
        let mut tokens: Vec<_> = self.live_logins().map(|login| login.token).collect();
        tokens.sort_unstable();
        tokens.dedup();
        tokens
    }

    /// Returns the number of logged-in connections.
    pub fn logins(&self) -> usize {
        self.logins.len()
    }

    /// Returns the number of distinct users.
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// Releases unused memory after many connections have closed.
    pub fn shrink(&mut self) {
        if self.logins.is_sparse() {
            self.rebuild();
        }
        self.shrink_deadlines();
    }

    /// Moves the remaining entries into new, smaller tables.
    fn rebuild(&mut self) {
        let digester = Rc::clone(&self.digester);
        let mut old = std::mem::replace(self, Principals::new(digester));
        self.deadlines = std::mem::take(&mut old.deadlines);
        for slot in 0..old.users.slots().count() as u32 {
            let Some(user) = old.users.remove(slot) else {
                continue;
            };
            // No login refers to the user in a vacant slot.
            let mut at = user.head;
            if old.logins.get(at).is_none_or(|login| login.user != slot) {
                continue;
            }
            let user = self.add_user(Principal { head: NONE, ..user });
            while let Some(login) = old.logins.get(at) {
                self.attach(Login { user, ..*login });
                at = login.next;
            }
        }
    }

    /// Removes the identity of the connection in this key's arena slot, whichever it is. A
    /// connection that closed before it opened is not logged out before its slot is reused.
    fn vacate(&mut self, key: ConnKey) {
        let at = self.by_conn.take(key);
        let Some(login) = self.logins.remove(at) else {
            return;
        };
        self.deadlines.expiring -= usize::from(login.expires_by_itself());
        if let Some(next) = self.logins.get_mut(login.next) {
            next.prev = login.prev;
        }
        if let Some(prev) = self.logins.get_mut(login.prev) {
            prev.next = login.next;
            return;
        }
        let Some(user) = self.users.get_mut(login.user) else {
            return;
        };
        user.head = login.next;
        if user.head == NONE {
            let bucket = user.bucket;
            self.users.remove(login.user);
            let entry = self.table.find_entry(bucket, |&at| at == login.user);
            if let Ok(entry) = entry {
                entry.remove();
            }
        }
    }

    /// Returns whether a later connection in this key's arena slot has an identity.
    fn has_successor(&self, key: ConnKey) -> bool {
        let login = self.logins.get(self.by_conn.get(key));
        // Generations count connections and wrap around after 2^32.
        login.is_some_and(|login| {
            let ahead = login.key.generation().wrapping_sub(key.generation());
            (1..1 << 31).contains(&ahead)
        })
    }

    fn live_logins(&self) -> impl Iterator<Item = &Login> {
        self.logins.slots().filter(|login| login.user != NONE)
    }

    fn login(&self, key: ConnKey) -> Option<&Login> {
        let login = self.logins.get(self.by_conn.get(key));
        login.filter(|login| login.key == key)
    }

    fn find(&self, userid: &str) -> Option<u32> {
        let bucket = self.digester.userid(userid).table_hash();
        let found = self.table.find(bucket, |&at| {
            let user = self.users.get(at);
            user.is_some_and(|user| &*user.userid == userid)
        });
        found.copied()
    }

    fn add_user(&mut self, user: Principal) -> u32 {
        let bucket = user.bucket;
        let at = self.users.insert(Principal { head: NONE, ..user });
        let users = &self.users;
        self.table.insert_unique(bucket, at, |&at| {
            users.get(at).map_or(0, |user| user.bucket)
        });
        at
    }

    /// Stores a login at the head of its user's list.
    fn attach(&mut self, login: Login) {
        let Login { key, user, .. } = login;
        let next = self.users.get(user).map_or(NONE, |user| user.head);
        let prev = NONE;
        let at = self.logins.insert(Login {
            next,
            prev,
            ..login
        });
        if let Some(next) = self.logins.get_mut(next) {
            next.prev = at;
        }
        if let Some(user) = self.users.get_mut(user) {
            user.head = at;
        }
        self.by_conn.set(key, at);
    }
}

impl Default for Login {
    fn default() -> Self {
        Login {
            key: ConnKey::new(NONE, 0),
            token: TokenId(0),
            expires: NEVER,
            user: NONE,
            next: NONE,
            prev: NONE,
            status: TokenStatus::Valid,
        }
    }
}

const NEVER: UnixMillis = UnixMillis::MAX;
// Every logged-in connection takes this much memory.
const _: () = assert!(size_of::<Login>() <= 40);

mod token_status;
mod verify;

pub use token_status::EndAction;

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
        principals.set_memberships("acct:nobody@x", vec![]);
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
            .expect("an answer too late takes nothing");
        assert_eq!(user.userid(), "acct:b@x");
        assert!(user.membership("g").is_some(), "it is news all the same");
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
        let staying: Vec<u32> = (0..5000).filter(|_| random.below(50) == 0).collect();
        for n in (0..5000).filter(|n| !staying.contains(n)) {
            principals.log_out(key(n));
        }
        principals.shrink();
        assert_eq!(principals.logins.slots().count(), staying.len());
        for n in staying {
            let user = principals.of(key(n)).unwrap();
            assert_eq!(user.userid(), format!("acct:{}@x", n % 500));
            assert!(user.membership("g").is_some());
            let connections = principals.connections_of(&format!("acct:{}@x", n % 500));
            assert!(connections.contains(&key(n)));
            principals.log_out(key(n));
        }
        assert_eq!((principals.logins(), principals.users()), (0, 0));
        assert_eq!(principals.table.len(), 0);
    }
}
