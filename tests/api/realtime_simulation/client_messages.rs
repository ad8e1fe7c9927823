//! Messages of clients, each with its meaning, from which it was generated.

use std::collections::BTreeSet;

use h_realtime::model::{Field, Term};

use crate::sim::Payload;
use crate::sim::rng::Rng;

/// A message of a client.
#[derive(Clone, Debug)]
pub struct ClientMessage {
    pub payload: Payload,
    pub meaning: Meaning,
    /// The number repeated in the reply; without it there is no reply.
    pub id: Option<String>,
}

#[derive(Clone, Debug)]
pub enum Meaning {
    Ping,
    WhoAmI,
    ClientId(Option<String>),
    Filter(BTreeSet<Term>),
    /// Rejected: the error's type and description, as in JSON.
    Wrong(&'static str, String),
    /// Ignored without a reply.
    Nothing,
    /// Ends the connection.
    NotJson,
}

/// Returns a random message; a filter may have at most `max_terms` values.
pub fn any(rng: &mut Rng, max_terms: usize) -> ClientMessage {
    let id = (!rng.chance(10)).then(|| format!("{}", rng.below(1000)));
    let (body, meaning) = match rng.below(100) {
        0..12 => (r#""type": "ping""#.to_owned(), Meaning::Ping),
        12..40 => (r#""type":"whoami""#.to_owned(), Meaning::WhoAmI),
        40..52 => client_id(rng),
        52..90 => filter(rng, max_terms),
        90..99 => wrong(rng),
        _ => return not_for_an_answer(rng),
    };
    let text = match &id {
        Some(id) if rng.chance(50) => format!(r#"{{"id": {id}, {body}}}"#),
        Some(id) => format!(r#"{{{body},"id":{id}}}"#),
        None => format!(r#"{{{body},"id":"seven"}}"#),
    };
    ClientMessage {
        payload: encode(rng, text),
        meaning,
        id,
    }
}

/// Returns a long message, which is a ping without a number.
pub fn long() -> ClientMessage {
    let text = format!(r#"{{"type": "ping", "pad": "{}"}}"#, "x".repeat(1000));
    ClientMessage {
        payload: Payload::Text(text),
        meaning: Meaning::Ping,
        id: None,
    }
}

fn encode(rng: &mut Rng, text: String) -> Payload {
    match rng.chance(20) {
        true => Payload::Binary(text.into_bytes()),
        false => Payload::Text(text),
    }
}

fn not_for_an_answer(rng: &mut Rng) -> ClientMessage {
    let (text, meaning) = match rng.below(4) {
        0 => ("{\"type\": \"whoami\", \"id\": 1", Meaning::NotJson),
        1 => ("", Meaning::NotJson),
        2 => ("[{\"type\": \"whoami\", \"id\": 1}]", Meaning::Nothing),
        _ => ("null", Meaning::Nothing),
    };
    ClientMessage {
        payload: encode(rng, text.to_owned()),
        meaning,
        id: None,
    }
}

fn client_id(rng: &mut Rng) -> (String, Meaning) {
    let head = match rng.chance(50) {
        true => r#""messageType":"client_id""#,
        false => r#""type":"client_id""#,
    };
    let client = (!rng.chance(15)).then(|| pick(rng, CLIENT_IDS).to_owned());
    let value = client.as_ref().map_or("null".to_owned(), |id| quoted(id));
    let body = format!(r#"{head},"value":{value}"#);
    (body, Meaning::ClientId(client))
}

fn wrong(rng: &mut Rng) -> (String, Meaning) {
    let (body, kind, description) = match rng.below(4) {
        0 => (
            r#""type":"shout""#,
            "invalid_type",
            r#"invalid message type: \"shout\""#,
        ),
        1 => (
            r#""type":"client_id","value":[7]"#,
            "invalid_data",
            r#"\"value\" must be a string or null"#,
        ),
        2 => (
            r#""messageType":"client_id""#,
            "invalid_data",
            r#"\"value\" is missing"#,
        ),
        _ => (
            r#""type":"filter""#,
            "invalid_data",
            r#"\"filter\" is missing"#,
        ),
    };
    (
        body.to_owned(),
        Meaning::Wrong(kind, description.to_owned()),
    )
}

fn filter(rng: &mut Rng, max_terms: usize) -> (String, Meaning) {
    let head = match rng.chance(50) {
        true => r#""type":"filter","#,
        false => "",
    };
    // With duplicates, which count, too.
    let mut terms = Vec::new();
    let count = rng.below(5);
    let mut clauses: Vec<String> = (0..count).map(|_| clause(rng, &mut terms)).collect();
    let is_broken = rng.chance(15);
    let mut policy = "include_any";
    if is_broken && rng.chance(70) {
        clauses.insert(0, pick(rng, BROKEN_CLAUSES).to_owned());
    } else if is_broken {
        policy = "include_none";
    }
    let meaning = if is_broken {
        Meaning::Wrong("invalid_data", "failed to parse filter".to_owned())
    } else if terms.len() > max_terms {
        let description = format!("filter has more than {max_terms} values (repetitions count)");
        Meaning::Wrong("invalid_data", description)
    } else {
        Meaning::Filter(terms.into_iter().collect())
    };
    let body = format!(
        r#"{head}"filter":{{"match_policy":"{policy}","clauses":[{}],"actions":{{"create":true}}}}"#,
        clauses.join(",")
    );
    (body, meaning)
}

/// Returns a clause and adds its terms.
fn clause(rng: &mut Rng, terms: &mut Vec<Term>) -> String {
    let (pointer, field, values) = match rng.below(11) {
        0..2 => ("/id", Field::Id, IDS),
        2 => ("/references", Field::References, IDS),
        3..5 => ("/group", Field::Group, GROUPS),
        5..8 => return uri_clause(rng, terms),
        8 => ("/user", Field::User, AUTHORS),
        9 => ("/tags", Field::Tags, TAGS),
        _ => return r#"{"field":"/created","value":{}}"#.to_owned(),
    };
    let count = 1 + rng.below(4);
    let values: Vec<&str> = (0..count).map(|_| pick(rng, values)).collect();
    terms.extend(values.iter().map(|value| term(field, value)));
    match values[..] {
        [value] if rng.chance(50) => {
            format!(r#"{{"field":"{pointer}","operator":"equals","value":{value:?}}}"#)
        }
        _ => format!(r#"{{"field":"{pointer}","operator":"one_of","value":{values:?}}}"#),
    }
}

fn uri_clause(rng: &mut Rng, terms: &mut Vec<Term>) -> String {
    let count = 1 + rng.below(2);
    let values: Vec<String> = (0..count).map(|_| uri(rng, terms)).collect();
    format!(r#"{{"field":"/uri","operator":"one_of","value":{values:?},"case_sensitive":true}}"#)
}

/// Returns one of many spellings of one of few pages.
fn uri(rng: &mut Rng, terms: &mut Vec<Term>) -> String {
    let page = pick(rng, PAGES);
    let (uri, versions): (String, &[&str]) = match rng.below(6) {
        0..2 => (format!("http://example.com/{page}"), &[""]),
        2 => (format!("https://Example.com:443/{page}/#top"), &[""]),
        3 => (format!("https://example.com/{page}?utm_source=x"), &[""]),
        4 => (
            format!("http://example.com/{page}:v2:v3"),
            &["__v2", "__v3"],
        ),
        _ => (format!("http://example.com/{page}:all"), &["__vall"]),
    };
    let keys = versions.iter().map(|version| page_key(page, version));
    terms.extend(keys.map(|key| term(Field::Uri, &key)));
    uri
}

/// Returns every term that a filter or an event may have.
pub fn all_terms() -> impl Iterator<Item = Term> {
    let by_id = IDS.iter().map(|id| term(Field::Id, id));
    let by_reference = IDS.iter().map(|id| term(Field::References, id));
    let by_group = GROUPS.iter().map(|group| term(Field::Group, group));
    let by_author = AUTHORS.iter().map(|author| term(Field::User, author));
    let by_tag = TAGS.iter().map(|tag| term(Field::Tags, tag));
    let pages = PAGES.iter().flat_map(|page| {
        let keys = VERSIONS.iter().map(|version| page_key(page, version));
        keys.map(|key| term(Field::Uri, &key))
    });
    let others = by_id.chain(by_reference).chain(by_author).chain(by_tag);
    others.chain(by_group).chain(pages)
}

/// Returns the key under which annotations on a page are found.
pub fn page_key(page: &str, version: &str) -> String {
    format!("httpx://example.com/{page}{version}")
}

pub fn term(field: Field, value: &str) -> Term {
    Term {
        field,
        value: value.into(),
    }
}

pub fn pick(rng: &mut Rng, values: &[&'static str]) -> &'static str {
    values[rng.below(values.len())]
}

fn quoted(text: &str) -> String {
    format!("{text:?}")
}

pub const IDS: &[&str] = &["i1", "i2", "i3", "i4", "i5"];
pub const GROUPS: &[&str] = &["__world__", "g1", "g2", "g3"];
/// In the form in which they are compared.
pub const AUTHORS: &[&str] = &["joe@x", "joe", "ann@x"];
pub const TAGS: &[&str] = &["moon", "to do", ""];
pub const PAGES: &[&str] = &["a", "b", "c"];
pub const VERSIONS: &[&str] = &["", "__v2", "__v3", "__vall"];
pub const CLIENT_IDS: &[&str] = &["c1", "c2", "c3", ""];
const BROKEN_CLAUSES: &[&str] = &[
    "null",
    r#"{"field":"/id"}"#,
    r#"{"value":"i1"}"#,
    r#"{"field":"/group","value":["g1",7]}"#,
    r#"{"field":"/uri","value":"http://[::1"}"#,
];
