//! The state last reported to the reactor for each connected user and token.
//!
//! Owns: the selection of changes from the results of a sweep. It stores hashes only, since it
//! needs to compare names and groups, but never to return them.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use super::client::TokenStatus;
use crate::model::{BackendEvent, EndCause, Identity, Membership, TokenId};

/// Hashes of the state that the reactor knows.
#[derive(Default)]
pub(super) struct SweepState {
    hasher: RandomState,
    tokens: HashMap<TokenId, Known>,
    /// Maps the hash of a userid to that of the memberships, which belong to the user rather than
    /// to a token.
    users: HashMap<u64, u64>,
}

/// A token that a connection has, or may have soon.
struct Known {
    /// The hash of the userid.
    user: u64,
    /// No sweep has ended since the login, so its connection may not be open yet.
    is_new: bool,
}

impl SweepState {
    /// Records a login that was reported.
    pub(super) fn record_login(&mut self, identity: &Identity) {
        let user = self.hasher.hash_one(&identity.userid);
        let known = Known { user, is_new: true };
        self.tokens.insert(identity.token, known);
        self.record_memberships(&identity.userid, &identity.memberships);
    }

    /// Records a user's memberships that were reported. Returns whether they differ from those
    /// reported before.
    pub(super) fn record_memberships(&mut self, userid: &str, memberships: &[Membership]) -> bool {
        let user = self.hasher.hash_one(userid);
        let hash = self.hash(memberships);
        self.users.insert(user, hash) != Some(hash)
    }

    /// Records that the deletion of a user was reported.
    pub(super) fn record_deletion(&mut self, userid: &str) {
        self.users.remove(&self.hasher.hash_one(userid));
    }

    /// Returns the changes in the results of a sweep, and marks them as reported.
    pub(super) fn changes(&mut self, found: Vec<(TokenId, TokenStatus)>) -> Vec<BackendEvent> {
        let mut events = Vec::new();
        for (token, standing) in found {
            let (userid, memberships) = match standing {
                Ok(holder) => holder,
                Err(cause) => {
                    self.tokens.remove(&token);
                    events.push(BackendEvent::TokenEnded { token, cause });
                    continue;
                }
            };
            let user = self.hasher.hash_one(&userid);
            let known = self.tokens.entry(token).or_insert(Known {
                user,
                is_new: false,
            });
            if known.user != user {
                // The identity of a connection is fixed, so a renamed user must reconnect.
                self.tokens.remove(&token);
                let cause = EndCause::Revoked;
                events.push(BackendEvent::TokenEnded { token, cause });
                continue;
            }
            let hash = self.hash(&memberships);
            if self.users.insert(user, hash) != Some(hash) {
                events.push(BackendEvent::Memberships {
                    userid,
                    memberships,
                });
            }
        }
        events
    }

    /// Forgets the tokens that no connection has any more: those not in the completed sweep. A new
    /// token is only forgotten by the second sweep.
    pub(super) fn retain_swept(&mut self, swept: &[TokenId]) {
        let swept: HashSet<TokenId> = swept.iter().copied().collect();
        self.tokens.retain(|token, known| {
            let stays = swept.contains(token) || known.is_new;
            known.is_new = false;
            stays
        });
        let users: HashSet<u64> = self.tokens.values().map(|known| known.user).collect();
        self.users.retain(|user, _| users.contains(user));
    }

