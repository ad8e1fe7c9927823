//! The parts of a published JSON object, taken out one by one with their types checked.

use serde_json::{Map, Value};

/// Why something published is refused, for the publisher to read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub String);

/// What is left of an object. A part that is `null` counts as one that is not there, since h's
/// own tables have such values.
pub(super) struct Fields {
    /// What the object is called in a [`Refusal`]; empty for the event itself.
    path: &'static str,
    map: Map<String, Value>,
}

impl Fields {
    pub fn new(path: &'static str, map: Map<String, Value>) -> Self {
        Fields { path, map }
    }

    /// What has not been taken, in the publisher's order.
    pub fn rest(self) -> Map<String, Value> {
        self.map
    }

    /// A part as it is, also where it is `null`.
    pub fn raw(&mut self, key: &str) -> Option<Value> {
        self.map.shift_remove(key)
    }

    pub fn string(&mut self, key: &str) -> Result<Option<String>, Refusal> {
        self.part(key, "a string", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    /// A string that must be there and say something.
    pub fn needed(&mut self, key: &str) -> Result<String, Refusal> {
        match self.string(key)? {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) => Err(self.refusal(key, "is empty")),
            None => Err(self.refusal(key, "is missing")),
        }
    }

    pub fn boolean(&mut self, key: &str) -> Result<Option<bool>, Refusal> {
        self.part(key, "true or false", |value| value.as_bool())
    }

    pub fn strings(&mut self, key: &str) -> Result<Option<Vec<String>>, Refusal> {
        self.part(key, "a list of strings", |value| match value {
            Value::Array(items) => items
                .into_iter()
                .map(|item| match item {
                    Value::String(text) => Some(text),
                    _ => None,
                })
                .collect(),
            _ => None,
        })
    }

    pub fn object(&mut self, key: &str) -> Result<Option<Map<String, Value>>, Refusal> {
        self.part(key, "an object", |value| match value {
            Value::Object(map) => Some(map),
            _ => None,
        })
    }

    pub fn objects(&mut self, key: &str) -> Result<Option<Vec<Value>>, Refusal> {
        self.part(key, "a list of objects", objects)
    }

    /// A refusal of a part of this object.
    pub fn refusal(&self, key: &str, what: &str) -> Refusal {
        match self.path {
            "" => Refusal(format!("{key} {what}")),
            path => Refusal(format!("{path}.{key} {what}")),
        }
    }

    fn part<T>(
        &mut self,
        key: &str,
        kind: &str,
        read: impl FnOnce(Value) -> Option<T>,
    ) -> Result<Option<T>, Refusal> {
        match self.map.shift_remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(part) => Ok(Some(part)),
                None => Err(self.refusal(key, &format!("must be {kind}"))),
            },
        }
    }
}

/// The items of a list that has only objects.
pub(super) fn objects(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) if items.iter().all(Value::is_object) => Some(items),
        _ => None,
    }
}

/// What was published, cut to a length that fits in a refusal.
pub(super) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// In characters.
const QUOTED: usize = 60;
