//! Compares the history with a list of all plans, and checks its bounds.

use std::collections::BTreeMap;

use super::past::MAX_PAST;
use super::*;
use crate::model::{Candidates, Condition, Decision, EventKind, Field, Rule, Stamp, Subject, Term};
use crate::realtime::digest::Digester;
use crate::realtime::testing::Random;

const START: HistoryStart = HistoryStart {
    epoch: 7,
    scope: EpochScope::Stored,
    floor: 0,
    floor_time: 1000,
    head: 0,
};

fn digester() -> Digester {
    Digester::new([1, 2, 3, 4])
}

fn plan(position: u64, id: &str, group: &str, reader: &str) -> Rc<Plan> {
    let term = Term {
        field: Field::Group,
        value: group.into(),
    };
    Rc::new(Plan {
        kind: EventKind::Update,
        subject: Subject::Annotation(id.into()),
        stamp: Stamp {
            position,
            time: 1000 + position,
        },
        cause: Cause::Event,
        candidates: Candidates::Terms(vec![term]),
        exclude_client: None,
        rules: vec![Rule {
            when: vec![Condition::User(reader.into())],
            then: Decision::Send(0),
        }],
        variants: vec!["x".repeat(100).into()],
    })
}

fn append(history: &mut History, plan: &Rc<Plan>) {
    let Subject::Annotation(id) = &plan.subject else {
        panic!("an annotation");
    };
    let subject = digester().term(Field::Id, id);
    history.append(plan, subject, &terms(plan), 0);
}

fn terms(plan: &Plan) -> Vec<Digest> {
    let Candidates::Terms(terms) = &plan.candidates else {
        panic!("terms");
    };
    let terms = terms.iter();
    terms
        .map(|term| digester().term(term.field, &term.value))
        .collect()
}

fn group(name: &str) -> Digest {
    digester().term(Field::Group, name)
}

fn history(memory: usize) -> History {
    let mut history = History::new(HistorySettings {
        memory,
        ..HistorySettings::default()
    });
    history.begin(START);
    history.set_ready();
    history
}

fn matches(history: &History, terms: &[Digest], after: u64, limit: usize) -> Vec<u64> {
    let mut out = Vec::new();
    let interest = Interest::new(terms.to_vec(), None, None);
    history.matches(&interest, after, limit, &mut out);
    out
}

/// After any sequence of plans, the postings find the same entries as a scan of the newest plan on
/// each subject and of its earlier states.
#[test]
fn postings_agree_with_a_naive_scan() {
    for seed in 1..=20 {
        let mut random = Random(seed);
        let mut history = history(200_000);
        let mut newest: BTreeMap<u64, (u64, Vec<String>)> = BTreeMap::new();
        for position in 1..600 {
            let id = random.below(60);
            let group_name = format!("g{}", random.below(5));
            let plan = plan(position, &id.to_string(), &group_name, "acct:a@x");
            append(&mut history, &plan);
            // All groups in which the annotation was, as far as they are remembered.
            let groups = &mut newest.entry(id).or_default().1;
            if groups.last() != Some(&group_name) {
                groups.push(group_name);
                let excess = groups.len().saturating_sub(MAX_PAST + 1);
                groups.drain(..excess);
            }
            newest.get_mut(&id).unwrap().0 = position;
            let (after, wanted) = (random.below(600), format!("g{}", random.below(5)));
            let limit = 1 + random.below(80) as usize;
            let mut expected: Vec<u64> = newest
                .values()
                .filter(|(at, groups)| *at > after && groups.contains(&wanted))
                .map(|(at, _)| *at)
                .filter(|at| *at > history.floor())
                .collect();
            expected.sort_unstable();
            expected.truncate(limit);
            let found = matches(&history, &[group(&wanted)], after, limit);
            assert_eq!(found, expected, "seed {seed} position {position}");
        }
        let floor = history.floor();
        assert_eq!(
            history.len(),
            newest.values().filter(|(at, _)| *at > floor).count()
        );
    }
}

// M14, D12
#[test]
fn memory_is_bounded_and_the_floor_rises_with_evictions() {
    let limit = 100_000;
    let mut history = history(limit);
    for position in 1..5000 {
        append(
            &mut history,
            &plan(position, &position.to_string(), "g", "acct:a@x"),
        );
        assert!(history.bytes() <= limit);
        let oldest = history.entries.keys().next().copied().unwrap();
        assert_eq!(history.floor() + 1, oldest);
    }
    assert_eq!(
        matches(&history, &[group("g")], 0, 9999).len(),
        history.len()
    );
    assert!(history.len() > 50, "{}", history.len());
    // A plan that does not fit leaves nothing behind.
    let mut large = (*plan(5000, "large", "g", "acct:a@x")).clone();
    large.variants = vec!["x".repeat(limit).into()];
    append(&mut history, &Rc::new(large));
    assert_eq!(
        (history.len(), history.bytes(), history.floor()),
        (0, 0, 5000)
    );
    assert!(matches(&history, &[group("g")], 0, 9999).is_empty());
}

