//! The part of an explanation about permissions: the rule that decides, in words.

use serde_json::{Value, json};

use crate::model::{Condition, Decision, DenyReason, EventKind, Plan, Rule};
use crate::realtime::principals::Principal;
use crate::realtime::rules::{decide, holds};
use crate::realtime::watch::beginning;

/// The decision of a plan's rules on a receiver.
pub(super) struct Access {
    pub decision: Decision,
    /// One sentence that states the reason.
    pub text: String,
    /// The rules, with the conditions that the receiver meets.
    pub rules: Value,
}

impl Access {
    pub(super) fn new(plan: &Plan, receiver: Option<&Principal>) -> Access {
        let rules = &plan.rules;
        let decision = decide(rules, receiver);
        let is_met = |rule: &Rule| rule.when.iter().all(|one| holds(one, receiver));
        let decisive = rules.iter().position(is_met);
        let listed = rules.iter().enumerate().take(MAX_RULES);
        let listed = listed.map(|(index, rule)| {
            let when = rule
                .when
                .iter()
                .map(|one| json!({"condition": condition_text(one), "met": holds(one, receiver)}));
            let (then, reason) = match rule.then {
                Decision::Send(_) => ("send", None),
                Decision::Deny(reason) => ("withhold", Some(reason.as_str())),
            };
            json!({
                "when": when.collect::<Vec<_>>(),
                "then": then,
                "reason": reason,
                "met": is_met(rule),
                "decisive": Some(index) == decisive,
            })
        });
        Access {
            decision,
            text: match decision {
                Decision::Send(_) => sent_text(rules, decisive),
                Decision::Deny(reason) => denied_text(rules, reason),
            },
            rules: listed.collect(),
        }
    }
}

/// Returns the receiver's role, by which it gets a variant of the message, and its other properties.
pub(super) fn variant_json(plan: &Plan, variant: usize, receiver: Option<&Principal>) -> Value {
    let text = plan.variants.get(variant).map_or("", |text| text);
    let message: Value = serde_json::from_str(text).unwrap_or_default();
    let annotation = &message["payload"][0];
    let is_author = receiver.is_some_and(|user| annotation["user"] == user.userid());
    let actions = annotation["actions"].as_array();
    let moderates = actions.is_some_and(|actions| actions.iter().any(|one| one == "moderate"));
    let role = match plan.kind {
        EventKind::SessionChange => "user",
        EventKind::Delete => "any",
        EventKind::Create | EventKind::Update if is_author => "author",
        EventKind::Create | EventKind::Update if moderates => "moderator",
        EventKind::Create | EventKind::Update => "reader",
    };
    json!({
        "receiver": role,
        "moderates": moderates,
        "flagged": annotation["flagged"] == true,
        "hidden": annotation["hidden"] == true,
        "bytes": text.len(),
        "message": match text.len() <= MAX_MESSAGE {
            true => message,
            false => Value::Null,
        },
    })
}

fn sent_text(rules: &[Rule], decisive: Option<usize>) -> String {
    let when = decisive.and_then(|index| rules.get(index));
    match when.map(|rule| &rule.when[..]) {
        None | Some([]) => "everyone may read it".to_owned(),
        Some(when) => format!("the user is {}", conjunction(when)),
    }
}

fn denied_text(rules: &[Rule], reason: DenyReason) -> String {
    let readers = readers_text(rules);
    match reason {
        DenyReason::Permission if readers.is_empty() => {
            "not permitted: it has no readers, or its group does not exist".to_owned()
        }
        DenyReason::Permission => format!("not permitted: only {readers} may read it"),
        DenyReason::Hidden => {
            format!("hidden by moderation: only {readers} receives it")
        }
        DenyReason::Muted => format!("the author is muted: only {readers} receives it"),
        DenyReason::Checkpoint => {
            "hidden by a checkpoint: the user is one of the students that see it once it is \
             revealed"
                .to_owned()
        }
    }
}

/// Returns the receivers, as alternatives. Rules that only select a variant for some of them are
/// omitted.
fn readers_text(rules: &[Rule]) -> String {
    let sent: Vec<&Rule> = rules
        .iter()
        .filter(|rule| matches!(rule.then, Decision::Send(_)))
        .collect();
    let is_part = |rule: &&&Rule| {
        sent.iter().any(|other| {
            other.when.len() < rule.when.len()
                && other.when.iter().all(|one| rule.when.contains(one))
        })
    };
    let alternatives = sent.iter().filter(|rule| !is_part(rule)).take(MAX_RULES);
    let alternatives: Vec<String> = alternatives.map(|rule| conjunction(&rule.when)).collect();
    alternatives.join(", or ")
}

fn conjunction(conditions: &[Condition]) -> String {
    let texts: Vec<String> = conditions.iter().map(condition_text).collect();
    texts.join(" and ")
}

fn condition_text(condition: &Condition) -> String {
    match condition {
        Condition::User(userid) => format!("the user {}", beginning(userid)),
        Condition::Member(group) => format!("a member of group {}", beginning(group)),
        Condition::Moderator(group) => format!("a moderator of group {}", beginning(group)),
        Condition::OneOf(userids) => {
            let count = userids.iter().count();
            let named: Vec<&str> = userids.iter().take(MAX_NAMES).map(beginning).collect();
            match count.checked_sub(named.len()) {
                None | Some(0) => format!("one of {}", named.join(", ")),
                Some(more) => format!("one of {} and {more} more", named.join(", ")),
            }
        }
    }
}

/// The number of rules that an explanation lists.
const MAX_RULES: usize = 100;
/// The number of users of a set that an explanation names.
const MAX_NAMES: usize = 10;
/// The size of a message up to which an explanation contains it, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;
