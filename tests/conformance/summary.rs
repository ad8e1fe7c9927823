//! Summarizes output in the short form of `differences.rs`.

use std::collections::BTreeMap;

use serde_json::Value;

use super::transcript::{Events, of_step};

/// Describes the difference between a step's output and h's; `None` if there is none.
pub fn difference(step: &Value, h: &Events, here: &Events) -> Option<String> {
    let nothing = Vec::new();
    let mut differing: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let names: std::collections::BTreeSet<&String> = h.keys().chain(here.keys()).collect();
    for name in names {
        let [h, here] = [h, here].map(|events| events.get(name).unwrap_or(&nothing));
        if h != here {
            differing
                .entry(of_connection(h, here))
                .or_default()
                .push(name);
        }
    }
    // The step's own connection is not named.
    let own = of_step(step);
    let parts = differing
        .into_iter()
        .map(|(parts, names)| match names == own {
            true => parts,
            false => format!("{}: {parts}", names.join(" ")),
        });
    let parts: Vec<String> = parts.collect();
    (!parts.is_empty()).then(|| parts.join(" / "))
}

fn of_connection(h: &[Value], here: &[Value]) -> String {
    let mut parts = Vec::new();
    for (at, event) in here.iter().enumerate() {
        parts.push(match (json(event), h.get(at).and_then(json)) {
            (Some(here), Some(h)) if here["type"] == h["type"] => change(&h, &here),
            _ => summarize(event),
        });
    }
    match parts.is_empty() {
        true => "nothing".to_owned(),
        false => parts.join(", "),
    }
}

fn json(event: &Value) -> Option<Value> {
    let text = event["json"].as_str()?;
    Some(serde_json::from_str(text).unwrap())
}

/// Describes a notification, and its differences from h's.
fn change(h: &Value, here: &Value) -> String {
    let mut members = Vec::new();
    members_that_differ("", h, here, &mut members);
    let name = of_notification(here);
    match members.is_empty() {
        true => name,
        false => format!("{name} with {}", members.join(", ")),
    }
}

fn members_that_differ(path: &str, h: &Value, here: &Value, found: &mut Vec<String>) {
    match (h, here) {
        (Value::Object(h), Value::Object(here)) => {
            for (key, value) in h {
                match here.get(key) {
                    Some(ours) => members_that_differ(&format!("{path}/{key}"), value, ours, found),
                    None => found.push(format!("no {path}/{key}")),
                }
            }
            let more = here.iter().filter(|(key, _)| !h.contains_key(*key));
            found.extend(more.map(|(key, value)| format!("{path}/{key} {value}")));
            let is_shared = |key: &&String| h.contains_key(*key) && here.contains_key(*key);
            if !h.keys().filter(is_shared).eq(here.keys().filter(is_shared)) {
                found.push(format!("another order in {path}/"));
            }
        }
        (Value::Array(h), Value::Array(here)) if h.len() == here.len() => {
            for (at, (h, here)) in h.iter().zip(here).enumerate() {
                members_that_differ(&format!("{path}/{at}"), h, here, found);
            }
        }
        (h, here) if h != here => found.push(format!("{path} {here}")),
        _ => {}
    }
}

fn of_notification(message: &Value) -> String {
    match message["type"].as_str() {
        Some("session-change") => message["action"].to_string(),
        _ => format!(
            "{} {}",
            message["options"]["action"].as_str().unwrap_or(""),
            message["payload"][0]["id"].as_str().unwrap_or("")
        ),
    }
}

fn summarize(event: &Value) -> String {
    if let Some(status) = event["status"].as_u64() {
        let body = event["body"]
            .as_str()
            .and_then(|body| serde_json::from_str(body).ok());
        let error = body
            .as_ref()
            .and_then(|body: &Value| body["error"].as_str());
        return format!("{status} {}", error.unwrap_or(""))
            .trim_end()
            .to_owned();
    }
    if let Some(message) = json(event) {
        return of_notification(&message);
    }
    if let Some(text) = event["text"].as_str() {
        let message: Value = serde_json::from_str(text).unwrap_or_default();
        return match (message["type"].as_str(), &message["reply_to"]) {
            (Some("whoyouare"), id) => format!("{id} is {}", message["userid"]),
            (Some("error"), id) => format!("{id} {}", message["error"]["description"]),
            (Some(kind), id) => format!("{id} {kind}"),
            (None, _) => format!("{text:.80}"),
        };
    }
    match &event["close"] {
        Value::Array(close) => format!("close {} {}", close[0], close[1].as_str().unwrap()),
        _ if event.get("close").is_some() => "close without a code".to_owned(),
        _ => event.as_str().unwrap_or("pong").to_owned(),
    }
}