// D12
#[test]
fn old_entries_are_evicted_by_age() {
    let mut history = history(1 << 20);
    history.limits.window = 50;
    for position in 1..=100 {
        append(
            &mut history,
            &plan(position, &position.to_string(), "g", "acct:a@x"),
        );
    }
    history.on_tick(1110, 0);
    assert_eq!((history.floor(), history.len()), (59, 41));
    assert_eq!(history.look_up_time(1059, 1110), Lookup::Found(59));
    assert_eq!(history.look_up_time(1058, 1110), Lookup::Gap);
}

// D12
#[test]
fn cursor_is_found_until_its_successor_is_evicted() {
    let mut history = history(1 << 20);
    for position in 1..=10 {
        append(
            &mut history,
            &plan(10 * position, &position.to_string(), "g", "acct:a@x"),
        );
    }
    let look_up = |history: &History, position| {
        history.look_up(
            Cursor {
                position,
                ..history.cursor(0)
            },
            0,
        )
    };
    // Nothing has been published before the first position.
    assert_eq!(look_up(&history, 0), Lookup::Found(0));
    assert_eq!(look_up(&history, 55), Lookup::Found(55));
    assert_eq!(look_up(&history, 100), Lookup::Found(100));
    assert_eq!(look_up(&history, 101), Lookup::Future);
    history.evict();
    assert_eq!(look_up(&history, 9), Lookup::Gap);
    assert_eq!(look_up(&history, 10), Lookup::Found(10));
    assert_eq!(
        history.look_up(history.oldest_cursor(), 0),
        Lookup::Found(10)
    );
    let other_epoch = Cursor {
        epoch: 8,
        ..history.cursor(50)
    };
    assert_eq!(history.look_up(other_epoch, 0), Lookup::Gap);
}

// D12
#[test]
fn cursor_of_another_process_is_found_by_its_watermark() {
    let mut history = history(1 << 20);
    history.begin(HistoryStart {
        scope: EpochScope::Process,
        ..START
    });
    for position in 1..=10 {
        append(
            &mut history,
            &plan(position, &position.to_string(), "g", "acct:a@x"),
        );
        if position == 5 {
            history.set_watermark(1002);
        }
    }
    history.set_watermark(1004);
    assert_eq!(history.cursor(10).time, 1004);
    // The time of a plan is that at which it became known here. Another process may know of the change
    // at any time after the watermark that was in force.
    assert_eq!(history.cursor(5).time, 1002);
    assert_eq!(history.cursor(4).time, 1000);
    let other = |time| Cursor {
        epoch: 9,
        position: 77,
        time,
    };
    assert_eq!(history.look_up(other(1004), 1010), Lookup::Found(4));
    assert_eq!(history.look_up(other(1010), 1010), Lookup::Found(10));
    assert_eq!(history.look_up(other(1000), 1010), Lookup::Found(0));
    assert_eq!(history.look_up(other(999), 1010), Lookup::Gap);
    assert_eq!(history.look_up(other(1_000_000), 1010), Lookup::Future);
}

#[test]
fn event_after_a_time_is_found_if_its_rights_have_changed() {
    let mut history = history(1 << 20);
    append(&mut history, &plan(1, "one", "g", "acct:a@x"));
    append(&mut history, &plan(2, "two", "g", "acct:a@x"));
    append(&mut history, &plan(3, "three", "g", "acct:a@x"));
    let mut changed = (*plan(4, "two", "g", "acct:b@x")).clone();
    changed.cause = Cause::RightsChange;
    append(&mut history, &Rc::new(changed));
    assert_eq!(history.at(4).unwrap().event_position, 2);
    assert_eq!(history.look_up_time(1001, 2000), Lookup::Found(1));
}

#[test]
fn cursor_before_a_restored_event_has_the_time_before_its_change() {
    let mut history = history(1 << 20);
    history.begin(HistoryStart {
        scope: EpochScope::Process,
        ..START
    });
    for position in 1..=3 {
        let plan = plan(10 * position, &position.to_string(), "g", "acct:a@x");
        let subject = digester().term(Field::Id, &position.to_string());
        history.restore(&plan, subject, terms(&plan), 10 * position, Vec::new());
    }
    history.set_watermark(1025);
    history.set_ready();
    assert_eq!(history.cursor(10).time, 1019);
    // Another process may know of earlier changes than the last one.
    assert_eq!(history.cursor(20).time, 1025);
    assert_eq!(history.cursor(30).time, 1025);
}

