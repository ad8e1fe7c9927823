//! Filters and their index, compared with evaluating every filter for every event.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use h_realtime::model::{
    Candidates, Cause, Decision, EventKind, Field, Plan, Rule, Stamp, Subject, Term, folded,
    folded_userid, folded_userids,
};
use h_realtime::uri::{self, Pattern};

use crate::sim::{ApiHarness, ClientEvent};

/// Input: lines of text.
///
/// - `0 {…}` to `3 {…}`: sets this client's filter to that JSON;
/// - `0 -` to `3 -`: disconnects this client and connects another in its place;
/// - `id …`, `group …`, `references …`, `user …`, `tag …`, `uri …`, `version …`: adds a term to the
///   next event;
/// - `update`, `delete`: sets the action of the next event;
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
            "user" => {
                let forms = folded_userids(rest);
                forms.iter().for_each(|form| run.add(Field::User, form));
            }
            "tag" => run.add(Field::Tags, &folded(rest)),
            "uri" => run.uris.push(rest.to_owned()),
            "version" => run.version = rest.parse().ok(),
            "update" => run.kind = EventKind::Update,
            "delete" => run.kind = EventKind::Delete,
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
    kind: EventKind,
    /// The number of events, each of which concerns another annotation.
    events: usize,
}

struct Client {
    number: usize,
    wants: Wanted,
}

/// The meaning of a filter.
#[derive(Debug, Default)]
struct Wanted {
    is_all: bool,
    positive: Vec<Vec<Alternative>>,
    excluding: Vec<Vec<Alternative>>,
    suppressed: Vec<EventKind>,
    /// The number of values, including duplicates.
    values: usize,
}

/// A value of a clause.
#[derive(Debug)]
enum Alternative {
    Term(Field, String),
    /// A normalized pattern.
    Pattern(String),
}

