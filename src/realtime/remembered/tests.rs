//! Tests of the map against a naive model, and of its memory.

use std::collections::BTreeSet;

use super::*;
use crate::realtime::testing::Random;

fn client(number: u64) -> Digest {
    Digest::from_words([
        number.wrapping_mul(0x9e37_79b9_7f4a_7c15),
        number.rotate_left(17),
    ])
}

fn at(position: u64) -> Cursor {
    Cursor {
        epoch: 7,
        position,
        time: position * 1000,
    }
}

/// The map as a list, the oldest client first.
#[derive(Default)]
struct Model(Vec<(Digest, Cursor)>);

impl Model {
    fn insert(&mut self, client: Digest, received: Cursor, limit: usize) {
        self.take(client);
        self.0.push((client, received));
        self.truncate(limit);
    }

    fn take(&mut self, client: Digest) -> Option<Cursor> {
        let at = self.0.iter().position(|(other, _)| *other == client)?;
        Some(self.0.remove(at).1)
    }

    fn truncate(&mut self, limit: usize) {
        let excess = self.0.len().saturating_sub(limit);
        self.0.drain(..excess);
    }
}

fn assert_equal(map: &Remembered, model: &Model) {
    assert_eq!(map.iter().collect::<Vec<_>>(), model.0);
    assert_eq!(map.len(), model.0.len());
    assert_eq!(map.is_empty(), model.0.is_empty());
    for (client, received) in &model.0 {
        assert_eq!(map.get(*client), Some(*received));
    }
    let mut back = Vec::new();
    let mut at = map.newest;
    while let Some(entry) = map.entries.get(at as usize) {
        back.push((entry.client, entry.received));
        at = entry.older;
    }
    back.reverse();
    assert_eq!(back, model.0);
}

#[test]
fn random_operations_agree_with_model() {
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) % below
    };
    for limit in [0, 1, 2, 7, 300, 1000] {
        let (mut map, mut model) = (Remembered::new(limit), Model::default());
        let mut limit = limit;
        for step in 0..3000 {
            let client = client(random(600));
            match random(400) {
                0 => {
                    limit = random(700) as usize;
                    map.set_limit(limit);
                    let before = map.len();
                    while map.evict(50) {}
                    assert_eq!(map.len(), before.min(limit));
                    model.truncate(limit);
                }
                1..150 => assert_eq!(map.take(client), model.take(client)),
                _ => {
                    map.insert(client, at(step));
                    model.insert(client, at(step), limit);
                }
            }
            if step % 16 == 0 {
                assert_equal(&map, &model);
            }
        }
        assert_equal(&map, &model);
    }
}

#[test]
fn lowered_limit_evicts_the_oldest_clients_in_steps() {
    let (mut map, mut model) = (Remembered::new(1000), Model::default());
    for number in 0..1000 {
        map.insert(client(number), at(number));
        model.insert(client(number), at(number), 1000);
    }
    map.set_limit(100);
    assert_eq!(map.len(), 1000);
    let mut steps = 0;
    while map.evict(7) {
        steps += 1;
        assert_eq!(map.len(), 1000 - 7 * steps);
        // A client that returns meanwhile is the newest.
        map.insert(client(5), at(2000));
    }
    assert_eq!((map.len(), steps), (100, 128));
    model.take(client(5));
    model.truncate(99);
    model.insert(client(5), at(2000), 100);
    assert_equal(&map, &model);
}

#[test]
fn walk_visits_every_client_that_stays() {
    let mut random = Random(5);
    for round in 0..200 {
        let mut map = Remembered::new(100);
        (0..50).for_each(|number| map.insert(client(number), at(0)));
        let mut stays: BTreeSet<Digest> = map.iter().map(|(client, _)| client).collect();
        map.start_walk();
        let mut visited = BTreeSet::new();
        while let Some((visitor, _)) = map.walk() {
            visited.insert(visitor);
            // Clients are removed, inserted, and become the newest one meanwhile.
            for _ in 0..random.below(4) {
                let client = client(random.below(150));
                match random.below(2) {
                    0 => {
                        stays.remove(&client);
                        map.take(client);
                    }
                    _ => map.insert(client, at(1)),
                }
            }
            stays.retain(|client| map.get(*client).is_some());
        }
        let missed: Vec<_> = stays.difference(&visited).collect();
        assert!(missed.is_empty(), "round {round}: {missed:?}");
    }
}

// M15
#[test]
fn oldest_insertion_is_evicted_first() {
    let mut map = Remembered::new(2);
    map.insert(client(1), at(1));
    map.insert(client(2), at(2));
    map.insert(client(1), at(3));
    map.insert(client(3), at(4));
    assert_eq!(map.get(client(2)), None);
    assert_eq!(
        map.iter().collect::<Vec<_>>(),
        [(client(1), at(3)), (client(3), at(4))]
    );
}

// M15
#[test]
fn client_takes_at_most_64_bytes() {
    let mut map = Remembered::new(65_536);
    for count in 1..=65_536_u64 {
        map.insert(client(count), at(count));
        // A page and the smallest hash table are allocated at once.
        if count >= 4096 {
            let bytes = map.bytes();
            assert!(bytes <= 64 * count as usize, "{bytes} for {count}");
        }
    }
    let full = map.bytes();
    for count in 65_537..200_000_u64 {
        map.insert(client(count), at(count));
    }
    assert_eq!((map.len(), map.bytes()), (65_536, full));
    // Clients that return free their memory.
    for count in 1..200_000_u64 {
        map.take(client(count));
    }
    assert!(map.is_empty());
    assert!(map.bytes() < 64 * 1024, "{}", map.bytes());
}

#[test]
fn later_position_is_by_time_only_across_epochs() {
    let received = |epoch, position, time| Cursor {
        epoch,
        position,
        time,
    };
    for (earlier, later) in [
        (received(1, 5, 9), received(1, 6, 8)),
        (received(1, 5, 8), received(1, 5, 9)),
        (received(1, 6, 8), received(2, 5, 9)),
    ] {
        assert!(later.is_later_than(&earlier) && !earlier.is_later_than(&later));
        assert_eq!(earlier.or_later(later), later);
        assert_eq!(later.or_later(earlier), later);
        assert!(!later.is_later_than(&later));
    }
}
