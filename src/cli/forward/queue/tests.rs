//! Directed tests of the queue. Random histories are in `simulation`.

mod simulation;

use std::time::{Duration, Instant};

use super::*;
use crate::cli::forward::event::Action;

const SECOND: Duration = Duration::from_secs(1);

fn limits() -> QueueLimits {
    QueueLimits {
        batch: 1,
        batch_wait: Duration::ZERO,
        parallel: 4,
        retry_delay: 5 * SECOND,
        give_up_after: Duration::from_secs(3600),
        pending: 100,
        pending_bytes: 10_000,
        window: 1000,
    }
}

fn event(id: &str, cursor: &str) -> ForwardEvent {
    ForwardEvent {
        id: id.to_owned(),
        cursor: cursor.to_owned(),
        version: cursor.to_owned(),
        action: Action::Update,
        line: format!("{id}{cursor}"),
        received: 0,
    }
}

/// A queue with a clock.
struct Tested {
    queue: Queue,
    start: Instant,
    seconds: u64,
}

impl Tested {
    fn new(limits: QueueLimits) -> Self {
        Tested::with(limits, Changes::default())
    }

    fn with(limits: QueueLimits, stored: Changes) -> Self {
        let start = Instant::now();
        let mut queue = Queue::new(limits, stored, start);
        queue.on_mark("c0");
        Tested {
            queue,
            start,
            seconds: 0,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_secs(self.seconds)
    }

    fn receive(&mut self, id: &str, cursor: &str) -> Arrival {
        let now = self.now();
        self.queue.on_event(event(id, cursor), now)
    }

    /// Starts a request. Returns its annotation ids and cursors.
    fn request(&mut self) -> Vec<(String, String)> {
        let now = self.now();
        let events = self.queue.next_request(now).into_iter();
        events.map(|event| (event.id, event.cursor)).collect()
    }

    fn requested(&mut self, expected: &[(&str, &str)]) -> Vec<(String, String)> {
        let events = self.request();
        let found: Vec<(&str, &str)> = events.iter().map(|(a, b)| (&**a, &**b)).collect();
        assert_eq!(found, expected);
        events
    }

    fn end(&mut self, events: &[(String, String)], outcome: Outcome) -> Vec<LostEvent> {
        let times = (self.now(), self.seconds * 1000);
        self.queue.on_result(events, outcome, times, 0)
    }

    fn deliver(&mut self, events: &[(String, String)]) {
        assert!(self.end(events, Outcome::Delivered).is_empty());
    }

    fn fail(&mut self, events: &[(String, String)]) -> Vec<LostEvent> {
        self.end(events, failed(FailureScope::Event))
    }

    fn position(&self) -> String {
        self.queue.position().unwrap_or_default()
    }
}

fn failed(scope: FailureScope) -> Outcome {
    Outcome::Failed { scope, after: None }
}

#[test]
fn position_stays_before_the_oldest_unacknowledged_event() {
    let mut tested = Tested::new(limits());
    for (id, cursor) in [("A", "c1"), ("B", "c2"), ("C", "c3")] {
        assert_eq!(tested.receive(id, cursor), Arrival::Queued);
    }
    tested.queue.on_mark("c4");
    let a = tested.requested(&[("A", "c1")]);
    let b = tested.requested(&[("B", "c2")]);
    let c = tested.requested(&[("C", "c3")]);
    assert_eq!(tested.position(), "c0");
    tested.deliver(&b);
    assert_eq!(tested.position(), "c0");
    let changes = tested.queue.take_changes().expect("changes");
    assert_eq!(changes.acknowledged, [("B".to_owned(), "c2".to_owned())]);
    tested.deliver(&a);
    assert_eq!(tested.position(), "c2");
    tested.deliver(&c);
    assert_eq!(tested.position(), "c4");
    let changes = tested.queue.take_changes().expect("changes");
    assert_eq!(changes.position.as_deref(), Some("c4"));
    assert_eq!(changes.acknowledged, [], "the position covers them");
    assert_eq!(tested.queue.take_changes(), None);
}

#[test]
fn one_annotation_has_one_request_at_a_time_with_the_newest_state() {
    let mut tested = Tested::new(limits());
    tested.receive("A", "c1");
    let first = tested.requested(&[("A", "c1")]);
    assert_eq!(tested.receive("A", "c2"), Arrival::Replaced);
    assert_eq!(tested.receive("A", "c3"), Arrival::Replaced);
    tested.requested(&[]);
    assert_eq!(tested.queue.next_due(tested.now()), None);
    tested.deliver(&first);
    assert_eq!(tested.position(), "c2", "before the newest event");
    let newest = tested.requested(&[("A", "c3")]);
    tested.deliver(&newest);
    assert_eq!(tested.position(), "c3");
}

#[test]
fn failed_state_is_not_repeated_after_a_newer_one() {
    let mut tested = Tested::new(limits());
    tested.receive("A", "c1");
    let first = tested.requested(&[("A", "c1")]);
    tested.receive("A", "c2");
    tested.fail(&first);
    tested.requested(&[]);
    tested.seconds += 5;
    let second = tested.requested(&[("A", "c2")]);
    tested.fail(&second);
    tested.requested(&[]);
    tested.receive("A", "c3");
    // An annotation that keeps changing does not flood a receiver that refuses it, and a newer state
    // does not wait longer than the first delay.
    tested.seconds += 3;
    tested.receive("A", "c4");
    tested.requested(&[]);
    tested.seconds += 2;
    tested.requested(&[("A", "c4")]);
}

#[test]
fn failing_event_waits_longer_each_time_and_blocks_no_other() {
    let mut tested = Tested::new(limits());
    tested.receive("A", "c1");
    for delay in [5, 10, 20, 40, 80] {
        let a = tested.requested(&[("A", "c1")]);
        tested.fail(&a);
        tested.receive(&format!("B{delay}"), &format!("c-{delay}"));
        let other = tested.request();
        assert_eq!(other.len(), 1);
        tested.deliver(&other);
        tested.seconds += delay - 1;
        tested.requested(&[]);
        let due = tested.queue.next_due(tested.now());
        assert_eq!(due, Some(tested.now() + SECOND));
        tested.seconds += 1;
    }
    assert_eq!(tested.position(), "c0");
}

#[test]
fn unreachable_receiver_gets_one_request_at_a_time_and_then_all() {
    let mut tested = Tested::new(limits());
    for number in 0..20 {
        tested.receive(&format!("A{number:02}"), &format!("c{number}"));
    }
    let started: Vec<_> = (0..4).map(|_| tested.request()).collect();
    for events in &started {
        assert_eq!(events.len(), 1);
        tested.end(events, failed(FailureScope::Receiver));
    }
    assert!(tested.queue.is_circuit_open());
    tested.requested(&[]);
    tested.seconds += 5;
    let probe = tested.request();
    assert_eq!(probe.len(), 1);
    tested.requested(&[]);
    tested.deliver(&probe);
    assert!(!tested.queue.is_circuit_open());
    // All others are due at once, including those that failed.
    let mut delivered = 1;
    loop {
        let events = tested.request();
        if events.is_empty() {
            break;
        }
        delivered += 1;
        tested.deliver(&events);
    }
    assert_eq!(delivered, 20);
}

#[test]
fn failing_batch_is_halved_until_the_failing_event_is_alone() {
    let mut tested = Tested::new(QueueLimits {
        batch: 8,
        ..limits()
    });
    for number in 0..8 {
        tested.receive(&format!("A{number}"), &format!("c{number}"));
    }
    let mut sizes = Vec::new();
    while tested.queue.pending().0 > 1 {
        let events = tested.request();
        if events.is_empty() {
            tested.seconds += 5;
            continue;
        }
        sizes.push(events.len());
        match events.iter().any(|(id, _)| id == "A5") {
            true => drop(tested.fail(&events)),
            false => tested.deliver(&events),
        }
        assert!(sizes.len() < 20, "{sizes:?}");
    }
    assert_eq!(sizes[..3], [8, 4, 4]);
    assert_eq!(tested.position(), "c4");
}

#[test]
fn incomplete_batch_waits_and_complete_one_does_not() {
    let mut tested = Tested::new(QueueLimits {
        batch: 2,
        batch_wait: 3 * SECOND,
        ..limits()
    });
    tested.receive("A", "c1");
    tested.requested(&[]);
    let due = tested.queue.next_due(tested.now());
    assert_eq!(due, Some(tested.now() + 3 * SECOND));
    tested.seconds += 3;
    tested.requested(&[("A", "c1")]);
    tested.receive("B", "c2");
    tested.receive("C", "c3");
    tested.requested(&[("B", "c2"), ("C", "c3")]);
}

#[test]
fn event_is_given_up_after_its_maximum_age_and_reported() {
    let mut tested = Tested::new(limits());
    tested.receive("A", "c1");
    let mut attempts = 0;
    loop {
        let events = tested.request();
        if events.is_empty() {
            tested.seconds += 5;
            assert!(tested.seconds < 3 * 3600);
            continue;
        }
        attempts += 1;
        let lost = tested.fail(&events);
        if let Some(lost) = lost.first() {
            assert_eq!((&*lost.event.id, lost.attempts), ("A", attempts));
            break;
        }
        assert!(tested.seconds < 3600);
    }
    assert!(tested.seconds >= 3600);
    assert_eq!(tested.position(), "c1");
}

#[test]
fn change_of_the_wall_clock_gives_up_no_event() {
    let mut queue = Queue::new(limits(), Changes::default(), Instant::now());
    let (mut now, years) = (Instant::now(), 1_700_000_000_000);
    queue.on_event(event("A", "c1"), now);
    for wall_clock in [0, years, 0, 2 * years] {
        now += Duration::from_secs(100);
        let events = queue.next_request(now).into_iter();
        let events: Vec<_> = events.map(|event| (event.id, event.version)).collect();
        assert_eq!(events.len(), 1);
        let outcome = Outcome::Failed {
            scope: FailureScope::Event,
            after: None,
        };
        let lost = queue.on_result(&events, outcome, (now, wall_clock), 0);
        assert!(lost.is_empty());
    }
}

#[test]
fn time_of_the_first_failure_survives_a_restart() {
    let mut tested = Tested::new(limits());
    tested.seconds = 100;
    tested.receive("A", "c1");
    let events = tested.requested(&[("A", "c1")]);
    tested.fail(&events);
    let stored = tested.queue.take_changes().expect("changes");
    let failing = [("A".to_owned(), "c1".to_owned(), 100_000)];
    assert_eq!(stored.failing, failing);
    let mut restarted = Tested::with(limits(), stored);
    restarted.seconds = 100 + 3600;
    restarted.receive("A", "c1");
    let events = restarted.requested(&[("A", "c1")]);
    assert!(
        restarted.fail(&events).is_empty(),
        "one more attempt follows"
    );
    restarted.seconds += 5;
    let events = restarted.requested(&[("A", "c1")]);
    assert_eq!(restarted.fail(&events).len(), 1);
}

#[test]
fn pending_events_are_dropped_with_the_connection_and_acknowledged_ones_recognized() {
    let mut tested = Tested::new(limits());
    for (id, cursor) in [("A", "c1"), ("B", "c2"), ("C", "c3")] {
        tested.receive(id, cursor);
    }
    let a = tested.requested(&[("A", "c1")]);
    let b = tested.requested(&[("B", "c2")]);
    tested.deliver(&b);
    tested.queue.disconnected();
    assert_eq!(tested.position(), "c0");
    tested.seconds += 60;
    tested.requested(&[]);
    // The request in progress ends between the connections.
    tested.deliver(&a);
    assert_eq!(tested.receive("A", "c1"), Arrival::Known);
    assert_eq!(tested.receive("B", "c2"), Arrival::Known);
    assert_eq!(tested.position(), "c2");
    // C has become unreadable meanwhile, and its retraction arrives.
    assert_eq!(tested.receive("C", "c9"), Arrival::Queued);
    let retraction = tested.requested(&[("C", "c9")]);
    tested.deliver(&retraction);
    assert_eq!(tested.position(), "c9");
}

// The server does not repeat a deletion that a change of memberships has caused.
#[test]
fn pending_deletions_remain_when_the_connection_ends() {
    let mut tested = Tested::new(limits());
    tested.receive("A", "c1");
    let deletion = ForwardEvent {
        action: Action::Delete,
        ..event("B", "c2")
    };
    tested.queue.on_event(deletion, tested.now());
    tested.receive("C", "c3");
    tested.queue.disconnected();
    assert_eq!(tested.position(), "c0");
    assert_eq!(tested.queue.pending().0, 1);
    assert_eq!(tested.receive("A", "c1"), Arrival::Queued);
    let deletion = tested.requested(&[("B", "c2")]);
    let again = tested.requested(&[("A", "c1")]);
    tested.requested(&[]);
    tested.deliver(&again);
    assert_eq!(tested.position(), "c0");
    tested.deliver(&deletion);
    assert_eq!(tested.position(), "c1");
    // The annotation appears again before its deletion has been sent.
    let deletion = ForwardEvent {
        action: Action::Delete,
        ..event("C", "c4")
    };
    tested.queue.on_event(deletion, tested.now());
    tested.queue.disconnected();
    assert_eq!(tested.receive("C", "c3"), Arrival::Replaced);
    tested.requested(&[("C", "c3")]);
}

// The stream would have the same gap again, as long as a deletion is pending.
#[test]
fn pending_deletions_do_not_hold_the_position_before_a_gap() {
    let mut tested = Tested::new(limits());
    let deletion = ForwardEvent {
        action: Action::Delete,
        ..event("A", "c1")
    };
    tested.queue.on_event(deletion, tested.now());
    tested.queue.restart_at("c9");
    assert_eq!(tested.position(), "c9");
    tested.queue.disconnected();
    assert_eq!(tested.position(), "c9");
    let deletion = tested.requested(&[("A", "c1")]);
    tested.deliver(&deletion);
    assert_eq!(tested.position(), "c9");
}

#[test]
fn annotation_with_a_request_from_an_earlier_connection_waits() {
    let mut tested = Tested::new(limits());
    tested.receive("A", "c1");
    let events = tested.requested(&[("A", "c1")]);
    tested.queue.disconnected();
    assert_eq!(tested.receive("A", "c1"), Arrival::Queued);
    tested.requested(&[]);
    tested.deliver(&events);
    tested.requested(&[]);
    assert_eq!(tested.position(), "c1");
}

#[test]
fn events_beyond_the_limit_are_received_again_later() {
    let mut tested = Tested::new(QueueLimits {
        pending: 4,
        ..limits()
    });
    for number in 1..=4 {
        let arrival = tested.receive(&format!("A{number}"), &format!("c{number}"));
        assert_eq!(arrival, Arrival::Queued);
    }
    assert_eq!(tested.receive("A5", "c5"), Arrival::Overflow);
    // Events of pending annotations are received nevertheless: they may be retractions.
    assert_eq!(tested.receive("A1", "c6"), Arrival::Replaced);
    tested.queue.on_mark("c7");
    for _ in 0..2 {
        assert!(!tested.queue.wants_restart());
        let events = tested.request();
        tested.deliver(&events);
    }
    assert!(tested.queue.wants_restart());
    tested.queue.disconnected();
    assert_eq!(tested.position(), "c3", "A1 has a newer event behind c5");
}

#[test]
fn size_of_pending_events_is_bounded_also_by_replacements() {
    let mut tested = Tested::new(QueueLimits {
        pending_bytes: 10,
        ..limits()
    });
    assert_eq!(tested.receive("A", "c1"), Arrival::Queued);
    assert_eq!(tested.receive("A", "c2-long-long"), Arrival::Overflow);
    assert_eq!(tested.queue.pending().0, 0);
    assert_eq!(tested.position(), "c1", "before the newest event");
}

#[test]
fn requested_delay_applies_to_all_events() {
    let mut tested = Tested::new(limits());
    tested.receive("A", "c1");
    tested.receive("B", "c2");
    let events = tested.requested(&[("A", "c1")]);
    let outcome = Outcome::Failed {
        scope: FailureScope::Receiver,
        after: Some(60 * SECOND),
    };
    tested.end(&events, outcome);
    tested.seconds += 59;
    tested.requested(&[]);
    tested.seconds += 1;
    assert_eq!(tested.request().len(), 1);
}
