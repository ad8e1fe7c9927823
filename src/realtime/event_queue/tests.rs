//! Queued events: their order, and the number delivered in a turn.

use super::*;
use std::rc::Rc;

use crate::model::{
    BackendEvent, Candidates, Cause, Condition, Decision, EndCause, EventKind, Field, Membership,
    Role, Stamp, Subject, TokenId,
};
use crate::net::Cx;
use crate::realtime::testing::{Output, TestApi, identity, rule, term};
use crate::realtime::{ApiSession, ApiSettings, Realtime};

/// An engine that only counts receivers.
#[derive(Default)]
struct Engine {
    backlog: usize,
    /// The turn and the text of each delivered event.
    delivered: Vec<(usize, String)>,
    /// The tag of each completed batch, and its number of events.
    batches: Vec<(&'static str, usize)>,
    turn: usize,
}

fn event(text: &str) -> Plan {
    Plan {
        kind: EventKind::Create,
        subject: Subject::Annotation("a".into()),
        stamp: Stamp::default(),
        cause: Cause::Event,
        candidates: Candidates::Terms(vec![term(Field::Group, "g")]),
        exclude_client: None,
        rules: vec![rule(vec![], Decision::Send(0))],
        variants: vec![text.into()],
    }
}

fn events(texts: &[&str]) -> Vec<Plan> {
    texts.iter().map(|text| event(text)).collect()
}

/// Runs a turn in which each event has `receivers` receivers.
fn turn(queue: &mut EventQueue<&'static str>, engine: &mut Engine, receivers: usize) -> bool {
    engine.turn += 1;
    let deliver = |engine: &mut Engine, plan: &Rc<Plan>, _| {
        engine.backlog += receivers;
        let text = plan.variants[0].to_string();
        engine.delivered.push((engine.turn, text));
        Cost {
            sent: receivers,
            matches: receivers + 1,
        }
    };
    queue.run_turn(
        engine,
        |engine| engine.backlog,
        deliver,
        |engine, delivered| {
            if let Completion::Batch(tag, sent) = delivered {
                assert!(sent.iter().all(|&count| count == receivers));
                engine.batches.push((tag, sent.len()));
            }
        },
    )
}

// M13
#[test]
fn large_batch_keeps_the_backlog_bounded_in_every_turn() {
    const EVENTS: usize = 7_500;
    const RECEIVERS: usize = 4_000;
    let limits = TurnLimits::default();
    let mut queue = EventQueue::new(limits);
    let texts: Vec<String> = (0..EVENTS).map(|n| n.to_string()).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    queue.push(events(&texts), MonoMillis(0), "all");
    let mut engine = Engine::default();
    let mut is_left = true;
    while is_left {
        assert_eq!(engine.batches, []);
        let before = engine.backlog;
        is_left = turn(&mut queue, &mut engine, RECEIVERS);
        assert!(engine.backlog < limits.backlog + RECEIVERS);
        assert!(engine.backlog - before < limits.matches + RECEIVERS);
        // The turn must not end idle while events wait.
        assert!(engine.backlog > 0);
        engine.backlog -= engine.backlog.min(512);
    }
    assert_eq!(engine.batches, [("all", EVENTS)]);
    let delivered = engine.delivered.iter().map(|(_, text)| text.as_str());
    assert!(delivered.eq(texts));
    assert!(queue.is_empty());
}

#[test]
fn batches_keep_their_order_across_turns() {
    let limits = TurnLimits {
        events: 3,
        ..TurnLimits::default()
    };
    let mut queue = EventQueue::new(limits);
    for (tag, texts) in [
        ("a", &["a1", "a2", "a3", "a4"][..]),
        ("empty", &[]),
        ("b", &["b1"]),
        ("c", &["c1", "c2"]),
    ] {
        queue.push(events(texts), MonoMillis(0), tag);
    }
    let mut engine = Engine::default();
    while turn(&mut queue, &mut engine, 1) {}
    let expected = [
        (1, "a1"),
        (1, "a2"),
        (1, "a3"),
        (2, "a4"),
        (2, "b1"),
        (2, "c1"),
        (3, "c2"),
    ];
    let expected = expected.map(|(turn, text)| (turn, text.to_owned()));
    assert_eq!(engine.delivered, expected);
    assert_eq!(engine.batches, [("a", 4), ("empty", 0), ("b", 1), ("c", 2)]);
}

// M13
#[test]
fn turn_ends_at_each_of_its_limits() {
    let many = |text: &str| vec![event(text); 20];
    let limits = TurnLimits {
        backlog: 1_000,
        matches: 1_000,
        events: 10,
        bytes: 1_000,
    };
    for (limits, text, receivers, expected) in [
        (limits, "a", 1, 10),
        (limits, "a", 0, 10),
        // Each event costs 101 matches.
        (
            TurnLimits {
                matches: 300,
                ..limits
            },
            "a",
            100,
            3,
        ),
        (
            TurnLimits {
                backlog: 300,
                ..limits
            },
            "a",
            100,
            3,
        ),
        (limits, &"a".repeat(400), 1, 3),
        // Events without receivers are not encoded.
        (limits, &"a".repeat(400), 0, 10),
        (limits, "a", 2_000, 1),
    ] {
        let mut queue = EventQueue::new(limits);
        queue.push(many(text), MonoMillis(0), "all");
        let mut engine = Engine::default();
        assert!(turn(&mut queue, &mut engine, receivers));
        assert_eq!(engine.delivered.len(), expected, "{limits:?} {receivers}");
    }
}

/// Delivers one event of a queue.
fn step(api: &mut TestApi, queue: &mut EventQueue<()>) -> Vec<Output> {
    let deliver = |realtime: &mut Realtime, cx: &mut Cx<'_, ApiSession>| {
        realtime.deliver_queued(cx, queue, |_, _| {})
    };
    api.call(deliver).1
}