// D12
#[test]
fn times_increase_even_if_the_clock_is_set_back() {
    let mut history = history(1 << 20);
    for (position, time) in [(1, 5000), (2, 2000), (3, 6000)] {
        let mut plan = (*plan(position, &position.to_string(), "g", "acct:a@x")).clone();
        plan.stamp.time = time;
        append(&mut history, &Rc::new(plan));
    }
    // The event of position 2 is after the time 3000 in the order of events.
    assert_eq!(history.look_up_time(3000, 6000), Lookup::Found(0));
    assert_eq!(history.look_up_time(5000, 6000), Lookup::Found(2));
}

// D13
#[test]
fn past_states_are_kept_while_receivers_differ() {
    let mut history = history(1 << 20);
    let readers = ["a", "a", "b", "b", "c", "d", "e", "f", "f"];
    for (position, reader) in (1..).zip(readers) {
        append(&mut history, &plan(position, "one", "g", reader));
    }
    let entry = history.at(9).unwrap();
    assert_eq!((history.len(), entry.event_position), (1, 9));
    let until: Vec<u64> = entry.past.iter().map(|past| past.until).collect();
    assert_eq!(until, [5, 6, 7, 8], "the oldest is forgotten");
    assert_eq!(entry.past_since(5).count(), 3);
    let mut changed = (*plan(10, "one", "g", "g")).clone();
    changed.cause = Cause::RightsChange;
    append(&mut history, &Rc::new(changed));
    let entry = history.at(10).unwrap();
    assert_eq!(entry.event_position, 9);
    // Until 6, 7, 8, and 10.
    assert!(entry.has_forgotten(4) && !entry.has_forgotten(5));
    let between = |from, to| entry.states_between(from, to).count();
    assert_eq!((between(4, 4), between(5, 5), between(9, 9)), (0, 1, 1));
    assert_eq!((between(5, 7), between(10, 10), between(0, 99)), (3, 1, 5));
}

#[test]
fn plan_without_a_new_position_is_not_kept() {
    let mut history = history(1 << 20);
    append(&mut history, &plan(5, "one", "g", "a"));
    for position in [0, 4, 5] {
        append(&mut history, &plan(position, "two", "g", "a"));
    }
    assert_eq!((history.len(), history.head()), (1, 5));
    let mut unstarted = History::new(HistorySettings::default());
    append(&mut unstarted, &plan(5, "one", "g", "a"));
    assert_eq!((unstarted.len(), unstarted.head()), (0, 0));
}

#[test]
fn disabled_history_reports_a_gap_and_keeps_nothing() {
    let mut history = history(0);
    append(&mut history, &plan(5, "one", "g", "a"));
    assert_eq!((history.len(), history.head(), history.floor()), (0, 5, 5));
    let before = Cursor {
        position: 4,
        ..history.cursor(5)
    };
    assert_eq!(history.look_up(before, 0), Lookup::Gap);
    assert_eq!(history.look_up(history.cursor(5), 0), Lookup::Found(5));
}

// D12
#[test]
fn time_ahead_of_the_clock_is_accepted_within_the_tolerance() {
    let mut history = history(1 << 20);
    append(&mut history, &plan(9, "one", "g", "a"));
    let newest = 1009 + CLOCK_TOLERANCE;
    // The newest entry may be ahead of this machine's clock, too.
    assert_eq!(history.look_up_time(newest, 0), Lookup::Found(9));
    assert_eq!(history.look_up_time(newest + 1, 0), Lookup::Future);
    assert_eq!(history.look_up_time(newest + 1, 1010), Lookup::Found(9));
    history.set_watermark(2000);
    assert_eq!(history.look_up_time(newest + 991, 0), Lookup::Found(9));
    assert_eq!(history.look_up_time(newest + 992, 0), Lookup::Future);
}

#[test]
fn cursor_of_a_newer_event_of_the_same_epoch_may_become_known() {
    let mut history = history(1 << 20);
    append(&mut history, &plan(9, "one", "g", "a"));
    let newer = Cursor {
        epoch: START.epoch,
        position: 10,
        time: 1009 + CLOCK_TOLERANCE,
    };
    assert!(history.may_become_known(newer, 0));
    for (position, time, epoch) in [(9, 0, 0), (10, 1, 0), (10, 0, 1)] {
        let cursor = Cursor {
            epoch: newer.epoch + epoch,
            position,
            time: newer.time + time,
        };
        assert!(!history.may_become_known(cursor, 0), "{cursor:?}");
    }
    // Only this process knows the positions of its epoch.
    history.begin(HistoryStart {
        scope: EpochScope::Process,
        ..START
    });
    assert!(!history.may_become_known(newer, newer.time));
}

