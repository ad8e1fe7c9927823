//! The answer to `explain` as text for people.

use std::fmt::Write as _;

use serde_json::Value;

use crate::cli::sanitize::printable;

/// Returns the answer as lines of text. Values come from other people, so each is printable.
pub(super) fn text(answer: &Value) -> String {
    let mut lines = Lines::default();
    lines.add(0, &printable_text(&answer["summary"]));
    if let Some(connections) = answer["connections"].as_array() {
        connections.iter().for_each(|one| lines.connection(one));
        return lines.0;
    }
    lines.user(&answer["user"]);
    lines.verdict(1, answer);
    lines.0
}

#[derive(Default)]
struct Lines(String);

impl Lines {
    fn add(&mut self, depth: usize, text: &str) {
        let _ = writeln!(self.0, "{:width$}{text}", "", width = 2 * depth);
    }

    fn user(&mut self, user: &Value) {
        let text = match (&user["userid"], &user["is_known"]) {
            (Value::Null, _) => "anonymous".to_owned(),
            (userid, Value::Bool(true)) => {
                format!("{}, {}", printable_text(userid), memberships(user))
            }
            (userid, _) => format!("{}, which does not exist", printable_text(userid)),
        };
        self.add(1, &format!("user: {text}"));
    }

    /// Adds the parts of a verdict.
    fn verdict(&mut self, depth: usize, verdict: &Value) {
        if let event @ Value::Object(_) = &verdict["event"] {
            let [action, subject, source] =
                ["action", "subject", "source"].map(|key| printable_text(&event[key]));
            self.add(
                depth,
                &format!("event: {action} {subject}, by the data of the {source}"),
            );
        }
        self.filter(depth, &verdict["filter"]);
        let own = &verdict["own_event"];
        if let source @ Value::String(_) = &own["source_client_id"] {
            let is_own = match own["is_own"] == true {
                true => ", which is that of the connection",
                false => "",
            };
            let source = printable_text(source);
            self.add(depth, &format!("caused by client id {source}{is_own}"));
        }
        self.access(depth, &verdict["access"]);
        let variant = &verdict["variant"];
        if variant.is_object() {
            let role = printable_text(&variant["receiver"]);
            let has = |key: &str| variant[key] == true;
            let flags = ["flagged", "hidden"].into_iter().filter(|key| has(key));
            let flags: String = flags.map(|flag| format!(", {flag}")).collect();
            let bytes = &variant["bytes"];
            self.add(
                depth,
                &format!("message: as for {role}{flags}, {bytes} bytes"),
            );
        }
    }

    fn filter(&mut self, depth: usize, filter: &Value) {
        if filter["is_set"] == false {
            return self.add(depth, "filter: not set");
        }
        if let error @ Value::String(_) = &filter["error"] {
            return self.add(
                depth,
                &format!("filter: invalid: {}", printable_text(error)),
            );
        }
        // The server has neither the clauses of an open connection nor, for an unknown annotation, their
        // results.
        let Some(clauses) = filter["clauses"].as_array() else {
            let state = match filter["matches"].is_boolean() {
                true => matches_text(filter),
                false => "set",
            };
            return self.add(depth, &format!("filter: {state}"));
        };
        self.add(depth, "filter:");
        for clause in clauses {
            self.clause(depth + 1, clause);
        }
    }

    fn clause(&mut self, depth: usize, clause: &Value) {
        let (number, field) = (&clause["clause"], printable_text(&clause["field"]));
        if let ignored @ Value::String(_) = &clause["ignored"] {
            let reason = printable_text(ignored);
            return self.add(
                depth,
                &format!("clause {number}: {field}: ignored: {reason}"),
            );
        }
        let remark = match (&clause["note"], clause["operator"] == "not_one_of") {
            (_, true) => " (excluding)".to_owned(),
            (note @ Value::String(_), _) => format!(" ({})", printable_text(note)),
            _ => String::new(),
        };
        let result = matches_text(clause);
        self.add(
            depth,
            &format!("clause {number}: {field}{remark}: {result}"),
        );
        for value in clause["values"].as_array().into_iter().flatten() {
            let normalized = &value["normalized"];
            let form = match normalized.is_null() {
                true => String::new(),
                false => format!(" (normalized: {})", list(normalized)),
            };
            let given = printable_text(&value["value"]);
            self.add(
                depth + 1,
                &format!("filter:     {given}{form}: {}", matches_text(value)),
            );
        }
        self.add(
            depth + 1,
            &format!("annotation: {}", list(&clause["annotation"])),
        );
    }

