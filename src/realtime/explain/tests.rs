//! Explanations, compared with the notifications of real connections.

use serde_json::{Value, json};

use super::super::testing::{Output, Random, TestApi, identity, rule, term};
use super::super::{ApiSettings, watch};
use super::*;
use crate::model::{
    AuthReply, BackendEvent, Cause, Condition, EpochScope, EventKind, Field, FoundUser,
    HistoryEvent, HistoryStart, Lookup, Role, Rule, Stamp, Userids,
};

const PAGE: &str = "http://example.com/a";

fn api() -> TestApi {
    let mut api = TestApi::new(ApiSettings::default());
    let start = HistoryStart {
        epoch: 7,
        scope: EpochScope::Stored,
        floor: 0,
        floor_time: 0,
        head: 0,
    };
    for event in [HistoryEvent::Start(start), HistoryEvent::Ready] {
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
            "nobody may read it",
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
fn values_are_shown_beside_those_of_the_annotation() {
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
    let own = json!(["httpx://example.com/a", "httpx://example.com/a__vall"]);
    assert_eq!(uri["annotation"], own);
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
fn open_connections_are_described_with_their_events() {
    let mut api = api();
    connect(&mut api, 1, PLAIN, &[("g", Role::Member)]);
    connect(&mut api, 2, PLAIN, &[]);
    assert_eq!(open(&mut api, "nobody")["open_connections"], 0);
    api.deliver(vec![plan(rules_of_members())]);
    let answer = open(&mut api, "c1");
    assert_eq!(answer["open_connections"], 1);
    let connection = &answer["connections"][0];
    assert_eq!(connection["userid"], "acct:1@x");
    assert_eq!(
        connection["memberships"][0],
        json!({"group": "g", "role": "member"})
    );
    assert_eq!(connection["filter_values"], 1);
    // It was not recorded before.
    let event = &connection["events"][0];
    assert_eq!(
        (&event["outcome"], &event["basis"]),
        (&json!("readable"), &json!("evaluated"))
    );
    let withheld = open(&mut api, "c2");
    let event = &withheld["connections"][0]["events"][0];
    assert_eq!(
        (&event["outcome"], &event["reason"]),
        (&json!("withheld"), &json!("permission"))
    );

    // From now on it is.
    let mut next = plan(rules_of_members());
    next.stamp.position = 6;
    next.exclude_client = Some("c1".into());
    next.subject = Subject::Annotation("B".into());
    api.deliver(vec![next]);
    let events = open(&mut api, "c1")["connections"][0]["events"].clone();
    let outcomes: Vec<_> = events.as_array().unwrap().iter().collect();
    let own = outcomes.iter().find(|one| one["subject"] == "B").unwrap();
    assert_eq!(
        (&own["outcome"], &own["basis"]),
        (&json!("own_event"), &json!("recorded"))
    );
    let events = open(&mut api, "c2")["connections"][0]["events"].clone();
    let recorded = events.as_array().unwrap().iter();
    let recorded: Vec<_> = recorded.filter(|one| one["basis"] == "recorded").collect();
    assert_eq!(
        (recorded.len(), &recorded[0]["reason"]),
        (1, &json!("permission"))
    );
    api.close(1);
    api.close(2);
    assert_eq!(api.realtime.counters().watched, 0);
}

#[test]
fn events_of_a_connection_are_the_newest_hundred() {
    let mut api = api();
    connect(&mut api, 1, PLAIN, &[("g", Role::Member)]);
    for number in 1..=250 {
        let mut plan = plan(rules_of_members());
        plan.stamp = Stamp {
            position: number,
            time: 1000 * number,
        };
        plan.subject = Subject::Annotation(format!("A{number}").into());
        api.deliver(vec![plan]);
    }
    let events = open(&mut api, "c1")["connections"][0]["events"].clone();
    let events = events.as_array().unwrap();
    assert_eq!(events.len(), watch::MAX_OUTCOMES);
    assert_eq!(
        (&events[0]["subject"], &events[99]["subject"]),
        (&json!("A250"), &json!("A151"))
    );
}

#[test]
fn annotation_is_judged_for_an_open_connection() {
    let mut api = api();
    connect(&mut api, 1, PLAIN, &[]);
    let request = ExplainRequest {
        connection: ExplainedConnection::Open {
            client: "c1".into(),
        },
        lookup: Some(Lookup {
            user: None,
            event: Some(ExplainedEvent::Published("{}".into())),
        }),
    };
    for (rules, reason) in [
        (rules_of_members(), "permission"),
        (vec![rule(vec![], Decision::Send(0))], "notified"),
    ] {
        let findings = Findings {
            user: None,
            plan: Some(plan(rules)),
        };
        let answer = explained(&mut api, &request, findings);
        assert_eq!(answer["connections"][0]["verdict"]["reason"], reason);
        assert_eq!(answer["would_notify"], reason == "notified");
    }
}

/// Returns the debug messages in the effects of a call.
fn debug_messages(outputs: &[Output]) -> Vec<Value> {
    let delivered = outputs.iter().flat_map(|output| match output {
        Output::Deliver(to) => &to[..],
        _ => &[],
    });
    let messages = delivered.map(|(_, text)| serde_json::from_str::<Value>(text).unwrap());
    messages
        .filter(|message| message["type"] == "debug")
        .collect()
}

#[test]
fn traced_connection_is_told_what_its_messages_became() {
    let mut api = api();
    api.request(1, "/ws?debug=1", "");
    let greeting = debug_messages(&api.open(1));
    assert_eq!(
        greeting,
        [json!({"type": "debug", "event": "connected", "userid": null})]
    );
    let clauses = json!([
        {"field": "/uri", "value": "HTTP://Example.com/a/"},
        {"field": "/nope"},
    ]);
    let filter = json!({"match_policy": "include_any", "clauses": clauses, "actions": {}});
    let message = json!({"type": "filter", "filter": filter}).to_string();
    let [filter] = &debug_messages(&api.text(1, &message))[..] else {
        panic!("one message");
    };
    assert_eq!(filter["event"], "filter");
    assert_eq!(
        filter["filter"]["clauses"][0]["value"],
        json!(["httpx://example.com/a"])
    );
    assert_eq!(filter["ignored"][0]["clause"], 1);
    let [rejected] = &debug_messages(&api.text(1, r#"{"type":"filter","filter":{}}"#))[..] else {
        panic!("one message");
    };
    assert_eq!(rejected["error"]["description"], "failed to parse filter");
    let [client] = &debug_messages(&api.text(1, r#"{"type":"client_id","value":"c"}"#))[..] else {
        panic!("one message");
    };
    assert_eq!(
        (&client["event"], &client["is_set"]),
        (&json!("client_id"), &json!(true))
    );
    assert_eq!(
        debug_messages(&api.text(1, r#"{"type":"ping","id":1}"#)),
        [json!(0); 0]
    );
    // Other connections get none.
    connect(&mut api, 2, PLAIN, &[]);
    assert_eq!(
        debug_messages(&api.text(2, r#"{"type":"filter","filter":{}}"#)),
        [json!(0); 0]
    );
}

// D15
#[test]
fn own_event_is_reported_only_if_the_annotation_is_readable() {
    let mut api = api();
    connect(&mut api, 1, TRACED, &[("g", Role::Member)]);
    connect(&mut api, 2, TRACED, &[]);
    for (index, count) in [(1u32, 1), (2, 0)] {
        let own = Plan {
            exclude_client: Some(format!("c{index}").into()),
            stamp: Stamp {
                position: 10 + u64::from(index),
                time: 0,
            },
            ..plan(rules_of_members())
        };
        let (_, outputs) = api.deliver(vec![own]);
        let messages = debug_messages(&outputs);
        let own: Vec<_> = messages
            .iter()
            .filter(|one| one["reason"] == "own_event")
            .collect();
        assert_eq!(own.len(), count, "{outputs:?}");
    }
}

// M16
#[test]
fn debug_messages_are_bounded_for_each_connection_and_in_total() {
    let mut api = api();
    for index in 0..300 {
        api.request(index, "/ws?debug=1", "");
        let messages = debug_messages(&api.open(index));
        let event = match (index as usize) < watch::MAX_WATCHED {
            true => "connected",
            false => "unavailable",
        };
        assert_eq!(messages[0]["event"], event);
    }
    let count = (0..500)
        .map(|_| debug_messages(&api.text(0, r#"{"type":"client_id","value":"c"}"#)).len())
        .sum::<usize>();
    assert!((90..=100).contains(&count), "{count}");
    assert!(api.realtime.counters().debug.suppressed > 400);
    api.now.mono += 10_000;
    let next = debug_messages(&api.text(0, r#"{"type":"client_id","value":"c"}"#));
    assert!(next[0]["suppressed"].as_u64().unwrap() > 300);
}

/// Plays random events to traced connections, with or without those that the first one may not read.
/// Returns the messages to the first one, in order.
fn stream_of_first(seed: u64, with_unreadable: bool) -> Vec<String> {
    let mut api = api();
    connect(&mut api, 1, TRACED, &[("g", Role::Member)]);
    // The other one uses the client id of the first one, and reads everything.
    connect(
        &mut api,
        2,
        TRACED,
        &[("g", Role::Member), ("h", Role::Member)],
    );
    api.text(2, r#"{"type":"client_id","value":"c1"}"#);
    let mut random = Random(seed);
    let mut stream = Vec::new();
    for step in 1..200 {
        let (kind, own, filter) = (random.below(8), random.below(2), random.below(5));
        let is_readable = kind < 4;
        let mut rules = match kind {
            0..4 => rules_of_members(),
            4 => vec![rule(vec![Condition::Member("h".into())], Decision::Send(0))],
            5 => vec![rule(vec![], Decision::Deny(DenyReason::Muted))],
            6 => vec![rule(vec![], Decision::Deny(DenyReason::Hidden))],
            _ => vec![rule(vec![], Decision::Deny(DenyReason::Checkpoint))],
        };
        rules.push(rule(vec![], Decision::Deny(DenyReason::Permission)));
        let mut event = plan(rules);
        // Only the first one's own messages change its limits.
        event.stamp.position = step;
        event.subject = Subject::Annotation(format!("A{step}").into());
        event.exclude_client = (own == 0).then(|| "c1".into());
        let mut outputs = Vec::new();
        if is_readable || with_unreadable {
            outputs = api.deliver(vec![event]).1;
        }
        if filter == 0 {
            let filter = format!(
                r#"{{"type":"filter","filter":{}}}"#,
                self::filter("/uri", &[PAGE])
            );
            outputs.extend(api.text(1, &filter));
        }
        for output in outputs {
            if let Output::Deliver(to) = output {
                stream.extend(
                    to.into_iter()
                        .filter(|(to, _)| *to == 1)
                        .map(|(_, text)| text),
                );
            }
        }
        api.now.mono += random.below(300);
    }
    stream
}

// D15
#[test]
fn debug_stream_does_not_depend_on_unreadable_annotations() {
    for seed in 1..40 {
        let with = stream_of_first(seed, true);
        assert_eq!(with, stream_of_first(seed, false), "seed {seed}");
        assert!(with.iter().any(|text| text.contains("own_event")));
    }
}

/// Returns a random filter, as JSON.
fn random_filter(pick: &mut impl FnMut(&[&'static str]) -> &'static str) -> Value {
    let mut clause = || {
        let field = pick(&[
            "/uri",
            "/group",
            "/id",
            "/user",
            "/tags",
            "/wildcard_uri",
            "/x",
        ]);
        let values: &[&str] = match field {
            "/uri" => &[
                "http://example.com/a",
                "https://example.com/a/#b",
                "http://b/",
            ],
            "/group" => &["g", "h"],
            "/user" => &["acct:A@x", "acct:b@x"],
            "/tags" => &["To Do", "todo", "TODO"],
            "/wildcard_uri" => &["https://example.com/*", "http://example.com/b*"],
            _ => &["A", "B"],
        };
        let operator = pick(&["one_of", "one_of", "equals", "not_one_of"]);
        json!({"field": field, "operator": operator, "value": [pick(values)]})
    };
    let clauses = vec![clause(), clause()];
    let clauses = match pick(&["one", "two"]) {
        "one" => &clauses[..1],
        _ => &clauses,
    };
    json!({
        "match_policy": pick(&["include_any", "include_all"]),
        "clauses": clauses,
        "actions": {"create": pick(&["yes", "yes", "no"]) == "yes"},
    })
}

/// For random annotations, users, and filters, the answer is that of a real connection.
#[test]
fn answer_equals_the_notification_of_a_real_connection() {
    let mut random = Random(11);
    let (mut sent, mut withheld) = (0, 0);
    for _ in 0..1500 {
        let mut pick = |from: &[&'static str]| from[random.below(from.len() as u64) as usize];
        let (group, own_group) = (pick(&["g", "h"]), pick(&["g", "h", "-"]));
        let role = match pick(&["m", "o"]) {
            "m" => Role::Member,
            _ => Role::Owner,
        };
        let userid = pick(&["acct:a@x", "acct:b@x"]);
        let filter = random_filter(&mut pick);
        let (source, client) = (pick(&["c", "d", "-"]), pick(&["c", "d", "-"]));
        let first = match pick(&["author", "member", "moderator", "everyone"]) {
            "author" => vec![Condition::User("acct:a@x".into())],
            "member" => vec![Condition::Member(group.into())],
            "moderator" => vec![Condition::Moderator(group.into())],
            _ => vec![],
        };
        let last = match pick(&["p", "m", "s"]) {
            "p" => Decision::Deny(DenyReason::Permission),
            "m" => Decision::Deny(DenyReason::Muted),
            _ => Decision::Send(1),
        };
        let plan = Plan {
            exclude_client: (source != "-").then(|| source.into()),
            ..plan(vec![rule(first, Decision::Send(0)), rule(vec![], last)])
        };
        let groups = match own_group {
            "-" => vec![],
            group => vec![(group, role)],
        };
        let mut api = api();
        api.open_as(3, identity(userid, 1, &groups));
        if client != "-" {
            api.text(
                3,
                &json!({"type": "client_id", "value": client}).to_string(),
            );
        }
        api.text(3, &json!({"type": "filter", "filter": filter}).to_string());
        let client = (client != "-").then_some(client);
        let who = (Some(userid), Some(user(userid, &groups)));
        let text = Some(filter.to_string().into());
        let answer = supposed(&mut api, text, client, who, Some(plan.clone()));
        let open = client.map(|client| judged(&mut api, client, plan.clone()));
        let (counts, outputs) = api.deliver(vec![plan]);
        let is_notified = counts == [1];
        assert_eq!(answer["would_notify"], is_notified, "{filter} {answer}");
        if let Some(open) = open {
            assert_eq!(open["reason"], answer["reason"], "{filter} {open}");
        }
        if let (true, [Output::Deliver(to)]) = (is_notified, &outputs[..]) {
            let message: Value = serde_json::from_str(&to[0].1).unwrap();
            assert_eq!(answer["variant"]["message"], message);
        }
        *(if is_notified {
            &mut sent
        } else {
            &mut withheld
        }) += 1;
    }
    assert!(sent > 100 && withheld > 100, "{sent} {withheld}");
}

/// Returns the verdict on the only open connection with a client id.
fn judged(api: &mut TestApi, client: &str, plan: Plan) -> Value {
    let request = ExplainRequest {
        connection: ExplainedConnection::Open {
            client: client.into(),
        },
        lookup: Some(Lookup {
            user: None,
            event: Some(ExplainedEvent::Published("{}".into())),
        }),
    };
    let findings = Findings {
        user: None,
        plan: Some(plan),
    };
    explained(api, &request, findings)["connections"][0]["verdict"].clone()
}

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

// D15
#[test]
fn unselected_action_is_reported_only_if_the_annotation_is_readable() {
    let mut api = api();
    for (index, groups) in [(1, &[("g", Role::Member)][..]), (2, &[])] {
        connect(&mut api, index, TRACED, groups);
        let clause = json!({"field": "/uri", "value": PAGE});
        let filter = json!({"match_policy": "include_any", "clauses": [clause],
            "actions": {"create": false}});
        api.text(
            index,
            &json!({"type": "filter", "filter": filter}).to_string(),
        );
    }
    let (counts, outputs) = api.deliver(vec![plan(rules_of_members())]);
    assert_eq!(counts, [0]);
    let messages = debug_messages(&outputs);
    assert_eq!(messages.len(), 1, "{messages:?}");
    assert_eq!(
        (&messages[0]["reason"], &messages[0]["id"]),
        (&json!("action"), &json!("A"))
    );
    assert_eq!(outputs.len(), 1);
    let event = &open(&mut api, "c2")["connections"][0]["events"][0].clone();
    assert_eq!(event["outcome"], "action");
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
