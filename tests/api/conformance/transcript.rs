//! Parses transcripts: see `tests/data/transcripts/README.md`.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

pub struct Transcript {
    pub name: String,
    pub steps: Vec<Step>,
}

pub struct Step {
    /// The input of the step.
    pub asked: Value,
    /// The output of h.
    pub expected: Events,
}

/// The output of a step, by the names of the connections; never an empty list.
pub type Events = BTreeMap<String, Vec<Value>>;

/// Reads files of transcripts.
pub fn read(files: &[&str]) -> Vec<Transcript> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/transcripts");
    let path = |file: &&str| folder.join(file).with_extension("jsonl");
    let texts = files
        .iter()
        .map(|file| std::fs::read_to_string(path(file)).unwrap());
    texts
        .flat_map(|text| text.lines().map(parse).collect::<Vec<_>>())
        .collect()
}

fn parse(line: &str) -> Transcript {
    let whole: Value = serde_json::from_str(line).unwrap();
    let steps = whole["steps"].as_array().unwrap().iter();
    Transcript {
        name: whole["name"].as_str().unwrap().to_owned(),
        steps: steps
            .map(|step| Step {
                asked: step.clone(),
                expected: expected(step, &whole["payloads"]),
            })
            .collect(),
    }
}

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
