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