    fn access(&mut self, depth: usize, access: &Value) {
        if access.is_null() {
            return;
        }
        let text = printable_text(&access["text"]);
        self.add(depth, &format!("access: {text}"));
        for rule in access["rules"].as_array().into_iter().flatten() {
            let when = rule["when"].as_array().into_iter().flatten();
            let when: Vec<String> = when
                .map(|one| {
                    let met = match one["met"] == true {
                        true => "yes",
                        false => "no",
                    };
                    format!("{} ({met})", printable_text(&one["condition"]))
                })
                .collect();
            let when = match when.is_empty() {
                true => "everyone".to_owned(),
                false => when.join(" and "),
            };
            let then = match &rule["reason"] {
                Value::String(reason) => format!("withhold: {}", printable(reason)),
                _ => printable_text(&rule["then"]),
            };
            let mark = match rule["decisive"] == true {
                true => " ← decides",
                false => "",
            };
            self.add(depth + 1, &format!("{when}: {then}{mark}"));
        }
    }

    fn connection(&mut self, connection: &Value) {
        let name = printable_text(&connection["connection"]);
        let user = match &connection["userid"] {
            Value::Null => "anonymous".to_owned(),
            userid => format!("{}, {}", printable_text(userid), memberships(connection)),
        };
        self.add(1, &format!("connection {name}: {user}"));
        let states = [
            ("uses_cursors", "uses cursors"),
            ("is_replaying", "is being sent missed events"),
            ("waits_for_history", "waits for the history"),
            ("debug", "has debug=1"),
            ("token_ended", "its token has ended: it receives nothing"),
        ];
        let states = states
            .into_iter()
            .filter(|(key, _)| connection[key] == true);
        let states: String = states.map(|(_, text)| format!(", {text}")).collect();
        let [transport, opened, received] =
            ["transport", "opened_at", "last_received_at"].map(|key| time(&connection[key]));
        let filter = match connection["has_filter"] == true {
            true => match &connection["filter_values"] {
                one if *one == 1 => "a filter with 1 value".to_owned(),
                values => format!("a filter with {values} values"),
            },
            false => "no filter".to_owned(),
        };
        let queued = &connection["queued_bytes"];
        self.add(
            2,
            &format!(
                "{transport} since {opened}, last sign of life {received}, {filter}, \
                 {queued} bytes queued{states}"
            ),
        );
        let verdict = &connection["verdict"];
        if verdict.is_object() {
            self.add(2, &printable_text(&verdict["summary"]));
            self.verdict(3, verdict);
        }
        self.events(connection);
    }

    fn events(&mut self, connection: &Value) {
        let events = connection["events"].as_array();
        let since = time(&connection["recorded_since"]);
        self.add(
            2,
            &format!("events, the newest first (outcomes are recorded since {since}):"),
        );
        for event in events.into_iter().flatten() {
            let [action, subject, outcome] =
                ["action", "subject", "outcome"].map(|key| printable_text(&event[key]));
            let reason = match &event["reason"] {
                Value::String(reason) => format!(": {}", printable(reason)),
                _ => String::new(),
            };
            let basis = match (event["basis"] == "evaluated", &event["before_connection"]) {
                (true, Value::Bool(true)) => " (evaluated now; before the connection)",
                (true, _) => " (evaluated now)",
                (false, _) => "",
            };
            let at = time(&event["at"]);
            self.add(
                3,
                &format!("{at}  {action} {subject}: {outcome}{reason}{basis}"),
            );
        }
        if events.is_none_or(Vec::is_empty) {
            self.add(3, "none");
        }
    }
}

fn matches_text(result: &Value) -> &'static str {
    match result["matches"] == true {
        true => "matches",
        false => "does not match",
    }
}

fn memberships(user: &Value) -> String {
    let groups = user["memberships"].as_array();
    let groups: Vec<String> = groups
        .into_iter()
        .flatten()
        .map(|one| {
            let [group, role] = ["group", "role"].map(|key| printable_text(&one[key]));
            format!("{role} of {group}")
        })
        .collect();
    match groups.is_empty() {
        true => "in no group".to_owned(),
        false => printable(&groups.join(", ")),
    }
}

