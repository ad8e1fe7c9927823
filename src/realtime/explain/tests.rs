//! Explanations, compared with the notifications of real connections.

use serde_json::{Value, json};

use super::super::testing::{Output, Random, START, TestApi, identity, rule, term};
use super::super::{ApiSettings, watch};
use super::*;
use crate::model::{
    AuthReply, BackendEvent, Cause, Condition, EventKind, Field, FoundUser, HistoryEvent, Lookup,
    Role, Rule, Stamp, Userids,
};

const PAGE: &str = "http://example.com/a";

fn api() -> TestApi {
    let mut api = TestApi::new(ApiSettings::default());
    for event in [HistoryEvent::Start(START), HistoryEvent::Ready] {
        assert_eq!(api.backend_event(BackendEvent::History(event)), []);
    }
    api
}

fn filter(field: &str, values: &[&str]) -> Box<str> {
    json!({
        "match_policy": "include_any",
        "clauses": [{"field": field, "operator": "one_of", "value": values}],
        "actions": {},
    })
    .to_string()
    .into()
}

fn message(user: &str, moderates: bool) -> Box<str> {
    let actions = if moderates { &["moderate"][..] } else { &[] };
    json!({
        "type": "annotation-notification",
        "options": {"action": "create"},
        "payload": [{"id": "A", "user": user, "actions": actions, "flagged": false}],
    })
    .to_string()
    .into()
}

/// Returns the creation of an annotation by acct:a@x in group g.
fn plan(rules: Vec<Rule>) -> Plan {
    Plan {
        kind: EventKind::Create,
        subject: Subject::Annotation("A".into()),
        stamp: Stamp {
            position: 5,
            time: 1000,
        },
        cause: Cause::Event,
        candidates: Candidates::Terms(vec![
            term(Field::Id, "A"),
            term(Field::Group, "g"),
            term(Field::Tags, "todo"),
            term(Field::Uri, "httpx://example.com/a"),
            term(Field::Uri, "httpx://example.com/a__vall"),
            term(Field::User, "a@x"),
        ]),
        exclude_client: None,
        rules,
        variants: vec![message("acct:a@x", false), message("acct:a@x", true)],
    }
}

fn rules_of_members() -> Vec<Rule> {
    let moderator = Condition::Moderator("g".into());
    vec![
        rule(vec![moderator], Decision::Send(1)),
        rule(vec![Condition::Member("g".into())], Decision::Send(0)),
        rule(vec![], Decision::Deny(DenyReason::Permission)),
    ]
}

fn user(userid: &str, groups: &[(&str, Role)]) -> FoundUser {
    let identity = identity(userid, 1, groups);
    FoundUser {
        userid: identity.userid,
        memberships: identity.memberships,
    }
}

/// Returns the answer about a supposed connection.
fn supposed(
    api: &mut TestApi,
    filter: Option<Box<str>>,
    client: Option<&str>,
    (requested, user): (Option<&str>, Option<FoundUser>),
    plan: Option<Plan>,
) -> Value {
    let request = ExplainRequest {
        connection: ExplainedConnection::Supposed {
            filter,
            client: client.map(Into::into),
        },
        lookup: Some(Lookup {
            user: requested.map(Into::into),
            event: Some(ExplainedEvent::Annotation {
                id: "A".into(),
                action: None,
            }),
        }),
    };
    explained(api, &request, Findings { user, plan })
}

fn explained(api: &mut TestApi, request: &ExplainRequest, findings: Findings) -> Value {
    let (answer, outputs) = api.call(|realtime, cx| realtime.explain(cx, request, findings));
    assert_eq!(outputs, [], "an explanation has no effects");
    serde_json::from_str(&answer).unwrap()
}

fn open(api: &mut TestApi, client: &str) -> Value {
    let request = ExplainRequest {
        connection: ExplainedConnection::Open {
            client: client.into(),
        },
        lookup: None,
    };
    explained(api, &request, Findings::default())
}

