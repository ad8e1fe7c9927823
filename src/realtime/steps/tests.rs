//! Work in steps has the same effects as work that is done at once.

use std::collections::BTreeSet;

use crate::model::{BackendEvent, HistoryEvent, TokenId};
use crate::net::Now;
use crate::realtime::testing::{Random, START, TestApi, identity};
use crate::realtime::{ApiSettings, Cursor};

/// Logins are moved to lower indices and end while the tokens are collected.
#[test]
fn sweep_in_steps_contains_every_login_that_remains() {
    let mut random = Random(3);
    let mut api = TestApi::new(ApiSettings {
        sweep_period: Some(60_000),
        ..ApiSettings::default()
    });
    api.realtime.set_step(7);
    let count = 3000;
    for n in 0..count {
        let user = format!("acct:{}@x", n % 500);
        api.open_as(n, identity(&user, n.into(), &[]));
    }
    let mut open: BTreeSet<u32> = (0..count).collect();
    for n in (0..count).filter(|n| n % 5 != 0) {
        api.close(n);
        open.remove(&n);
    }
    api.tick(Now {
        mono: 60_000,
        unix: 0,
    });
    let mut turns = 0;
    loop {
        let (has_more, _) = api.call(|realtime, cx| realtime.replay_queued(cx));
        turns += 1;
        if !has_more {
            break;
        }
        let n = random.below(count.into()) as u32;
        if open.remove(&n) {
            api.close(n);
        }
    }
    assert!(turns > 50, "{turns} turns");
    let sweeps = api.backend.take_sweeps();
    let [tokens] = &sweeps[..] else {
        panic!("{} sweeps", sweeps.len());
    };
    let found: BTreeSet<TokenId> = tokens.iter().copied().collect();
    for n in &open {
        assert!(found.contains(&TokenId((*n).into())), "{n} is missing");
    }
    assert!(tokens.len() < 700, "{} tokens", tokens.len());
}

/// Returns a server whose history is ready, with clients that have connected before. Only the first two
/// of them have been recorded.
fn started(others: u32) -> TestApi {
    let mut api = TestApi::new(ApiSettings::default());
    api.realtime.set_step(2);
    for n in 0..others + 3 {
        api.open(n);
        api.text(
            n,
            &format!(r#"{{"messageType":"client_id","value":"tab {n}"}}"#),
        );
        api.filter(n, "/group", &["page"]);
    }
    for event in [HistoryEvent::Start(START), HistoryEvent::Ready] {
        api.backend_event(BackendEvent::History(event));
    }
    assert!(api.realtime.steps.recording.is_some());
    api
}

/// Returns the state of a client that is remembered, or recorded as connected.
fn outcome(api: &mut TestApi, n: u32) -> (bool, Option<Cursor>) {
    use crate::realtime::session::SessionFlag;
    let client = api.realtime.digester.client_id(&format!("tab {n}"));
    let client = crate::realtime::Digest::of_client(client, None);
    let session = api.session(n);
    let is_connected = session.is_some_and(|session| session.has(SessionFlag::Connected));
    (is_connected, api.realtime.clients.position(client))
}

/// Whatever a client does before its turn to be recorded, the result is the same as if it had been
/// recorded at the start.
#[test]
fn client_that_changes_before_it_is_recorded_is_recorded_at_once() {
    type Act = fn(&mut TestApi, u32);
    let acts: [(&str, Act); 5] = [
        ("closes", |api, n| api.lose(n, 0)),
        ("sends a ping", |api, n| {
            api.text(n, r#"{"type":"ping","id":1}"#);
        }),
        ("changes its id", |api, n| {
            api.text(n, r#"{"messageType":"client_id","value":"another"}"#);
        }),
        ("connects again", |api, n| {
            let id = format!(r#"{{"messageType":"client_id","value":"tab {n}"}}"#);
            api.open(n + 100);
            api.text(n + 100, &id);
            api.filter(n + 100, "/group", &["page"]);
        }),
        ("resumes with a cursor", |api, n| {
            let filter = r#"{"match_policy":"include_any","clauses":[{"field":"/group","value":"page"}],"actions":{}}"#;
            api.text(
                n,
                &format!(r#"{{"type":"filter","id":3,"since":"now","filter":{filter}}}"#),
            );
        }),
    ];
    for (name, act) in acts {
        let mut outcomes = Vec::new();
        for others in [0, 40] {
            let mut api = started(others);
            // All are recorded here, and none of the last ones there.
            let n = others + 2;
            if others == 0 {
                while api.call(|realtime, cx| realtime.replay_queued(cx)).0 {}
            }
            act(&mut api, n);
            let at_once = outcome(&mut api, n);
            while api.call(|realtime, cx| realtime.replay_queued(cx)).0 {}
            outcomes.push((at_once, outcome(&mut api, n)));
        }
        assert_eq!(outcomes[0], outcomes[1], "{name}");
    }
}

#[test]
fn all_clients_are_recorded_in_steps() {
    let mut api = started(40);
    let mut turns = 0;
    while api.call(|realtime, cx| realtime.replay_queued(cx)).0 {
        turns += 1;
    }
    assert!(turns >= 20, "{turns} turns");
    for n in 0..43 {
        assert_eq!(outcome(&mut api, n), (true, None), "{n}");
    }
    // Another start records nothing twice, and finishes what has begun.
    let mut api = started(40);
    api.backend_event(BackendEvent::History(HistoryEvent::Start(START)));
    for n in 0..43 {
        assert_eq!(outcome(&mut api, n), (true, None), "{n}");
    }
}
