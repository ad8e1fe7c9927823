//! The receivers of each message.

use std::collections::BTreeSet;

use crate::model::{
    Candidates, Cause, Condition, Decision, DenyReason, EventKind, Field, Plan, Role, Rule, Stamp,
    Subject, Term,
};
use crate::realtime::ApiSettings;
use crate::realtime::testing::{Output, Random, TestApi, identity, rule, term};

fn for_all() -> Vec<Rule> {
    vec![rule(vec![], Decision::Send(0))]
}

fn plan(terms: Vec<Term>, rules: Vec<Rule>) -> Plan {
    Plan {
        kind: EventKind::Create,
        subject: Subject::Annotation("a".into()),
        stamp: Stamp::default(),
        cause: Cause::Event,
        candidates: Candidates::Terms(terms),
        exclude_client: None,
        rules,
        variants: vec!["zero".into(), "one".into(), "two".into()],
    }
}

/// Returns the receivers of a plan with their messages.
fn delivered(api: &mut TestApi, plan: Plan) -> Vec<(u32, String)> {
    let (counts, outputs) = api.deliver(vec![plan]);
    match &outputs[..] {
        [] => {
            assert_eq!(counts, [0]);
            Vec::new()
        }
        [Output::Deliver(to)] => {
            assert_eq!(counts, [to.len()]);
            to.clone()
        }
        other => panic!("{other:?}"),
    }
}

fn to(receivers: &[u32], text: &str) -> Vec<(u32, String)> {
    receivers.iter().map(|&to| (to, text.to_owned())).collect()
}

#[test]
fn one_matching_term_suffices_and_delivers_once() {
    let mut api = TestApi::new(ApiSettings::default());
    for index in 0..5 {
        api.open(index);
    }
    api.filter(4, "/id", &["a", "b"]);
    api.filter(1, "/uri", &["http://Example.com/p/"]);
    api.filter(2, "/group", &["a"]);
    let terms = || {
        vec![
            term(Field::Id, "a"),
            term(Field::Id, "b"),
            term(Field::Uri, "httpx://example.com/p"),
        ]
    };
    assert_eq!(
        delivered(&mut api, plan(terms(), for_all())),
        to(&[1, 4], "zero")
    );
    api.close(4);
    assert_eq!(
        delivered(&mut api, plan(terms(), for_all())),
        to(&[1], "zero")
    );
    api.filter(1, "/id", &["z"]);
    assert_eq!(delivered(&mut api, plan(terms(), for_all())), []);
    assert_eq!(delivered(&mut api, plan(vec![], for_all())), []);
}

