//! Debug messages.

use super::*;

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
fn traced_connection_gets_the_effects_of_its_messages() {
    let mut api = api();
    api.request(1, "/ws?debug=1", "");
    assert_eq!(api.open(1), []);
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
    assert_eq!(filter.get("suppressed"), None);
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
        [] as [Value; 0]
    );
    // Other connections get none.
    connect(&mut api, 2, PLAIN, &[]);
    assert_eq!(
        debug_messages(&api.text(2, r#"{"type":"filter","filter":{}}"#)),
        [] as [Value; 0]
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

#[test]
fn traced_stream_gets_debug_messages_as_named_events() {
    let mut api = api();
    let outputs = api.stream(1, "group=g&debug=1", "").unwrap();
    let blocks = outputs.iter().filter_map(|output| match output {
        Output::Deliver(to) => to[0].1.strip_prefix("event: debug\ndata: "),
        _ => None,
    });
    let messages: Vec<Value> = blocks
        .map(|block| serde_json::from_str(block.strip_suffix("\n\n").unwrap()).unwrap())
        .collect();
    let [replay, filter] = &messages[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(
        (&replay["event"], &replay["cause"]),
        (&json!("replay"), &json!("since"))
    );
    assert_eq!(filter["event"], "filter");
    assert_eq!(filter["filter"]["clauses"][0]["field"], "/group");
}

#[test]
fn traced_connection_is_notified_of_replays_and_of_the_end_of_its_token() {
    let mut api = api();
    connect(&mut api, 1, TRACED, &[("g", Role::Member)]);
    api.deliver(vec![plan(rules_of_members())]);
    api.close(1);
    let resume = |api: &mut TestApi, index, since: Option<&str>| {
        api.request(index, TRACED, "");
        api.authenticated(index, AuthReply::Known(identity("acct:1@x", 1, &[])));
        let mut outputs = api.open(index);
        outputs.extend(api.text(index, r#"{"type":"client_id","value":"c1"}"#));
        let mut message = json!({"type": "filter"});
        message["filter"] = serde_json::from_str(&filter("/uri", &[PAGE])).unwrap();
        if let Some(since) = since {
            message["since"] = since.into();
        }
        outputs.extend(api.text(index, &message.to_string()));
        let messages = debug_messages(&outputs).into_iter();
        let causes = messages.filter(|message| message["event"] == "replay");
        causes
            .map(|message| message["cause"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(resume(&mut api, 2, Some("1970-01-01T00:00:00Z")), ["since"]);
    assert_eq!(resume(&mut api, 3, None), ["client_id"]);
    let userid = "acct:1@x".into();
    let outputs = api.backend_event(BackendEvent::UserDeleted { userid });
    let messages = debug_messages(&outputs);
    assert_eq!(messages.len(), 2, "{outputs:?}");
    for message in messages {
        let end = (&message["event"], &message["reason"]);
        assert_eq!(end, (&json!("token_ended"), &json!("user deleted")));
    }
}

// M16
#[test]
fn debug_messages_are_bounded_for_each_connection_and_in_total() {
    let mut api = api();
    for index in 0..300 {
        api.request(index, "/ws?debug=1", "");
        let messages = debug_messages(&api.open(index));
        let events: Vec<&Value> = messages.iter().map(|message| &message["event"]).collect();
        match (index as usize) < watch::MAX_WATCHED {
            true => assert_eq!(events, [] as [&Value; 0]),
            false => assert_eq!(events, ["unavailable"]),
        }
    }
    let count = (0..500)
        .map(|_| debug_messages(&api.text(0, r#"{"type":"client_id","value":"c"}"#)).len())
        .sum::<usize>();
    assert!((90..=100).contains(&count), "{count}");
    let sent = (300 - watch::MAX_WATCHED + count) as u64;
    assert_eq!(api.realtime.counters().debug.sent, sent);
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
