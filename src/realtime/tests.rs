//! The identities of connections, and their lifetime.

use super::testing::{Output, TestApi, identity, key, term};
use super::*;
use crate::model::{
    AuthReply, Candidates, Cause, Condition, Decision, EndCause, EventKind, Field, Identity,
    Membership, Plan, Role, Rule, Stamp, Subject, TokenId,
};
use crate::net::Now;

const WHOAMI: &str = r#"{"type":"whoami","id":1}"#;

fn api(invalid_token: InvalidToken) -> TestApi {
    TestApi::new(ApiSettings {
        invalid_token,
        ..ApiSettings::default()
    })
}

/// Returns the userid in the reply to `whoami`.
fn userid_of(api: &mut TestApi, index: u32) -> String {
    match &api.text(index, WHOAMI)[..] {
        [Output::Reply(text)] => text
            .trim_start_matches(r#"{"type": "whoyouare", "userid": "#)
            .trim_end_matches(r#", "ok": true, "reply_to": 1}"#)
            .to_owned(),
        other => panic!("{other:?}"),
    }
}

fn close(index: u32, reason: &str) -> Output {
    Output::Close(index, 3000, reason.into())
}

#[test]
fn connection_without_token_causes_no_request() {
    let mut api = api(InvalidToken::Anonymous);
    let (verdict, outputs) = api.request(0, "/ws", "");
    assert!(matches!(verdict, Verdict::Upgrade(..)));
    assert_eq!(outputs, []);
    assert!(api.backend.requests.borrow().is_empty());
    assert_eq!(api.open(0), []);
    assert_eq!(userid_of(&mut api, 0), "null");
    let (verdict, _) = api.request(1, "/nowhere", "");
    assert!(matches!(verdict, Verdict::Respond(response) if response.status.0 == 404));
}

#[test]
fn token_is_checked_before_the_socket_opens() {
    let mut api = api(InvalidToken::Anonymous);
    let (verdict, _) = api.request(4, "/ws?access_token=tok", "");
    assert!(matches!(verdict, Verdict::DeferUpgrade(..)));
    let request = (key(4).to_u64(), "tok".to_owned());
    assert_eq!(*api.backend.requests.borrow(), [request]);
    api.open_as(4, identity("acct:Luis.Silva@localhost", 1, &[]));
    assert_eq!(userid_of(&mut api, 4), r#""acct:Luis.Silva@localhost""#);
    api.close(4);
    let counters = api.realtime.counters();
    assert_eq!((counters.logins, counters.principals), (0, 0));
    assert_eq!(counters.auth.known, 1);
}

#[test]
fn unknown_tokens_are_anonymous_or_refused() {
    for (setting, empty, unknown) in [
        (InvalidToken::Anonymous, None, Output::Accept(0)),
        (
            InvalidToken::Reject,
            Some(401),
            Output::Respond(0, 401, None),
        ),
    ] {
        let mut api = api(setting);
        let (verdict, _) = api.request(0, "/ws?access_token=", "Authorization: Bearer x\r\n");
        let status = match verdict {
            Verdict::Respond(response) => Some(response.status.0),
            Verdict::Upgrade(..) => None,
            other => panic!("{other:?}"),
        };
        assert_eq!(status, empty);
        assert!(api.backend.requests.borrow().is_empty());
        assert_eq!(api.authenticated(0, AuthReply::Unknown), [unknown]);
        assert_eq!(api.realtime.counters().auth.unknown, 2);
    }
}

/// Even if invalid tokens are accepted, a token that cannot be checked is not treated as anonymous.
#[test]
fn unavailable_backend_refuses_handshakes() {
    let mut api = api(InvalidToken::Anonymous);
    let unavailable = Output::Respond(0, 503, Some("5".into()));
    assert_eq!(api.authenticated(0, AuthReply::Unavailable), [unavailable]);
    *api.backend.busy.borrow_mut() = true;
    let (verdict, _) = api.request(0, "/ws?access_token=tok", "");
    assert!(matches!(verdict, Verdict::Respond(response) if response.status.0 == 503));
    assert_eq!(api.realtime.counters().auth.unavailable, 2);
}

#[test]
fn ended_credentials_close_their_connections() {
    let mut api = api(InvalidToken::Anonymous);
    api.open_as(0, identity("acct:a@x", 10, &[]));
    api.open_as(1, identity("acct:a@x", 11, &[]));
    api.open_as(2, identity("acct:b@x", 12, &[]));
    assert_eq!(api.backend_event(revoked(11)), [close(1, "token revoked")]);
    api.close(1);
    assert_eq!(api.backend_event(revoked(11)), []);
    let userid = "acct:a@x".into();
    assert_eq!(
        api.backend_event(BackendEvent::UserDeleted { userid }),
        [close(0, "user deleted")]
    );
    assert_eq!(userid_of(&mut api, 0), r#""acct:a@x""#, "never anonymous");
    assert_eq!(userid_of(&mut api, 2), r#""acct:b@x""#);
}

#[test]
fn tokens_expire() {
    let mut api = api(InvalidToken::Anonymous);
    let expiring = |expires| Identity {
        expires: Some(expires),
        ..identity("acct:a@x", expires, &[])
    };
    let at = |unix| Now { mono: unix, unix };
    api.open_as(0, expiring(1000));
    api.open_as(1, expiring(900));
    api.open_as(2, expiring(900));
    api.open_as(3, identity("acct:a@x", 1, &[]));
    api.close(1);
    assert_eq!(api.tick(at(899)), []);
    assert_eq!(api.tick(at(900)), [close(2, "token expired")]);
    assert_eq!(api.tick(at(950)), [], "once");
    assert_eq!(api.tick(at(5000)), [close(0, "token expired")]);
    assert_eq!(api.realtime.counters().credentials_ended, 2);
}

/// Connections whose tokens end together are closed one by one: clients reconnect after two
/// seconds, and would otherwise do so at once.
#[test]
fn closes_are_spread() {
    let spread = 30_000;
    let mut api = TestApi::new(ApiSettings {
        expiry_spread: spread,
        ..ApiSettings::default()
    });
    let connections = 300;
    for number in 0..connections {
        let token = u64::from(number % 2);
        let mut identity = identity("acct:a@x", token, &[("g", Role::Member)]);
        // Half of them end by expiry.
        identity.expires = (token == 0).then_some(1000);
        api.open_as(number, identity);
    }
    let at = |unix| Now { mono: unix, unix };
    api.tick(at(1000));
    assert_eq!(api.backend_event(revoked(1)), []);
    let mut closed = 0;
    let mut fullest = 0;
    for second in 0..=spread / 1000 {
        let outputs = api.tick(at(1000 + 1000 * second));
        for one in &outputs {
            let Output::Close(number, ..) = one else {
                panic!("{one:?}");
            };
            let reason = ["token expired", "token revoked"][*number as usize % 2];
            assert_eq!(*one, close(*number, reason));
        }
        closed += outputs.len();
        fullest = fullest.max(outputs.len());
    }
    assert_eq!(closed, connections as usize);
    assert!(fullest < 40, "{fullest} of {connections} in one second");
}

/// Expiry is not a loss of trust: an expired connection is served until it is closed. A revoked
/// token receives nothing from that moment.
#[test]
fn expired_connection_is_served_until_closed_and_revoked_one_is_not() {
    let mut api = TestApi::new(ApiSettings {
        expiry_spread: 1 << 40,
        ..ApiSettings::default()
    });
    let mut identity = identity("acct:a@x", 1, &[("g", Role::Member)]);
    identity.expires = Some(1000);
    api.open_as(0, identity);
    api.now.unix = 1001;
    assert_eq!(for_members(&mut api, "g"), 1);
    // A sweep finds tokens that have expired already.
    let (token, cause) = (TokenId(1), EndCause::Expired);
    assert_eq!(
        api.backend_event(BackendEvent::TokenEnded { token, cause }),
        []
    );
    assert_eq!(for_members(&mut api, "g"), 1);
    assert_eq!(api.backend_event(revoked(1)), []);
    assert_eq!(for_members(&mut api, "g"), 0);
    assert_eq!(userid_of(&mut api, 0), r#""acct:a@x""#, "never anonymous");
}

#[test]
fn ended_credentials_may_be_kept_as_in_h() {
    let mut api = TestApi::new(ApiSettings {
        on_expiry: OnExpiry::Keep,
        ..ApiSettings::default()
    });
    let mut identity = identity("acct:a@x", 1, &[("g", Role::Member)]);
    identity.expires = Some(1000);
    api.open_as(0, identity);
    let userid = "acct:a@x".into();
    assert_eq!(api.backend_event(revoked(1)), []);
    assert_eq!(api.backend_event(BackendEvent::UserDeleted { userid }), []);
    assert_eq!(
        api.tick(Now {
            mono: 5000,
            unix: 5000
        }),
        []
    );
    assert_eq!(for_members(&mut api, "g"), 1);
}

#[test]
fn all_tokens_are_swept_periodically() {
    let mut api = TestApi::new(ApiSettings {
        sweep_period: Some(60_000),
        ..ApiSettings::default()
    });
    let at = |mono| Now { mono, unix: 0 };
    api.tick(at(60_000));
    assert!(
        api.backend.take_sweeps().is_empty(),
        "no connection is logged in"
    );
    for (number, token) in [(0, 7), (1, 5), (2, 7)] {
        api.open_as(number, identity("acct:a@x", token, &[]));
    }
    api.tick(at(119_999));
    assert!(api.backend.take_sweeps().is_empty());
    *api.backend.busy.borrow_mut() = true;
    api.tick(at(120_000));
    *api.backend.busy.borrow_mut() = false;
    api.tick(at(121_000));
    let mut sweeps = api.backend.take_sweeps();
    sweeps.iter_mut().for_each(|tokens| tokens.sort_unstable());
    // The backend removes duplicates.
    assert_eq!(sweeps, [[5, 7, 7].map(TokenId)]);
    api.tick(at(122_000));
    assert!(api.backend.take_sweeps().is_empty());
}

/// This holds even if the tick that closes the connection is late.
#[test]
fn expired_token_receives_nothing() {
    let mut api = api(InvalidToken::Anonymous);
    let mut identity = identity("acct:a@x", 1, &[("g", Role::Member)]);
    identity.expires = Some(1000);
    api.open_as(0, identity);
    api.now.unix = 999;
    assert_eq!(for_members(&mut api, "g"), 1);
    api.now.unix = 1000;
    assert_eq!(for_members(&mut api, "g"), 0);
    assert_eq!(userid_of(&mut api, 0), r#""acct:a@x""#, "never anonymous");
    assert_eq!(api.realtime.counters().withheld.permission, 1);
}

#[test]
fn changes_before_the_socket_opens_are_applied() {
    let endings: [(BackendEvent, &str); 2] = [
        (revoked(1), "token revoked"),
        (
            BackendEvent::UserDeleted {
                userid: "acct:a@x".into(),
            },
            "user deleted",
        ),
    ];
    for (event, reason) in endings {
        let mut api = api(InvalidToken::Anonymous);
        api.authenticated(0, AuthReply::Known(identity("acct:a@x", 1, &[])));
        assert_eq!(api.backend_event(event), []);
        assert_eq!(api.open(0), [close(0, reason)]);
        assert_eq!(userid_of(&mut api, 0), r#""acct:a@x""#);
    }
    let mut api = api(InvalidToken::Anonymous);
    api.authenticated(0, AuthReply::Known(identity("acct:a@x", 1, &[])));
    join(&mut api, "g");
    assert_eq!(api.open(0), []);
    assert_eq!(for_members(&mut api, "g"), 1);
}

#[test]
fn membership_changes_take_effect() {
    let mut api = api(InvalidToken::Anonymous);
    api.open_as(0, identity("acct:a@x", 1, &[("g", Role::Member)]));
    assert_eq!(for_members(&mut api, "g"), 1);
    join(&mut api, "h");
    assert_eq!(
        for_members(&mut api, "g"),
        0,
        "a former member receives nothing"
    );
    assert_eq!(for_members(&mut api, "h"), 1);
}

/// A connection that closes before it opens leaves nothing behind.
#[test]
fn identity_of_an_unopened_connection_expires() {
    let mut api = api(InvalidToken::Anonymous);
    api.authenticated(0, AuthReply::Known(identity("acct:a@x", 1, &[])));
    let at = |mono| Now { mono, unix: 0 };
    api.tick(at(PENDING_OPEN_LIFETIME - 1));
    assert_eq!(api.realtime.counters().logins, 1);
    api.tick(at(PENDING_OPEN_LIFETIME));
    assert_eq!(api.realtime.counters().logins, 0);
    assert_eq!(api.open(1), []);
    assert_eq!(userid_of(&mut api, 1), "null");
}

fn revoked(token: u64) -> BackendEvent {
    let (token, cause) = (TokenId(token), EndCause::Revoked);
    BackendEvent::TokenEnded { token, cause }
}

fn join(api: &mut TestApi, group: &str) {
    let role = Role::Member;
    let group = group.into();
    let outputs = api.backend_event(BackendEvent::Memberships {
        userid: "acct:a@x".into(),
        memberships: vec![Membership { group, role }],
    });
    assert_eq!(outputs, []);
}

/// Returns the number of the group's members that receive an event matched by connection 0's
/// filter.
fn for_members(api: &mut TestApi, group: &str) -> usize {
    api.filter(0, "/id", &["x"]);
    let plan = Plan {
        kind: EventKind::Create,
        subject: Subject::Annotation("a".into()),
        stamp: Stamp::default(),
        cause: Cause::Event,
        candidates: Candidates::Terms(vec![term(Field::Id, "x")]),
        exclude_client: None,
        rules: vec![Rule {
            when: vec![Condition::Member(group.into())],
            then: Decision::Send(0),
        }],
        variants: vec!["{}".into()],
    };
    api.deliver(vec![plan]).0[0]
}

mod counters;
mod expiry;
