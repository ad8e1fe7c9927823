//! Derives the values of h's annotation JSON from an annotation's state.
//!
//! Owns: the values. Must not know: their order, or which receiver gets which variant.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::annotation_state::{APPROVED, Annotation, AnnotationState, Mention, WORLD};
use super::urls::{UrlBuilder, UrlInputs};
use crate::backend::DropReason;
use crate::backend::annotation_json::{AnnotationJson, notification, raw};
use crate::backend::policy::{Variant, Visibility};
use crate::backend::userid;

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
    let annotation = &state.annotation;
    let (created, updated) = (annotation.created.to_text(), annotation.updated.to_text());
    let (Some(created), Some(updated)) = (created, updated) else {
        return Err(DropReason::Unreadable);
    };
    let id = annotation.id.to_url_safe();
    let references: Vec<String> = annotation.references().map(|id| id.to_url_safe()).collect();
    let extra: Entries = serde_json::from_str(&annotation.extra).unwrap_or_default();
    let root = references.first().unwrap_or(&id);
    let tags = annotation.tags.iter().flatten();
    let write = || -> Result<Vec<Box<str>>, serde_json::Error> {
        let json = AnnotationJson {
            id: &id,
            created: &created,
            updated: &updated,
            user: &annotation.userid,
            uri: uri(annotation),
            text: annotation.text.as_deref().unwrap_or_default(),
            tags: tags.filter_map(|tag| tag.as_deref()).collect(),
            group: &annotation.groupid,
            moderation_status: Some(raw(&moderation_status(annotation))?),
            permissions: raw(&permissions(state))?,
            target: raw(&[target(annotation)])?,
            document: raw(&document(state))?,
            links: raw(&links(state, urls, &id, root))?,
            mentions: raw(&mentions(state, urls))?,
            user_info: user_info(state).as_ref().map(raw).transpose()?,
            references: &references,
            moderation: Some(raw(&json!({ "flagCount": state.flaggers.len() }))?),
            stored_members: &extra.0,
            published_members: None,
        };
        let messages = variants
            .iter()
            .map(|variant| notification(action, &json, *variant));
        messages.collect()
    };
    write().map_err(|_| DropReason::Unreadable)
}

fn moderation_status(annotation: &Annotation) -> Option<&str> {
    let default = annotation.shared.then_some(APPROVED);
    annotation.moderation_status.as_deref().or(default)
}

fn target(annotation: &Annotation) -> Target<'_> {
    Target {
        source: uri(annotation),
        description: annotation.target_description.as_deref(),
        selectors: selectors(annotation.target_selectors.as_deref()),
    }
}

fn document(state: &AnnotationState) -> Value {
    match state.title.as_deref() {
        Some(title) if !title.is_empty() => json!({ "title": [title] }),
        _ => json!({}),
    }
}

fn mentions(state: &AnnotationState, urls: &UrlBuilder) -> Vec<Value> {
    let mentions = state.mentions.iter();
    mentions.map(|one| mention(one, urls)).collect()
}

/// Returns `None` if the author is not in the database.
fn user_info(state: &AnnotationState) -> Option<Value> {
    let author = state.author.as_ref()?;
    Some(json!({ "display_name": author.display_name }))
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

struct Target<'a> {
    source: &'a str,
    description: Option<&'a str>,
    selectors: Vec<Box<RawValue>>,
}

impl Serialize for Target<'_> {
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

const QUOTE_KEYS: [&str; 3] = ["prefix", "exact", "suffix"];
const ESCAPED_NUL: &str = r"\u0000";
const ESCAPED_NUL_AS_JSON: &str = r"\\u0000";

#[cfg(test)]
mod tests;
