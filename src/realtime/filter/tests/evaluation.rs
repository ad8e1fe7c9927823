//! The evaluation of conditional filters, compared with a naive one.

use super::*;
use crate::model::{AnnotationFacts, Candidates, Cause, EventKind, Plan, Stamp, Subject, Term};
use crate::realtime::index::Index;
use crate::realtime::testing::{Random, key};
use serde_json::{Value, json};

fn parsed(filter: &Value) -> (Filter, FilterView) {
    let mut view = FilterView::default();
    let parsed = parse(
        &filter.to_string(),
        200,
        &digester(),
        Some(&mut view),
        &mut 0,
    );
    let filter = parsed.unwrap_or_else(|error| panic!("{filter}: {error:?}"));
    (filter, view)
}

fn plan(kind: EventKind, terms: Vec<Term>) -> Plan {
    Plan {
        kind,
        subject: Subject::Annotation("a".into()),
        stamp: Stamp::default(),
        cause: Cause::Event,
        candidates: Candidates::Terms(terms),
        exclude_client: None,
        rules: Vec::new(),
        variants: Vec::new(),
    }
}

/// Returns whether the index finds a filter for an event, and the filter then selects it.
fn is_selected(filter: &Filter, plan: &Plan) -> bool {
    let Candidates::Terms(terms) = &plan.candidates else {
        panic!("no terms");
    };
    let digester = digester();
    let mut digests: Vec<Digest> = terms
        .iter()
        .map(|term| digester.term(term.field, &term.value))
        .collect();
    digests.sort();
    let mut index = Index::default();
    index.set(key(1), filter);
    let (mut found, mut conditional) = (Vec::new(), Vec::new());
    for digest in &digests {
        index.collect(*digest, &mut found);
        index.collect_conditional(*digest, &mut conditional);
    }
    let pages = Pages::Of(&plan.candidates);
    pages.any(|page| {
        digester.prefixes(page, |_, prefix| {
            index.collect_conditional(prefix, &mut conditional);
        });
        false
    });
    let conditional = conditional.iter().any(|at| {
        let (owner, matcher) = index.conditional(*at).unwrap();
        assert_eq!(owner, key(1));
        matcher.matches(&digests, pages, &Effort::default()) && matcher.actions().allow(plan)
    });
    assert!(index.verify().is_ok());
    !found.is_empty() || conditional
}

const IDS: &[&str] = &["i1", "i2", "i3"];
const GROUPS: &[&str] = &["__world__", "g1"];
const USERS: &[&str] = &["acct:joe@x", "acct:Ann@x", "acct:ann@y"];
const TAGS: &[&str] = &["to do", "Moon", "STRASSE", ""];
const URIS: &[&str] = &[
    "http://a.com",
    "http://a.com/docs",
    "http://a.com/docs/1?q=2",
    "http://a.com/docsearch",
    "https://b.com/docs/1",
    "urn:x-pdf:12",
];

fn pick<'a>(random: &mut Random, values: &[&'a str]) -> &'a str {
    values[random.below(values.len() as u64) as usize]
}

