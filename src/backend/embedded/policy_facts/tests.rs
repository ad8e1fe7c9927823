//! Evaluates the rules for each kind of receiver and annotation.

use serde_json::{Value, json};

use crate::backend::embedded::publish::plans;
use crate::backend::embedded::{ReadableBy, Store};
use crate::model::{Condition, Decision, DenyReason, Plan, Role};

const AUTHOR: &str = "acct:author@example.org";
const MUTED: &str = "acct:muted@example.org";
const OTHER: &str = "acct:other@example.org";
const MEMBER: &str = "acct:member@example.org";
const MODERATOR: &str = "acct:moderator@example.org";

/// Creates the groups `open` and `closed`. The authors are members; the names of the other users
/// state their roles.
fn store() -> Store {
    let store = Store::in_memory().unwrap();
    store.add_group("open", ReadableBy::World, 0).unwrap();
    store.add_group("closed", ReadableBy::Members, 0).unwrap();
    for user in [AUTHOR, MUTED, OTHER, MEMBER, MODERATOR] {
        store.add_user(user, None, 0).unwrap();
    }
    store.set_muted(MUTED, true).unwrap();
    for group in ["open", "closed"] {
        for user in [AUTHOR, MUTED, MEMBER] {
            store.set_member(group, user, Role::Member).unwrap();
        }
    }
    for group in ["open", "closed", "__world__"] {
        store.set_member(group, MODERATOR, Role::Moderator).unwrap();
    }
    store
}

fn plan(store: &Store, action: &str, annotation: &Value) -> Plan {
    let event = json!({"topic": "annotation", "action": action, "annotation": annotation});
    let body = event.to_string();
    let mut plans = plans(body.as_bytes(), &store.directory(), 0).unwrap();
    assert_eq!(plans.len(), 1);
    plans.remove(0).plan
}

fn annotation(author: &str, group: &str, read: &Value) -> Value {
    json!({
        "id": "A", "user": author, "uri": "http://example.com/", "group": group,
        "permissions": {"read": read}, "moderation": {"flagCount": 2},
    })
}

/// Evaluates a plan for a user: the first matching rule decides.
fn decision(store: &Store, plan: &Plan, userid: Option<&str>) -> Decision {
    let memberships = userid.and_then(|userid| store.directory().memberships(userid).unwrap());
    let memberships = memberships.unwrap_or_default();
    let role = |group: &str| {
        let membership = memberships.iter().find(|m| *m.group == *group);
        membership.map(|m| m.role)
    };
    let holds = |who: &Condition| match who {
        Condition::User(user) => userid == Some(user),
        Condition::Member(group) => role(group).is_some(),
        Condition::Moderator(group) => role(group).is_some_and(Role::moderates),
        Condition::OneOf(userids) => userid.is_some_and(|userid| userids.contains(userid)),
    };
    let rule = plan.rules.iter().find(|rule| rule.when.iter().all(holds));
    rule.expect("a rule for all users").then
}

/// Returns the annotation that a user receives, or the reason why it is withheld.
fn received(store: &Store, plan: &Plan, userid: Option<&str>) -> Result<Value, DenyReason> {
    match decision(store, plan, userid) {
        Decision::Deny(reason) => Err(reason),
        Decision::Send(variant) => {
            let message: Value = serde_json::from_str(&plan.variants[variant]).unwrap();
            Ok(message["payload"][0].clone())
        }
    }
}

