//! Builders for events and filters.

use serde_json::{Value, json};

/// Returns an event of a public annotation by `acct:author@example.org` on
/// `https://example.org/page`, with the members in `more` added or replaced.
pub fn event(action: &str, more: Value) -> Value {
    let mut annotation = json!({
        "id": "AAAAAREREeaAAAAAAAAAAQ",
        "user": "acct:author@example.org",
        "uri": "https://example.org/page",
        "permissions": {"read": ["group:__world__"]},
    });
    for (key, value) in more.as_object().unwrap() {
        annotation[key] = value.clone();
    }
    let id = &annotation["id"];
    json!({"topic": "annotation", "action": action, "annotation_id": id, "annotation": annotation})
}

/// Returns a filter message with these clauses, without an id.
pub fn filter(clauses: Value) -> Value {
    json!({"filter": {"match_policy": "include_any", "clauses": clauses, "actions": {}}})
}
