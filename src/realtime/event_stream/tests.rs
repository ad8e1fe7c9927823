//! Event streams over a simulated engine: the same events, positions, and rights as on WebSockets.

use super::*;
use crate::http::Origin;
use crate::model::folded_userid;
use crate::model::{
    AuthReply, BackendEvent, Candidates, Cause, Decision, EventKind, Field, HistoryEvent,
    HistoryStart, InvalidToken, Plan, Rule, Stamp, Subject,
};
use crate::net::Now;
use crate::realtime::history::{Cursor, ReplayCursor};
use crate::realtime::testing::{Output, START, TestApi, identity, key, rule, term};
use crate::realtime::{ApiSettings, HistorySettings};

const QUERY: &str = "group=page";
fn unready(settings: ApiSettings) -> TestApi {
    let mut api = TestApi::new(settings);
    let start = BackendEvent::History(HistoryEvent::Start(START));
    assert_eq!(api.backend_event(start), []);
    api
}

fn ready() -> TestApi {
    ready_with(ApiSettings::default())
}

fn ready_with(settings: ApiSettings) -> TestApi {
    let mut api = unready(settings);
    assert_eq!(
        api.backend_event(BackendEvent::History(HistoryEvent::Ready)),
        []
    );
    api
}

fn plan(position: u64, rules: Vec<Rule>) -> Plan {
    let text = format!(r#"{{"number":{position}}}"#);
    Plan {
        kind: EventKind::Create,
        subject: Subject::Annotation(position.to_string().into()),
        stamp: Stamp {
            position,
            time: 1000 * position,
        },
        cause: Cause::Event,
        candidates: Candidates::Terms(vec![term(Field::Group, "page")]),
        exclude_client: None,
        rules,
        variants: vec![text.into()],
    }
}

fn public() -> Vec<Rule> {
    vec![rule(vec![], Decision::Send(0))]
}

/// The lines of all outputs to a connection, without those of reconnection times.
fn lines(outputs: Vec<Output>) -> Vec<String> {
    let texts = outputs.into_iter().flat_map(|output| match output {
        Output::Reply(text) => vec![text],
        Output::Deliver(to) => to.into_iter().map(|(_, text)| text).collect(),
        other => panic!("{other:?}"),
    });
    let lines = texts.flat_map(|text| {
        assert!(text.ends_with("\n\n"), "{text:?}");
        let lines = text.lines().map(str::to_owned);
        lines.collect::<Vec<_>>()
    });
    lines
        .filter(|line| !line.is_empty() && !line.starts_with("retry: "))
        .collect()
}

fn cursor(position: u64, time: u64) -> String {
    let (epoch, position) = (START.epoch, position);
    let cursor = Cursor {
        epoch,
        position,
        time,
    };
    cursor.encode()
}

/// Returns the position of an id line.
fn position(line: &str) -> u64 {
    let cursor = ReplayCursor::parse(line.strip_prefix("id: ").expect(line));
    cursor.expect(line).cursor.position
}

fn error_of(response: Response) -> (u16, String) {
    let body: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    (
        response.status.0,
        format!("{} {}", body["error"], body["parameter"]).replace('"', ""),
    )
}

#[test]
fn stream_begins_with_its_position_and_carries_cursors_as_ids() {
    let mut api = ready();
    let outputs = api.stream(0, QUERY, "").unwrap();
    let [Output::Reply(first)] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    let (retry, id) = first.split_once('\n').unwrap();
    let retry: u64 = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
    assert!((1000..4000).contains(&retry), "{retry}");
    assert_eq!(position(id.trim_end()), 0);
    assert_eq!(api.replay(), []);
    api.open(1);
    api.filter(1, "/group", &["page"]);
    let (counts, outputs) = api.deliver(vec![plan(1, public())]);
    assert_eq!(counts, [2]);
    let [Output::Deliver(to)] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    let (id, data) = to[0].1.split_once('\n').unwrap();
    assert_eq!((to[0].0, position(id)), (0, 1));
    assert_eq!(data, "data: {\"number\":1}\n\n");
    assert_eq!(to[1], (1, r#"{"number":1}"#.to_owned()));
}

#[test]
fn missed_events_follow_the_id_of_the_client() {
    let mut api = ready();
    for number in 1..=3 {
        api.deliver(vec![plan(number, public())]);
    }
    let header = format!("Last-Event-ID: {}\r\n", cursor(1, 1000));
    let query = format!("{QUERY}&last_event_id={}", cursor(2, 2000));
    for (query, fields, from) in [(QUERY, &*header, 1), (&query, "", 2), (&query, &header, 1)] {
        let first = lines(api.stream(0, query, fields).unwrap());
        assert_eq!(first.len(), 1);
        assert_eq!(position(&first[0]), from);
        let replayed = api.replay().into_iter();
        let data: Vec<_> = replayed
            .map(|(_, text)| text.lines().nth(1).unwrap().to_owned())
            .collect();
        let expected = (from + 1..=3).map(|number| format!(r#"data: {{"number":{number}}}"#));
        assert_eq!(data, expected.collect::<Vec<_>>());
        api.close(0);
    }
}

#[test]
fn gap_is_reported_with_the_oldest_position() {
    let mut api = ready_with(ApiSettings {
        history: HistorySettings {
            memory: 0,
            ..HistorySettings::default()
        },
        ..ApiSettings::default()
    });
    for number in 1..=3 {
        api.deliver(vec![plan(number, public())]);
    }
    let query = format!("{QUERY}&last_event_id={}", cursor(1, 1000));
    let first = lines(api.stream(0, &query, "").unwrap());
    assert_eq!(position(&first[0]), 3);
    assert_eq!(first[1], "event: recovery");
    assert!(
        first[2].starts_with(r#"data: {"type": "recovery", "recovered": false, "oldest": ""#),
        "{first:?}"
    );
}

#[test]
fn quiet_stream_is_sent_marks_as_ids() {
    let mut api = ready();
    api.stream(0, QUERY, "").unwrap();
    api.replay();
    let other = Plan {
        candidates: Candidates::Terms(vec![term(Field::Group, "other")]),
        ..plan(1, public())
    };
    assert_eq!(api.deliver(vec![other]).0, [0]);
    let heartbeat = |api: &mut TestApi, mono| {
        api.now = Now { mono, unix: mono };
        let (frame, _) = api.call(|realtime, cx| realtime.heartbeat(cx, key(0)));
        frame.map(|frame| String::from_utf8(frame.bytes().to_vec()).unwrap())
    };
    for time in [1000, 20_000] {
        let mark = heartbeat(&mut api, time).unwrap();
        let (comment, id) = mark.split_once('\n').unwrap();
        assert_eq!((comment, position(id.trim_end())), (": cursor", 1));
    }
    // An event has a position of its own.
    api.deliver(vec![plan(2, public())]);
    assert_eq!(heartbeat(&mut api, 40_000), None);
    assert!(heartbeat(&mut api, 60_000).is_some());
    // Nothing has happened for long.
    assert_eq!(heartbeat(&mut api, 700_000), None);
    // No queue of marks has an entry for it.
    let later = Now {
        mono: 740_000,
        unix: 740_000,
    };
    assert_eq!(api.tick(later), []);
}

#[test]
fn mark_is_a_position_in_the_current_history() {
    let mut api = ready();
    api.stream(0, QUERY, "").unwrap();
    api.replay();
    let other = |position| Plan {
        candidates: Candidates::Terms(vec![term(Field::Group, "other")]),
        ..plan(position, public())
    };
    let mut marks = Vec::new();
    for epoch in [7, 8] {
        let start = HistoryStart { epoch, ..START };
        for event in [HistoryEvent::Start(start), HistoryEvent::Ready] {
            assert_eq!(api.backend_event(BackendEvent::History(event)), []);
        }
        assert_eq!(api.deliver(vec![other(1)]).0, [0]);
        let (frame, _) = api.call(|realtime, cx| realtime.heartbeat(cx, key(0)));
        marks.push(frame.unwrap().bytes().to_vec());
    }
    assert_ne!(marks[0], marks[1]);
}

// Heartbeats repeat a mark for a while only, and this stream has not been sent it.
#[test]
fn replay_that_ends_behind_the_newest_position_ends_with_a_mark() {
    let mut api = ready();
    let other = Plan {
        candidates: Candidates::Terms(vec![term(Field::Group, "other")]),
        ..plan(2, public())
    };
    api.deliver(vec![plan(1, public()), other]);
    for (index, since, expected) in [(0, cursor(0, 0), &[1, 2][..]), (1, cursor(1, 1000), &[2])] {
        let query = format!("{QUERY}&since={since}");
        api.stream(index, &query, "").unwrap();
        let outputs = api.call(|realtime, cx| realtime.replay_queued(cx)).1;
        let lines = lines(outputs);
        let ids = lines.iter().filter(|line| line.starts_with("id: "));
        assert_eq!(ids.map(|line| position(line)).collect::<Vec<_>>(), expected);
        assert_eq!(lines[lines.len() - 2], ": cursor");
    }
    // The last event leads to the newest position.
    api.deliver(vec![plan(3, public())]);
    api.stream(2, &format!("{QUERY}&since={}", cursor(2, 2000)), "")
        .unwrap();
    let lines = lines(api.call(|realtime, cx| realtime.replay_queued(cx)).1);
    assert!(!lines.iter().any(|line| line == ": cursor"), "{lines:?}");
}

#[test]
fn position_is_sent_when_the_history_is_ready() {
    let mut api = unready(ApiSettings::default());
    let query = format!("{QUERY}&since={}", cursor(9, 9000));
    for (index, query) in [(0, QUERY), (1, &query)] {
        let outputs = api.stream(index, query, "").unwrap();
        let [Output::Reply(first)] = &outputs[..] else {
            panic!("{outputs:?}");
        };
        assert!(first.starts_with("retry: "), "{first}");
        assert!(!first.contains("id: "), "{first}");
    }
    let outputs = api.backend_event(BackendEvent::History(HistoryEvent::Ready));
    let position_of_first = |outputs: &[Output]| {
        outputs.iter().any(|output| match output {
            Output::Deliver(to) => to
                .iter()
                .all(|(key, text)| *key == 0 && position(text.trim_end()) == 0),
            _ => false,
        })
    };
    assert!(position_of_first(&outputs), "{outputs:?}");
    // A cursor of the future may become valid for a while.
    let later = api.tick(Now {
        mono: 5000,
        unix: 5000,
    });
    let lines = lines(later);
    assert_eq!(position(&lines[0]), 0);
    assert_eq!(lines[1], "event: recovery");
}

#[test]
fn invalid_requests_name_their_parameter() {
    let mut api = ready();
    let long = format!("uri=a&{}=b", "n".repeat(1000));
    for (query, error) in [
        ("", "invalid_parameter uri"),
        ("group=g&color=red", "invalid_parameter color"),
        ("group=g&uri=http://[", "invalid_parameter uri"),
        (
            "group=g&wildcard_uri=https://*/a",
            "invalid_parameter wildcard_uri",
        ),
        ("group=g&not_uri=http://[", "invalid_parameter not_uri"),
        ("group=g&since=yesterday", "invalid_cursor since"),
        ("group=g&last_event_id=now", "invalid_cursor last_event_id"),
        (&long, &format!("invalid_parameter {}", "n".repeat(64))),
    ] {
        let response = api.stream(0, query, "").unwrap_err();
        assert_eq!(error_of(response), (400, error.to_owned()), "{query:.60}");
    }
    // Later than any event that another server could have stored.
    let future = cursor(9, 1 << 40);
    let fields = format!("Last-Event-ID: {future}\r\n");
    let future = format!("{QUERY}&last_event_id={future}");
    for (query, fields, name) in [
        (&*future, "", "last_event_id"),
        (QUERY, &fields, "Last-Event-ID"),
    ] {
        let response = api.stream(0, query, fields).unwrap_err();
        assert_eq!(error_of(response), (400, format!("invalid_cursor {name}")));
    }
    assert_eq!(api.realtime.counters().rejected.stream, 10);
}

// S7
/// Even if invalid tokens are accepted on WebSockets.
#[test]
fn unknown_token_never_makes_a_stream_anonymous() {
    let mut api = ready_with(ApiSettings {
        invalid_token: InvalidToken::Anonymous,
        ..ApiSettings::default()
    });
    let response = api
        .stream(0, &format!("{QUERY}&access_token="), "")
        .unwrap_err();
    assert_eq!(error_of(response), (401, "invalid_token null".to_owned()));
    let query = format!("{QUERY}&access_token=t");
    assert_eq!(api.stream(0, &query, "").unwrap(), []);
    let refused = Output::Respond(0, 401, None);
    assert_eq!(api.authenticated(0, AuthReply::Unknown), [refused]);
}

#[test]
fn token_is_checked_before_the_stream_opens() {
    let mut api = ready();
    let fields = "Authorization: Bearer t\r\n";
    assert_eq!(api.stream(0, QUERY, fields).unwrap(), []);
    let known = AuthReply::Known(identity("acct:a@x", 1, &[]));
    assert_eq!(api.authenticated(0, known), [Output::Accept(0)]);
    assert_eq!(lines(api.open_stream(0)).len(), 1);
    api.replay();
    let reader = crate::model::Condition::User("acct:a@x".into());
    let private = vec![rule(vec![reader], Decision::Send(0))];
    assert_eq!(api.deliver(vec![plan(1, private)]).0, [1]);
    let userid = "acct:a@x".into();
    let closed = api.backend_event(BackendEvent::UserDeleted { userid });
    assert_eq!(closed, [Output::Close(0, 3000, "user deleted".to_owned())]);
}

// S10
#[test]
fn unavailable_service_answers_with_a_reconnection_time() {
    let mut api = ready();
    let query = format!("{QUERY}&access_token=t");
    assert_eq!(api.stream(0, &query, "").unwrap(), []);
    let outputs = api.authenticated(0, AuthReply::Unavailable);
    assert_eq!(outputs, [Output::Respond(0, 200, None)]);
    *api.backend.busy.borrow_mut() = true;
    let response = api.stream(1, &query, "").unwrap_err();
    assert_eq!((response.status.0, response.close), (200, true));
    let body = String::from_utf8(response.body.into_owned()).unwrap();
    assert!(body.starts_with(": The access token"), "{body}");
    let retry = body
        .lines()
        .nth(1)
        .unwrap()
        .strip_prefix("retry: ")
        .unwrap();
    assert!((5000..30_000).contains(&retry.parse().unwrap()), "{retry}");
    assert!(body.ends_with("\n\n") && !body.contains("data"));
    assert_eq!(api.realtime.counters().auth.unavailable, 2);
}

#[test]
fn filters_without_room_are_refused_for_now() {
    let mut api = ready_with(ApiSettings {
        filters_total: 1,
        ..ApiSettings::default()
    });
    let many: String = (0..20).map(|id| format!("&id={id}")).collect();
    let response = api.stream(0, &format!("group=page{many}"), "").unwrap_err();
    assert_eq!(response.status.0, 200);
    assert!(api.stream(0, QUERY, "").is_ok());
}

#[test]
fn events_of_the_client_itself_are_not_sent() {
    let mut api = ready();
    for (index, client) in [(0, "&client_id=me"), (1, "&client_id=you"), (2, "")] {
        api.stream(index, &format!("{QUERY}{client}"), "").unwrap();
    }
    api.replay();
    let own = Plan {
        exclude_client: Some("me".into()),
        ..plan(1, public())
    };
    let (_, outputs) = api.deliver(vec![own]);
    let [Output::Deliver(to)] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    let receivers: Vec<_> = to.iter().map(|(index, _)| *index).collect();
    assert_eq!(receivers, [1, 2]);
}

#[test]
fn all_names_must_match_by_default() {
    let mut api = ready();
    let group = |group| term(Field::Group, group);
    let user = |user| term(Field::User, &folded_userid(user));
    for (index, query) in [
        (0, "group=page&user=acct:a@x"),
        (1, "group=page&user=acct:a@x&match=any"),
        (2, "group=page&not_user=acct:a@x"),
        (3, "group=page&group=other"),
        (4, "group=page&actions=update,delete"),
    ] {
        api.stream(index, query, "").unwrap();
    }
    api.replay();
    let mut number = 0;
    let mut receivers = |terms| {
        number += 1;
        let plan = Plan {
            candidates: Candidates::Terms(terms),
            ..plan(number, public())
        };
        let (_, outputs) = api.deliver(vec![plan]);
        let mut all = Vec::new();
        for output in outputs {
            let Output::Deliver(to) = output else {
                panic!("{output:?}");
            };
            all.extend(to.into_iter().map(|(index, _)| index));
        }
        all
    };
    assert_eq!(receivers(vec![group("page"), user("acct:a@x")]), [0, 1, 3]);
    assert_eq!(receivers(vec![group("page"), user("acct:b@x")]), [1, 2, 3]);
    assert_eq!(receivers(vec![group("none"), user("acct:a@x")]), [1]);
    assert_eq!(receivers(vec![group("other"), user("acct:b@x")]), [3]);
}

// S8
#[test]
fn pages_of_other_origins_are_refused() {
    let origin = |text| Origin::parse(text).unwrap();
    let mut api = ready_with(ApiSettings {
        origins: vec![origin("https://good.example")],
        ..ApiSettings::default()
    });
    let response = api
        .stream(0, QUERY, "Origin: https://bad.example\r\n")
        .unwrap_err();
    assert_eq!(response.status.0, 403);
    assert!(
        response
            .fields
            .iter()
            .all(|(name, _)| *name != ALLOW_ORIGIN)
    );
    let good = "Origin: https://good.example\r\n";
    let response = api.stream(0, "", good).unwrap_err();
    let allowed = (ALLOW_ORIGIN, "https://good.example".into());
    assert!(response.fields.contains(&allowed), "{response:?}");
    assert!(response.fields.contains(&("Vary", "Origin".into())));
    assert!(api.stream(0, QUERY, good).is_ok());
    assert!(api.stream(1, QUERY, "").is_ok());
    let mut open_to_all = ready();
    let response = open_to_all.stream(0, "", good).unwrap_err();
    assert!(response.fields.contains(&(ALLOW_ORIGIN, "*".into())));
}

// S10
#[test]
fn last_blocks_contain_code_reason_and_a_random_reconnection_time() {
    let mut api = ready();
    let mut times = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let blocks = api.realtime.last_blocks(3000, "token \"ended\"\n\n");
        let text = String::from_utf8(blocks).unwrap();
        let (retry, rest) = text.split_once('\n').unwrap();
        let retry: u64 = retry.strip_prefix("retry: ").unwrap().parse().unwrap();
        assert!((1000..10_000).contains(&retry), "{retry}");
        times.insert(retry);
        assert_eq!(
            rest,
            "event: close\ndata: {\"code\":3000,\"reason\":\"token \\\"ended\\\"\\n\\n\"}\n\n"
        );
    }
    assert!(times.len() > 90, "{times:?}");
}

mod ahead;
mod requests;
