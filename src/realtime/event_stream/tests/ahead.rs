//! Positions of events that another server with the same history has stored.

use super::*;

/// A browser repeats a request with the same id after the end of a stream.
#[test]
fn position_of_an_event_that_never_arrives_is_a_gap() {
    let mut api = ready();
    api.deliver(vec![plan(1, public())]);
    let query = format!("{QUERY}&last_event_id={}", cursor(9, 1000));
    assert_eq!(lines(api.stream(0, &query, "").unwrap()), [""; 0]);
    let now = |mono| Now { mono, unix: 1000 };
    assert_eq!(api.tick(now(1_900)), []);
    let reported = lines(api.tick(now(2_100)));
    assert_eq!(position(&reported[0]), 1);
    assert_eq!(reported[1], "event: recovery");
    assert!(
        reported[2].contains(r#""recovered": false"#),
        "{reported:?}"
    );
    // The stream continues with new events.
    assert_eq!(api.replay(), []);
    let sent = lines(api.deliver(vec![plan(2, public())]).1);
    assert_eq!(position(&sent[0]), 2);
    assert_eq!(sent[1], r#"data: {"number":2}"#);
}
