//! Published annotations: h's API JSON, validated, with defaults for missing members.
//!
//! After one annotation that lacks a required member, or has one of the wrong type, the official
//! client stops showing any events. Such annotations are therefore rejected here. All other content
//! is the publisher's responsibility and is passed on unchanged.

use serde_json::{Map, Value, json};

use super::fields::{Fields, InvalidField, objects, quote};
use crate::backend::annotation_json::{AnnotationJson, raw};
use crate::backend::time::{format_as_h, is_date_time};
use crate::backend::userid::{is_userid, is_word};
use crate::model::UnixMillis;

/// A valid annotation, without the parts that depend on the receiver.
#[derive(Debug)]
pub(super) struct Annotation {
    pub id: String,
    /// The author's userid.
    pub user: String,
    pub uri: String,
    pub group: String,
    /// The readers named by the annotation.
    pub readers: Vec<ReadPermission>,
    pub references: Vec<String>,
    /// Hidden by moderation.
    pub hidden: bool,
    created: String,
    updated: String,
    text: String,
    pub tags: Vec<String>,
    moderation_status: Option<Value>,
    permissions: Map<String, Value>,
    target: Vec<Value>,
    document: Map<String, Value>,
    links: Map<String, Value>,
    mentions: Vec<Value>,
    user_info: Option<Map<String, Value>>,
    moderation: Option<Map<String, Value>>,
    /// Unknown members, which are kept.
    unknown_members: Map<String, Value>,
}

/// An entry of `permissions.read`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReadPermission {
    /// `group:__world__`
    World,
    /// `group:ID`
    Group(String),
    /// `acct:NAME@AUTHORITY`
    User(String),
}

impl Annotation {
    /// Validates and completes a published annotation. `id` is the event's `annotation_id`.
    pub(super) fn new(
        json: Map<String, Value>,
        id: Option<String>,
        now: UnixMillis,
    ) -> Result<Annotation, InvalidField> {
        let mut fields = Fields::new("annotation", json);
        let id = annotation_id(&mut fields, id)?;
        let user = fields.required("user")?;
        if !is_userid(&user) {
            return Err(fields.invalid("user", "must look like acct:NAME@AUTHORITY"));
        }
        let uri = fields.required("uri")?;
        let (permissions, readers) = permissions(&mut fields, &user)?;
        let group = group(&mut fields, &readers)?;
        let (moderation_status, hidden) = moderation(&mut fields)?;
        // These members depend on the receiver.
        fields.raw("actions");
        fields.raw("flagged");
        Ok(Annotation {
            created: time(&mut fields, "created", now)?,
            updated: time(&mut fields, "updated", now)?,
            text: fields.string("text")?.unwrap_or_default(),
            tags: fields.strings("tags")?.unwrap_or_default(),
            target: target(&mut fields, &uri)?,
            document: fields.object("document")?.unwrap_or_default(),
            links: fields.object("links")?.unwrap_or_default(),
            mentions: fields.objects("mentions")?.unwrap_or_default(),
            user_info: fields.object("user_info")?,
            references: fields.strings("references")?.unwrap_or_default(),
            moderation: fields.object("moderation")?,
            unknown_members: fields.rest(),
            id,
            user,
            uri,
            group,
            readers,
            hidden,
            moderation_status,
            permissions,
        })
    }

    /// Returns the version of the annotated page, if given.
    pub(super) fn version(&self) -> Option<u64> {
        self.unknown_members.get("version").and_then(Value::as_u64)
    }

    /// Adds the author's display name, unless the publisher provided one.
    pub(super) fn set_author_name(&mut self, display_name: Option<String>) {
        self.user_info.get_or_insert_with(|| {
            Map::from_iter([("display_name".to_owned(), Value::from(display_name))])
        });
    }

    /// Returns the annotation as JSON, without the values that depend on the receiver.
    pub(super) fn to_json(&self) -> Result<AnnotationJson<'_>, serde_json::Error> {
        Ok(AnnotationJson {
            id: &self.id,
            created: &self.created,
            updated: &self.updated,
            user: &self.user,
            uri: &self.uri,
            text: &self.text,
            tags: self.tags.iter().map(String::as_str).collect(),
            group: &self.group,
            moderation_status: self.moderation_status.as_ref().map(raw).transpose()?,
            permissions: raw(&self.permissions)?,
            target: raw(&self.target)?,
            document: raw(&self.document)?,
            links: raw(&self.links)?,
            mentions: raw(&self.mentions)?,
            user_info: self.user_info.as_ref().map(raw).transpose()?,
            references: &self.references,
            moderation: self.moderation.as_ref().map(raw).transpose()?,
            stored_members: &[],
            published_members: Some(&self.unknown_members),
        })
    }
}