// D1
#[test]
fn revoked_rights_apply_to_the_rest_of_a_waiting_batch() {
    let mut api = TestApi::new(ApiSettings::default());
    let group = [("g", Role::Member)];
    for (index, userid) in [(0, "acct:a@x"), (1, "acct:b@x"), (2, "acct:c@x")] {
        api.open_as(index, identity(userid, u64::from(index), &group));
        api.filter(index, "/group", &["g"]);
    }
    let one = TurnLimits {
        events: 1,
        ..TurnLimits::default()
    };
    let mut queue = EventQueue::new(one);
    let mut plan = event("text");
    plan.rules = vec![rule(vec![Condition::Member("g".into())], Decision::Send(0))];
    queue.push(vec![plan; 4], MonoMillis(0), ());
    let to = |indices: &[u32]| {
        let receivers = indices.iter().map(|&index| (index, "text".to_owned()));
        [Output::Deliver(receivers.collect())]
    };
    assert_eq!(step(&mut api, &mut queue), to(&[0, 1, 2]));
    // The engine closes the connection at once.
    let ended = api.backend_event(BackendEvent::TokenEnded {
        token: TokenId(0),
        cause: EndCause::Revoked,
    });
    assert!(
        matches!(ended[..], [Output::Close(0, 3000, _)]),
        "{ended:?}"
    );
    api.close(0);
    assert_eq!(step(&mut api, &mut queue), to(&[1, 2]));
    api.backend_event(BackendEvent::Memberships {
        userid: "acct:b@x".into(),
        memberships: Vec::new(),
    });
    assert_eq!(step(&mut api, &mut queue), to(&[2]));
    // If closes are spread, the connection stays open until its own is due.
    let spread = ApiSettings {
        expiry_spread: 30_000,
        ..ApiSettings::default()
    };
    api.call(|realtime, cx| realtime.reconfigure(cx, spread));
    let userid = "acct:c@x".into();
    assert_eq!(api.backend_event(BackendEvent::UserDeleted { userid }), []);
    // New rights also take effect.
    let membership = Membership {
        group: "g".into(),
        role: Role::Member,
    };
    api.backend_event(BackendEvent::Memberships {
        userid: "acct:b@x".into(),
        memberships: vec![membership],
    });
    assert_eq!(step(&mut api, &mut queue), to(&[1]));
    assert!(queue.is_empty());
}

// D12
#[test]
fn waiting_events_lose_their_positions_with_their_history() {
    let mut queue = EventQueue::new(TurnLimits::default());
    let plan = |position| {
        let mut plan = event("a");
        plan.stamp = Stamp { position, time: 7 };
        plan
    };
    queue.push(vec![plan(1), plan(2)], MonoMillis::default(), "a");
    queue.push(vec![plan(3)], MonoMillis::default(), "b");
    assert_eq!((queue.len(), queue.is_empty()), (3, false));
    queue.forget_positions();
    let mut positions = Vec::new();
    queue.run_turn(
        &mut (),
        |()| 0,
        |(), plan, _| {
            positions.push(plan.stamp.position);
            Cost::default()
        },
        |(), _| {},
    );
    assert_eq!(positions, [0, 0, 0]);
    assert_eq!((queue.len(), queue.is_empty()), (0, true));
}
