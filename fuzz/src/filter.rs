//! Filters and their index, compared with evaluating every filter for every event.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use h_realtime::model::{
    Candidates, Cause, Decision, EventKind, Field, Plan, Rule, Stamp, Subject, Term,
};
use h_realtime::uri;

use crate::sim::{ApiHarness, ClientEvent};

/// Input: lines of text.
///
/// - `0 {…}` to `3 {…}`: sets this client's filter to that JSON;
/// - `0 -` to `3 -`: disconnects this client and connects another in its place;
/// - `id …`, `group …`, `references …`, `uri …`, `version …`: adds a term to the next event;
/// - `!`: publishes the event, which also happens at the end.
pub fn filter(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut run = Run::new();
    for line in text.split('\n').take(MAX_LINES) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "0" | "1" | "2" | "3" => {
                let client = usize::from(word.as_bytes()[0] - b'0');
                match rest {
                    "-" => run.replace(client),
                    filter => run.set_filter(client, filter),
                }
            }
            "id" => run.add(Field::Id, rest),
            "group" => run.add(Field::Group, rest),
            "references" => run.add(Field::References, rest),
            "uri" => run.uris.push(rest.to_owned()),
            "version" => run.version = rest.parse().ok(),
            "!" => run.publish(),
            _ => {}
        }
    }
    run.publish();
}

struct Run {
    harness: ApiHarness,
    clients: [Client; 4],
    terms: BTreeSet<(Field, String)>,
    uris: Vec<String>,
    version: Option<u64>,
}

struct Client {
    number: usize,
    wants: BTreeSet<(Field, String)>,
}

impl Run {
    fn new() -> Run {
        let mut harness = ApiHarness::new(MAX_TERMS);
        let clients = [(); 4].map(|()| Client {
            number: harness.open(),
            wants: BTreeSet::new(),
        });
        Run {
            harness,
            clients,
            terms: BTreeSet::new(),
            uris: Vec::new(),
            version: None,
        }
    }

    fn add(&mut self, field: Field, value: &str) {
        self.terms.insert((field, value.to_owned()));
    }

    fn replace(&mut self, client: usize) {
        let client = &mut self.clients[client];
        self.harness
            .send(client.number, 0x88, &1000_u16.to_be_bytes());
        let goodbye = ClientEvent::Close(Some((1000, String::new())));
        assert_eq!(self.harness.receive_events(client.number), [goodbye]);
        client.number = self.harness.open();
        client.wants.clear();
    }

    fn set_filter(&mut self, client: usize, text: &str) {
        // JSON that exceeds the value type's range, and its reserved keys.
        let Ok(filter) = serde_json::from_str::<Value>(text) else {
            return;
        };
        if text.contains("serde_json") {
            return;
        }
        let client = &mut self.clients[client];
        let message = format!(r#"{{"type":"filter","filter":{text},"id":1}}"#);
        self.harness.send(client.number, 0x81, message.as_bytes());
        let events = self.harness.receive_events(client.number);
        match wanted(&filter).filter(|terms| terms.len() <= MAX_TERMS) {
            Some(terms) => {
                assert_eq!(events, [], "{text}");
                client.wants = terms.into_iter().collect();
            }
            // The previous filter stays in force.
            None => match events.as_slice() {
                [ClientEvent::Text(reply)] => assert!(reply.contains(r#""ok": false"#), "{text}"),
                other => panic!("{other:?} to {text}"),
            },
        }
    }

    fn publish(&mut self) {
        let mut terms = std::mem::take(&mut self.terms);
        let uris = std::mem::take(&mut self.uris);
        let keys = uri::annotation_keys(uris.iter().map(String::as_str), self.version.take());
        terms.extend(keys.into_iter().map(|key| (Field::Uri, key)));
        self.harness.publish(plan(&terms));
        for client in &self.clients {
            let events = self.harness.receive_events(client.number);
            let expected = match client.wants.is_disjoint(&terms) {
                true => vec![],
                false => vec![ClientEvent::Text(EVENT.to_owned())],
            };
            assert_eq!(events, expected, "{:?} and {terms:?}", client.wants);
        }
    }
}

/// Returns the terms of a filter including duplicates; `None` for a filter that must be rejected.
fn wanted(filter: &Value) -> Option<Vec<(Field, String)>> {
    let filter = filter.as_object()?;
    if filter.get("match_policy")? != &json!("include_any") || !filter.contains_key("actions") {
        return None;
    }
    let mut wanted = Vec::new();
    let clauses = filter.get("clauses")?.as_array()?;
    if clauses.len() > MAX_CLAUSES {
        return None;
    }
    for clause in clauses {
        let clause = clause.as_object()?;
        let field = match clause.get("field")?.as_str()? {
            "/id" => Field::Id,
            "/group" => Field::Group,
            "/references" => Field::References,
            "/uri" => Field::Uri,
            _ => continue,
        };
        let values = match clause.get("value")? {
            Value::Array(values) => values.clone(),
            value => vec![value.clone()],
        };
        for value in values {
            let value = value.as_str()?;
            match field {
                Field::Uri => {
                    let keys = uri::filter_keys(value, MAX_TERMS).ok()?;
                    wanted.extend(keys.iter().map(|key| (field, key)));
                }
                _ => wanted.push((field, value.to_owned())),
            }
        }
    }
    Some(wanted)
}

/// Returns a plan for all connections with a filter on any of these terms.
fn plan(terms: &BTreeSet<(Field, String)>) -> Plan {
    let terms = terms.iter().map(|(field, value)| Term {
        field: *field,
        value: value.as_str().into(),
    });
    Plan {
        kind: EventKind::Create,
        subject: Subject::Annotation("a".into()),
        stamp: Stamp::default(),
        cause: Cause::Event,
        candidates: Candidates::Terms(terms.collect()),
        exclude_client: None,
        rules: vec![Rule {
            when: Vec::new(),
            then: Decision::Send(0),
        }],
        variants: vec![EVENT.into()],
    }
}

const EVENT: &str = "{}";
const MAX_LINES: usize = 64;
const MAX_TERMS: usize = 12;
const MAX_CLAUSES: usize = 256;
