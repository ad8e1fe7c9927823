//! Filters and their index, held against reading every filter for every event.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use h_realtime::model::{Candidates, Decision, EventKind, Field, Plan, Rule, Term};
use h_realtime::uri;

use crate::sim::{Heard, Stage};

/// Lines of text:
///
/// - `0 {…}` to `3 {…}`: this client's filter is now that JSON;
/// - `0 -` to `3 -`: this client leaves, and another comes in its place;
/// - `id …`, `group …`, `references …`, `uri …`, `version …`: the next event has this;
/// - `!`: the event is published. One is at the end, too.
pub fn filter(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut play = Play::new();
    for line in text.split('\n').take(MAX_LINES) {
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "0" | "1" | "2" | "3" => {
                let client = usize::from(word.as_bytes()[0] - b'0');
                match rest {
                    "-" => play.replace(client),
                    filter => play.set_filter(client, filter),
                }
            }
            "id" => play.add(Field::Id, rest),
            "group" => play.add(Field::Group, rest),
            "references" => play.add(Field::References, rest),
            "uri" => play.uris.push(rest.to_owned()),
            "version" => play.version = rest.parse().ok(),
            "!" => play.publish(),
            _ => {}
        }
    }
    play.publish();
}

struct Play {
    stage: Stage,
    clients: [Client; 4],
    terms: BTreeSet<(Field, String)>,
    uris: Vec<String>,
    version: Option<u64>,
}

struct Client {
    number: usize,
    wants: BTreeSet<(Field, String)>,
}

impl Play {
    fn new() -> Play {
        let mut stage = Stage::new(MAX_TERMS);
        let clients = [(); 4].map(|()| Client {
            number: stage.open(),
            wants: BTreeSet::new(),
        });
        Play {
            stage,
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
        self.stage
            .send(client.number, 0x88, &1000_u16.to_be_bytes());
        let goodbye = Heard::Close(Some((1000, String::new())));
        assert_eq!(self.stage.hear(client.number), [goodbye]);
        client.number = self.stage.open();
        client.wants.clear();
    }

    fn set_filter(&mut self, client: usize, text: &str) {
        // What one parser of a value cannot hold, and keys that are its own.
        let Ok(filter) = serde_json::from_str::<Value>(text) else {
            return;
        };
        if text.contains("serde_json") {
            return;
        }
        let client = &mut self.clients[client];
        let message = format!(r#"{{"type":"filter","filter":{text},"id":1}}"#);
        self.stage.send(client.number, 0x81, message.as_bytes());
        let heard = self.stage.hear(client.number);
        match wanted(&filter).filter(|terms| terms.len() <= MAX_TERMS) {
            Some(terms) => {
                assert_eq!(heard, [], "{text}");
                client.wants = terms.into_iter().collect();
            }
            // The one before stays in force.
            None => match heard.as_slice() {
                [Heard::Text(reply)] => assert!(reply.contains(r#""ok": false"#), "{text}"),
                other => panic!("{other:?} to {text}"),
            },
        }
    }

    fn publish(&mut self) {
        let mut terms = std::mem::take(&mut self.terms);
        let uris = std::mem::take(&mut self.uris);
        let keys = uri::annotation_keys(uris.iter().map(String::as_str), self.version.take());
        terms.extend(keys.into_iter().map(|key| (Field::Uri, key)));
        self.stage.publish(plan(&terms));
        for client in &self.clients {
            let heard = self.stage.hear(client.number);
            let expected = match client.wants.is_disjoint(&terms) {
                true => vec![],
                false => vec![Heard::Text(EVENT.to_owned())],
            };
            assert_eq!(heard, expected, "{:?} and {terms:?}", client.wants);
        }
    }
}

/// The terms of a filter, repeated ones included; `None` for a filter that is to be refused.
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

/// For everybody whose filter has any of these.
fn plan(terms: &BTreeSet<(Field, String)>) -> Plan {
    let terms = terms.iter().map(|(field, value)| Term {
        field: *field,
        value: value.as_str().into(),
    });
    Plan {
        kind: EventKind::Create,
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