fn random_terms(random: &mut Random) -> Vec<Term> {
    let some = |random: &mut Random, values: &[&'static str]| -> Vec<&'static str> {
        (0..random.below(3)).map(|_| pick(random, values)).collect()
    };
    let uris = some(random, URIS);
    let version = (random.below(3) == 0).then_some(2);
    Term::of_annotation(AnnotationFacts {
        id: pick(random, IDS),
        group: pick(random, GROUPS),
        user: pick(random, USERS),
        tags: some(random, TAGS),
        references: some(random, IDS).into_iter().map(Into::into).collect(),
        pages: uri::annotation_keys(uris.into_iter(), version),
    })
}

fn random_filter(random: &mut Random) -> Value {
    let clauses: Vec<Value> = (0..random.below(4))
        .map(|_| random_clause(random))
        .collect();
    let mut flag = || random.below(4) > 0;
    let actions = match flag() {
        true => json!({}),
        false => json!({"create": flag(), "update": flag(), "delete": flag()}),
    };
    let policy = match random.below(2) {
        0 => "include_any",
        _ => "include_all",
    };
    json!({"match_policy": policy, "clauses": clauses, "actions": actions})
}

fn random_clause(random: &mut Random) -> Value {
    let (field, values): (_, &[&str]) = match random.below(8) {
        0 => ("/id", IDS),
        1 => ("/group", GROUPS),
        2 => ("/references", IDS),
        3 => ("/user", &["joe", "acct:ANN@x", "ann", "Joe@y"]),
        4 => ("/tags", &["TO do", "moon", "straße", ""]),
        5 => (
            "/uri",
            &[
                "http://a.com/docs:all",
                "http://a.com/docs:v2",
                "http://a.com",
            ],
        ),
        6 => ("/nope", IDS),
        _ => (
            "/wildcard_uri",
            &[
                "http://a.com/*",
                "a.com/docs/*",
                "http://a.com/docs*",
                "http://_.com/docs",
                "urn:*",
                "http://a.com/*/1?q=_",
            ],
        ),
    };
    let values: Vec<&str> = (0..random.below(4))
        .map(|_| pick(random, values))
        .filter(|value| !value.contains("_.com"))
        .collect();
    let operator = pick(random, &["one_of", "equals", "not_one_of", "?"]);
    json!({"field": field, "operator": operator, "value": values})
}

/// The index together with the matcher selects the same events as a naive evaluation of the clauses.
#[test]
fn index_and_matcher_agree_with_a_naive_evaluation() {
    let mut counts = [0; 2];
    for seed in 1..=200 {
        let mut random = Random(seed);
        for _ in 0..20 {
            let filter = random_filter(&mut random);
            let (compact, view) = parsed(&filter);
            for _ in 0..10 {
                let kinds = [EventKind::Create, EventKind::Update, EventKind::Delete];
                let kind = kinds[random.below(3) as usize];
                let plan = plan(kind, random_terms(&mut random));
                let expected = view.mismatch(&plan).is_none();
                assert_eq!(is_selected(&compact, &plan), expected, "{filter} {plan:?}");
                counts[usize::from(expected)] += 1;
            }
        }
    }
    assert!(counts[0] > 4000 && counts[1] > 4000, "{counts:?}");
}

fn filter(policy: &str, clauses: Value, actions: Value) -> Value {
    json!({"match_policy": policy, "clauses": clauses, "actions": actions})
}

fn annotation() -> Vec<Term> {
    Term::of_annotation(AnnotationFacts {
        id: "i",
        group: "g",
        user: "acct:Joe@x",
        tags: vec!["Moon", "to do"],
        references: vec!["r".to_owned()],
        pages: uri::annotation_keys(["http://a.com/docs/1"].into_iter(), None),
    })
}

#[test]
fn verdict_names_the_deciding_clause() {
    let moon = json!({"field": "/tags", "operator": "one_of", "value": "moon"});
    let sun = json!({"field": "/tags", "operator": "one_of", "value": "sun"});
    let not_joe = json!({"field": "/user", "operator": "not_one_of", "value": ["joe", "ann"]});
    let site = json!({"field": "/wildcard_uri", "value": "http://a.com/*"});
    for (policy, clauses, actions, expected) in [
        ("include_any", json!([sun, moon]), json!({}), None),
        (
            "include_any",
            json!([sun]),
            json!({}),
            Some(Mismatch::NoneMatches),
        ),
        (
            "include_all",
            json!([moon, sun]),
            json!({}),
            Some(Mismatch::Missing { clause: 1 }),
        ),
        ("include_all", json!([moon, site]), json!({}), None),
        (
            "include_any",
            json!([moon, not_joe]),
            json!({}),
            Some(Mismatch::Excluded { clause: 1 }),
        ),
        (
            "include_any",
            json!([not_joe]),
            json!({}),
            Some(Mismatch::NoClause),
        ),
        (
            "include_all",
            json!([]),
            json!({}),
            Some(Mismatch::NoClause),
        ),
        (
            "include_any",
            json!([moon]),
            json!({"create": false}),
            Some(Mismatch::Action),
        ),
        (
            "include_any",
            json!([moon]),
            json!({"create": 0, "update": false}),
            None,
        ),
    ] {
        let filter = filter(policy, clauses, actions);
        let (compact, view) = parsed(&filter);
        let plan = plan(EventKind::Create, annotation());
        assert_eq!(view.mismatch(&plan), expected, "{filter}");
        assert_eq!(is_selected(&compact, &plan), expected.is_none(), "{filter}");
    }
    let (_, view) = parsed(&filter("include_any", json!([moon, not_joe]), json!({})));
    let judged = view.judge(&plan(EventKind::Create, annotation()), &mut { MAX_STEPS });
    let expected = ClauseVerdict {
        number: 1,
        field: "/user",
        operator: "not_one_of",
        values: vec!["joe".into(), "ann".into()],
        matching: vec!["joe".into()],
        is_undecided: false,
    };
    assert_eq!(judged[1], expected);
}

#[test]
fn patterns_that_take_too_many_steps_are_judged_as_in_a_delivery() {
    let costly = format!("http://example.com/*{}b", "a".repeat(150));
    let page = format!("httpx://example.com/{}__vall", "a".repeat(20_000));
    let terms = vec![Term {
        field: Field::Uri,
        value: page.into(),
    }];
    let plan = plan(EventKind::Create, terms);
    let values = [&*costly, "http://example.com/a*", "http://example.com/b*"];
    let mut counts = [0; 2];
    for seed in 1..=100 {
        let mut random = Random(seed);
        let mut clauses = Vec::new();
        for _ in 0..1 + random.below(3) {
            let operator = ["one_of", "not_one_of"][usize::from(random.below(4) == 0)];
            let chosen = (0..1 + random.below(2)).map(|_| values[random.below(3) as usize]);
            let chosen: Vec<&str> = chosen.collect();
            clauses.push(json!({"field": "/wildcard_uri", "operator": operator, "value": chosen}));
        }
        let policy = ["include_any", "include_all"][random.below(2) as usize];
        let filter = filter(policy, json!(clauses), json!({}));
        let (compact, view) = parsed(&filter);
        let expected = is_selected(&compact, &plan);
        assert_eq!(view.mismatch(&plan).is_none(), expected, "{filter}");
        counts[usize::from(expected)] += 1;
    }
    assert!(counts[0] > 10 && counts[1] > 10, "{counts:?}");
    let (_, view) = parsed(&filter(
        "include_any",
        json!([{"field": "/wildcard_uri", "value": vec![&costly; 20]}]),
        json!({}),
    ));
    let judged = view.judge(&plan, &mut { MAX_STEPS });
    assert!(judged[0].is_undecided && judged[0].matching.is_empty());
}

#[test]
fn equivalent_filters_are_stored_as_terms() {
    let id = json!({"field": "/id", "value": ["a", "b"]});
    for (policy, clauses, actions) in [
        ("include_all", json!([id]), json!({})),
        ("include_any", json!([id]), json!({"create": true})),
        (
            "include_any",
            json!([id]),
            json!({"create": 0, "Update": false}),
        ),
        (
            "include_any",
            json!([id, {"field": "/user", "operator": "not_one_of", "value": []}]),
            json!({}),
        ),
        ("include_all", json!([id, {"field": "/nope"}]), json!(false)),
    ] {
        let filter = filter(policy, clauses, actions);
        let expected = Filter::Terms(terms(&[(Id, "a"), (Id, "b")]));
        assert_eq!(parsed(&filter).0, expected, "{filter}");
    }
    let none = json!({"create": false, "update": false, "delete": false});
    for (policy, clauses, actions) in [
        ("include_any", json!([id]), none),
        (
            "include_all",
            json!([id, {"field": "/tags", "value": []}]),
            json!({}),
        ),
        (
            "include_all",
            json!([{"field": "/tags", "operator": "not_one_of", "value": "a"}]),
            json!({}),
        ),
    ] {
        let filter = filter(policy, clauses, actions);
        assert_eq!(parsed(&filter).0, Filter::Terms(Vec::new()), "{filter}");
    }
}

#[test]
fn narrowest_clause_provides_the_anchors() {
    for (narrow, anchors) in [
        (json!({"field": "/id", "value": ["a", "b"]}), 2),
        (json!({"field": "/user", "value": "joe"}), 1),
        (
            json!({"field": "/wildcard_uri", "value": ["http://a.com/*", "http://a.com/a*"]}),
            1,
        ),
        (json!({"field": "/tags", "value": ["a", "b", "c"]}), 3),
    ] {
        let group = json!({"field": "/group", "value": "__world__"});
        let filter = filter("include_all", json!([group, narrow]), json!({}));
        let (compact, _) = parsed(&filter);
        assert_eq!(compact.anchors().len(), anchors, "{filter}");
        let world = digester().term(Group, "__world__");
        assert!(!compact.anchors().contains(&world), "{filter}");
    }
}

#[test]
fn invalid_patterns_are_rejected() {
    for value in ["http://*.com/", "*", ""] {
        let filter = filter(
            "include_any",
            json!([{"field": "/wildcard_uri", "value": value}]),
            json!({}),
        );
        let parsed = parse(&filter.to_string(), 200, &digester(), None, &mut 0);
        let expected = Err(FilterError::Pattern(PatternError::Host));
        assert_eq!(parsed, expected, "{value}");
    }
}

/// Comparisons of repeated text are bounded, and then count in favor of the event.
#[test]
fn undecided_comparisons_select_the_event() {
    let repeated = "a".repeat(900);
    let address = format!("http://a.com/{}", "a".repeat(100_000));
    let terms = Term::of_annotation(AnnotationFacts {
        id: "i",
        group: "g",
        pages: uri::annotation_keys([address.as_str()].into_iter(), None),
        ..AnnotationFacts::default()
    });
    let plan = plan(EventKind::Create, terms);
    let patterns = vec![format!("http://a.com/*{repeated}b"); 200];
    let site = json!({"field": "/wildcard_uri", "value": patterns});
    let group = json!({"field": "/group", "value": "g"});
    let not_site =
        json!({"field": "/wildcard_uri", "operator": "not_one_of", "value": patterns[..100]});
    for clauses in [json!([site]), json!([group, not_site])] {
        let started = std::time::Instant::now();
        let filter = filter("include_any", clauses, json!({}));
        assert!(is_selected(&parsed(&filter).0, &plan));
        let elapsed = started.elapsed();
        assert!(elapsed.as_secs() < 10, "{elapsed:?}");
    }
}

/// Once many filters have been expensive, the others are still decided for ordinary addresses.
// M7
#[test]
fn comparisons_of_many_filters_are_bounded_together() {
    let filter_of = |pattern: &str| {
        let clause = json!({"field": "/wildcard_uri", "value": pattern});
        match parsed(&filter("include_any", json!([clause]), json!({}))).0 {
            Filter::Conditional(conditional) => conditional.matcher,
            other => panic!("{other:?}"),
        }
    };
    let hostile = filter_of(&format!("http://a.com/*{}b", "a".repeat(400)));
    let ordinary = filter_of("http://a.com/*/edit");
    let pages: [Box<str>; 2] = [
        format!("httpx://a.com/{}", "a".repeat(2000)).into(),
        format!("httpx://a.com/{}", "wiki/".repeat(50)).into(),
    ];
    let (effort, count) = (Effort::default(), 1000);
    let mut most = 0;
    for _ in 0..count {
        let before = effort.spent();
        assert!(hostile.matches(&[], Pages::List(&pages), &effort));
        most = most.max(effort.spent() - before);
        assert!(!ordinary.matches(&[], Pages::List(&pages[1..]), &effort));
    }
    assert!(most > 100_000, "{most}");
    // Without a bound for all of them together, the work is `count * most`.
    assert!(effort.spent() < count * most / 8, "{}", effort.spent());
}

#[test]
fn view_agrees_with_the_filter_on_undecided_comparisons() {
    let patterns = vec![format!("http://a.com/*{}b", "a".repeat(400)); 20];
    let address = format!("http://a.com/{}", "a".repeat(100_000));
    let terms = Term::of_annotation(AnnotationFacts {
        id: "i",
        group: "g",
        pages: uri::annotation_keys([address.as_str()].into_iter(), None),
        ..AnnotationFacts::default()
    });
    let plan = plan(EventKind::Create, terms);
    for operator in ["one_of", "not_one_of"] {
        let clauses = json!([
            {"field": "/group", "value": "g"},
            {"field": "/wildcard_uri", "operator": operator, "value": patterns},
        ]);
        let filter = filter("include_all", clauses, json!({}));
        let (compact, view) = parsed(&filter);
        assert!(is_selected(&compact, &plan), "{operator}");
        let started = std::time::Instant::now();
        assert_eq!(view.mismatch(&plan), None, "{operator}");
        let elapsed = started.elapsed();
        assert!(elapsed.as_secs() < 10, "{elapsed:?}");
    }
}

/// The versions of a long address are a multiple of the filter.
// M12
#[test]
fn bounded_view_keeps_few_versions_of_a_long_address() {
    let address = format!("http://a.com/{}{}", "a".repeat(60_000), ":v1".repeat(190));
    let clause = json!({"field": "/uri", "value": address});
    let filter = filter("include_any", json!([clause, clause]), json!({})).to_string();
    let view = FilterView::bounded(6144).fill(&filter, 400).unwrap();
    let values = view.clauses.iter().flat_map(ViewedClause::values);
    let lens: Vec<usize> = values.map(|value| value.len()).collect();
    assert_eq!((lens.len(), view.clauses.len()), (1, 2), "{lens:?}");
    assert_eq!(view.values, (400, 20));
    let all = FilterView::parse(&filter, 400).unwrap();
    assert_eq!(all.clauses[1].values().count(), 190);
}
