//! Serializes messages to clients: h's annotation JSON, key by key.
//!
//! Owns: the keys, their values, and their order. Must not know: which receiver gets which variant.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::annotation_state::{APPROVED, Annotation, AnnotationState, Mention, WORLD};
use super::urls::{UrlBuilder, UrlInputs};
use super::userid;
use crate::backend::DropReason;
use crate::backend::policy::{Variant, Visibility};

/// Returns the message for a deleted annotation, with the id from h's event.
pub(super) fn deletion(action: &str, id: &str) -> Box<str> {
    message(action, &json!({ "id": id }).to_string())
}

/// Returns the messages for an annotation, one for each variant.
///
/// # Errors
/// [`DropReason::Unreadable`] if a time is out of range, or a column is not valid JSON.
pub(super) fn notifications(
    action: &str,
    state: &AnnotationState,
    urls: &UrlBuilder,
    variants: &[Variant],
) -> Result<Vec<Box<str>>, DropReason> {
    let body = Body::new(state, urls).ok_or(DropReason::Unreadable)?;
    let shown = variants.iter().map(|&variant| {
        let body = &body;
        let shown = serde_json::to_string(&Shown { body, variant });
        let shown = shown.map_err(|_| DropReason::Unreadable)?;
        Ok(message(action, &shown))
    });
    shown.collect()
}

fn message(action: &str, payload: &str) -> Box<str> {
    let action = Value::from(action);
    format!(
        r#"{{"type":"annotation-notification","options":{{"action":{action}}},"payload":[{payload}]}}"#
    )
    .into()
}

/// The parts that all variants of an annotation share.
struct Body<'a> {
    annotation: &'a Annotation,
    /// The custom members that clients may store with an annotation. They never replace any of h's
    /// own keys, not even one that only some messages contain.
    extra: Entries,
    id: String,
    created: String,
    updated: String,
    tags: Vec<&'a str>,
    permissions: Value,
    spec: Vec<ConnectionSpec<'a>>,
    document: Value,
    links: Value,
    mentions: Vec<Value>,
    /// Absent if the author is not in the database.
    user_info: Option<Value>,
    references: Vec<String>,
    flags: usize,
}

impl<'a> Body<'a> {
    fn new(state: &'a AnnotationState, urls: &UrlBuilder) -> Option<Body<'a>> {
        let annotation = &state.annotation;
        let references: Vec<String> = annotation.references().map(|id| id.to_url_safe()).collect();
        let id = annotation.id.to_url_safe();
        Some(Body {
            annotation,
            extra: serde_json::from_str(&annotation.extra).unwrap_or_default(),
            created: annotation.created.to_text()?,
            updated: annotation.updated.to_text()?,
            tags: annotation
                .tags
                .iter()
                .flatten()
                .filter_map(|tag| tag.as_deref())
                .collect(),
            permissions: permissions(state),
            spec: vec![ConnectionSpec {
                source: uri(annotation),
                description: annotation.target_description.as_deref(),
                selectors: selectors(annotation.target_selectors.as_deref()),
            }],
            document: match state.title.as_deref() {
                Some(title) if !title.is_empty() => json!({ "title": [title] }),
                _ => json!({}),
            },
            links: links(state, urls, &id, references.first().unwrap_or(&id)),
            mentions: state.mentions.iter().map(|it| mention(it, urls)).collect(),
            user_info: state
                .author
                .as_ref()
                .map(|author| json!({ "display_name": author.display_name })),
            flags: state.flaggers.len(),
            references,
            id,
        })
    }

    fn moderation_status(&self) -> Option<&str> {
        let default = self.annotation.shared.then_some(APPROVED);
        self.annotation.moderation_status.as_deref().or(default)
    }
}

/// Returns the page's address. A missing one is shown as empty: h has annotations with empty
/// addresses, and clients can handle them.
fn uri(annotation: &Annotation) -> &str {
    annotation.target_uri.as_deref().unwrap_or_default()
}

fn permissions(state: &AnnotationState) -> Value {
    let annotation = &state.annotation;
    let world_reads = state.group == Some(Visibility::World) && !annotation.is_hidden();
    let read = if !annotation.shared {
        annotation.userid.clone()
    } else if annotation.groupid == WORLD || world_reads {
        format!("group:{WORLD}")
    } else {
        format!("group:{}", annotation.groupid)
    };
    let own = &annotation.userid;
    json!({ "read": [read], "admin": [own], "update": [own], "delete": [own] })
}

fn links(state: &AnnotationState, urls: &UrlBuilder, id: &str, root: &str) -> Value {
    let of = UrlInputs {
        id,
        root,
        userid: &state.annotation.userid,
        uri: uri(&state.annotation),
        web_address: state.web_address.as_deref(),
    };
    let links = [
        ("html", urls.html(&of)),
        ("incontext", urls.incontext(&of)),
        ("json", Some(urls.json(&of))),
    ];
    let links = links.into_iter();
    Value::Object(
        links
            .filter_map(|(name, link)| Some((name.to_owned(), link?.into())))
            .collect(),
    )
}

fn mention(mention: &Mention, urls: &UrlBuilder) -> Value {
    let Mention {
        username,
        authority,
        ..
    } = mention;
    json!({
        "userid": userid::join(username, authority),
        "original_userid": userid::join(&mention.original_username, authority),
        "username": username,
        "display_name": mention.display_name,
        "link": urls.user(username, authority),
        "description": mention.description,
        "joined": mention.joined.and_then(|time| time.to_text()),
    })
}

/// The entries of a JSON object, in order. The values stay unparsed text, so that nesting and the
/// length of numbers are only limited by PostgreSQL.
#[derive(Default)]
struct Entries(Vec<(String, Box<RawValue>)>);

/// Returns the selectors, without those that are not objects, on which clients fail.
fn selectors(json: Option<&str>) -> Vec<Box<RawValue>> {
    let all: Vec<Box<RawValue>> = json
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default();
    let objects = all.into_iter().filter(|it| it.get().starts_with('{'));
    objects.map(with_nulls).collect()
}

/// Restores NUL characters in quotes. PostgreSQL's JSON cannot contain them, so h stores the six
/// characters `\u0000` instead.
fn with_nulls(selector: Box<RawValue>) -> Box<RawValue> {
    if !selector.get().contains(ESCAPED_NUL_AS_JSON) {
        return selector;
    }
    let Ok(mut entries) = serde_json::from_str::<Entries>(selector.get()) else {
        return selector;
    };
    let is_quote = |(key, value): &(String, Box<RawValue>)| {
        key == "type" && value.get() == r#""TextQuoteSelector""#
    };
    if !entries.0.iter().any(is_quote) {
        return selector;
    }
    for (key, value) in &mut entries.0 {
        if QUOTE_KEYS.contains(&&**key)
            && let Ok(text) = serde_json::from_str::<String>(value.get())
            && let Ok(raw) = serde_json::value::to_raw_value(&text.replace(ESCAPED_NUL, "\0"))
        {
            *value = raw;
        }
    }
    serde_json::value::to_raw_value(&entries).unwrap_or(selector)
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

impl Serialize for Entries {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(key, value)| (key, value)))
    }
}

