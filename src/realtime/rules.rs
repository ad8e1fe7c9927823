//! Evaluates a plan's rules for a receiver.

use crate::model::{Condition, Decision, DenyReason, Rule};

use super::principals::Principal;

/// Returns the decision for a receiver; `None` is anonymous. If no rule matches, the message is
/// withheld, so a plan without rules has no receivers.
pub(super) fn decide(rules: &[Rule], receiver: Option<&Principal>) -> Decision {
    rules
        .iter()
        .find(|rule| rule.when.iter().all(|condition| holds(condition, receiver)))
        .map_or(Decision::Deny(DenyReason::Permission), |rule| rule.then)
}

/// Returns whether a receiver meets a condition; `None` is anonymous.
pub(super) fn holds(condition: &Condition, receiver: Option<&Principal>) -> bool {
    let Some(principal) = receiver else {
        return false;
    };
    match condition {
        Condition::User(userid) => principal.userid() == &**userid,
        Condition::Member(group) => principal.membership(group).is_some(),
        Condition::Moderator(group) => principal
            .membership(group)
            .is_some_and(|membership| membership.role.moderates()),
        Condition::OneOf(userids) => userids.contains(principal.userid()),
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::model::{Role, Userids};
    use crate::net::Now;
    use crate::realtime::digest::Digester;
    use crate::realtime::principals::Principals;
    use crate::realtime::testing::{identity, key, rule};

    #[test]
    fn set_condition_holds_for_each_member() {
        let some: Userids = ["acct:c@x", "acct:a@x", "acct:c@x"].into_iter().collect();
        assert_eq!(some.iter().collect::<Vec<_>>(), ["acct:a@x", "acct:c@x"]);
        let rules = [rule(vec![Condition::OneOf(some)], Decision::Send(0))];
        let mut principals = Principals::new(Rc::new(Digester::new([1, 2, 3, 4])));
        for (userid, is_in) in [
            ("acct:a@x", true),
            ("acct:b@x", false),
            ("acct:c@x", true),
            ("acct:C@x", false),
        ] {
            principals.log_in(key(0), identity(userid, 1, &[]), Now::default());
            let decision = decide(&rules, principals.of(key(0)));
            assert_eq!(decision == Decision::Send(0), is_in, "{userid}");
        }
        assert_eq!(decide(&rules, None), Decision::Deny(DenyReason::Permission));
    }

    #[test]
    fn first_matching_rule_decides() {
        let author = || Condition::User("acct:author@x".into());
        let member = || Condition::Member("g".into());
        let moderator = || Condition::Moderator("g".into());
        let (send, withhold) = (Decision::Send, Decision::Deny);
        // A hidden annotation by a muted author in a group that the world can read.
        let rules = [
            rule(vec![author()], send(0)),
            rule(vec![member(), moderator()], send(1)),
            rule(vec![member()], withhold(DenyReason::Hidden)),
            rule(vec![], withhold(DenyReason::Muted)),
        ];
        let cases = [
            ("acct:author@x", "", Role::Member, send(0)),
            ("acct:author@x", "g", Role::Member, send(0)),
            ("acct:m@x", "g", Role::Admin, send(1)),
            ("acct:m@x", "g", Role::Member, withhold(DenyReason::Hidden)),
            (
                "acct:Author@x",
                "h",
                Role::Owner,
                withhold(DenyReason::Muted),
            ),
        ];
        let mut principals = Principals::new(Rc::new(Digester::new([1, 2, 3, 4])));
        for (userid, group, role, expected) in cases {
            let groups = [("a", Role::Owner), (group, role)];
            principals.log_in(key(0), identity(userid, 1, &groups), Now::default());
            assert_eq!(decide(&rules, principals.of(key(0))), expected, "{userid}");
        }
        assert_eq!(decide(&rules, None), withhold(DenyReason::Muted));
        assert_eq!(decide(&rules[..3], None), withhold(DenyReason::Permission));
        assert_eq!(
            decide(&[], principals.of(key(0))),
            withhold(DenyReason::Permission)
        );
    }
}
