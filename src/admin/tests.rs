//! Tests of the admin interface without a connection.

use super::*;
use crate::http::{Head, parse_head};
use crate::model::{BackendRequest, Busy, MonoMillis};
use crate::net::testing::Recorder;
use crate::net::{Now, Overdue, Sessions};

#[test]
fn response_counts_events_and_receivers() {
    assert_eq!(
        publish::accepted_body(&[2, 0, 3], false),
        r#"{"accepted":3,"matched":5}"#
    );
    assert_eq!(
        publish::accepted_body(&[2, 0], true),
        r#"{"accepted":2,"matched":2,"each":[2, 0]}"#
    );
}

struct AcceptingBackend;

impl BackendHandle for AcceptingBackend {
    fn send(&self, _: BackendRequest) -> Result<(), Busy> {
        Ok(())
    }
}

struct NoSessions;

impl Sessions<()> for NoSessions {
    fn session(&mut self, _: ConnKey) -> Option<&mut ()> {
        None
    }
}

// D4
#[test]
fn overdue_publish_request_is_never_delivered() {
    let host_check = HostCheck::new(None, vec!["a".to_owned()]);
    let keys = AdminKeys {
        publish: Some(Secret("k".to_owned())),
        ..AdminKeys::default()
    };
    let mut admin = Admin::new(host_check, keys, "", Box::new(AcceptingBackend));
    let mut recorder = Recorder::default();
    let mut sessions = NoSessions;
    let now = Now { mono: 7, unix: 0 };
    let mut cx = recorder.cx(now, &mut sessions);
    let head = b"POST /events HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer k\r\n\r\n";
    let state = ServerState {
        metrics: &|_, _, _| String::new(),
        ready: true,
        draining: false,
    };
    let [first, second] = [1, 2].map(|index| ConnKey::new(index, 1));
    for key in [first, second] {
        let verdict = parse_head(head, 1024, |request| {
            let mut request: Request<'_> = *request;
            request.body = Some(b"{}");
            admin.on_request(&mut cx, key, &request, &state)
        });
        assert!(matches!(verdict, Ok(Head::Complete(Verdict::Defer))));
    }
    for _ in 0..2 {
        assert_eq!(admin.on_overdue(first), Overdue::Refuse);
    }
    assert_eq!(admin.counters().cancelled, 1);
    // Both requests are still in progress at the backend.
    assert_eq!(admin.pending_bytes, 4);
    let [first, second] = [first, second].map(|key| RequestId(key.to_u64()));
    assert_eq!(admin.begin_delivery(first), None);
    assert_eq!(admin.begin_delivery(second), Some(MonoMillis(7)));
    assert_eq!(
        admin.on_overdue(ConnKey::from_u64(second.0).unwrap()),
        Overdue::Wait
    );
    admin.on_published(&mut cx, second, Ok(&[1]));
    assert_eq!((admin.pending_bytes, admin.pending.len()), (0, 0));
    assert_eq!(admin.counters().events_accepted, 1);
}

#[test]
fn page_has_one_placeholder_for_the_address() {
    assert_eq!(page::PAGE.matches("{{WS_URL}}").count(), 1);
    assert_eq!(page::escape_attribute(r#"a"b<c&"#), "a&quot;b&lt;c&amp;");
}

// RFC 9110 §11.1
#[test]
fn authorization_scheme_is_case_insensitive() {
    for (field, expected) in [
        ("Bearer k", Some(&b"k"[..])),
        ("bearer k", Some(b"k")),
        ("BEARER   k ", Some(b"k")),
        ("Bearer", None),
        ("Bearerk", None),
        ("Basic k", None),
        ("Be", None),
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\nAuthorization: {field}\r\n\r\n");
        let given = parse_head(head.as_bytes(), 1024, |request| {
            bearer(request).map(<[u8]>::to_vec)
        });
        let Ok(Head::Complete(given)) = given else {
            panic!("no whole head");
        };
        assert_eq!(given.as_deref(), expected, "{field}");
    }
}

#[test]
fn every_file_referenced_by_the_page_is_served() {
    let sources = page::ASSETS
        .iter()
        .map(|(_, _, text)| *text)
        .chain([page::PAGE]);
    let mut named: Vec<&str> = sources
        .flat_map(|text| text.split(['\'', '"']).filter(|name| name.starts_with('/')))
        .filter(|name| name.ends_with(".js") || name.ends_with(".css"))
        .collect();
    named.sort_unstable();
    named.dedup();
    let mut served: Vec<&str> = page::ASSETS.iter().map(|(path, _, _)| *path).collect();
    served.sort_unstable();
    assert_eq!(named, served);
}