impl Run {
    fn new() -> Run {
        let mut harness = ApiHarness::new(MAX_TERMS);
        let clients = [(); 4].map(|()| Client {
            number: harness.open(),
            wants: Wanted::default(),
        });
        Run {
            harness,
            clients,
            terms: BTreeSet::new(),
            uris: Vec::new(),
            version: None,
            kind: EventKind::Create,
            events: 0,
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
        client.wants = Wanted::default();
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
        match wanted(&filter).filter(|wanted| wanted.values <= MAX_TERMS) {
            Some(wanted) => {
                assert_eq!(events, [], "{text}");
                client.wants = wanted;
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
        let kind = std::mem::replace(&mut self.kind, EventKind::Create);
        self.events += 1;
        let id = self.events.to_string();
        self.harness.publish(plan(kind, &id, &terms));
        for client in &self.clients {
            let events = self.harness.receive_events(client.number);
            let expected = match client.wants.matches(kind, &terms) {
                true => vec![ClientEvent::Text(EVENT.to_owned())],
                false => vec![],
            };
            assert_eq!(events, expected, "{:?} and {terms:?}", client.wants);
        }
    }
}

impl Wanted {
    fn matches(&self, kind: EventKind, terms: &BTreeSet<(Field, String)>) -> bool {
        let any = |clause: &Vec<Alternative>| clause.iter().any(|one| one.matches(terms));
        let is_wanted = match self.is_all {
            true => !self.positive.is_empty() && self.positive.iter().all(any),
            false => self.positive.iter().any(any),
        };
        is_wanted && !self.excluding.iter().any(any) && !self.suppressed.contains(&kind)
    }
}

impl Alternative {
    fn matches(&self, terms: &BTreeSet<(Field, String)>) -> bool {
        match self {
            Alternative::Term(field, value) => terms.contains(&(*field, value.clone())),
            Alternative::Pattern(pattern) => {
                let keys = terms.iter().filter(|(field, _)| *field == Field::Uri);
                let mut pages = keys.filter_map(|(_, key)| key.strip_suffix("__vall"));
                pages.any(|page| is_page_matched(pattern, page))
            }
        }
    }
}

/// Compares an address with a normalized pattern.
fn is_page_matched(pattern: &str, page: &str) -> bool {
    let is_below = pattern.starts_with("httpx://") && !pattern.contains(['?', '#']);
    match pattern.strip_suffix("/*").filter(|_| is_below) {
        Some(base) => {
            let forms = [base.to_owned(), format!("{base}/*"), format!("{base}?*")];
            forms.iter().any(|form| glob(form, page))
        }
        None => glob(pattern, page),
    }
}

/// Compares a text with a pattern by dynamic programming.
fn glob(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    // Whether the pattern so far matches the text up to each position.
    let mut ends = vec![false; text.len() + 1];
    ends[0] = true;
    for c in pattern.chars() {
        let mut next = vec![false; text.len() + 1];
        for at in 0..=text.len() {
            next[at] = match c {
                '*' => ends[at] || (at > 0 && next[at - 1]),
                '_' => at > 0 && ends[at - 1],
                c => at > 0 && ends[at - 1] && text[at - 1] == c,
            };
        }
        ends = next;
    }
    ends[text.len()]
}

/// Returns the meaning of a filter; `None` for a filter that must be rejected.
fn wanted(filter: &Value) -> Option<Wanted> {
    let filter = filter.as_object()?;
    let mut wanted = Wanted {
        is_all: match filter.get("match_policy")?.as_str()? {
            "include_any" => false,
            "include_all" => true,
            _ => return None,
        },
        ..Wanted::default()
    };
    let actions = filter.get("actions")?;
    for (name, kind) in [
        ("create", EventKind::Create),
        ("update", EventKind::Update),
        ("delete", EventKind::Delete),
    ] {
        if actions.get(name) == Some(&json!(false)) {
            wanted.suppressed.push(kind);
        }
    }
    let clauses = filter.get("clauses")?.as_array()?;
    if clauses.len() > MAX_CLAUSES {
        return None;
    }
    for clause in clauses {
        wanted.add_clause(clause)?;
    }
    Some(wanted)
}

impl Wanted {
    fn add_clause(&mut self, clause: &Value) -> Option<()> {
        let clause = clause.as_object()?;
        let field = match clause.get("field")?.as_str()? {
            "/wildcard_uri" => None,
            pointer => match Field::from_pointer(pointer) {
                Some(field) => Some(field),
                None => return Some(()),
            },
        };
        let values = match clause.get("value")? {
            Value::Array(values) => values.clone(),
            value => vec![value.clone()],
        };
        let mut alternatives = Vec::new();
        for value in values {
            let value = value.as_str()?;
            let term = |field, value| Alternative::Term(field, value);
            match field {
                None => {
                    let pattern = Pattern::parse(value).ok()?;
                    alternatives.push(Alternative::Pattern(pattern.to_string()));
                }
                Some(field @ Field::Uri) => {
                    let keys = uri::filter_keys(value, MAX_TERMS).ok()?;
                    alternatives.extend(keys.iter().map(|key| term(field, key)));
                }
                Some(field @ Field::User) => alternatives.push(term(field, folded_userid(value))),
                Some(field @ Field::Tags) => alternatives.push(term(field, folded(value))),
                Some(field) => alternatives.push(term(field, value.to_owned())),
            }
        }
        self.values += alternatives.len();
        match clause.get("operator") == Some(&json!("not_one_of")) {
            true => self.excluding.push(alternatives),
            false => self.positive.push(alternatives),
        }
        Some(())
    }
}

/// Returns a plan for all connections with a filter on any of these terms.
fn plan(kind: EventKind, id: &str, terms: &BTreeSet<(Field, String)>) -> Plan {
    let terms = terms.iter().map(|(field, value)| Term {
        field: *field,
        value: value.as_str().into(),
    });
    Plan {
        kind,
        subject: Subject::Annotation(id.into()),
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