/// Group, permissions.read, hidden, muted author; the receivers, and the reason why it is withheld
/// from the others.
type Case<'a> = (&'a str, &'a str, bool, bool, &'a [&'a str], DenyReason);

#[test]
fn receivers_and_views_match_permissions_and_moderation() {
    use DenyReason::{Hidden, Muted, Permission};
    let all = ["anonymous", "other", "member", "moderator", "author"];
    #[rustfmt::skip]
    let cases: [Case<'_>; 16] = [
        ("__world__", "group:__world__", false, false, &all, Permission),
        ("open", "group:__world__", false, false, &all, Permission),
        ("closed", "group:closed", false, false, &all[2..], Permission),
        ("closed", "AUTHOR", false, false, &["author"], Permission),
        ("__world__", "group:__world__", true, false, &all[3..], Hidden),
        ("open", "group:open", true, false, &all[3..], Hidden),
        ("closed", "group:closed", true, false, &all[3..], Hidden),
        ("closed", "AUTHOR", true, false, &["author"], Hidden),
        ("__world__", "group:__world__", false, true, &["author"], Muted),
        ("open", "group:open", false, true, &["author"], Muted),
        ("closed", "group:closed", false, true, &["author"], Muted),
        ("closed", "AUTHOR", false, true, &["author"], Muted),
        ("__world__", "group:__world__", true, true, &["author"], Muted),
        ("open", "group:__world__", true, true, &["author"], Muted),
        ("closed", "group:closed", true, true, &["author"], Muted),
        ("__world__", "AUTHOR", true, true, &["author"], Muted),
    ];
    let store = store();
    for (group, read, hidden, muted, receivers, reason) in cases {
        for action in ["create", "update", "delete"] {
            let author = if muted { MUTED } else { AUTHOR };
            let reader = if read == "AUTHOR" { author } else { read };
            let mut annotation = annotation(author, group, &json!([reader]));
            annotation["hidden"] = json!(hidden);
            let plan = plan(&store, action, &annotation);
            for name in all {
                let userid = match name {
                    "anonymous" => None,
                    "other" => Some(OTHER),
                    "member" => Some(MEMBER),
                    "moderator" => Some(MODERATOR),
                    _ => Some(author),
                };
                let case = format!("{group} {read} {hidden} {muted} {action} {name}");
                match received(&store, &plan, userid) {
                    Err(why) => {
                        assert!(!receivers.contains(&name), "{case}");
                        assert_eq!(why, reason, "{case}");
                    }
                    Ok(got) => {
                        assert!(receivers.contains(&name), "{case}");
                        let moderates = name == "moderator" && read != "AUTHOR";
                        check_view(&got, action, hidden && name != "author", moderates, &case);
                    }
                }
            }
        }
    }
}

fn check_view(got: &Value, action: &str, hidden: bool, moderates: bool, case: &str) {
    if action == "delete" {
        assert_eq!(*got, json!({"id": "A"}), "{case}");
        return;
    }
    assert_eq!(got["hidden"], json!(hidden), "{case}");
    assert_eq!(got["flagged"], json!(false), "{case}");
    let actions = if moderates {
        json!(["moderate"])
    } else {
        json!([])
    };
    assert_eq!(got["actions"], actions, "{case}");
    assert_eq!(got.get("moderation").is_some(), moderates, "{case}");
}

#[test]
fn permissions_read_selects_receivers() {
    // Group, permissions.read; receivers.
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("closed", &["group:__world__"], &[MEMBER, MODERATOR, AUTHOR]),
        (
            "unknown",
            &["group:__world__"],
            &["", OTHER, MEMBER, MODERATOR, AUTHOR],
        ),
        ("unknown", &["group:unknown"], &[]),
        ("unknown", &["group:unknown", OTHER], &[OTHER]),
        ("__world__", &[OTHER, MEMBER], &[OTHER, MEMBER]),
        ("__world__", &["group:closed"], &[MEMBER, MODERATOR, AUTHOR]),
        (
            "closed",
            &["group:closed", OTHER],
            &[OTHER, MEMBER, MODERATOR, AUTHOR],
        ),
        (
            "closed",
            &["group:closed", "group:open"],
            &["", OTHER, MEMBER, MODERATOR, AUTHOR],
        ),
    ];
    let store = store();
    for &(group, read, expected) in cases {
        let plan = plan(&store, "create", &annotation(AUTHOR, group, &json!(read)));
        let is_receiver = |userid: &&str| {
            let userid = Some(*userid).filter(|userid| !userid.is_empty());
            received(&store, &plan, userid).is_ok()
        };
        let all = ["", OTHER, MEMBER, MODERATOR, AUTHOR];
        let receivers: Vec<_> = all.into_iter().filter(is_receiver).collect();
        assert_eq!(receivers, expected, "{group} {read:?}");
    }
}

#[test]
fn former_member_receives_own_annotation_only_if_hidden() {
    let store = store();
    for author in [AUTHOR, MUTED] {
        store.remove_member("closed", author).unwrap();
        let mut annotation = annotation(author, "closed", &json!(["group:closed"]));
        let live = plan(&store, "create", &annotation);
        let withheld = received(&store, &live, Some(author));
        assert_eq!(withheld, Err(DenyReason::Permission), "{author}");
        annotation["hidden"] = json!(true);
        let hidden = plan(&store, "create", &annotation);
        assert!(received(&store, &hidden, Some(author)).is_ok());
    }
}

#[test]
fn moderating_author_gets_actions_without_hidden_flag() {
    let store = store();
    for author in [AUTHOR, MUTED] {
        store.set_member("closed", author, Role::Admin).unwrap();
        for status in ["APPROVED", "PENDING", "DENIED", "SPAM", "of the future"] {
            let mut annotation = annotation(author, "closed", &json!(["group:closed"]));
            annotation["moderation_status"] = json!(status);
            let plan = plan(&store, "update", &annotation);
            let got = received(&store, &plan, Some(author)).unwrap();
            check_view(&got, "update", false, true, status);
            let is_received = received(&store, &plan, Some(MEMBER)).is_ok();
            assert_eq!(
                is_received,
                status == "APPROVED" && author == AUTHOR,
                "{status}"
            );
        }
    }
}

#[test]
fn variants_exist_only_for_possible_receivers() {
    let store = store();
    let count = |action, annotation: &Value| {
        let plan = plan(&store, action, annotation);
        (plan.rules.len(), plan.variants.len())
    };
    let public = annotation(AUTHOR, "__world__", &json!(["group:__world__"]));
    assert_eq!(count("create", &public), (2, 2));
    assert_eq!(count("delete", &public), (1, 1));
    let private = annotation(AUTHOR, "closed", &json!([AUTHOR]));
    assert_eq!(count("create", &private), (2, 1));
    store.remove_member("__world__", MODERATOR).unwrap();
    assert_eq!(count("create", &public), (1, 1));
}