    /// Returns a hash that does not depend on the order of the memberships.
    fn hash(&self, memberships: &[Membership]) -> u64 {
        let mut sorted: Vec<_> = memberships
            .iter()
            .map(|one| (&one.group, one.role))
            .collect();
        sorted.sort_unstable();
        self.hasher.hash_one(sorted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Role;

    fn groups(names: &[&str]) -> Vec<Membership> {
        let membership = |name: &&str| Membership {
            group: (*name).into(),
            role: Role::Member,
        };
        names.iter().map(membership).collect()
    }

    fn identity(token: u64, userid: &str, names: &[&str]) -> Identity {
        Identity {
            userid: userid.into(),
            memberships: groups(names),
            token: TokenId(token),
            expires: None,
        }
    }

    fn found(token: u64, userid: &str, names: &[&str]) -> (TokenId, TokenStatus) {
        (TokenId(token), Ok((userid.into(), groups(names))))
    }

    /// Returns the reports in a short form.
    fn outline(events: Vec<BackendEvent>) -> Vec<String> {
        let short = |tell| match tell {
            BackendEvent::TokenEnded { token, cause } => format!("{}: {}", token.0, cause.as_str()),
            BackendEvent::Memberships {
                userid,
                memberships,
            } => {
                let groups: Vec<_> = memberships.iter().map(|one| &*one.group).collect();
                format!("{userid} {}", groups.join(","))
            }
            other => panic!("{other:?}"),
        };
        events.into_iter().map(short).collect()
    }

    #[test]
    fn changes_are_reported_once() {
        let mut state = SweepState::default();
        state.record_login(&identity(1, "a", &["g", "h"]));
        state.record_login(&identity(2, "a", &["g", "h"]));
        state.record_login(&identity(3, "b", &[]));
        let same = || {
            let h_first = found(2, "a", &["h", "g"]);
            vec![found(1, "a", &["g", "h"]), h_first, found(3, "b", &[])]
        };
        assert_eq!(outline(state.changes(same())), [""; 0]);
        let changed = || {
            let ended = (TokenId(3), Err(EndCause::UserDeleted));
            vec![found(1, "a", &["g"]), found(2, "a", &["g"]), ended]
        };
        assert_eq!(
            outline(state.changes(changed())),
            ["a g", "3: user deleted"]
        );
        let changed = || vec![found(1, "a", &["g"]), found(2, "a", &["g"])];
        assert_eq!(outline(state.changes(changed())), [""; 0]);
        state.record_memberships("a", &groups(&["g", "i"]));
        assert_eq!(
            outline(state.changes(vec![found(1, "a", &["g", "i"])])),
            [""; 0]
        );
        assert_eq!(outline(state.changes(vec![found(1, "a", &["g"])])), ["a g"]);
    }

    #[test]
    fn changed_role_is_reported() {
        let mut state = SweepState::default();
        state.record_login(&identity(1, "a", &["g"]));
        let mut memberships = groups(&["g"]);
        memberships[0].role = Role::Owner;
        let found = vec![(TokenId(1), Ok(("a".into(), memberships)))];
        assert_eq!(outline(state.changes(found)), ["a g"]);
    }

    #[test]
    fn token_of_a_renamed_user_ends() {
        let mut state = SweepState::default();
        state.record_login(&identity(1, "a", &[]));
        assert_eq!(
            outline(state.changes(vec![found(1, "b", &[])])),
            ["1: token revoked"]
        );
        // The connection may stay open for a while; the token has no recorded userid then.
        assert_eq!(outline(state.changes(vec![found(1, "b", &[])])), ["b "]);
    }

    #[test]
    fn closed_connections_are_forgotten_and_opening_ones_are_not() {
        let mut state = SweepState::default();
        state.record_login(&identity(1, "a", &[]));
        state.record_login(&identity(2, "c", &[]));
        state.retain_swept(&[TokenId(2)]);
        assert_eq!(
            outline(state.changes(vec![found(1, "b", &[])])),
            ["1: token revoked"]
        );
        state.record_login(&identity(1, "a", &[]));
        state.retain_swept(&[TokenId(2)]);
        state.retain_swept(&[TokenId(2)]);
        assert_eq!((state.tokens.len(), state.users.len()), (1, 1));
        state.retain_swept(&[]);
        assert!(state.tokens.is_empty() && state.users.is_empty());
    }

    #[test]
    fn deleted_user_is_forgotten() {
        let mut state = SweepState::default();
        state.record_login(&identity(1, "a", &["g"]));
        state.record_deletion("a");
        assert_eq!(outline(state.changes(vec![found(1, "a", &["g"])])), ["a g"]);
    }
}
