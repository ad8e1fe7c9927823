//! The embedded backend as seen by the reactor: requests in, answers and news out.

mod replaced;

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::model::{AckGuard, MonoMillis, RequestId, Secret};

const JOE: &str = "acct:joe@example.org";

fn token(text: &str) -> Secret {
    Secret(text.to_owned())
}

fn authenticate(number: u64, text: &str) -> BackendRequest {
    BackendRequest::Authenticate {
        request_id: RequestId(number),
        token: token(text),
    }
}

/// Runs a turn; returns its messages except those about the history.
fn turn(
    backend: &mut Embedded,
    requests: Vec<BackendRequest>,
    now: UnixMillis,
) -> Vec<BackendEvent> {
    let mut events = backend.turn(requests, now);
    events.retain(|event| !matches!(event, BackendEvent::History(_)));
    events
}

/// Returns the answers to authentication requests, with their request ids.
fn replies(events: &[BackendEvent]) -> Vec<(u64, &AuthReply)> {
    let reply = |tell| match tell {
        &BackendEvent::Authenticated {
            request_id,
            ref reply,
        } => Some((request_id.0, reply)),
        _ => None,
    };
    events.iter().filter_map(reply).collect()
}

#[test]
fn tokens_authenticate_until_they_expire() {
    let store = Store::in_memory().unwrap();
    store.add_user(JOE, None, 0).unwrap();
    store.add_group("g", ReadableBy::Members, 0).unwrap();
    store
        .set_member("g", JOE, crate::model::Role::Owner)
        .unwrap();
    let lasting = store.add_token(JOE, &token("lasting"), 0, None).unwrap();
    store.add_token(JOE, &token("short"), 0, Some(50)).unwrap();
    let mut backend =
        Embedded::with_store(store, None, History::counted().unwrap(), Arc::default()).unwrap();

    let ask = || {
        let texts = ["lasting", "short", "unknown", ""];
        (0..)
            .zip(texts)
            .map(|(n, text)| authenticate(n, text))
            .collect()
    };
    let events = turn(&mut backend, ask(), 49);
    assert!(matches!(events[0], BackendEvent::Health { ready: true }));
    let [
        (0, AuthReply::Known(joe)),
        (1, AuthReply::Known(short)),
        (2, unknown),
        (3, empty),
    ] = replies(&events)[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((&*joe.userid, joe.token, joe.expires), (JOE, lasting, None));
    assert_eq!(&*joe.memberships[0].group, "g");
    assert_eq!(short.expires, Some(50));
    assert_eq!((unknown, empty), (&AuthReply::Unknown, &AuthReply::Unknown));

    let events = turn(&mut backend, ask(), 50);
    assert_eq!(events.len(), 4, "the health is told once: {events:?}");
    assert_eq!(replies(&events)[1], (1, &AuthReply::Unknown));
}

#[test]
fn news_precede_answers_in_a_turn() {
    let temp = tempfile::tempdir().unwrap();
    let data = DataDir::open(temp.path()).unwrap();
    let writer = Store::open(&data.database()).unwrap();
    writer.add_user(JOE, None, 0).unwrap();
    let id = writer.add_token(JOE, &token("t"), 0, None).unwrap();
    let mut backend = Embedded::open(&data, HistoryOptions::default(), Arc::default(), 0).unwrap();
    assert_eq!(turn(&mut backend, vec![authenticate(1, "t")], 0).len(), 2);

    writer.revoke_token(id).unwrap();
    let publish = BackendRequest::Publish {
        request_id: RequestId(3),
        body: b"{}".to_vec(),
        claim: crate::model::PublishClaim::default(),
    };
    let events = turn(&mut backend, vec![authenticate(2, "t"), publish], 0);
    let [ended, unknown, refused] = &events[..] else {
        panic!("{events:?}");
    };
    assert!(matches!(ended, BackendEvent::TokenEnded { token, .. } if *token == id));
    assert!(matches!(
        unknown,
        BackendEvent::Authenticated {
            reply: AuthReply::Unknown,
            ..
        }
    ));
    assert!(matches!(
        refused,
        BackendEvent::Published {
            result: Err(PublishError::Invalid { line: 1, .. }),
            ..
        }
    ));
}

#[test]
fn unreadable_database_is_reported_and_every_request_answered() {
    let store = Store::in_memory().unwrap();
    let mut backend =
        Embedded::with_store(store, None, History::counted().unwrap(), Arc::default()).unwrap();
    turn(&mut backend, Vec::new(), 0);
    let store = backend.store.as_ref().unwrap();
    store
        .db()
        .execute_batch("ALTER TABLE change RENAME TO away")
        .unwrap();
    let publish = || BackendRequest::Publish {
        request_id: RequestId(2),
        body: b"{}".to_vec(),
        claim: crate::model::PublishClaim::default(),
    };
    let events = turn(&mut backend, vec![authenticate(1, "t"), publish()], 0);
    assert!(matches!(events[0], BackendEvent::Health { ready: false }));
    assert_eq!(replies(&events), [(1, &AuthReply::Unavailable)]);
    assert!(matches!(
        &events[2],
        BackendEvent::Published {
            result: Err(PublishError::Unavailable(_)),
            ..
        }
    ));
    assert!(turn(&mut backend, Vec::new(), 0).is_empty());

    let store = backend.store.as_ref().unwrap();
    store
        .db()
        .execute_batch("ALTER TABLE away RENAME TO change")
        .unwrap();
    let events = turn(&mut backend, vec![authenticate(1, "t")], 0);
    assert!(matches!(events[0], BackendEvent::Health { ready: true }));
    assert_eq!(replies(&events), [(1, &AuthReply::Unknown)]);
}

/// Events from a message queue get no answer. Invalid ones are counted.
#[test]
fn queued_events_become_plans_or_are_counted() {
    let stats = Arc::new(Stats::default());
    let store = Store::in_memory().unwrap();
    let mut backend =
        Embedded::with_store(store, None, History::counted().unwrap(), Arc::clone(&stats)).unwrap();
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let event = |body: &str| {
        let acknowledged = Arc::clone(&acknowledged);
        BackendRequest::QueueEvent {
            body: body.into(),
            received: MonoMillis(7),
            ack: AckGuard::new(move || {
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }),
        }
    };
    let good = r#"{"topic":"annotation","action":"create","annotation":{"id":"a","user":
        "acct:joe@example.org","uri":"http://a/","permissions":{"read":["group:__world__"]}}}"#;
    let events = turn(&mut backend, vec![event("{}"), event(good), event("[")], 0);
    let [
        BackendEvent::Health { ready: true },
        BackendEvent::QueueEvents {
            plans,
            received: MonoMillis(7),
            ..
        },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(plans.len(), 1);
    assert_eq!(stats.dropped(DropReason::Malformed), 2);
    // The receipt of an event is held until its plan has been dropped.
    assert_eq!(acknowledged.load(Ordering::Relaxed), 2);
    drop(events);
    assert_eq!(acknowledged.load(Ordering::Relaxed), 3);
}

#[test]
fn wrong_clock_at_start_deletes_no_token() {
    let temp = tempfile::tempdir().unwrap();
    let data = DataDir::open(temp.path()).unwrap();
    let store = Store::open(&data.database()).unwrap();
    store.add_user(JOE, None, 0).unwrap();
    let day = 24 * 60 * 60 * 1000;
    store
        .add_token(JOE, &token("t"), 0, Some(30 * day))
        .unwrap();
    for (now, is_known) in [(1, true), (400 * day, false), (2, true)] {
        let mut backend =
            Embedded::open(&data, HistoryOptions::default(), Arc::default(), now).unwrap();
        let events = turn(&mut backend, vec![authenticate(1, "t")], now);
        let known = matches!(replies(&events)[..], [(1, AuthReply::Known(_))]);
        assert_eq!(known, is_known, "{now}");
    }
}