fn list(values: &Value) -> String {
    let values = values.as_array().into_iter().flatten();
    let values: Vec<String> = values.map(printable_text).collect();
    match values.is_empty() {
        true => "none".to_owned(),
        false => values.join(", "),
    }
}

fn printable_text(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        value => printable(&value.to_string()),
    }
}

/// Returns a time in UNIX milliseconds in RFC 3339, and other values as text.
fn time(value: &Value) -> String {
    let millis = value.as_i64();
    let time = millis.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    match (time, value) {
        (Some(time), _) => format!("{time:.0}"),
        (None, Value::Null) => "an unknown time".to_owned(),
        (None, value) => printable_text(value),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn verdict_is_readable_and_without_control_characters() {
        let answer = json!({
            "summary": "not notified: the filter does not match the annotation",
            "user": {"userid": "acct:\u{1b}[1m@b", "is_known": true, "memberships": []},
            "event": {"action": "create", "subject": "A", "source": "backend"},
            "filter": {"is_set": true, "clauses": [{
                "clause": 0, "field": "/uri", "matches": false, "annotation": ["httpx://b/"],
                "values": [{"value": "http://a/", "matches": false, "normalized": ["httpx://a/"]}],
            }]},
            "own_event": {"source_client_id": null},
            "access": {"allowed": true, "text": "everyone may read it", "rules": [
                {"when": [], "then": "send", "reason": null, "decisive": true},
            ]},
            "variant": {"receiver": "reader", "flagged": false, "bytes": 12},
        });
        let expected = "\
not notified: the filter does not match the annotation
  user: acct: [1m@b, in no group
  event: create A, by the data of the backend
  filter:
    clause 0: /uri: does not match
      filter:     http://a/ (normalized: httpx://a/): does not match
      annotation: httpx://b/
  access: everyone may read it
    everyone: send ← decides
  message: as for reader, 12 bytes
";
        assert_eq!(text(&answer), expected);
    }

    #[test]
    fn filter_has_the_state_and_the_kind_of_clauses() {
        let filters = [
            (json!({"is_set": true, "is_valid": true}), "filter: set\n"),
            (
                json!({"is_set": true, "matches": false}),
                "filter: does not match\n",
            ),
        ];
        for (filter, expected) in filters {
            let mut lines = Lines::default();
            lines.filter(0, &filter);
            assert_eq!(lines.0, expected);
        }
        let clauses = [
            (
                json!({"operator": "not_one_of"}),
                "clause 0: /user (excluding): matches\n",
            ),
            (
                json!({"operator": "one_of", "note": "unknown operator, treated as one_of"}),
                "clause 0: /user (unknown operator, treated as one_of): matches\n",
            ),
        ];
        for (mut clause, expected) in clauses {
            clause["clause"] = 0.into();
            clause["field"] = "/user".into();
            clause["matches"] = true.into();
            let mut lines = Lines::default();
            lines.clause(0, &clause);
            assert!(lines.0.starts_with(expected), "{}", lines.0);
        }
    }

    #[test]
    fn connection_has_its_events() {
        let answer = json!({
            "summary": "open connections with this client id",
            "open_connections": 1,
            "connections": [{
                "connection": "#1.2", "userid": null, "transport": "websocket",
                "opened_at": 1_700_000_000_000_i64, "last_received_at": null, "has_filter": true,
                "filter_values": 2, "queued_bytes": 0, "uses_cursors": true, "recorded_since": 0,
                "events": [{"at": 0, "action": "create", "subject": "A", "outcome": "withheld",
                    "reason": "hidden", "basis": "evaluated", "before_connection": true}],
            }],
        });
        let expected = "\
open connections with this client id
  connection #1.2: anonymous
    websocket since 2023-11-14T22:13:20Z, last sign of life an unknown time, a filter with 2 \
values, 0 bytes queued, uses cursors
    events, the newest first (outcomes are recorded since 1970-01-01T00:00:00Z):
      1970-01-01T00:00:00Z  create A: withheld: hidden (evaluated now; before the connection)
";
        assert_eq!(text(&answer), expected);
    }
}
