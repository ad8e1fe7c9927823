//! Takes the members of a published JSON object one at a time, and checks their types.

use serde_json::{Map, Value};

/// The reason why a publication is rejected, as text for the publisher.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidField(pub String);

/// The remaining members of an object. A member that is `null` counts as missing, since h's own
/// tables contain such values.
pub(super) struct Fields {
    /// The object's name in a [`InvalidField`]; empty for the event itself.
    path: &'static str,
    map: Map<String, Value>,
}

impl Fields {
    pub(super) fn new(path: &'static str, map: Map<String, Value>) -> Self {
        Fields { path, map }
    }

    /// Returns the remaining members, in the publisher's order.
    pub(super) fn rest(self) -> Map<String, Value> {
        self.map
    }

    /// Takes a member unchecked, even if it is `null`.
    pub(super) fn raw(&mut self, key: &str) -> Option<Value> {
        self.map.shift_remove(key)
    }

    pub(super) fn string(&mut self, key: &str) -> Result<Option<String>, InvalidField> {
        self.part(key, "a string", |value| match value {
            Value::String(text) => Some(text),
            _ => None,
        })
    }

    /// Takes a required, nonempty string.
    pub(super) fn required(&mut self, key: &str) -> Result<String, InvalidField> {
        match self.string(key)? {
            Some(text) if !text.is_empty() => Ok(text),
            Some(_) => Err(self.invalid(key, "is empty")),
            None => Err(self.invalid(key, "is missing")),
        }
    }

    pub(super) fn boolean(&mut self, key: &str) -> Result<Option<bool>, InvalidField> {
        self.part(key, "true or false", |value| value.as_bool())
    }

    pub(super) fn strings(&mut self, key: &str) -> Result<Option<Vec<String>>, InvalidField> {
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

    pub(super) fn object(&mut self, key: &str) -> Result<Option<Map<String, Value>>, InvalidField> {
        self.part(key, "an object", |value| match value {
            Value::Object(map) => Some(map),
            _ => None,
        })
    }

    pub(super) fn objects(&mut self, key: &str) -> Result<Option<Vec<Value>>, InvalidField> {
        self.part(key, "a list of objects", objects)
    }

    /// Creates a refusal that names a member of this object.
    pub(super) fn invalid(&self, key: &str, what: &str) -> InvalidField {
        match self.path {
            "" => InvalidField(format!("{key} {what}")),
            path => InvalidField(format!("{path}.{key} {what}")),
        }
    }

    fn part<T>(
        &mut self,
        key: &str,
        kind: &str,
        read: impl FnOnce(Value) -> Option<T>,
    ) -> Result<Option<T>, InvalidField> {
        match self.map.shift_remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => match read(value) {
                Some(part) => Ok(Some(part)),
                None => Err(self.invalid(key, &format!("must be {kind}"))),
            },
        }
    }
}

/// Returns the items of a list if all of them are objects.
pub(super) fn objects(value: Value) -> Option<Vec<Value>> {
    match value {
        Value::Array(items) if items.iter().all(Value::is_object) => Some(items),
        _ => None,
    }
}

/// Quotes published text, truncated to fit into a refusal.
pub(super) fn quote(text: &str) -> String {
    match text.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{:?}…", text.get(..end).unwrap_or_default()),
        None => format!("{text:?}"),
    }
}

/// In characters.
const QUOTED: usize = 60;
