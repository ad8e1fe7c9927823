//! Requests for event streams: their paths, methods, parameters, and errors.

use super::*;
use crate::http::{Head, parse_head};
use crate::net::Verdict;
use crate::realtime::ApiSession;

fn with_request<T>(request: &str, read: impl FnOnce(&Request<'_>) -> T) -> T {
    let head = format!("{request} HTTP/1.1\r\nHost: a\r\n\r\n");
    match parse_head(head.as_bytes(), 8192, |request| read(request)) {
        Ok(Head::Complete(read)) => read,
        _ => panic!("no whole head"),
    }
}

fn verdict(api: &mut TestApi, request: &str) -> Verdict<ApiSession> {
    let call = |realtime: &mut Realtime, cx: &mut Cx<'_, ApiSession>| {
        with_request(request, |request| realtime.on_request(cx, key(0), request))
    };
    api.call(call).0
}

#[test]
fn event_streams_have_one_path_in_every_encoding() {
    for (target, expected) in [
        ("/sse", true),
        ("/sse?group=g", true),
        ("/%73se", true),
        ("/sse/", false),
        ("/ws", false),
    ] {
        let request = format!("GET {target}");
        let is_stream = with_request(&request, Realtime::wants_event_stream);
        assert_eq!(is_stream, expected, "{target}");
    }
}

#[test]
fn methods_without_an_event_stream_are_answered_at_once() {
    let mut api = ready();
    for (method, expected) in [
        ("GET", None),
        ("HEAD", None),
        ("OPTIONS", Some(200)),
        ("POST", Some(405)),
    ] {
        let status = match verdict(&mut api, &format!("{method} /sse?{QUERY}")) {
            Verdict::Stream(..) => None,
            Verdict::Respond(response) => {
                let methods = ["Allow", "Access-Control-Allow-Methods"];
                let is_listed = |(name, value): &(&str, std::borrow::Cow<'_, str>)| {
                    methods.contains(name) && value == METHODS
                };
                assert!(response.fields.iter().any(is_listed), "{response:?}");
                Some(response.status.0)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(status, expected, "{method}");
    }
}

#[test]
fn stream_begins_at_a_cursor_a_time_or_now() {
    let mut api = ready();
    api.now.unix = 10_000;
    for number in 1..=3 {
        api.deliver(vec![plan(number, public())]);
    }
    for (since, from) in [
        (cursor(1, 1000), 1),
        ("1970-01-01T00:00:03Z".to_owned(), 2),
        ("now".to_owned(), 3),
    ] {
        let first = lines(
            api.stream(0, &format!("{QUERY}&since={since}"), "")
                .unwrap(),
        );
        assert_eq!(position(&first[0]), from, "{since}");
        api.close(0);
    }
}

#[test]
fn invalid_position_is_answered_with_its_reason() {
    let mut api = ready();
    let future = cursor(9, 1 << 40);
    for (query, reason) in [
        (
            "since=yesterday".to_owned(),
            "a cursor, an RFC 3339 time, or now",
        ),
        (
            "last_event_id=yesterday".to_owned(),
            "a cursor from this server",
        ),
        (format!("since={future}"), "later than all events"),
        (format!("last_event_id={future}"), "later than all events"),
    ] {
        let response = api.stream(0, &format!("{QUERY}&{query}"), "").unwrap_err();
        let body = String::from_utf8(response.body.into_owned()).unwrap();
        assert!(body.contains(reason), "{query}: {body}");
    }
    assert_eq!(api.realtime.counters().errors.invalid_cursor, 4);
}

#[test]
fn responses_vary_by_origin_if_origins_are_restricted() {
    let origin = Origin::parse("https://good.example").unwrap();
    let one_origin = ApiSettings {
        origins: vec![origin],
        ..ApiSettings::default()
    };
    let good = "Origin: https://good.example\r\n";
    let vary = format!("{:?}", "Vary: Origin".as_bytes());
    for (settings, varies) in [(one_origin, true), (ApiSettings::default(), false)] {
        let mut api = ready_with(settings);
        let response = api.stream(0, "", good).unwrap_err();
        let fields = &response.fields;
        assert_eq!(fields.iter().any(|(name, _)| *name == "Vary"), varies);
        let (verdict, _) = api.request(0, &format!("/sse?{QUERY}"), good);
        let Verdict::Stream(stream, _) = verdict else {
            panic!("{verdict:?}");
        };
        // Its fields are bytes, which only the engine writes.
        let has_vary = format!("{stream:?}").contains(vary.trim_matches(['[', ']']));
        assert_eq!(has_vary, varies);
    }
}

#[test]
fn quiet_stream_is_sent_no_mark_after_the_end_of_its_token() {
    for has_ended in [false, true] {
        let mut api = ready();
        let fields = "Authorization: Bearer t\r\n";
        api.stream(0, QUERY, fields).unwrap();
        let mut identity = identity("acct:a@x", 1, &[]);
        identity.expires = Some(5000);
        api.authenticated(0, AuthReply::Known(identity));
        api.open_stream(0);
        api.replay();
        api.now.unix = if has_ended { 5000 } else { 4999 };
        let (frame, _) = api.call(|realtime, cx| realtime.heartbeat(cx, key(0)));
        assert_eq!(frame.is_none(), has_ended);
    }
}

#[test]
fn stream_in_a_replay_is_sent_no_mark() {
    let mut api = ready();
    api.deliver(vec![plan(1, public())]);
    let query = format!("{QUERY}&since={}", cursor(0, 0));
    api.stream(0, &query, "").unwrap();
    let heartbeat = |api: &mut TestApi| api.call(|realtime, cx| realtime.heartbeat(cx, key(0))).0;
    assert!(heartbeat(&mut api).is_none());
    assert_eq!(api.replay().len(), 1);
    assert!(heartbeat(&mut api).is_some());
}

#[test]
fn mark_is_repeated_for_ten_minutes() {
    let mut api = ready();
    api.stream(0, QUERY, "").unwrap();
    api.replay();
    for (mono, is_sent) in [(0, true), (MARK_REPEATS, true), (MARK_REPEATS + 1, false)] {
        api.now = Now { mono, unix: 0 };
        let (frame, _) = api.call(|realtime, cx| realtime.heartbeat(cx, key(0)));
        assert_eq!(frame.is_some(), is_sent, "{mono}");
    }
}