#[test]
fn every_reason_is_stated() {
    let uri = || Some(filter("/uri", &[PAGE]));
    let member = || {
        (
            Some("acct:m@x"),
            Some(user("acct:m@x", &[("g", Role::Member)])),
        )
    };
    let deny = |reason| vec![rule(vec![], Decision::Deny(reason))];
    let students: Userids = ["acct:m@x"].into_iter().collect();
    let concealed = vec![
        rule(
            vec![Condition::OneOf(students)],
            Decision::Deny(DenyReason::Checkpoint),
        ),
        rule(vec![], Decision::Send(0)),
    ];
    let own = Plan {
        exclude_client: Some("c".into()),
        ..plan(rules_of_members())
    };
    let anonymous = || (None, None);
    for (filter, client, who, plan, reason, text) in [
        (
            uri(),
            None,
            member(),
            Some(plan(rules_of_members())),
            "notified",
            "a member of group g",
        ),
        (
            None,
            None,
            member(),
            Some(plan(rules_of_members())),
            "no_filter",
            "not set a filter",
        ),
        (
            Some("{}".into()),
            None,
            member(),
            Some(plan(vec![])),
            "invalid_filter",
            "rejects",
        ),
        (uri(), None, member(), None, "unknown_annotation", "neither"),
        (
            uri(),
            None,
            (Some("acct:n@x"), None),
            Some(plan(rules_of_members())),
            "unknown_user",
            "no such user",
        ),
        (
            Some(self::filter("/uri", &["http://other/"])),
            None,
            member(),
            Some(plan(rules_of_members())),
            "filter",
            "does not match",
        ),
        (
            uri(),
            Some("c"),
            member(),
            Some(own),
            "own_event",
            "own events",
        ),
        (
            uri(),
            None,
            anonymous(),
            Some(plan(rules_of_members())),
            "permission",
            "only a moderator of group g, or a member of group g may read it",
        ),
        (
            uri(),
            None,
            member(),
            Some(plan(vec![])),
            "permission",
            "it has no readers",
        ),
        (
            uri(),
            None,
            member(),
            Some(plan(deny(DenyReason::Muted))),
            "muted_author",
            "muted",
        ),
        (
            uri(),
            None,
            member(),
            Some(plan(deny(DenyReason::Hidden))),
            "hidden",
            "moderation",
        ),
        (
            uri(),
            None,
            member(),
            Some(plan(concealed)),
            "checkpoint",
            "student",
        ),
    ] {
        let answer = supposed(&mut api(), filter, client, who, plan);
        assert_eq!(answer["reason"], reason, "{answer}");
        assert_eq!(answer["would_notify"], reason == "notified");
        let summary = answer["summary"].as_str().unwrap();
        assert!(summary.contains(text), "{reason}: {summary}");
    }
}

#[test]
fn event_of_a_user_is_for_that_user_only() {
    let everyone = || vec![rule(vec![], Decision::Send(0))];
    for (userid, reason) in [("acct:a@x", "notified"), ("acct:b@x", "other_user")] {
        let event = Plan {
            candidates: Candidates::User("acct:a@x".into()),
            ..plan(everyone())
        };
        let who = (Some(userid), Some(user(userid, &[])));
        let filter = Some(filter("/uri", &[PAGE]));
        let answer = supposed(&mut api(), filter, None, who, Some(event));
        assert_eq!(answer["reason"], reason, "{answer}");
    }
}

#[test]
fn supposed_user_is_described() {
    let known = || Some(user("acct:m@x", &[("g", Role::Owner)]));
    let memberships = json!([{"group": "g", "role": "owner"}]);
    let mut api = api();
    connect(&mut api, 1, PLAIN, &[]);
    for (requested, user, expected) in [
        (
            None,
            None,
            json!({"userid": null, "is_known": true, "memberships": []}),
        ),
        (
            Some("acct:n@x"),
            None,
            json!({"userid": "acct:n@x", "is_known": false, "memberships": []}),
        ),
        (
            Some("acct:m@x"),
            known(),
            json!({"userid": "acct:m@x", "is_known": true, "memberships": memberships,
                "open_connections": 0}),
        ),
        (
            Some("acct:1@x"),
            Some(self::user("acct:1@x", &[])),
            json!({"userid": "acct:1@x", "is_known": true, "memberships": [],
                "open_connections": 1}),
        ),
    ] {
        let filter = Some(filter("/uri", &[PAGE]));
        let plan = Some(plan(rules_of_members()));
        let answer = supposed(&mut api, filter, None, (requested, user), plan);
        assert_eq!(answer["user"], expected);
    }
}

#[test]
fn rejected_filter_is_described_with_its_error() {
    let many: Vec<String> = (0..300).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let clause = json!({"field": "/wildcard_uri", "value": "https://*/a"});
    let pattern = json!({"match_policy": "include_any", "clauses": [clause], "actions": {}});
    let clauses = vec![json!({"field": "/id", "value": []}); 300];
    let clauses = json!({"match_policy": "include_any", "clauses": clauses, "actions": {}});
    for (text, error) in [
        ("{}".into(), "failed to parse filter"),
        (
            pattern.to_string().into(),
            "a wildcard pattern is invalid: ",
        ),
        (filter("/id", &many), "filter has more than 200 values"),
        (
            clauses.to_string().into(),
            "filter has more than 256 clauses",
        ),
    ] {
        let plan = Some(plan(rules_of_members()));
        let answer = supposed(&mut api(), Some(text), None, (None, None), plan);
        let described = answer["filter"]["error"].as_str().unwrap();
        assert!(described.starts_with(error), "{described}");
    }
}

