//! The server's interpretation of a filter, as members of a reply.

use std::fmt::Write;

use super::push_string;
use crate::model::EventKind;
use crate::realtime::filter::{FilterView, ViewedClause};

/// Returns the interpretation of a filter: the members `filter`, `ignored`, and `limits` of a reply,
/// without braces. Stops after [`MAX_LEN`] bytes, and then adds [`TRUNCATED`].
pub(in crate::realtime) fn interpretation(view: &FilterView) -> String {
    let mut out = Bounded {
        text: String::new(),
        is_truncated: false,
    };
    let policy = match view.is_all {
        true => "include_all",
        false => "include_any",
    };
    out.push(r#""filter": {"match_policy": ""#);
    out.push(policy);
    out.push(r#"", "clauses": ["#);
    out.list(&view.clauses, clause);
    out.push("]");
    for (kind, name) in [
        (EventKind::Create, r#", "actions": {"create": "#),
        (EventKind::Update, r#", "update": "#),
        (EventKind::Delete, r#", "delete": "#),
    ] {
        out.push(name);
        out.push(match view.actions.contains(kind) {
            true => "true",
            false => "false",
        });
    }
    out.push(r#"}}, "ignored": ["#);
    out.list(&view.ignored, |out, ignored| {
        let _ = write!(out.text, r#"{{"clause": {}, "field": "#, ignored.clause);
        push_string(&mut out.text, &ignored.field);
        let _ = write!(out.text, r#", "reason": "{}"}}"#, ignored.reason);
    });
    let ((values, values_left), (clauses, clauses_left)) = (view.values, view.clause_limit);
    let _ = write!(
        out.text,
        r#"], "limits": {{"values": {values}, "values_left": {values_left}, "clauses": {clauses}, "clauses_left": {clauses_left}}}"#
    );
    if out.is_truncated {
        out.push(", ");
        out.push(TRUNCATED);
    }
    out.text
}

fn clause(out: &mut Bounded, clause: &ViewedClause) {
    let _ = write!(
        out.text,
        r#"{{"field": "{}", "operator": "{}", "value": ["#,
        clause.field,
        clause.operator()
    );
    let values: Vec<String> = clause.values().collect();
    out.list(&values, |out, value| push_string(&mut out.text, value));
    out.push("]}");
}

/// A text with lists of bounded length.
struct Bounded {
    text: String,
    is_truncated: bool,
}

impl Bounded {
    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Writes the items of a list, until one exceeds the limit.
    fn list<T>(&mut self, items: &[T], write: impl Fn(&mut Bounded, &T)) {
        for (number, item) in items.iter().enumerate() {
            if self.is_truncated {
                return;
            }
            let before = self.text.len();
            if number > 0 {
                self.push(", ");
            }
            write(self, item);
            if self.text.len() > MAX_LEN && !self.is_truncated {
                self.text.truncate(before);
                self.is_truncated = true;
            }
        }
    }
}

/// Marks an interpretation that is not complete.
pub(in crate::realtime) const TRUNCATED: &str = r#""truncated": true"#;
/// The length in bytes beyond which the lists of an interpretation end.
pub(in crate::realtime) const MAX_LEN: usize = 6 * 1024;