#[test]
fn newest_entries_come_first() {
    let mut history = history(1 << 20);
    assert_eq!(history.oldest_time(), None);
    for (position, id) in [(3, "one"), (5, "two"), (8, "one")] {
        append(&mut history, &plan(position, id, "g", "a"));
    }
    let newest: Vec<_> = history.newest().map(|(at, time, _)| (at, time)).collect();
    assert_eq!(newest, [(8, 1008), (5, 1005)]);
    assert_eq!(history.oldest_time(), Some(1005));
    assert!(history.bytes() > 0);
    let subject = digester().term(Field::Id, "one");
    let of_subject = history.of_subject(subject).unwrap();
    assert_eq!(of_subject.plan.stamp.position, 8);
}

#[test]
fn plans_are_restored_only_while_the_history_is_filled() {
    let mut history = history(1 << 20);
    let restore = |history: &mut History, position| {
        let plan = plan(position, &position.to_string(), "g", "a");
        let subject = digester().term(Field::Id, &position.to_string());
        history.restore(&plan, subject, terms(&plan), position, Vec::new());
    };
    restore(&mut history, 6);
    assert_eq!(history.len(), 0, "it is ready");
    history.begin(HistoryStart {
        floor: 5,
        head: 9,
        ..START
    });
    restore(&mut history, 5);
    assert_eq!(history.len(), 0, "it is not after the floor");
    restore(&mut history, 6);
    restore(&mut history, 7);
    assert_eq!((history.len(), history.head(), history.floor()), (2, 9, 5));
    history.set_limits(HistorySettings {
        memory: 0,
        ..HistorySettings::default()
    });
    restore(&mut history, 8);
    assert_eq!(history.len(), 2, "it is disabled");
    assert_eq!(history.start_cursor().position, 9);
}

// D12
#[test]
fn nothing_is_known_of_the_time_before_an_earlier_history_was_lost() {
    let mut history = history(1 << 20);
    // A process that has just started has sent nothing before.
    assert_eq!(history.cursor_at(0), history.cursor(0));
    let time = |position| 10_000 * position;
    let append_at = |history: &mut History, position| {
        let plan = plan(position, "one", "g", "a");
        let subject = digester().term(Field::Id, "one");
        history.append(&plan, subject, &terms(&plan), time(position));
    };
    append_at(&mut history, 1);
    append_at(&mut history, 2);
    assert_eq!(history.cursor_at(time(2) - 1).position, 0);
    assert_eq!(history.cursor_at(time(2)).position, 1);
    history.begin(START);
    history.set_ready();
    let lost = history.cursor_at(time(2));
    assert_eq!(history.look_up(lost, 2000), Lookup::Gap);
    append_at(&mut history, 3);
    assert_eq!(history.cursor_at(time(3)).position, 0);
    assert_eq!(history.cursor_at(time(3) - 1), lost);
}

#[test]
fn entry_is_found_by_its_subject_and_the_search_is_counted() {
    let mut history = history(1 << 20);
    for (position, id) in [(3, "one"), (5, "two"), (8, "one")] {
        append(&mut history, &plan(position, id, "g", "a"));
    }
    let subject = digester().term(Field::Id, "one");
    assert_eq!(matches(&history, &[subject], 7, 9), [8]);
    assert!(matches(&history, &[subject], 8, 9).is_empty());
    let interest = Interest::new(vec![subject, group("g")], None, None);
    let found = history.matches(&interest, 0, 9, &mut Vec::new());
    // Two terms, and three positions, one of which both terms have.
    assert_eq!((found.examined, found.until), (5, None));
}

#[test]
fn memory_limit_is_inclusive_and_the_oldest_cursor_has_the_time_of_the_floor() {
    let mut history = history(1 << 20);
    history.begin(HistoryStart {
        scope: EpochScope::Process,
        ..START
    });
    for position in 1..=3 {
        append(
            &mut history,
            &plan(position, &position.to_string(), "g", "a"),
        );
    }
    for (memory, left) in [(history.bytes(), 3), (history.bytes() - 1, 2)] {
        history.set_limits(HistorySettings {
            memory,
            ..HistorySettings::default()
        });
        history.on_tick(1000, 0);
        assert_eq!(history.len(), left);
    }
    let oldest = history.oldest_cursor();
    assert_eq!((oldest.position, oldest.time), (1, 1001));
}
