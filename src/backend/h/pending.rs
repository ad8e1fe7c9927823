//! Membership changes that events have stated and the database has not confirmed yet.
//!
//! h publishes `group-join` and `group-leave` inside its transaction, so the database may still
//! return the old memberships after the event has arrived. A statement therefore overrides every
//! read of its user's memberships until a read agrees with it, which is final: h checks the
//! committed state before it publishes the opposite. If no read agrees in time, the transaction was
//! aborted, and the database's answer counts again.
//!
//! Owns: the unconfirmed statements, and the times at which to read again. Must not know: SQL, or
//! the connections. Time is an argument.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::model::{Membership, Role};

/// The unconfirmed statements, by user.
#[derive(Debug, Default)]
pub struct Pending {
    users: HashMap<Box<str>, Vec<Statement>>,
    /// The time of each user's next read: exactly one entry for each user in `users`.
    due: BTreeSet<(Instant, Box<str>)>,
    count: usize,
}

/// A membership change, as stated by an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct MembershipChange {
    pub group: Box<str>,
    pub joined: bool,
}

#[derive(Debug)]
struct Statement {
    change: MembershipChange,
    since: Instant,
    /// The number of [`CHECKS`] made so far.
    checks: usize,
}

impl MembershipChange {
    /// Parses the change in an event with the routing key `user`, if it states one.
    pub(super) fn parse(event: &Map<String, Value>) -> Option<MembershipChange> {
        let joined = match event.get("type")?.as_str()? {
            "group-join" => true,
            "group-leave" => false,
            _ => return None,
        };
        let group = event.get("group")?.as_str()?.into();
        Some(MembershipChange { group, joined })
    }

    fn agrees(&self, memberships: &[Membership]) -> bool {
        memberships.iter().any(|one| one.group == self.group) == self.joined
    }

    fn apply(&self, memberships: &mut Vec<Membership>) {
        memberships.retain(|one| one.group != self.group);
        if self.joined {
            memberships.push(Membership {
                group: self.group.clone(),
                // The event does not state the role; the confirming read returns it.
                role: Role::Member,
            });
        }
    }
}

impl Statement {
    fn next_check(&self) -> Instant {
        self.since + CHECKS[self.checks.min(CHECKS.len() - 1)]
    }

    fn is_expired(&self, now: Instant) -> bool {
        let lifetime = match self.change.joined {
            true => JOIN_LIFETIME,
            false => LEAVE_LIFETIME,
        };
        now >= self.since + lifetime
    }
}

impl Pending {
    /// Records a statement that arrived `age` ago, in place of any earlier one on the same user and
    /// group. A statement that has waited for too long is not recorded: h's transaction is over,
    /// and the database may have a later state. Returns false if a statement had to be discarded
    /// because a limit was reached.
    pub(super) fn record(
        &mut self,
        userid: &str,
        change: MembershipChange,
        age: Duration,
        now: Instant,
    ) -> bool {
        if userid.len() + change.group.len() > MAX_LENGTH {
            return false;
        }
        let statement = now.checked_sub(age).map(|since| Statement {
            change: change.clone(),
            since,
            checks: 0,
        });
        self.edit(userid, |statements| {
            statements.retain(|one| one.change.group != change.group);
            statements.extend(statement.filter(|statement| !statement.is_expired(now)));
        });
        let mut fits = true;
        while self.count > MAX_STATEMENTS
            && let Some((_, userid)) = self.due.first().cloned()
        {
            self.forget(&userid);
            fits = false;
        }
        fits
    }

    /// Overrides the memberships returned by a read that began at `now`. Confirmed and expired
    /// statements are dropped.
    pub(super) fn apply(&mut self, userid: &str, memberships: &mut Vec<Membership>, now: Instant) {
        if !self.users.contains_key(userid) {
            return;
        }
        self.edit(userid, |statements| {
            statements.retain(|one| !one.is_expired(now) && !one.change.agrees(memberships));
            for statement in statements.iter() {
                statement.change.apply(memberships);
            }
        });
    }