struct ConnectionSpec<'a> {
    source: &'a str,
    description: Option<&'a str>,
    selectors: Vec<Box<RawValue>>,
}

impl Serialize for ConnectionSpec<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("source", self.source)?;
        if let Some(description) = self.description {
            map.serialize_entry("description", description)?;
        }
        if !self.selectors.is_empty() {
            map.serialize_entry("selector", &self.selectors)?;
        }
        map.end()
    }
}

struct Shown<'a> {
    body: &'a Body<'a>,
    variant: Variant,
}

impl Serialize for Shown<'_> {
    /// Serializes the stored custom members first, and then h's keys. A stored member with one of
    /// h's keys keeps its position, but gets h's value.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let extra = &self.body.extra.0;
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in extra {
            if OWN_KEYS.contains(&&**key) {
                self.entry(&mut map, key)?;
            } else {
                map.serialize_entry(key, value)?;
            }
        }
        for own in OWN_KEYS {
            if !extra.iter().any(|(key, _)| key == own) {
                self.entry(&mut map, own)?;
            }
        }
        map.end()
    }
}

impl Shown<'_> {
    /// Serializes the entry of one of h's keys, unless this variant lacks it.
    fn entry<M: SerializeMap>(&self, map: &mut M, key: &str) -> Result<(), M::Error> {
        let Shown { body, variant } = *self;
        let annotation = body.annotation;
        match key {
            "id" => map.serialize_entry(key, &body.id),
            "created" => map.serialize_entry(key, &body.created),
            "updated" => map.serialize_entry(key, &body.updated),
            "user" => map.serialize_entry(key, &annotation.userid),
            "uri" => map.serialize_entry(key, uri(annotation)),
            "text" => map.serialize_entry(key, annotation.text.as_deref().unwrap_or_default()),
            "tags" => map.serialize_entry(key, &body.tags),
            "group" => map.serialize_entry(key, &annotation.groupid),
            "moderation_status" => map.serialize_entry(key, &body.moderation_status()),
            "permissions" => map.serialize_entry(key, &body.permissions),
            "target" => map.serialize_entry(key, &body.spec),
            "document" => map.serialize_entry(key, &body.document),
            "links" => map.serialize_entry(key, &body.links),
            "actions" if variant.moderates => map.serialize_entry(key, &["moderate"]),
            "actions" => map.serialize_entry(key, &[(); 0]),
            "mentions" => map.serialize_entry(key, &body.mentions),
            "user_info" => match &body.user_info {
                Some(user_info) => map.serialize_entry(key, user_info),
                None => Ok(()),
            },
            "references" if !body.references.is_empty() => {
                map.serialize_entry(key, &body.references)
            }
            "flagged" => map.serialize_entry(key, &variant.flagged),
            "moderation" if variant.moderates => {
                map.serialize_entry(key, &json!({ "flagCount": body.flags }))
            }
            "hidden" => map.serialize_entry(key, &variant.hidden),
            _ => Ok(()),
        }
    }
}

/// All keys of h's annotation JSON, in order. h uses `metadata` only in its API.
const OWN_KEYS: [&str; 21] = [
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
const QUOTE_KEYS: [&str; 3] = ["prefix", "exact", "suffix"];
const ESCAPED_NUL: &str = r"\u0000";
const ESCAPED_NUL_AS_JSON: &str = r"\\u0000";

#[cfg(test)]
mod tests;
