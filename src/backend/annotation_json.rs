//! Serializes the messages about an annotation: h's annotation JSON, key by key.
//!
//! Owns: the keys, their order, and the values that depend on the receiver. Must not know: the
//! origin of the other values, or which receiver gets which variant.

use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use super::policy::Variant;

/// The values of an annotation that all variants share. `RawValue` members are JSON text, which is
/// copied into each variant.
#[derive(Debug)]
pub(super) struct AnnotationJson<'a> {
    pub id: &'a str,
    pub created: &'a str,
    pub updated: &'a str,
    /// The author's userid.
    pub user: &'a str,
    pub uri: &'a str,
    pub text: &'a str,
    pub tags: Vec<&'a str>,
    pub group: &'a str,
    /// Omitted if `None`. The same holds for the other options.
    pub moderation_status: Option<Box<RawValue>>,
    pub permissions: Box<RawValue>,
    pub target: Box<RawValue>,
    pub document: Box<RawValue>,
    pub links: Box<RawValue>,
    pub mentions: Box<RawValue>,
    pub user_info: Option<Box<RawValue>>,
    /// Omitted if empty.
    pub references: &'a [String],
    /// Only shown to moderators.
    pub moderation: Option<Box<RawValue>>,
    /// The custom members that h stores with an annotation, which precede h's keys. A custom member
    /// with one of h's keys keeps its position, but gets h's value.
    pub stored_members: &'a [(String, Box<RawValue>)],
    /// The members that a publisher has added, which follow h's keys.
    pub published_members: Option<&'a Map<String, Value>>,
}

/// Returns the message about a created or updated annotation.
///
/// # Errors
/// A value cannot be serialized.
pub(super) fn notification(
    action: &str,
    annotation: &AnnotationJson<'_>,
    variant: Variant,
) -> Result<Box<str>, serde_json::Error> {
    let object = serde_json::to_string(&InVariant {
        annotation,
        variant,
    })?;
    Ok(message(action, &object))
}

/// Returns the message about a deleted annotation.
pub(super) fn deletion(action: &str, id: &str) -> Box<str> {
    message(action, &json!({ "id": id }).to_string())
}

/// Returns a value as JSON text.
///
/// # Errors
/// The value cannot be serialized.
pub(super) fn raw(value: &impl Serialize) -> Result<Box<RawValue>, serde_json::Error> {
    to_raw_value(value)
}

fn message(action: &str, object: &str) -> Box<str> {
    let action = Value::from(action);
    format!(
        r#"{{"type":"annotation-notification","options":{{"action":{action}}},"payload":[{object}]}}"#
    )
    .into()
}

struct InVariant<'a> {
    annotation: &'a AnnotationJson<'a>,
    variant: Variant,
}

impl Serialize for InVariant<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let stored = self.annotation.stored_members;
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in stored {
            match KEYS.contains(&&**key) {
                true => self.entry(&mut map, key)?,
                false => map.serialize_entry(key, value)?,
            }
        }
        for own in KEYS {
            if !stored.iter().any(|(key, _)| key == own) {
                self.entry(&mut map, own)?;
            }
        }
        for (key, value) in self.annotation.published_members.into_iter().flatten() {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

impl InVariant<'_> {
    /// Serializes the entry of one of h's keys, unless this variant lacks it.
    fn entry<M: SerializeMap>(&self, map: &mut M, key: &str) -> Result<(), M::Error> {
        let InVariant {
            annotation: it,
            variant,
        } = *self;
        match key {
            "id" => map.serialize_entry(key, it.id),
            "created" => map.serialize_entry(key, it.created),
            "updated" => map.serialize_entry(key, it.updated),
            "user" => map.serialize_entry(key, it.user),
            "uri" => map.serialize_entry(key, it.uri),
            "text" => map.serialize_entry(key, it.text),
            "tags" => map.serialize_entry(key, &it.tags),
            "group" => map.serialize_entry(key, it.group),
            "moderation_status" => optional(map, key, it.moderation_status.as_deref()),
            "permissions" => map.serialize_entry(key, &it.permissions),
            "target" => map.serialize_entry(key, &it.target),
            "document" => map.serialize_entry(key, &it.document),
            "links" => map.serialize_entry(key, &it.links),
            "actions" if variant.moderates => map.serialize_entry(key, &["moderate"]),
            "actions" => map.serialize_entry(key, &[(); 0]),
            "mentions" => map.serialize_entry(key, &it.mentions),
            "user_info" => optional(map, key, it.user_info.as_deref()),
            "references" if !it.references.is_empty() => map.serialize_entry(key, it.references),
            "flagged" => map.serialize_entry(key, &variant.flagged),
            "moderation" if variant.moderates => optional(map, key, it.moderation.as_deref()),
            "hidden" => map.serialize_entry(key, &variant.hidden),
            _ => Ok(()),
        }
    }
}

fn optional<M: SerializeMap>(
    map: &mut M,
    key: &str,
    value: Option<&RawValue>,
) -> Result<(), M::Error> {
    match value {
        Some(value) => map.serialize_entry(key, value),
        None => Ok(()),
    }
}

/// All keys of h's annotation JSON, in order. h uses `metadata` only in its API.
pub(super) const KEYS: [&str; 21] = [
    "id",
    "created",
    "updated",
    "user",
    "uri",
    "text",
    "tags",
    "group",
    "moderation_status",
    "permissions",
    "target",
    "document",
    "links",
    "actions",
    "mentions",
    "user_info",
    "references",
    "metadata",
    "flagged",
    "moderation",
    "hidden",
];
