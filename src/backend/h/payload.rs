//! The messages that go out: h's annotation JSON, key by key.
//!
//! Owns: which key says what, and their order. Must not know: who gets which view.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::facts::{APPROVED, Annotation, Facts, Group, Mention, WORLD};
use super::links::{Linked, Site};
use super::userid;
use crate::backend::Fate;

/// As whom a receiver sees an annotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct View {
    /// May moderate it.
    pub moderates: bool,
    /// Has flagged it.
    pub flagged: bool,
    /// Is told that it is hidden: the author never is.
    pub hidden: bool,
}

/// The message that says that an annotation is no more. Its id is the one that h's message had.
pub(super) fn deletion(action: &str, id: &str) -> Box<str> {
    message(action, &json!({ "id": id }).to_string())
}

/// The messages that show an annotation, one for each view.
///
/// # Errors
/// [`Fate::Unreadable`] for a time that cannot be told, and for what is no JSON.
pub(super) fn notifications(
    action: &str,
    facts: &Facts,
    site: &Site,
    views: &[View],
) -> Result<Vec<Box<str>>, Fate> {
    let body = Body::new(facts, site).ok_or(Fate::Unreadable)?;
    let shown = views.iter().map(|&view| {
        let body = &body;
        let shown = serde_json::to_string(&Shown { body, view });
        let shown = shown.map_err(|_| Fate::Unreadable)?;
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

/// What all views of an annotation have in common.
struct Body<'a> {
    annotation: &'a Annotation,
    /// What clients may store with an annotation besides what h knows. Nothing of it may take the
    /// place of what h says itself, be that in every message or only in some.
    extra: Entries,
    id: String,
    created: String,
    updated: String,
    tags: Vec<&'a str>,
    permissions: Value,
    target: Vec<Target<'a>>,
    document: Value,
    links: Value,
    mentions: Vec<Value>,
    /// Absent where h does not know the author.
    user_info: Option<Value>,
    references: Vec<String>,
    flags: usize,
}

impl<'a> Body<'a> {
    fn new(facts: &'a Facts, site: &Site) -> Option<Body<'a>> {
        let annotation = &facts.annotation;
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
            permissions: permissions(facts),
            target: vec![Target {
                source: uri(annotation),
                description: annotation.target_description.as_deref(),
                selectors: selectors(annotation.target_selectors.as_deref()),
            }],
            document: match facts.title.as_deref() {
                Some(title) if !title.is_empty() => json!({ "title": [title] }),
                _ => json!({}),
            },
            links: links(facts, site, &id, references.first().unwrap_or(&id)),
            mentions: facts.mentions.iter().map(|it| mention(it, site)).collect(),
            user_info: facts
                .author
                .as_ref()
                .map(|author| json!({ "display_name": author.display_name })),
            flags: facts.flaggers.len(),
            references,
            id,
        })
    }

    fn moderation_status(&self) -> Option<&str> {
        let default = self.annotation.shared.then_some(APPROVED);
        self.annotation.moderation_status.as_deref().or(default)
    }
}

/// The page, for clients: one without an address is shown as one with an empty address, which
/// they know, since h has such.
fn uri(annotation: &Annotation) -> &str {
    annotation.target_uri.as_deref().unwrap_or_default()
}

fn permissions(facts: &Facts) -> Value {
    let annotation = &facts.annotation;
    let world_reads = facts.group == Some(Group::World) && !annotation.is_hidden();
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

fn links(facts: &Facts, site: &Site, id: &str, root: &str) -> Value {
    let of = Linked {
        id,
        root,
        userid: &facts.annotation.userid,
        uri: uri(&facts.annotation),
        web_address: facts.web_address.as_deref(),
    };
    let links = [
        ("html", site.html(&of)),
        ("incontext", site.incontext(&of)),
        ("json", Some(site.json(&of))),
    ];
    let links = links.into_iter();
    Value::Object(
        links
            .filter_map(|(name, link)| Some((name.to_owned(), link?.into())))
            .collect(),
    )
}

fn mention(mention: &Mention, site: &Site) -> Value {
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
        "link": site.user(username, authority),
        "description": mention.description,
        "joined": mention.joined.and_then(|time| time.to_text()),
    })
}

/// The entries of a JSON object, in its order. The values stay text: nothing of them is read, so
/// they may be as deep, and their numbers as long, as PostgreSQL has them.
#[derive(Default)]
struct Entries(Vec<(String, Box<RawValue>)>);

/// The selectors; of the list in the row those that are objects, since clients fail on others.
fn selectors(json: Option<&str>) -> Vec<Box<RawValue>> {
    let all: Vec<Box<RawValue>> = json
        .and_then(|json| serde_json::from_str(json).ok())
        .unwrap_or_default();
    let objects = all.into_iter().filter(|it| it.get().starts_with('{'));
    objects.map(with_nulls).collect()
}

/// PostgreSQL's JSON cannot have the character NUL, so h writes `\u0000` as six characters where
/// a quote has it.
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

struct Shown<'a> {
    body: &'a Body<'a>,
    view: View,
}

impl Serialize for Shown<'_> {
    /// First what is stored besides, then what h says. A stored key that h has as well says what
    /// h says, but where it is stored.
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
    /// The entry of one of h's own keys, if this receiver is shown it.
    fn entry<M: SerializeMap>(&self, map: &mut M, key: &str) -> Result<(), M::Error> {
        let Shown { body, view } = *self;
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
            "target" => map.serialize_entry(key, &body.target),
            "document" => map.serialize_entry(key, &body.document),
            "links" => map.serialize_entry(key, &body.links),
            "actions" if view.moderates => map.serialize_entry(key, &["moderate"]),
            "actions" => map.serialize_entry(key, &[(); 0]),
            "mentions" => map.serialize_entry(key, &body.mentions),
            "user_info" => match &body.user_info {
                Some(user_info) => map.serialize_entry(key, user_info),
                None => Ok(()),
            },
            "references" if !body.references.is_empty() => {
                map.serialize_entry(key, &body.references)
            }
            "flagged" => map.serialize_entry(key, &view.flagged),
            "moderation" if view.moderates => {
                map.serialize_entry(key, &json!({ "flagCount": body.flags }))
            }
            "hidden" => map.serialize_entry(key, &view.hidden),
            _ => Ok(()),
        }
    }
}

/// Every key of h's annotation JSON, in its order; `metadata` is only in its API's.
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
