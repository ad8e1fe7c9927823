//! Conditional filters: live events, replays, changes of rights, and the selected actions.

use super::*;

const ALL: &str = "{}";

impl Server {
    /// Sets a filter with a cursor, and returns the reply.
    fn filter(&mut self, index: u32, since: &str, (clauses, actions): (&str, &str)) -> Value {
        let text = format!(
            r#"{{"type":"filter","id":3,"since":"{since}","filter":{{"match_policy":"include_any","clauses":[{clauses}],"actions":{actions}}}}}"#
        );
        let outputs = self.api.text(index, &text);
        let [Output::Reply(reply)] = &outputs[..] else {
            panic!("{outputs:?}");
        };
        serde_json::from_str(reply).unwrap()
    }

    /// Delivers an event about an annotation at an address, with tags.
    fn at(
        &mut self,
        kind: EventKind,
        (id, address, tags): (&str, &str, &[&str]),
        rules: Vec<Rule>,
    ) -> Vec<(u32, String)> {
        let plan = Plan {
            candidates: candidates(id, address, tags),
            ..self.plan(kind, id, rules)
        };
        self.deliver(plan)
    }
}

fn candidates(id: &str, address: &str, tags: &[&str]) -> Candidates {
    let facts = crate::model::AnnotationFacts {
        id,
        group: "page",
        user: "acct:Joe@x",
        tags: tags.to_vec(),
        references: Vec::new(),
        pages: crate::uri::annotation_keys([address].into_iter(), None),
    };
    Candidates::Terms(crate::model::Term::of_annotation(facts))
}

const PAGE: &str = "http://a.com/docs/1";
const SITE: &str = r#"{"field":"/wildcard_uri","value":"https://a.com/docs/*"}"#;
const NOT_MOON: &str =
    r#"{"field":"/group","value":"page"},{"field":"/tags","operator":"not_one_of","value":"Moon"}"#;

// D12
#[test]
fn wildcards_and_exclusions_apply_to_live_and_replayed_events() {
    let mut server = Server::new();
    let kind = EventKind::Create;
    for (filter, expected) in [
        (SITE, ["create a", "create b"]),
        (NOT_MOON, ["create a", "create c"]),
    ] {
        server.api.open(0);
        server.filter(0, "now", (filter, ALL));
        assert_eq!(server.replay(), []);
        let before = server.position;
        let live = [
            server.at(kind, ("a", PAGE, &["sun"]), public()),
            server.at(kind, ("b", PAGE, &["MOON"]), public()),
            server.at(kind, ("c", "http://a.com/other", &[]), public()),
        ];
        let live: Vec<_> = live.concat().into_iter().map(|(_, text)| text).collect();
        assert_eq!(live, expected, "{filter}");
        server.api.open(1);
        let reply = server.filter(1, &cursor(before), (filter, ALL));
        assert_eq!(reply["recovered"], true);
        assert_eq!(server.replay(), sent(1, &expected), "{filter}");
        server.api.close(0);
        server.api.close(1);
    }
    assert_eq!(server.api.realtime.counters().conditional_filters, 0);
}

// D13
#[test]
fn retraction_follows_the_filter_on_the_former_state() {
    let mut server = Server::new();
    for (index, filter) in [(0, SITE), (1, NOT_MOON)] {
        server.api.open(index);
        server.filter(index, "now", (filter, ALL));
    }
    assert_eq!(server.replay(), []);
    let update = EventKind::Update;
    server.at(EventKind::Create, ("a", PAGE, &["moon"]), public());
    server.at(EventKind::Create, ("b", "http://a.com/x", &[]), public());
    // Each receiver is sent the deletion of the annotation that its filter matched.
    assert_eq!(
        server.at(update, ("a", PAGE, &["moon"]), unreadable()),
        sent(0, &["delete a"])
    );
    assert_eq!(
        server.at(update, ("b", PAGE, &["moon"]), unreadable()),
        sent(1, &["delete b"])
    );
    // In a replay as well.
    for (index, filter, expected) in [(2, SITE, ["delete a"]), (3, NOT_MOON, ["delete b"])] {
        server.api.open(index);
        server.filter(index, &cursor(2), (filter, ALL));
        assert_eq!(server.replay(), sent(index, &expected), "{filter}");
    }
}

