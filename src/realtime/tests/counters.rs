//! The counters of the API.

use super::*;
use crate::http::Origin;
use crate::model::{HistoryEvent, UnixMillis};
use crate::realtime::testing::{START, rule};

fn status(verdict: Verdict<ApiSession>) -> Option<u16> {
    match verdict {
        Verdict::Respond(response) => Some(response.status.0),
        _ => None,
    }
}

#[test]
fn rejected_requests_are_counted_by_reason() {
    let origins = vec![Origin::parse("https://good.example").unwrap()];
    let mut api = TestApi::new(ApiSettings {
        origins,
        invalid_token: InvalidToken::Reject,
        ..ApiSettings::default()
    });
    let mut expected = RejectedCounters::default();
    for (target, fields, code, count) in [
        ("/ws", "", None, None),
        ("/asyncapi.yaml", "", Some(200), None),
        (
            "/nowhere",
            "",
            Some(404),
            Some((|counters| &mut counters.path) as fn(&mut RejectedCounters) -> &mut u64),
        ),
        (
            "/ws",
            "Sec-WebSocket-Version: 12\r\n",
            Some(400),
            Some(|counters| &mut counters.handshake),
        ),
        (
            "/ws",
            "Origin: https://bad.example\r\n",
            Some(403),
            Some(|counters| &mut counters.origin),
        ),
        (
            "/ws?access_token=",
            "",
            Some(401),
            Some(|counters| &mut counters.token),
        ),
        (
            "/sse?group=g",
            "Origin: https://bad.example\r\n",
            Some(403),
            Some(|counters| &mut counters.origin),
        ),
        (
            "/sse?color=red",
            "",
            Some(400),
            Some(|counters| &mut counters.stream),
        ),
        (
            "/sse?group=g&access_token=",
            "",
            Some(401),
            Some(|counters| &mut counters.token),
        ),
    ] {
        let (verdict, outputs) = api.request(0, target, fields);
        assert_eq!(outputs, []);
        assert_eq!(status(verdict), code, "{target} {fields}");
        if let Some(count) = count {
            *count(&mut expected) += 1;
        }
        assert_eq!(api.realtime.counters().rejected, expected, "{target}");
    }
    // The backend rejects one more token.
    api.request(0, "/ws?access_token=t", "");
    api.authenticated(0, AuthReply::Unknown);
    expected.token += 1;
    assert_eq!(api.realtime.counters().rejected, expected);
}

#[test]
fn requests_are_counted_by_the_result_of_authentication() {
    let mut api = api(InvalidToken::Anonymous);
    let events = [HistoryEvent::Start(START), HistoryEvent::Ready];
    for event in events {
        api.backend_event(BackendEvent::History(event));
    }
    let mut expected = AuthCounters::default();
    for target in ["/ws", "/sse?group=g"] {
        api.request(0, target, "");
        expected.anonymous += 1;
        assert_eq!(api.realtime.counters().auth, expected, "{target}");
    }
    for target in ["/ws?access_token=", "/sse?group=g&access_token="] {
        api.request(0, target, "");
        expected.unknown += 1;
        assert_eq!(api.realtime.counters().auth, expected, "{target}");
    }
    api.request(0, "/ws?access_token=t", "");
    assert_eq!(api.realtime.counters().auth, expected, "not known yet");
    api.authenticated(0, AuthReply::Known(identity("acct:a@x", 1, &[])));
    expected.known += 1;
    assert_eq!(api.realtime.counters().auth, expected);
}

/// Returns an event of a group at a position.
fn event(position: u64, time: UnixMillis) -> Plan {
    Plan {
        kind: EventKind::Create,
        subject: Subject::Annotation(position.to_string().into()),
        stamp: Stamp { position, time },
        cause: Cause::Event,
        candidates: Candidates::Terms(vec![term(Field::Group, "g")]),
        exclude_client: None,
        rules: vec![rule(vec![], Decision::Send(0))],
        variants: vec!["{}".into()],
    }
}

#[test]
fn current_values_follow_connections_and_events() {
    let mut api = api(InvalidToken::Anonymous);
    for event in [HistoryEvent::Start(START), HistoryEvent::Ready] {
        api.backend_event(BackendEvent::History(event));
    }
    api.open_as(0, identity("acct:a@x", 1, &[]));
    api.request(1, "/ws?debug=1", "");
    api.open(1);
    api.filter(0, "/id", &["x", "y"]);
    let wildcard = r#"{"filter":{"match_policy":"include_any","clauses":[{"field":"/wildcard_uri","value":"http://a/*"}],"actions":{}}}"#;
    assert!(matches!(&api.text(1, wildcard)[..], [Output::Deliver(_)]));
    api.deliver(vec![event(1, 5000), event(2, 6000)]);
    let counters = api.realtime.counters();
    assert_eq!((counters.logins, counters.principals), (1, 1));
    // The user is a term, too.
    assert_eq!((counters.subscriptions, counters.terms), (3, 3));
    assert_eq!((counters.conditional_filters, counters.watched), (1, 1));
    assert!(counters.index_bytes > 0 && counters.filter_bytes > 0);
    assert_eq!(
        (counters.recovery.entries, counters.recovery.oldest),
        (2, 5000)
    );
    assert!(counters.recovery.bytes > 0);
    assert_eq!((counters.debug.sent, counters.debug.suppressed), (1, 0));
    // A replay that has not begun, and a client that has disconnected.
    api.open(2);
    api.text(2, r#"{"messageType":"client_id","value":"c"}"#);
    api.filter(2, "/id", &["z"]);
    api.close(2);
    api.open(3);
    api.text(
        3,
        r#"{"filter":{"match_policy":"include_any","clauses":[],"actions":{}},"since":"1970-01-01T00:00:05Z"}"#,
    );
    let counters = api.realtime.counters();
    assert_eq!(counters.recovery.replays, 1);
    assert_eq!(counters.remembered_clients, 1);
    assert!(counters.remembered_bytes > 0);
}