#[test]
fn only_the_named_client_is_excluded() {
    for (own, source, is_received) in [
        (Some("\"abc\""), Some("abc"), false),
        (Some("\"abc\""), Some("xyz"), true),
        (Some("\"abc\""), None, true),
        (Some("\"\\u0061bc\""), Some("abc"), false),
        (Some("\"\""), Some(""), false),
        // h excludes these.
        (None, None, true),
        (Some("null"), None, true),
        (None, Some("abc"), true),
        // The client id was rejected, and is therefore not set.
        (Some("5"), Some("5"), true),
    ] {
        let mut api = TestApi::new(ApiSettings::default());
        api.open(0);
        api.filter(0, "/id", &["a"]);
        if let Some(own) = own {
            api.text(0, &format!(r#"{{"type":"client_id","value":{own}}}"#));
        }
        let plan = Plan {
            exclude_client: source.map(Into::into),
            ..plan(vec![term(Field::Id, "a")], for_all())
        };
        let actual = delivered(&mut api, plan).len();
        assert_eq!(actual, usize::from(is_received), "{own:?} {source:?}");
        assert_eq!(
            api.realtime.counters().withheld.own,
            u64::from(!is_received)
        );
    }
}

#[test]
fn refused_client_id_keeps_the_previous_one_and_null_clears_it() {
    let mut api = TestApi::new(ApiSettings::default());
    api.open(0);
    api.filter(0, "/id", &["a"]);
    let own = || Plan {
        exclude_client: Some("abc".into()),
        ..plan(vec![term(Field::Id, "a")], for_all())
    };
    for (value, is_received) in [("\"abc\"", 0), ("5", 0), ("null", 1)] {
        api.text(0, &format!(r#"{{"type":"client_id","value":{value}}}"#));
        assert_eq!(delivered(&mut api, own()).len(), is_received, "{value}");
    }
}

#[test]
fn rules_choose_the_variant() {
    let mut api = TestApi::new(ApiSettings::default());
    api.open(0);
    api.open_as(1, identity("acct:author@x", 1, &[]));
    api.open_as(2, identity("acct:mod@x", 2, &[("g", Role::Moderator)]));
    api.open_as(3, identity("acct:member@x", 3, &[("g", Role::Member)]));
    api.open_as(4, identity("acct:other@x", 4, &[]));
    for index in 0..5 {
        api.filter(index, "/group", &["g"]);
    }
    let rules = vec![
        rule(
            vec![Condition::User("acct:author@x".into())],
            Decision::Send(2),
        ),
        rule(vec![Condition::Moderator("g".into())], Decision::Send(1)),
        rule(
            vec![Condition::Member("g".into())],
            Decision::Deny(DenyReason::Hidden),
        ),
        rule(
            vec![Condition::User("acct:other@x".into())],
            Decision::Deny(DenyReason::Muted),
        ),
    ];
    let (counts, outputs) = api.deliver(vec![
        plan(vec![term(Field::Group, "g")], rules),
        plan(vec![term(Field::Group, "none")], for_all()),
        plan(vec![term(Field::Group, "g")], for_all()),
    ]);
    assert_eq!(counts, [2, 0, 5]);
    let first = vec![(1, "two".to_owned()), (2, "one".to_owned())];
    let second = to(&[0, 1, 2, 3, 4], "zero");
    assert_eq!(outputs, [Output::Deliver(first), Output::Deliver(second)]);
    let counters = api.realtime.counters();
    assert_eq!((counters.matched, counters.sent), (10, 7));
    assert_eq!(counters.events.create, 3);
    let withheld = counters.withheld;
    assert_eq!(
        (withheld.hidden, withheld.muted, withheld.permission),
        (1, 1, 1)
    );
}

#[test]
fn plan_without_the_variant_reaches_no_connection() {
    let mut api = TestApi::new(ApiSettings::default());
    api.open(0);
    api.filter(0, "/id", &["a"]);
    let rules = vec![rule(vec![], Decision::Send(3))];
    assert_eq!(
        delivered(&mut api, plan(vec![term(Field::Id, "a")], rules)),
        []
    );
    assert_eq!(api.realtime.counters().withheld.permission, 1);
}

#[test]
fn user_event_reaches_all_connections_without_a_filter() {
    let mut api = TestApi::new(ApiSettings::default());
    api.open_as(3, identity("acct:Luis.Silva@x", 1, &[]));
    api.open_as(1, identity("acct:Luis.Silva@x", 2, &[]));
    api.open_as(2, identity("acct:b@x", 3, &[]));
    api.open(0);
    for (userid, receivers) in [
        ("acct:Luis.Silva@x", &[1, 3][..]),
        ("acct:luis.silva@x", &[]),
        ("acct:luissilva@x", &[]),
    ] {
        let plan = Plan {
            kind: EventKind::SessionChange,
            subject: Subject::Annotation("a".into()),
            stamp: Stamp::default(),
            cause: Cause::Event,
            candidates: Candidates::User(userid.into()),
            ..plan(vec![], for_all())
        };
        assert_eq!(delivered(&mut api, plan), to(receivers, "zero"), "{userid}");
    }
    assert_eq!(api.realtime.counters().events.session_change, 3);
}

/// Opens, changes, and closes connections at random, and compares the receivers with those found by
/// a scan of all connections.
#[test]
fn delivery_agrees_with_a_full_scan() {
    #[derive(Default)]
    struct Client {
        ids: BTreeSet<u64>,
        member: bool,
    }
    for seed in 1..=10 {
        let mut random = Random(seed);
        let mut api = TestApi::new(ApiSettings::default());
        let mut clients: std::collections::BTreeMap<u32, Client> = Default::default();
        for step in 0..600 {
            let index = random.below(60) as u32;
            match clients.get_mut(&index) {
                None => {
                    let mut client = Client::default();
                    if random.below(2) == 0 {
                        client.member = random.below(2) == 0;
                        let groups = [("g", Role::Member)];
                        let groups = &groups[..usize::from(client.member)];
                        api.open_as(index, identity(&format!("acct:{index}@x"), 1, groups));
                    } else {
                        api.open(index);
                    }
                    clients.insert(index, client);
                }
                Some(client) if random.below(4) > 0 => {
                    client.ids = (0..random.below(4)).map(|_| random.below(9)).collect();
                    let ids: Vec<String> = client.ids.iter().map(u64::to_string).collect();
                    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                    api.filter(index, "/id", &ids);
                }
                Some(_) => {
                    clients.remove(&index);
                    api.close(index);
                }
            }
            let (a, b) = (random.below(9), random.below(9));
            let only_members = random.below(2) == 0;
            let expected: Vec<u32> = clients
                .iter()
                .filter(|(_, p)| p.ids.contains(&a) || p.ids.contains(&b))
                .filter(|(_, p)| p.member || !only_members)
                .map(|(&index, _)| index)
                .collect();
            let condition = only_members.then(|| Condition::Member("g".into()));
            let rules = vec![rule(condition.into_iter().collect(), Decision::Send(1))];
            let terms = [a, b].map(|id| term(Field::Id, &id.to_string()));
            let actual = delivered(&mut api, plan(terms.into(), rules));
            assert_eq!(actual, to(&expected, "one"), "seed {seed} step {step}");
        }
    }
}