#[test]
fn annotation_that_stops_matching_is_not_retracted() {
    let mut server = Server::new();
    server.api.open(0);
    server.filter(0, "now", (NOT_MOON, ALL));
    assert_eq!(server.replay(), []);
    assert_eq!(
        server.at(EventKind::Create, ("a", PAGE, &[]), public()),
        sent(0, &["create a"])
    );
    let update = EventKind::Update;
    assert_eq!(server.at(update, ("a", PAGE, &["moon"]), public()), []);
    assert_eq!(
        server.at(update, ("a", PAGE, &[]), public()),
        sent(0, &["update a"])
    );
}

// D13
#[test]
fn annotation_that_has_stopped_matching_is_not_retracted_by_a_replay() {
    let moon = r#"{"field":"/tags","value":"moon"}"#;
    let update = EventKind::Update;
    let mut server = Server::new();
    for id in ["a", "b", "c", "d"] {
        server.at(EventKind::Create, (id, PAGE, &["moon"]), public());
    }
    let before = server.position;
    for id in ["a", "b", "c"] {
        server.at(update, (id, PAGE, &[]), public());
    }
    server.at(EventKind::Delete, ("b", PAGE, &[]), public());
    server.at(update, ("c", PAGE, &[]), unreadable());
    server.at(update, ("d", PAGE, &[]), unreadable());
    // The annotation `a` is still readable.
    for (actions, expected) in [
        (ALL, &["delete b", "delete c", "delete d"][..]),
        (r#"{"delete":false}"#, &["delete c", "delete d"]),
    ] {
        server.api.open(0);
        server.filter(0, &cursor(before), (moon, actions));
        assert_eq!(server.replay(), sent(0, expected), "{actions}");
        server.api.close(0);
    }
}

#[test]
fn suppressed_actions_are_not_sent() {
    let page = r#"{"field":"/group","value":"page"}"#;
    for (actions, expected) in [
        (r#"{"create":false}"#, &["update", "delete"][..]),
        (r#"{"update":false}"#, &["create", "delete"]),
        (r#"{"delete":false}"#, &["create", "update"]),
        (r#"{"create":false,"update":false}"#, &["delete"]),
        (r#"{"create":false,"update":false,"delete":false}"#, &[]),
    ] {
        let mut server = Server::new();
        server.api.open(0);
        server.filter(0, "now", (page, actions));
        assert_eq!(server.replay(), []);
        let kinds = [EventKind::Create, EventKind::Update, EventKind::Delete];
        let sent = kinds.map(|kind| server.event(kind, "a", public())).concat();
        let sent: Vec<_> = sent.into_iter().map(|(_, text)| text).collect();
        let expected: Vec<_> = expected.iter().map(|kind| format!("{kind} a")).collect();
        assert_eq!(sent, expected, "{actions}");
    }
}

// D13
#[test]
fn retractions_are_sent_although_deletions_are_suppressed() {
    let page = r#"{"field":"/group","value":"page"}"#;
    let mut server = Server::new();
    server.api.open(0);
    server.filter(0, "now", (page, r#"{"delete":false}"#));
    assert_eq!(server.replay(), []);
    server.create("a");
    assert_eq!(
        server.event(EventKind::Update, "a", unreadable()),
        sent(0, &["delete a"])
    );
    // Its appearance is a creation.
    server.filter(0, "now", (page, r#"{"create":false}"#));
    assert_eq!(server.replay(), []);
    assert_eq!(server.change_rights("a", public()), []);
    assert_eq!(
        server.change_rights("a", unreadable()),
        sent(0, &["delete a"])
    );
}

/// The deletion has other terms than the annotation had.
// D13
#[test]
fn deletion_is_sent_to_filters_on_the_former_state_that_select_deletions() {
    let moon = r#"{"field":"/tags","value":"moon"}"#;
    for (actions, expected) in [
        (ALL, &["delete a"][..]),
        (r#"{"update":false}"#, &["delete a"]),
        (r#"{"delete":false}"#, &[]),
    ] {
        let mut server = Server::new();
        server.api.open(0);
        server.filter(0, "now", (moon, actions));
        assert_eq!(server.replay(), []);
        server.at(EventKind::Create, ("a", PAGE, &["moon"]), public());
        let deletion = server.at(EventKind::Delete, ("a", PAGE, &[]), public());
        assert_eq!(deletion, sent(0, expected), "{actions}");
    }
}

/// The history has only the last of several events, which may have another action.
// D12
#[test]
fn replay_sends_a_creation_that_an_update_has_replaced() {
    let page = r#"{"field":"/group","value":"page"}"#;
    let mut server = Server::new();
    server.create("old");
    server.create("a");
    server.event(EventKind::Update, "a", public());
    server.event(EventKind::Update, "old", public());
    for (actions, expected) in [
        (r#"{"update":false}"#, &["create a"][..]),
        (r#"{"create":false}"#, &["update a", "update old"]),
        (r#"{"create":false,"update":false}"#, &[]),
    ] {
        server.api.open(0);
        server.filter(0, &cursor(1), (page, actions));
        assert_eq!(server.replay(), sent(0, expected), "{actions}");
        server.api.close(0);
    }
    server.event(EventKind::Delete, "a", public());
    for (actions, expected) in [
        (r#"{"create":false,"update":false}"#, &["delete a"][..]),
        (r#"{"delete":false}"#, &["update old"]),
    ] {
        server.api.open(0);
        server.filter(0, &cursor(1), (page, actions));
        assert_eq!(server.replay(), sent(0, expected), "{actions}");
        server.api.close(0);
    }
}

/// The cursor is that of an update, and a creation follows.
// D12
#[test]
fn creation_after_the_cursor_of_an_update_counts_as_a_creation() {
    let page = r#"{"field":"/group","value":"page"}"#;
    let mut server = Server::new();
    server.create("a");
    server.event(EventKind::Update, "a", public());
    server.create("a");
    for (actions, expected) in [
        (r#"{"create":false}"#, &[][..]),
        (r#"{"update":false}"#, &["create a"]),
    ] {
        server.api.open(0);
        server.filter(0, &cursor(2), (page, actions));
        assert_eq!(server.replay(), sent(0, expected), "{actions}");
        server.api.close(0);
    }
}

#[test]
fn scan_of_a_long_history_pauses() {
    let mut server = Server::new();
    for number in 0..3000 {
        server.create(&number.to_string());
    }
    server.at(EventKind::Create, ("a", PAGE, &[]), public());
    server.api.open(0);
    server.filter(0, &cursor(0), (SITE, ALL));
    let charged = server.api.take_work();
    assert!(charged > 3000 * 100, "{charged}");
    let (has_more, outputs) = server.api.call(|realtime, cx| realtime.replay_queued(cx));
    assert!(has_more && outputs.is_empty());
    assert_eq!(server.replay(), sent(0, &["create a"]));
}

/// A step ends when the comparison of patterns has taken long, whether entries match or not.
// M7
#[test]
fn expensive_comparisons_pause_a_replay() {
    let address = format!("http://a.com/{}", "a".repeat(2000));
    let page = format!(r#"{{"field":"/uri","value":"{address}"}},"#);
    // The first comparison is decided, and the second one takes too long.
    for (prefix, repeated, expected) in [("", 100, 0), (&*page, 400, 50)] {
        let mut server = Server::new();
        for number in 0..50 {
            let id = number.to_string();
            server.at(EventKind::Create, (&id, &address, &[]), public());
        }
        server.api.open(0);
        let pattern = format!("http://a.com/*{}b", "a".repeat(repeated));
        let text = format!(
            r#"{{"since":"{}","filter":{{"match_policy":"include_all","clauses":[{prefix}{{"field":"/wildcard_uri","value":"{pattern}"}}],"actions":{{}}}}}}"#,
            cursor(0)
        );
        assert_eq!(server.api.text(0, &text), []);
        let (has_more, outputs) = server.api.call(|realtime, cx| realtime.replay_queued(cx));
        assert!(has_more, "{repeated}");
        assert!(outputs.len() < 20, "{repeated}: {}", outputs.len());
        let rest = server.replay();
        assert_eq!(outputs.len() + rest.len(), expected, "{repeated}");
    }
}

#[test]
fn waiting_connection_gets_the_interpretation_later() {
    let mut server = Server::unready();
    server.api.open(0);
    let text = format!(
        r#"{{"type":"filter","id":3,"since":"now","filter":{{"match_policy":"include_any","clauses":[{SITE}],"actions":{{}}}}}}"#
    );
    assert_eq!(server.api.text(0, &text), []);
    let outputs = server.set_ready();
    let [Output::Deliver(to)] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    let reply: Value = serde_json::from_str(&to[0].1).unwrap();
    assert_eq!(
        reply["filter"]["clauses"][0]["value"][0],
        "httpx://a.com/docs/*"
    );
    assert_eq!(
        (&reply["reply_to"], &reply["recovered"]),
        (&3.into(), &true.into())
    );
}

#[test]
fn client_with_a_conditional_filter_is_recognized() {
    let mut server = Server::new();
    let filter = format!(
        r#"{{"filter":{{"match_policy":"include_any","clauses":[{SITE}],"actions":{{}}}}}}"#
    );
    let connect = |server: &mut Server, index: u32| {
        server.api.open(index);
        server.set_client(index, "abc");
        assert_eq!(server.api.text(index, &filter), []);
    };
    connect(&mut server, 0);
    server.at(EventKind::Create, ("a", PAGE, &[]), public());
    server.api.lose(0, 0);
    server.at(EventKind::Create, ("b", PAGE, &[]), public());
    server.at(EventKind::Create, ("c", "http://b.com", &[]), public());
    connect(&mut server, 1);
    let expected = sent(1, &["create a", "create b"]);
    assert_eq!(server.replay(), expected);
}

#[test]
fn explanation_of_a_live_filter_names_its_terms() {
    use crate::realtime::testing::key;
    let mut server = Server::new();
    server.api.open(0);
    server.filter(0, "now", (NOT_MOON, r#"{"delete":false}"#));
    server.open_with_filter(1);
    let group = term(Field::Group, "page");
    for (kind, tags, index, expected) in [
        (EventKind::Create, &["sun"][..], 0, (true, false, true)),
        (EventKind::Create, &["moon"], 0, (false, true, true)),
        (EventKind::Delete, &["sun"], 0, (false, false, false)),
        (EventKind::Delete, &["moon"], 1, (true, false, true)),
    ] {
        let plan = Plan {
            candidates: candidates("a", PAGE, tags),
            ..server.plan(kind, "a", public())
        };
        let found = server
            .api
            .realtime
            .explain_filter(key(index), &plan)
            .unwrap();
        assert_eq!(
            found.terms,
            std::slice::from_ref(&group),
            "{kind:?} {tags:?}"
        );
        let actual = (found.is_match, found.is_excluded, found.has_action);
        assert_eq!(actual, expected, "{kind:?} {tags:?}");
        assert_eq!(found.is_conditional, index == 0);
    }
    server.api.open(2);
    let plan = server.plan(EventKind::Create, "a", public());
    assert_eq!(server.api.realtime.explain_filter(key(2), &plan), None);
}

// D12
#[test]
fn long_messages_of_a_replay_are_sent_in_several_turns() {
    let mut server = Server::new();
    for id in ["a", "b", "c", "d", "e"] {
        let mut plan = server.plan(EventKind::Create, id, public());
        plan.variants[0] = format!("{}{}", plan.variants[0], " ".repeat(40_000)).into();
        server.deliver(plan);
    }
    server.api.open(0);
    server.since(0, &cursor(1));
    let mut turn = || server.api.call(|realtime, cx| realtime.replay_queued(cx)).1;
    assert_eq!(turn().len(), 2, "64 KiB are exceeded by the second message");
    assert_eq!(turn().len(), 2);
    assert_eq!(turn(), []);
    server.since(0, &cursor(1));
    let expected = ["create b", "create c", "create d", "create e"];
    assert_eq!(server.replay(), sent(0, &expected));
}
