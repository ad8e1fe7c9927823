//! Random histories of the queue: a server with a history, a receiver that fails, lost connections,
//! and crashes.
//!
//! Checked after every step: no request has a state that was replaced before or, except deletions,
//! received on an earlier connection, one annotation has one request at a time, and its requests are in
//! order. At the end: every annotation's newest state was acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// A generator of pseudo-random numbers (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// The server, the receiver, and the state file.
struct World {
    random: Random,
    limits: QueueLimits,
    queue: Queue,
    start: Instant,
    millis: u64,
    /// The newest position of each annotation.
    newest: BTreeMap<u64, u64>,
    last: u64,
    /// The position up to which the connection has been sent events. `None` without one.
    sent: Option<u64>,
    /// The newest position received for each annotation, on any connection.
    received: BTreeMap<u64, u64>,
    /// The annotations received on this connection.
    received_here: BTreeSet<u64>,
    /// Requests in progress.
    requests: Vec<Vec<(String, String)>>,
    /// The newest acknowledged position of each annotation.
    acknowledged: BTreeMap<u64, u64>,
    stored: Changes,
    is_down: bool,
}

fn cursor(position: u64) -> String {
    format!("c{position}")
}

/// A third of all events are deletions.
fn action(position: u64) -> Action {
    match position % 3 {
        0 => Action::Delete,
        _ => Action::Update,
    }
}

