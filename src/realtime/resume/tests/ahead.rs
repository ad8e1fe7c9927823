//! Cursors of events that another server with the same history has stored.

use super::*;

#[test]
fn cursor_from_another_server_waits_for_its_event() {
    let mut server = Server::new();
    server.create("a");
    for (index, since) in [(0, cursor(2)), (1, cursor(3))] {
        server.api.open(index);
        assert_eq!(server.api.text(index, &page_since(&since)), []);
        assert_eq!(server.replay(), []);
    }
    // Another server has sent "b" to the first client already.
    assert_eq!(server.create("b"), []);
    let replies = server.api.replay();
    assert_eq!(replies.len(), 1);
    assert_eq!(replies[0].0, 0);
    assert!(replies[0].1.contains(r#""recovered": true"#), "{replies:?}");
    assert_eq!(server.create("c"), sent(0, &["create c"]));
    server.replay();
    assert_eq!(
        server.create("d"),
        [(0, "create d".to_owned()), (1, "create d".to_owned())]
    );
}

// D12
#[test]
fn filter_is_not_removed_by_the_invalid_cursor_of_another_one() {
    let in_two_seconds = |server: &mut Server| {
        let mut now = server.api.now;
        now.mono += 2_000;
        format!("{:?}", server.api.tick(now))
    };
    let plain = page_since("now").replace(r#""since":"now","#, "");
    assert!(!plain.contains("since"), "{plain}");
    // The second filter has a position: it takes the place of the first.
    let mut server = Server::new();
    server.api.open(0);
    assert_eq!(server.api.text(0, &page_since(&cursor(99))), []);
    assert_eq!(server.api.text(0, &page_since("now")).len(), 1);
    assert_eq!(server.replay(), []);
    assert_eq!(in_two_seconds(&mut server), "[]");
    assert_eq!(server.create("a"), sent(0, &["create a"]));
    // Otherwise, the client learns that no filter is in force.
    for texts in [
        [page_since(&cursor(99)), plain.clone()],
        [plain, page_since(&cursor(99))],
    ] {
        let mut server = Server::new();
        server.api.open(0);
        for text in texts {
            assert_eq!(server.api.text(0, &text), []);
        }
        let outputs = in_two_seconds(&mut server);
        assert!(outputs.contains("invalid_cursor"), "{outputs}");
        assert!(outputs.contains("Close(0, 1008"), "{outputs}");
    }
}

// D12
#[test]
fn connection_waits_for_one_cursor_at_a_time() {
    let mut server = Server::new();
    server.api.open(0);
    for position in 90..99 {
        assert_eq!(server.api.text(0, &page_since(&cursor(position))), []);
    }
    assert_eq!(server.api.realtime.resumption.ahead.len(), 1);
}

#[test]
fn cursor_of_an_event_that_never_arrives_is_invalid() {
    let mut server = Server::new();
    server.api.open(0);
    server.api.text(0, &page_since(&cursor(99)));
    server.api.open(1);
    let without_id = page_since(&cursor(99)).replace(r#""id":3,"#, "");
    server.api.text(1, &without_id);
    let mut now = server.api.now;
    now.mono += 1_999;
    assert_eq!(server.api.tick(now), []);
    now.mono += 1;
    let outputs = format!("{:?}", server.api.tick(now));
    assert!(outputs.contains("invalid_cursor"), "{outputs}");
    assert!(
        outputs.contains(r#"Close(1, 1008, "invalid cursor")"#),
        "{outputs}"
    );
    assert_eq!(server.create("a"), []);
}

#[test]
fn invalid_cursors_leave_one_mark_for_each_connection() {
    let mut server = Server::new();
    server.api.open(0);
    let mut now = server.api.now;
    for _ in 0..3 {
        server.api.text(0, &page_since(&cursor(99)));
        now.mono += 2_000;
        let outputs = format!("{:?}", server.api.tick(now));
        assert!(outputs.contains("invalid_cursor"), "{outputs}");
    }
    server.since(0, "now");
    assert_eq!(server.api.realtime.resumption.marks().count(), 1);
    assert_eq!(server.api.realtime.resumption.verify(), Ok(()));
}