    /// Returns a user whose memberships are due to be read again.
    pub(super) fn due(&self, now: Instant) -> Option<Box<str>> {
        let (at, userid) = self.due.first()?;
        (*at <= now).then(|| userid.clone())
    }

    /// Returns the time at which the next user is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Records that a user's memberships were read and passed through [`Pending::apply`].
    pub(super) fn record_check(&mut self, userid: &str, now: Instant) {
        self.edit(userid, |statements| {
            for statement in statements.iter_mut() {
                while statement.next_check() <= now && statement.checks < CHECKS.len() {
                    statement.checks += 1;
                }
            }
        });
    }

    /// Drops all statements on a user.
    pub(super) fn forget(&mut self, userid: &str) {
        self.edit(userid, Vec::clear);
    }

    /// Returns the users with an unconfirmed statement that they have joined a group.
    pub(super) fn joining(&self, group: &str) -> impl Iterator<Item = &str> {
        let joins =
            |statement: &Statement| statement.change.joined && *statement.change.group == *group;
        let users = self.users.iter();
        users
            .filter(move |(_, statements)| statements.iter().any(joins))
            .map(|(userid, _)| &**userid)
    }

    /// Changes a user's statements, and updates `due` and `count` accordingly.
    fn edit(&mut self, userid: &str, change: impl FnOnce(&mut Vec<Statement>)) {
        let entry = self.users.remove_entry(userid);
        let (key, mut statements) = entry.unwrap_or_else(|| (userid.into(), Vec::new()));
        if let Some(at) = earliest(&statements) {
            self.due.remove(&(at, key.clone()));
        }
        self.count -= statements.len();
        change(&mut statements);
        self.count += statements.len();
        if let Some(at) = earliest(&statements) {
            self.due.insert((at, key.clone()));
            self.users.insert(key, statements);
        }
    }
}

fn earliest(statements: &[Statement]) -> Option<Instant> {
    statements.iter().map(Statement::next_check).min()
}

