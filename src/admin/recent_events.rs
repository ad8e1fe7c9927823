//! The recent events, for display: the kind of event and the number of matches, without the content
//! of annotations.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::model::{Candidates, EventKind, Field, Plan, UnixMillis};

/// The last [`CAPACITY`] events.
#[derive(Debug, Default)]
pub(super) struct RecentEvents {
    events: VecDeque<EventRecord>,
    /// The number of events so far. Events are numbered from 1.
    last: u64,
}

#[derive(Debug)]
struct EventRecord {
    number: u64,
    time: UnixMillis,
    kind: EventKind,
    id: Option<Box<str>>,
    group: Option<Box<str>>,
    matched: usize,
}

impl RecentEvents {
    /// Records events, with the number of connections that each matched.
    pub(super) fn record(&mut self, time: UnixMillis, plans: &[Plan], matched: &[usize]) {
        for (plan, &matched) in plans.iter().zip(matched) {
            if self.events.len() == CAPACITY {
                self.events.pop_front();
            }
            self.last += 1;
            self.events.push_back(EventRecord {
                number: self.last,
                time,
                kind: plan.kind,
                id: term_value(&plan.candidates, Field::Id),
                group: term_value(&plan.candidates, Field::Group),
                matched,
            });
        }
    }

    /// Returns the events after `number` as JSON. If `number` has not been reached yet, it belongs
    /// to another server, and all events are returned.
    pub(super) fn after(&self, number: u64) -> Value {
        let number = if number > self.last { 0 } else { number };
        let events = self.events.iter().filter(|event| event.number > number);
        let events: Vec<Value> = events
            .map(|event| {
                json!({
                    "number": event.number,
                    "time": event.time,
                    "action": event.kind.as_str(),
                    "id": event.id,
                    "group": event.group,
                    "matched": event.matched,
                })
            })
            .collect();
        json!({"last": self.last, "events": events})
    }
}

/// Returns a field of the annotation that an event is about. It is a publisher's text, and may be
/// long.
fn term_value(candidates: &Candidates, field: Field) -> Option<Box<str>> {
    let Candidates::Terms(terms) = candidates else {
        return None;
    };
    let term = terms.iter().find(|term| term.field == field)?;
    Some(match term.value.char_indices().nth(MAX_ID_CHARS) {
        Some((end, _)) => format!("{}…", &term.value[..end]).into(),
        None => term.value.clone(),
    })
}

/// The number of events to keep.
const CAPACITY: usize = 200;
/// The number of characters of an ID to keep.
const MAX_ID_CHARS: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cause, Stamp, Subject, Term};

    fn plan(kind: EventKind, terms: &[(Field, &str)]) -> Plan {
        let term = |&(field, value): &(Field, &str)| Term {
            field,
            value: value.into(),
        };
        Plan {
            kind,
            subject: Subject::Annotation("a".into()),
            stamp: Stamp::default(),
            cause: Cause::Event,
            candidates: Candidates::Terms(terms.iter().map(term).collect()),
            exclude_client: None,
            rules: Vec::new(),
            variants: vec!["a secret".into()],
        }
    }

    #[test]
    fn new_events_are_returned_without_content() {
        let mut recent = RecentEvents::default();
        assert_eq!(recent.after(0), json!({"last": 0, "events": []}));
        let long = "é".repeat(70);
        let terms = [
            (Field::Uri, "http"),
            (Field::Id, "A"),
            (Field::Group, &long),
        ];
        let created = plan(EventKind::Create, &terms);
        let user = Plan {
            candidates: Candidates::User("acct:joe@example.org".into()),
            ..plan(EventKind::SessionChange, &[])
        };
        recent.record(7, &[created, user], &[3, 0]);
        let cut = format!("{}…", "é".repeat(64));
        let first = json!({"number": 1, "time": 7, "action": "create", "id": "A", "group": cut,
            "matched": 3});
        let second = json!({"number": 2, "time": 7, "action": "session-change", "id": null,
            "group": null, "matched": 0});
        assert_eq!(
            recent.after(0),
            json!({"last": 2, "events": [first, second]})
        );
        assert_eq!(recent.after(1), json!({"last": 2, "events": [second]}));
        assert_eq!(recent.after(2), json!({"last": 2, "events": []}));
        assert_eq!(recent.after(9), recent.after(0), "those of a server before");
    }

    #[test]
    fn only_recent_events_are_kept() {
        let mut recent = RecentEvents::default();
        for _ in 0..CAPACITY + 5 {
            recent.record(0, &[plan(EventKind::Delete, &[])], &[0]);
        }
        let events = recent.after(0);
        assert_eq!(events["events"].as_array().unwrap().len(), CAPACITY);
        assert_eq!(events["events"][0]["number"], 6);
    }
}
