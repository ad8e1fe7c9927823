//! Parses transcripts: see `tests/data/transcripts/README.md`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

pub struct Transcript {
    pub name: String,
    pub needs: Needs,
    pub steps: Vec<Step>,
}

/// The data that a transcript needs on the server.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Needs {
    Nothing,
    /// The users and tokens of `tests/data/h/seed.sql`.
    Users,
    /// h's database and message queue.
    Database,
    /// Minutes of time.
    Minutes,
    /// A server of its own.
    OwnServer,
}

pub struct Step {
    /// The input of the step.
    pub asked: Value,
    /// The output of h.
    pub expected: Events,
}

/// The output of a step, by the names of the connections; never an empty list.
pub type Events = BTreeMap<String, Vec<Value>>;

/// Returns the transcripts of a file.
///
/// # Panics
/// If there is no such file.
pub fn of_file(name: &str) -> Vec<Transcript> {
    let file = FILES.iter().find(|(file, _)| *file == name);
    let (file, text) = file.unwrap_or_else(|| panic!("there is no file {name}"));
    text.lines().map(|line| parse(file, line)).collect()
}

/// Returns all transcripts.
pub fn all() -> Vec<Transcript> {
    FILES.iter().flat_map(|(name, _)| of_file(name)).collect()
}

fn parse(file: &str, line: &str) -> Transcript {
    let whole: Value = serde_json::from_str(line).unwrap();
    let steps = whole["steps"].as_array().unwrap().iter();
    Transcript {
        name: whole["name"].as_str().unwrap().to_owned(),
        needs: match file {
            "deliveries" | "events" => Needs::Database,
            "operation" => match whole["name"].as_str() {
                Some("hs_incomplete") => Needs::Nothing,
                Some("heartbeat" | "heartbeat_silent_client") => Needs::Minutes,
                _ => Needs::OwnServer,
            },
            _ if TOKENS.iter().any(|token| line.contains(token)) => Needs::Users,
            _ => Needs::Nothing,
        },
        steps: steps
            .map(|step| Step {
                asked: step.clone(),
                expected: expected(step, &whole["payloads"]),
            })
            .collect(),
    }
}

macro_rules! file {
    ($name:literal) => {
        (
            $name,
            include_str!(concat!("../data/transcripts/", $name, ".jsonl")),
        )
    };
}

const FILES: [(&str, &str); 8] = [
    file!("handshakes"),
    file!("credentials"),
    file!("messages"),
    file!("filters"),
    file!("frames"),
    file!("deliveries"),
    file!("events"),
    file!("operation"),
];

/// Parts of all tokens and userids in `tests/data/h/seed.sql`.
const TOKENS: [&str; 3] = ["6879", "5768", "@localhost"];

/// Returns the connections of a step or an event.
pub fn connections(of: &Value) -> Option<Vec<&str>> {
    match &of["conn"] {
        Value::Array(several) => Some(several.iter().map(|one| one.as_str().unwrap()).collect()),
        one => one.as_str().map(|one| vec![one]),
    }
}

/// Returns the connections of a step, which is `a` if it names none.
pub fn of_step(step: &Value) -> Vec<&str> {
    connections(step).unwrap_or_else(|| vec!["a"])
}

fn expected(step: &Value, payloads: &Value) -> Events {
    let mut events = Events::new();
    for event in step["expect"].as_array().into_iter().flatten() {
        let named = connections(event).unwrap_or_else(|| of_step(step));
        for name in named {
            let of_connection = events.entry(name.to_owned()).or_default();
            of_connection.push(plain(event, payloads));
        }
    }
    events
}

/// Returns an event in the form of the player.
fn plain(event: &Value, payloads: &Value) -> Value {
    if let Some(end) = event["end"].as_str() {
        return end.into();
    }
    if let Some(number) = event["payload"].as_u64() {
        let payload = &payloads[usize::try_from(number).unwrap()];
        let options = json!({"action": event["action"]});
        let kind = "annotation-notification";
        let whole = json!({"type": kind, "options": options, "payload": [payload]});
        return notification(&whole);
    }
    if event.get("json").is_some() {
        return notification(&event["json"]);
    }
    let mut event = event.clone();
    if let Some(members) = event.as_object_mut() {
        members.shift_remove("conn");
    }
    event
}

/// Returns a message that is compared as JSON: in its canonical compact text, in which keys keep
/// their order and numbers their digits.
pub fn notification(message: &Value) -> Value {
    json!({ "json": message.to_string() })
}