/// The delays after an event at which memberships are read again until they agree with it.
const CHECKS: [Duration; 5] = [
    Duration::from_secs(1),
    Duration::from_secs(5),
    JOIN_LIFETIME,
    Duration::from_secs(30),
    LEAVE_LIFETIME,
];
/// The lifetime of an unconfirmed join. It is short, since the user meanwhile has rights that the
/// database does not grant.
const JOIN_LIFETIME: Duration = Duration::from_secs(15);
/// The lifetime of an unconfirmed leave. It exceeds the duration of requests to h, since a leave
/// only withdraws rights.
const LEAVE_LIFETIME: Duration = Duration::from_secs(60);
/// The maximum number of statements. A confirmed one lives for about a second.
const MAX_STATEMENTS: usize = 10_000;
/// The maximum length of a userid and a group together, in bytes. h's are far shorter.
const MAX_LENGTH: usize = 1024;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn change(group: &str, joined: bool) -> MembershipChange {
        let group = group.into();
        MembershipChange { group, joined }
    }

    fn member(group: &str, role: Role) -> Membership {
        let group = group.into();
        Membership { group, role }
    }

    /// Returns the effective groups if the database returns `read`.
    fn applied(pending: &mut Pending, read: &[&str], now: Instant) -> String {
        let mut memberships = read
            .iter()
            .map(|group| member(group, Role::Owner))
            .collect();
        pending.apply("a", &mut memberships, now);
        let names = memberships.iter().map(|one| &*one.group);
        names.collect::<Vec<_>>().join(",")
    }

    fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn only_joins_and_leaves_with_a_group_are_changes() {
        let parse = |event: Value| MembershipChange::parse(event.as_object().unwrap());
        let event = json!({"type": "group-join", "group": "g"});
        assert_eq!(parse(event), Some(change("g", true)));
        let event = json!({"type": "group-leave", "group": "g"});
        assert_eq!(parse(event), Some(change("g", false)));
        for event in [
            json!({"type": "group-leave"}),
            json!({"type": "group-leave", "group": 5}),
            json!({"type": "profile", "group": "g"}),
            json!({"group": "g"}),
        ] {
            assert_eq!(parse(event), None);
        }
    }

    #[test]
    fn statement_overrides_reads_until_one_agrees() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        assert!(pending.record("a", change("g", false), Duration::ZERO, start));
        assert!(pending.record("a", change("h", true), Duration::ZERO, start));
        assert_eq!(applied(&mut pending, &["g", "i"], start), "i,h");
        assert_eq!(applied(&mut pending, &["g", "i"], start), "i,h");
        assert_eq!(pending.joining("h").collect::<Vec<_>>(), ["a"]);
        assert_eq!(pending.joining("g").count(), 0);
        // One of the two transactions has been committed.
        assert_eq!(applied(&mut pending, &["g", "h", "i"], start), "h,i");
        assert_eq!(pending.joining("h").count(), 0);
        assert_eq!(applied(&mut pending, &["g"], start), "");
        assert_eq!(applied(&mut pending, &[], start), "");
        assert_eq!(pending.next_due(), None);
        assert_eq!(applied(&mut pending, &["g"], start), "g");
    }

    #[test]
    fn newer_statement_on_the_same_group_replaces_the_older() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        pending.record("a", change("g", false), Duration::ZERO, start);
        pending.record("a", change("g", true), Duration::ZERO, start + seconds(1));
        assert_eq!(pending.count, 1);
        assert_eq!(pending.next_due(), Some(start + seconds(2)));
        assert_eq!(applied(&mut pending, &[], start + seconds(1)), "g");
    }

    // D3
    #[test]
    fn unconfirmed_statements_are_checked_on_schedule_and_expire() {
        for (joined, read, lifetime) in [(true, &[][..], 15), (false, &["g"][..], 60)] {
            let (mut pending, start) = (Pending::default(), Instant::now());
            pending.record("a", change("g", joined), Duration::ZERO, start);
            let stated = if joined { "g" } else { "" };
            let mut checks = Vec::new();
            while let Some(at) = pending.next_due() {
                assert_eq!(pending.due(at - Duration::from_millis(1)), None);
                assert_eq!(pending.due(at).as_deref(), Some("a"));
                checks.push((at - start).as_secs());
                let before = applied(&mut pending, read, at - Duration::from_millis(1));
                assert_eq!(before, stated);
                let expected = if checks.last() == Some(&lifetime) {
                    read.concat()
                } else {
                    stated.into()
                };
                assert_eq!(applied(&mut pending, read, at), expected);
                pending.record_check("a", at);
            }
            let expected: &[u64] = if joined {
                &[1, 5, 15]
            } else {
                &[1, 5, 15, 30, 60]
            };
            assert_eq!(checks, expected);
            assert!(pending.users.is_empty() && pending.count == 0);
        }
    }

    #[test]
    fn late_check_is_made_once() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        pending.record("a", change("g", false), Duration::ZERO, start);
        let late = start + seconds(20);
        assert_eq!(pending.due(late).as_deref(), Some("a"));
        assert_eq!(applied(&mut pending, &["g"], late), "");
        pending.record_check("a", late);
        assert_eq!(pending.next_due(), Some(start + seconds(30)));
    }

    // D3
    #[test]
    fn statements_are_bounded_in_number_and_length() {
        let (mut pending, start) = (Pending::default(), Instant::now());
        for number in 0..MAX_STATEMENTS as u64 {
            let at = start + Duration::from_millis(number);
            assert!(pending.record(&number.to_string(), change("g", false), Duration::ZERO, at));
        }
        assert!(!pending.record(
            "new",
            change("g", false),
            Duration::ZERO,
            start + seconds(50)
        ));
        assert_eq!(pending.count, MAX_STATEMENTS);
        assert!(!pending.users.contains_key("0") && pending.users.contains_key("new"));
        assert!(!pending.record(
            &"u".repeat(MAX_LENGTH),
            change("g", false),
            Duration::ZERO,
            start
        ));
        assert_eq!(
            (pending.users.len(), pending.due.len()),
            (pending.count, pending.count)
        );
        pending.forget("new");
        assert_eq!(pending.count, MAX_STATEMENTS - 1);
    }
}
