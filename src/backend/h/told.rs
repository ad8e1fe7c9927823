//! What was last told of those who are connected.
//!
//! Owns: which of what a sweep finds is news. It keeps hashes only: it is told names and groups
//! of everybody, and needs none of them.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};

use super::store::Standing;
use crate::model::{EndCause, Identity, Membership, Tell, TokenId};

/// Hashes of what the reactor knows of its connections.
#[derive(Default)]
pub(super) struct Told {
    hasher: RandomState,
    tokens: HashMap<TokenId, Known>,
    /// Of userids and of their memberships, which belong to a user rather than to a token.
    users: HashMap<u64, u64>,
}

/// A token that a connection has, or may have soon.
struct Known {
    /// Of the userid.
    user: u64,
    /// No sweep has ended since: its connection may be about to open.
    is_new: bool,
}

impl Told {
    /// Somebody was told of, who logs in.
    pub fn let_in(&mut self, identity: &Identity) {
        let user = self.hasher.hash_one(&identity.userid);
        let known = Known { user, is_new: true };
        self.tokens.insert(identity.token, known);
        self.memberships(&identity.userid, &identity.memberships);
    }

    /// A user's memberships were told. Returns whether they differ from those told before.
    pub fn memberships(&mut self, userid: &str, memberships: &[Membership]) -> bool {
        let user = self.hasher.hash_one(userid);
        let hash = self.hash(memberships);
        self.users.insert(user, hash) != Some(hash)
    }

    /// It was told that a user is no more.
    pub fn gone(&mut self, userid: &str) {
        self.users.remove(&self.hasher.hash_one(userid));
    }

    /// What is news of what a sweep has found. From then on it is told.
    pub fn news(&mut self, found: Vec<(TokenId, Standing)>) -> Vec<Tell> {
        let mut news = Vec::new();
        for (token, standing) in found {
            let (userid, memberships) = match standing {
                Ok(holder) => holder,
                Err(cause) => {
                    self.tokens.remove(&token);
                    news.push(Tell::TokenEnded { token, cause });
                    continue;
                }
            };
            let user = self.hasher.hash_one(&userid);
            let known = self.tokens.entry(token).or_insert(Known {
                user,
                is_new: false,
            });
            if known.user != user {
                // Connections are told who they are once; whoever has another name comes back.
                self.tokens.remove(&token);
                let cause = EndCause::Revoked;
                news.push(Tell::TokenEnded { token, cause });
                continue;
            }
            let hash = self.hash(&memberships);
            if self.users.insert(user, hash) != Some(hash) {
                news.push(Tell::Memberships {
                    userid,
                    memberships,
                });
            }
        }
        news
    }

    /// Forgets the tokens that no connection has any more: those that a whole sweep was not
    /// about, but a new one only the second time.
    pub fn forget_all_but(&mut self, swept: &[TokenId]) {
        let swept: HashSet<TokenId> = swept.iter().copied().collect();
        self.tokens.retain(|token, known| {
            let stays = swept.contains(token) || known.is_new;
            known.is_new = false;
            stays
        });
        let users: HashSet<u64> = self.tokens.values().map(|known| known.user).collect();
        self.users.retain(|user, _| users.contains(user));
    }

    /// The same in whatever order they come.
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

    fn found(token: u64, userid: &str, names: &[&str]) -> (TokenId, Standing) {
        (TokenId(token), Ok((userid.into(), groups(names))))
    }

    /// What was told, in short.
    fn told(news: Vec<Tell>) -> Vec<String> {
        let short = |tell| match tell {
            Tell::TokenEnded { token, cause } => format!("{}: {}", token.0, cause.as_str()),
            Tell::Memberships {
                userid,
                memberships,
            } => {
                let groups: Vec<_> = memberships.iter().map(|one| &*one.group).collect();
                format!("{userid} {}", groups.join(","))
            }
            other => panic!("{other:?}"),
        };
        news.into_iter().map(short).collect()
    }

    #[test]
    fn only_what_has_changed_is_news_and_only_once() {
        let mut table = Told::default();
        table.let_in(&identity(1, "a", &["g", "h"]));
        table.let_in(&identity(2, "a", &["g", "h"]));
        table.let_in(&identity(3, "b", &[]));
        let same = || {
            let h_first = found(2, "a", &["h", "g"]);
            vec![found(1, "a", &["g", "h"]), h_first, found(3, "b", &[])]
        };
        assert_eq!(told(table.news(same())), [""; 0]);
        let changed = || {
            let ended = (TokenId(3), Err(EndCause::UserDeleted));
            vec![found(1, "a", &["g"]), found(2, "a", &["g"]), ended]
        };
        assert_eq!(told(table.news(changed())), ["a g", "3: user deleted"]);
        let changed = || vec![found(1, "a", &["g"]), found(2, "a", &["g"])];
        assert_eq!(told(table.news(changed())), [""; 0]);
        table.memberships("a", &groups(&["g", "i"]));
        assert_eq!(told(table.news(vec![found(1, "a", &["g", "i"])])), [""; 0]);
        assert_eq!(told(table.news(vec![found(1, "a", &["g"])])), ["a g"]);
    }

    #[test]
    fn a_role_is_a_change() {
        let mut table = Told::default();
        table.let_in(&identity(1, "a", &["g"]));
        let mut memberships = groups(&["g"]);
        memberships[0].role = Role::Owner;
        let found = vec![(TokenId(1), Ok(("a".into(), memberships)))];
        assert_eq!(told(table.news(found)), ["a g"]);
    }

    #[test]
    fn who_has_another_name_has_to_come_back() {
        let mut table = Told::default();
        table.let_in(&identity(1, "a", &[]));
        assert_eq!(
            told(table.news(vec![found(1, "b", &[])])),
            ["1: token revoked"]
        );
        // The connection may still be there for a while; it is known by no name then.
        assert_eq!(told(table.news(vec![found(1, "b", &[])])), ["b "]);
    }

    #[test]
    fn who_is_about_to_open_is_not_forgotten_and_who_has_gone_is() {
        let mut table = Told::default();
        table.let_in(&identity(1, "a", &[]));
        table.let_in(&identity(2, "c", &[]));
        table.forget_all_but(&[TokenId(2)]);
        assert_eq!(
            told(table.news(vec![found(1, "b", &[])])),
            ["1: token revoked"]
        );
        table.let_in(&identity(1, "a", &[]));
        table.forget_all_but(&[TokenId(2)]);
        table.forget_all_but(&[TokenId(2)]);
        assert_eq!((table.tokens.len(), table.users.len()), (1, 1));
        table.forget_all_but(&[]);
        assert!(table.tokens.is_empty() && table.users.is_empty());
    }

    #[test]
    fn a_user_who_is_no_more_is_not_known_either() {
        let mut table = Told::default();
        table.let_in(&identity(1, "a", &["g"]));
        table.gone("a");
        assert_eq!(told(table.news(vec![found(1, "a", &["g"])])), ["a g"]);
    }
}