/// Returns the annotation's id, which may be given by the event instead.
fn annotation_id(fields: &mut Fields, event: Option<String>) -> Result<String, InvalidField> {
    match (fields.string("id")?, event) {
        (Some(own), Some(event)) if own != event => {
            Err(fields.invalid("id", "is not the event's annotation_id"))
        }
        (Some(id), _) | (None, Some(id)) if !id.is_empty() => Ok(id),
        (None, None) => Err(fields.invalid("id", "is missing")),
        _ => Err(fields.invalid("id", "is empty")),
    }
}

/// Returns the permissions with defaults, in h's order, and the readers that they name. `read` has
/// no default: a wrong guess could show a private annotation to all users.
fn permissions(
    fields: &mut Fields,
    user: &str,
) -> Result<(Map<String, Value>, Vec<ReadPermission>), InvalidField> {
    let given = fields.object("permissions")?.ok_or_else(|| {
        fields.invalid("permissions.read", "is missing: it must name the readers")
    })?;
    let mut given = Fields::new("annotation.permissions", given);
    let read = given
        .strings("read")?
        .ok_or_else(|| given.invalid("read", "is missing: it must name the readers"))?;
    if read.is_empty() {
        return Err(given.invalid("read", "is empty: it must name at least one reader"));
    }
    if read.len() > MAX_READERS {
        let what = format!("has more than {MAX_READERS} entries");
        return Err(given.invalid("read", &what));
    }
    let readers = read
        .iter()
        .map(|entry| reader(entry).ok_or_else(|| bad_reader(&given, entry)))
        .collect::<Result<_, _>>()?;
    let mut permissions = Map::new();
    permissions.insert("read".to_owned(), read.into());
    for key in ["admin", "update", "delete"] {
        let users = given.strings(key)?;
        let users = users.unwrap_or_else(|| vec![user.to_owned()]);
        permissions.insert(key.to_owned(), users.into());
    }
    permissions.extend(given.rest());
    Ok((permissions, readers))
}

fn reader(entry: &str) -> Option<ReadPermission> {
    match entry.strip_prefix("group:") {
        Some(WORLD) => Some(ReadPermission::World),
        Some(group) => is_word(group).then(|| ReadPermission::Group(group.to_owned())),
        None => is_userid(entry).then(|| ReadPermission::User(entry.to_owned())),
    }
}

fn bad_reader(permissions: &Fields, entry: &str) -> InvalidField {
    let entry = quote(entry);
    permissions.invalid(
        "read",
        &format!("has {entry}, which is neither group:ID nor acct:NAME@AUTHORITY"),
    )
}

/// Returns the group. If missing, it is the first group that `permissions.read` names, or the world
/// group if the annotation is private.
fn group(fields: &mut Fields, readers: &[ReadPermission]) -> Result<String, InvalidField> {
    match fields.string("group")? {
        Some(group) if is_word(&group) => Ok(group),
        Some(_) => Err(fields.invalid("group", "is not a valid group id")),
        None => Ok(readers
            .iter()
            .find_map(|reader| match reader {
                ReadPermission::World => Some(WORLD.to_owned()),
                ReadPermission::Group(group) => Some(group.clone()),
                ReadPermission::User(_) => None,
            })
            .unwrap_or_else(|| WORLD.to_owned())),
    }
}

/// Returns the moderation status as given, and whether the annotation is hidden: by the member
/// `hidden`, or, as in h, by any status except `APPROVED`.
fn moderation(fields: &mut Fields) -> Result<(Option<Value>, bool), InvalidField> {
    let hidden = fields.boolean("hidden")?.unwrap_or(false);
    let status = fields.raw("moderation_status");
    match &status {
        None | Some(Value::Null) => Ok((status, hidden)),
        Some(Value::String(word)) => {
            let hides = word != "APPROVED";
            Ok((status, hidden || hides))
        }
        Some(_) => Err(fields.invalid("moderation_status", "must be a string")),
    }
}

fn time(fields: &mut Fields, key: &str, now: UnixMillis) -> Result<String, InvalidField> {
    match fields.string(key)? {
        None => Ok(format_as_h(now)),
        Some(text) if is_date_time(&text) => Ok(text),
        Some(_) => Err(fields.invalid(key, "must look like 2024-01-02T03:04:05.678901+00:00")),
    }
}

/// Returns the targets. The client searches the selectors of each for a quote. As in h, an empty
/// list becomes a target for the page; the client sends one for notes about a whole page.
fn target(fields: &mut Fields, uri: &str) -> Result<Vec<Value>, InvalidField> {
    let target = fields.objects("target")?.unwrap_or_default();
    if target.is_empty() {
        return Ok(vec![json!({ "source": uri })]);
    }
    let selectors = target.iter().filter_map(|target| target.get("selector"));
    for selector in selectors.filter(|selector| !selector.is_null()) {
        if objects(selector.clone()).is_none() {
            return Err(fields.invalid("target", "has a selector that is not a list of objects"));
        }
    }
    Ok(target)
}

/// The world group.
pub(super) const WORLD: &str = "__world__";
/// The maximum number of entries. Each entry becomes a rule that is evaluated for each receiver. h
/// itself writes one entry.
const MAX_READERS: usize = 100;