#[test]
fn variants_have_the_roles_of_their_receivers() {
    let rules = || {
        let mut rules = rules_of_members();
        let author = Condition::User("acct:a@x".into());
        rules.insert(0, rule(vec![author], Decision::Send(0)));
        rules
    };
    for (userid, groups, role) in [
        ("acct:a@x", &[][..], "author"),
        ("acct:m@x", &[("g", Role::Member)], "reader"),
        ("acct:m@x", &[("g", Role::Owner)], "moderator"),
    ] {
        let who = (Some(userid), Some(user(userid, groups)));
        let filter = Some(filter("/group", &["g"]));
        let answer = supposed(&mut api(), filter, None, who, Some(plan(rules())));
        assert_eq!(answer["variant"]["receiver"], role);
        assert_eq!(answer["variant"]["message"]["payload"][0]["id"], "A");
    }
}

#[test]
fn values_of_filter_and_annotation_are_both_normalized() {
    let clauses = json!({
        "match_policy": "include_any",
        "clauses": [
            {"field": "/uri", "value": ["https://Example.com/b#x", "http://example.com/a/"]},
            {"field": "/nope", "value": 5},
            {"field": "/group", "operator": "equals", "value": "h"},
        ],
        "actions": {},
    });
    let filter = Some(clauses.to_string().into());
    let answer = supposed(
        &mut api(),
        filter,
        None,
        (None, None),
        Some(plan(vec![rule(vec![], Decision::Send(0))])),
    );
    let [uri, unknown, group] = &answer["filter"]["clauses"].as_array().unwrap()[..] else {
        panic!("{answer}");
    };
    assert_eq!(uri["matches"], true);
    // The key for all versions is not an address.
    assert_eq!(uri["annotation"], json!(["httpx://example.com/a"]));
    let [first, second] = &uri["values"].as_array().unwrap()[..] else {
        panic!("{uri}");
    };
    assert_eq!(first["normalized"], json!(["httpx://example.com/b"]));
    assert_eq!(
        (&first["matches"], &second["matches"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(
        (&unknown["ignored"], &unknown["matches"]),
        (&json!("unknown field"), &json!(false))
    );
    assert_eq!(
        (&group["matches"], &group["annotation"]),
        (&json!(false), &json!(["g"]))
    );
}

/// Opens a connection with a client id and a filter on the page.
fn connect(api: &mut TestApi, index: u32, target: &str, groups: &[(&str, Role)]) {
    api.request(index, target, "");
    let userid = format!("acct:{index}@x");
    api.authenticated(index, AuthReply::Known(identity(&userid, 1, groups)));
    api.open(index);
    let client = json!({"type": "client_id", "value": format!("c{index}")});
    api.text(index, &client.to_string());
    let filter = format!(
        r#"{{"type":"filter","filter":{}}}"#,
        filter("/uri", &[PAGE])
    );
    api.text(index, &filter);
}

const TRACED: &str = "/ws?access_token=t&debug=1";
const PLAIN: &str = "/ws?access_token=t";

#[test]
fn excluded_annotation_and_unselected_action_are_named() {
    let all = || vec![rule(vec![], Decision::Send(0))];
    let page = json!({"field": "/uri", "value": PAGE});
    for (clauses, actions, reason, mismatch) in [
        (
            json!([page, {"field": "/tags", "operator": "not_one_of", "value": "ToDo"}]),
            json!({}),
            "filter",
            json!("excluded"),
        ),
        (
            json!([page]),
            json!({"create": false}),
            "action",
            json!("action"),
        ),
        (
            json!([page]),
            json!({"update": false}),
            "notified",
            Value::Null,
        ),
        (json!([]), json!({}), "filter", json!("no_clause")),
    ] {
        let filter = json!({"match_policy": "include_any", "clauses": clauses, "actions": actions});
        let text = Some(filter.to_string().into());
        let answer = supposed(&mut api(), text, None, (None, None), Some(plan(all())));
        assert_eq!(answer["reason"], reason, "{answer}");
        assert_eq!(answer["filter"]["mismatch"], mismatch);
    }
}

#[test]
fn history_answers_if_the_backend_does_not_know_the_annotation() {
    let mut api = api();
    let own = Plan {
        exclude_client: Some("c".into()),
        ..plan(vec![rule(vec![], Decision::Send(0))])
    };
    api.deliver(vec![own.clone()]);
    let answer = supposed(
        &mut api,
        Some(filter("/id", &["A"])),
        None,
        (None, None),
        None,
    );
    assert_eq!(
        (&answer["event"]["source"], &answer["reason"]),
        (&json!("history"), &json!("notified"))
    );
    // The client is known even if the backend does not know it.
    let plan = Plan {
        exclude_client: None,
        ..own
    };
    let answer = supposed(
        &mut api,
        Some(filter("/id", &["A"])),
        Some("c"),
        (None, None),
        Some(plan),
    );
    assert_eq!(answer["reason"], "own_event");
}

mod debug;
mod equality;
mod open;
