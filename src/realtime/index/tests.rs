//! Compares the index with a naive scan, and checks its memory.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::model::Field;
use crate::realtime::digest::Digester;
use crate::realtime::testing::{Random, key};

fn digest(n: u64) -> Digest {
    Digester::new([1, 2, 3, 4]).term(Field::Id, &n.to_string())
}

fn found(index: &Index, digest: Digest) -> BTreeSet<ConnKey> {
    let mut out = Vec::new();
    index.collect(digest, &mut out);
    let set: BTreeSet<_> = out.iter().copied().collect();
    assert_eq!(set.len(), out.len(), "each connection is found once");
    set
}

#[test]
fn filter_replaces_the_previous_one() {
    let mut index = Index::default();
    index.replace(key(0), &[digest(1), digest(2)]);
    index.replace(key(1), &[digest(2)]);
    assert_eq!(found(&index, digest(2)), [key(0), key(1)].into());
    index.replace(key(0), &[digest(3)]);
    assert_eq!(found(&index, digest(1)), [].into());
    assert_eq!(found(&index, digest(2)), [key(1)].into());
    assert_eq!((index.subscriptions(), index.terms()), (2, 2));
    let next = ConnKey::new(1, 2);
    index.remove(next);
    assert_eq!(index.subscriptions(), 2, "another connection");
    index.remove(key(1));
    index.remove(key(1));
    index.remove(key(7));
    index.replace(key(0), &[]);
    assert_eq!((index.subscriptions(), index.terms()), (0, 0));
}

// OSV-2020-1695, OSV-2020-1694, OSV-2021-414
/// After any sequence of operations, the index finds the same connections as a scan of all filters.
#[test]
fn agrees_with_a_naive_scan() {
    for seed in 1..=20 {
        let digests: Vec<Digest> = (0..40).map(digest).collect();
        let mut random = Random(seed);
        let mut index = Index::default();
        let mut naive: BTreeMap<ConnKey, BTreeSet<u64>> = BTreeMap::new();
        for step in 0..2000 {
            let key = key(random.below(300) as u32);
            // At first most operations add filters, later most remove them.
            let removes = random.below(10) < if step < 1000 { 2 } else { 8 };
            if removes {
                index.remove(key);
                naive.remove(&key);
            } else {
                let terms: BTreeSet<u64> = (0..random.below(6)).map(|_| random.below(40)).collect();
                let filter: Vec<_> = terms.iter().map(|&term| digests[term as usize]).collect();
                index.replace(key, &filter);
                naive.insert(key, terms);
            }
            if random.below(50) == 0 {
                index.shrink(&mut usize::MAX.clone());
            }
            let term = random.below(40);
            let expected: BTreeSet<_> = naive
                .iter()
                .filter(|(_, terms)| terms.contains(&term))
                .map(|(&key, _)| key)
                .collect();
            assert_eq!(
                found(&index, digests[term as usize]),
                expected,
                "seed {seed} step {step}"
            );
        }
        let distinct: BTreeSet<_> = naive.values().flatten().collect();
        let subscriptions: usize = naive.values().map(BTreeSet::len).sum();
        assert_eq!(index.terms(), distinct.len(), "seed {seed}");
        assert_eq!(index.subscriptions(), subscriptions, "seed {seed}");
    }
}

/// The footprint predicts every change, and bounds the allocated memory.
#[test]
fn footprint_is_predictable_and_bounds_allocated_bytes() {
    let digester = Digester::new([1, 2, 3, 4]);
    let digests: Vec<Digest> = (0..200_000_u64)
        .map(|n| digester.term(Field::Id, &n.to_string()))
        .collect();
    let mut random = Random(7);
    let mut index = Index::default();
    let mut peak = 0;
    for step in 0..4000_u64 {
        let key = key(random.below(500) as u32);
        let count = random.below(200);
        let first = random.below(if step % 2 == 0 { 1000 } else { 199_000 });
        let terms: Vec<_> = (first..first + count)
            .map(|n| digests[n as usize])
            .collect();
        let before = index.footprint();
        let filter = Filter::Terms(terms);
        let after = index.footprint_with(key, &filter);
        assert!(index.has_room(key, &filter, after));
        let fits_in_less = index.has_room(key, &filter, after.saturating_sub(1));
        assert_eq!(fits_in_less, after <= before, "step {step}");
        index.set(key, &filter);
        assert_eq!(index.footprint(), after, "step {step}");
        peak = peak.max(after);
        let heads = 500 * size_of::<u32>() * 9 / 8 + 4096;
        let rest = index.bytes().saturating_sub(heads);
        // Partly filled pages and the smallest tables take a few kilobytes.
        assert!(rest < peak / 8 * 9 + 32_768, "{rest} bytes for {peak}");
    }
    assert!(peak > 2_000_000, "{peak}");
}