fn number(text: &str) -> u64 {
    text[1..].parse().expect("a number")
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let limits = QueueLimits {
            batch: 1 + random.below(4) as usize,
            batch_wait: Duration::from_millis(random.below(3) * 500),
            parallel: 1 + random.below(3) as usize,
            retry_delay: 5 * SECOND,
            // No event is given up.
            give_up_after: Duration::from_secs(u64::MAX / 1000),
            pending: 2 + random.below(8) as usize,
            pending_bytes: 10_000,
            window: 12 + random.below(20) as usize,
        };
        let (start, stored) = (Instant::now(), Changes::default());
        World {
            random,
            limits,
            queue: Queue::new(limits, Changes::default(), start),
            start,
            millis: 0,
            newest: BTreeMap::new(),
            last: 0,
            sent: None,
            received: BTreeMap::new(),
            received_here: BTreeSet::new(),
            requests: Vec::new(),
            acknowledged: BTreeMap::new(),
            stored,
            is_down: false,
        }
    }

    fn now(&self) -> Instant {
        self.start + Duration::from_millis(self.millis)
    }

    fn connect(&mut self) {
        self.received_here.clear();
        let position = self.queue.position();
        self.sent = Some(position.map_or(0, |position| number(&position)));
    }

    fn disconnect(&mut self) {
        self.sent = None;
        self.queue.disconnected();
    }

    /// Sends the next event, or a mark if there is none.
    fn send_next(&mut self) {
        let Some(sent) = self.sent else { return };
        let next = self.newest.iter().filter(|&(_, &position)| position > sent);
        let next = next.min_by_key(|&(_, &position)| position);
        let now = self.now();
        match next {
            Some((&id, &position)) => {
                self.sent = Some(position);
                self.received.insert(id, position);
                self.received_here.insert(id);
                let event = ForwardEvent {
                    action: action(position),
                    ..event(&format!("A{id}"), &cursor(position))
                };
                self.queue.on_event(event, now);
            }
            None => {
                self.sent = Some(self.last);
                self.queue.on_mark(&cursor(self.last));
            }
        }
    }

    fn publish(&mut self) {
        self.last += 1;
        let id = self.random.below(10);
        self.newest.insert(id, self.last);
    }

    fn request(&mut self) {
        if self.sent.is_none() {
            return;
        }
        let events = self.queue.next_request(self.now());
        if events.is_empty() {
            return;
        }
        assert!(events.len() <= self.limits.batch);
        let mut request = Vec::new();
        for event in events {
            let (id, position) = (number(&event.id), number(&event.cursor));
            // A newer event, such as a retraction, would have replaced it.
            assert_eq!(self.received[&id], position, "a newer state was received");
            // Others may have become unreadable in the meantime.
            let is_current = self.received_here.contains(&id);
            assert!(
                is_current || action(position) == Action::Delete,
                "of this connection"
            );
            let mut others = self.requests.iter().flatten();
            assert!(others.all(|(other, _)| *other != event.id), "one at a time");
            let newest = self.acknowledged.get(&id).copied().unwrap_or_default();
            assert!(position >= newest, "in order");
            request.push((event.id, event.cursor));
        }
        self.requests.push(request);
        assert!(self.requests.len() <= self.limits.parallel);
    }

    fn end_request(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        let at = self.random.below(self.requests.len() as u64) as usize;
        let events = self.requests.remove(at);
        let outcome = match self.random.below(4) {
            _ if self.is_down => failed(FailureScope::Receiver),
            0 => failed(FailureScope::Event),
            _ => Outcome::Delivered,
        };
        if matches!(outcome, Outcome::Delivered) {
            self.record(&events);
        }
        let random = self.random.next();
        let lost = self
            .queue
            .on_result(&events, outcome, (self.now(), self.millis), random);
        assert!(lost.is_empty());
        self.store();
    }

    fn record(&mut self, events: &[(String, String)]) {
        for (id, cursor) in events {
            self.acknowledged.insert(number(id), number(cursor));
        }
    }

    fn store(&mut self) {
        let Some(changes) = self.queue.take_changes() else {
            return;
        };
        if changes.position.is_some() {
            self.stored.position = changes.position;
        }
        self.stored.acknowledged.extend(changes.acknowledged);
        self.stored.failing.extend(changes.failing);
        if self.random.below(4) == 0 {
            self.stored = self.queue.snapshot();
        }
    }

    /// Kills the command. The receiver may have processed the requests in progress.
    fn crash(&mut self) {
        for request in std::mem::take(&mut self.requests) {
            if self.random.below(2) == 0 {
                self.record(&request);
            }
        }
        let stored = Changes {
            position: self.stored.position.clone(),
            acknowledged: self.stored.acknowledged.clone(),
            failing: self.stored.failing.clone(),
        };
        self.queue = Queue::new(self.limits, stored, self.now());
        self.sent = None;
    }

    fn check(&self) {
        let position = self
            .queue
            .position()
            .map_or(0, |position| number(&position));
        for (id, &newest) in &self.newest {
            let acknowledged = self.acknowledged.get(id).copied().unwrap_or_default();
            let is_behind = newest <= position && acknowledged < newest;
            assert!(
                !is_behind,
                "{id}: the position {position} is behind {newest}"
            );
        }
        let (pending, _) = self.queue.pending();
        assert!(pending <= self.limits.pending);
        assert!(self.queue.known() <= self.limits.window + self.limits.pending);
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..20 => self.publish(),
            20..45 => self.send_next(),
            45..65 => self.request(),
            65..85 => self.end_request(),
            85..93 => self.millis += self.random.below(20_000),
            93..95 => self.is_down = !self.is_down,
            95..97 if self.sent.is_some() => self.disconnect(),
            97 => self.crash(),
            98 => self.queue.forget_earlier(),
            _ => {}
        }
        if self.sent.is_none() || self.queue.wants_restart() {
            self.queue.disconnected();
            self.connect();
        }
        self.check();
    }

    fn finish(&mut self) {
        self.is_down = false;
        for _ in 0..2000 {
            self.send_next();
            self.request();
            while !self.requests.is_empty() {
                let events = self.requests.remove(0);
                self.record(&events);
                let times = (self.now(), self.millis);
                self.queue.on_result(&events, Outcome::Delivered, times, 0);
            }
            self.millis += 20_000;
            if self.queue.wants_restart() {
                self.disconnect();
                self.connect();
            }
            self.check();
            if self.acknowledged == self.newest {
                return;
            }
        }
        panic!(
            "not delivered: {:?} of {:?}",
            self.acknowledged, self.newest
        );
    }
}

#[test]
fn random_histories_deliver_every_newest_state_in_order() {
    let variable = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("a number"))
    };
    let from = variable("FROM").unwrap_or(0);
    for seed in from..from + variable("SEEDS").unwrap_or(300) {
        let result = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            world.connect();
            for _ in 0..600 {
                world.step();
            }
            world.finish();
        });
        assert!(result.is_ok(), "seed {seed} failed");
    }
}
