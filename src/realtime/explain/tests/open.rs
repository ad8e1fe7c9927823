//! Explanations of open connections.

use super::*;

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
fn ended_token_is_the_reason_on_an_open_connection() {
    let mut api = api();
    connect(&mut api, 1, PLAIN, &[("g", Role::Member)]);
    api.deliver(vec![plan(rules_of_members())]);
    let userid = "acct:1@x".into();
    api.backend_event(BackendEvent::UserDeleted { userid });
    let request = ExplainRequest {
        connection: ExplainedConnection::Open {
            client: "c1".into(),
        },
        lookup: Some(Lookup {
            user: None,
            event: Some(ExplainedEvent::Annotation {
                id: "A".into(),
                action: None,
            }),
        }),
    };
    let answer = explained(&mut api, &request, Findings::default());
    let connection = &answer["connections"][0];
    assert_eq!(connection["verdict"]["reason"], "token_ended", "{answer}");
    assert_eq!(connection["token_ended"], true);
    let event = &connection["events"][0];
    assert_eq!(
        (&event["outcome"], &event["reason"]),
        (&json!("withheld"), &json!("token_ended"))
    );
    assert_eq!(answer["would_notify"], false);
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