// M1
#[test]
fn idle_connection_uses_little_memory_and_releases_it() {
    const CONNECTIONS: u32 = 100_000;
    let digester = Digester::new([1, 2, 3, 4]);
    let mut index = Index::default();
    for n in 0..CONNECTIONS {
        let term = digester.term(Field::Uri, &format!("httpx://example.com/{n}"));
        index.replace(key(n), &[term]);
    }
    let each = index.bytes() / CONNECTIONS as usize;
    assert!((50..=75).contains(&each), "{each} bytes a connection");
    for n in (0..CONNECTIONS).filter(|n| n % 64 != 0) {
        index.remove(key(n));
    }
    index.shrink(&mut usize::MAX.clone());
    assert_eq!(index.subscriptions(), CONNECTIONS.div_ceil(64) as usize);
    let heads = CONNECTIONS as usize * size_of::<u32>() * 9 / 8;
    let rest = index.bytes() - heads.min(index.bytes());
    assert!(rest < CONNECTIONS as usize / 64 * 80, "{rest} bytes remain");
    for n in 0..CONNECTIONS {
        index.remove(key(n));
    }
    index.shrink(&mut usize::MAX.clone());
    assert!(index.bytes() < 32_768, "{} bytes remain", index.bytes());
}

#[test]
fn filter_in_a_high_slot_takes_no_memory_for_lower_slots() {
    let digester = Digester::new([1, 2, 3, 4]);
    let mut random = Random(1);
    let mut filter = || random_filter(&mut random, &digester);
    let mut index = Index::default();
    let top = key(1 << 24);
    for _ in 0..100 {
        let filter = filter();
        index.set(top, &filter);
        assert_eq!(
            index.in_slot(1 << 24).is_some(),
            !filter.anchors().is_empty()
        );
        // Lists of pages are proportional to the slot: a byte for 16 slots, and twice that while they
        // grow.
        assert!(index.bytes() < (2 << 20) + 65_536, "{}", index.bytes());
        index.remove(top);
        index.verify().unwrap();
    }
    index.shrink(&mut usize::MAX.clone());
    assert!(index.bytes() < 65_536, "{} bytes remain", index.bytes());
    assert_eq!(index.end(), 0);
}

/// Returns a random filter: terms, or clauses with patterns and excluding clauses.
fn random_filter(random: &mut Random, digester: &Digester) -> Filter {
    let mut clauses = Vec::new();
    for _ in 0..random.below(4) {
        let value = random.below(20);
        clauses.push(match random.below(4) {
            0 => format!(r#"{{"field":"/tags","operator":"not_one_of","value":"{value}"}}"#),
            1 => format!(r#"{{"field":"/wildcard_uri","value":"http://a.com/{value}/*"}}"#),
            _ => format!(r#"{{"field":"/id","value":["{value}","{}"]}}"#, value + 1),
        });
    }
    let policy = ["include_any", "include_all"][random.below(2) as usize];
    let text = format!(
        r#"{{"match_policy":"{policy}","clauses":[{}],"actions":{{}}}}"#,
        clauses.join(",")
    );
    crate::realtime::filter::parse(&text, 200, digester, None, &mut 0).expect("a valid filter")
}

/// The footprint predicts every change of conditional filters, bounds the allocated memory, and all
/// of it is released.
#[test]
fn conditional_filters_are_accounted_and_released() {
    let digester = Digester::new([1, 2, 3, 4]);
    for seed in 1..=10 {
        let mut random = Random(seed);
        let mut index = Index::default();
        let mut filters: BTreeMap<ConnKey, Filter> = BTreeMap::new();
        let mut peak = 0;
        for step in 0..2000 {
            let key = key(random.below(400) as u32);
            if random.below(10) < if step < 1000 { 2 } else { 8 } {
                index.remove(key);
                filters.remove(&key);
            } else {
                let filter = random_filter(&mut random, &digester);
                let after = index.footprint_with(key, &filter);
                assert!(index.has_room(key, &filter, after));
                index.set(key, &filter);
                assert_eq!(index.footprint(), after, "seed {seed} step {step}");
                filters.insert(key, filter);
            }
            if random.below(50) == 0 {
                index.shrink(&mut usize::MAX.clone());
                index.verify().unwrap();
            }
            peak = peak.max(index.footprint());
        }
        let with_terms = filters.iter().filter(|(_, it)| !it.anchors().is_empty());
        let expected: BTreeSet<_> = with_terms.map(|(key, _)| *key).collect();
        let actual: BTreeSet<_> = index.connections().collect();
        assert_eq!(actual, expected, "seed {seed}");
        for (key, filter) in &filters {
            let matcher = match filter {
                Filter::Terms(terms) => {
                    let own: BTreeSet<_> = index.terms_of(*key).into_iter().collect();
                    assert_eq!(own, terms.iter().copied().collect());
                    None
                }
                Filter::Conditional(conditional) => Some(&conditional.matcher),
            };
            assert_eq!(index.conditional_of(*key), matcher, "seed {seed}");
        }
        assert!(peak > 20_000, "{peak}");
        filters.keys().for_each(|key| index.remove(*key));
        index.shrink(&mut usize::MAX.clone());
        assert_eq!((index.footprint(), index.conditional_count()), (0, 0));
        assert_eq!(index.connections().count(), 0);
    }
}
