//! Converts the body of a publish request into plans.
//!
//! The events are those of h's message queue. They include the data that h would read from its own
//! tables: the annotation, and the other URIs of the same document. A stored event is converted again
//! when the rights that its plan depends on may have changed.

use serde_json::{Map, Value, json};

use super::annotation::{Annotation, ReadPermission};
use super::directory::Directory;
use super::fields::{Fields, InvalidField, quote};
use super::policy_facts::policy_facts;
use crate::backend::annotation_json::{self, notification};
use crate::backend::json::without_lone_surrogates;
use crate::backend::policy::{Variant, access_rules};
use crate::backend::userid::is_userid;
use crate::model::{
    AnnotationFacts, Candidates, Cause, Condition, Decision, EventKind, Plan, PublishError, Rule,
    Stamp, Subject, Term, UnixMillis,
};
use crate::uri;

/// The reason why a body is rejected as a whole.
#[derive(Debug)]
pub(super) enum PublishFailure {
    /// The body is invalid.
    Publisher(PublishError),
    /// The readers cannot be determined, since the database is unavailable.
    Database(rusqlite::Error),
}

/// An event with its plan.
#[derive(Debug)]
pub(super) struct PlannedEvent {
    pub plan: Plan,
    pub basis: Basis,
    /// The event as JSON, from which the plan can be made again.
    pub body: Vec<u8>,
}

/// The objects in the database on which the rules of a plan depend.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Basis {
    /// The author's userid.
    pub author: Option<String>,
    /// The annotation's group.
    pub group: Option<String>,
    /// Other groups that the annotation names as readers.
    pub other_groups: Vec<String>,
}

/// Returns the plans of all events in a body: either one JSON object on any number of lines, or one
/// object per line. If one event is invalid, all are rejected.
pub(super) fn plans(
    body: &[u8],
    directory: &Directory<'_>,
    now: UnixMillis,
) -> Result<Vec<PlannedEvent>, PublishFailure> {
    let mut plans = Vec::new();
    let body = without_lone_surrogates(body);
    for (line, text, event) in events(&body).map_err(PublishFailure::Publisher)? {
        let (plan, basis) =
            plan(event, directory, now, Cause::Event).map_err(|error| error.on_line(line))?;
        plans.push(PlannedEvent {
            plan,
            basis,
            body: text.to_vec(),
        });
    }
    Ok(plans)
}

/// Makes the plan of a stored event again, with the rights of now. `time` is the time at which it was
/// published.
pub(super) fn replan(
    body: Vec<u8>,
    directory: &Directory<'_>,
    time: UnixMillis,
    cause: Cause,
) -> Result<PlannedEvent, PublishFailure> {
    let event = serde_json::from_slice(&body)
        .map_err(|error| PublishFailure::Publisher(not_json(1, &error)))?;
    let (plan, basis) = plan(event, directory, time, cause).map_err(|error| error.on_line(1))?;
    Ok(PlannedEvent { plan, basis, body })
}

/// An event of a body: the line on which it starts, its text, and its value.
type ParsedEvent<'a> = (usize, &'a [u8], Value);

/// Returns the events of a body.
fn events(body: &[u8]) -> Result<Vec<ParsedEvent<'_>>, PublishError> {
    let lines = || {
        let lines = (1..).zip(body.split(|&byte| byte == b'\n'));
        lines.filter(|(_, text)| !text.trim_ascii().is_empty())
    };
    let Some((start, first)) = lines().next() else {
        return Err(PublishError::Invalid {
            line: 1,
            reason: "the body contains no event".to_owned(),
        });
    };
    let whole = match serde_json::from_slice(body) {
        Ok(event) => return Ok(vec![(start, body.trim_ascii(), event)]),
        Err(error) => error,
    };
    // If the first line is an incomplete value, the body is one value that spans several lines.
    let several = serde_json::from_slice::<Value>(first).map_err(|error| error.is_eof());
    if several == Err(true) && lines().nth(1).is_some() {
        return Err(not_json(whole.line(), &whole));
    }
    lines()
        .map(|(line, text)| match serde_json::from_slice(text) {
            Ok(event) => Ok((line, text.trim_ascii(), event)),
            Err(error) => Err(not_json(line, &error)),
        })
        .collect()
}

fn not_json(line: usize, error: &serde_json::Error) -> PublishError {
    let text = error.to_string();
    // Omit the parser's line number, which is relative to its own start.
    let what = text.split(" at line ").next().unwrap_or_default();
    PublishError::Invalid {
        line,
        reason: format!("not JSON at column {}: {what}", error.column()),
    }
}

enum EventError {
    Refused(InvalidField),
    Database(rusqlite::Error),
}

impl EventError {
    fn on_line(self, line: usize) -> PublishFailure {
        match self {
            EventError::Refused(InvalidField(reason)) => {
                PublishFailure::Publisher(PublishError::Invalid { line, reason })
            }
            EventError::Database(error) => PublishFailure::Database(error),
        }
    }
}

fn plan(
    event: Value,
    directory: &Directory<'_>,
    now: UnixMillis,
    cause: Cause,
) -> Result<(Plan, Basis), EventError> {
    let Value::Object(event) = event else {
        return Err(EventError::Refused(InvalidField(
            "not a JSON object".to_owned(),
        )));
    };
    let mut event = Fields::new("", event);
    match event.required("topic")?.as_str() {
        "annotation" => annotation_plan(event, directory, now, cause),
        "user" => Ok((user_plan(event)?, Basis::default())),
        other => {
            let what = format!("must be annotation or user, not {}", quote(other));
            Err(event.invalid("topic", &what).into())
        }
    }
}

fn annotation_plan(
    mut event: Fields,
    directory: &Directory<'_>,
    now: UnixMillis,
    cause: Cause,
) -> Result<(Plan, Basis), EventError> {
    let action = event.required("action")?;
    let kind = match action.as_str() {
        "create" => EventKind::Create,
        // Receivers of a changed right see the annotation for the first time.
        "update" if cause == Cause::RightsChange => EventKind::Create,
        "update" => EventKind::Update,
        "delete" => EventKind::Delete,
        other => {
            let what = format!("must be create, update or delete, not {}", quote(other));
            return Err(event.invalid("action", &what).into());
        }
    };
    let id = event.string("annotation_id")?;
    let exclude_client = event.string("src_client_id")?.map(Into::into);
    // The client did not cause the change of rights, and may have lost the annotation before it.
    let exclude_client = exclude_client.filter(|_| cause == Cause::Event);
    let uris = event.strings("uris")?.unwrap_or_default();
    let json = event
        .object("annotation")?
        .ok_or_else(|| event.invalid("annotation", "is missing: it determines the receivers"))?;
    let mut annotation = Annotation::new(json, id, now)?;

    let author = directory.author(&annotation.user)?;
    annotation.set_author_name(author.display_name);
    let deleted = kind == EventKind::Delete;
    let access = access_rules(&policy_facts(
        &annotation,
        author.muted,
        deleted,
        directory,
    )?);
    let variants = if deleted {
        let deletion = |_| annotation_json::deletion(kind.as_str(), &annotation.id);
        access.variants.iter().map(deletion).collect()
    } else {
        notifications(kind.as_str(), &annotation, &access.variants)
            .map_err(|error| InvalidField(format!("cannot be written: {error}")))?
    };
    let plan = Plan {
        kind,
        subject: Subject::Annotation(annotation.id.as_str().into()),
        stamp: Stamp::default(),
        cause,
        candidates: Candidates::Terms(terms(&annotation, &uris)),
        exclude_client,
        rules: access.rules,
        variants,
    };
    Ok((plan, Basis::of(annotation)))
}

impl Basis {
    fn of(annotation: Annotation) -> Basis {
        let readers = annotation.readers.into_iter();
        let mut other_groups: Vec<String> = readers
            .filter_map(|reader| match reader {
                ReadPermission::Group(group) if group != annotation.group => Some(group),
                _ => None,
            })
            .collect();
        other_groups.sort_unstable();
        other_groups.dedup();
        Basis {
            author: Some(annotation.user),
            group: Some(annotation.group),
            other_groups,
        }
    }
}

/// Returns the messages for an annotation, one for each variant.
fn notifications(
    action: &str,
    annotation: &Annotation,
    variants: &[Variant],
) -> Result<Vec<Box<str>>, serde_json::Error> {
    let json = annotation.to_json()?;
    let messages = variants
        .iter()
        .map(|variant| notification(action, &json, *variant));
    messages.collect()
}

/// Returns the terms by which filters match this annotation.
fn terms(annotation: &Annotation, uris: &[String]) -> Vec<Term> {
    let pages = std::iter::once(&annotation.uri).chain(uris);
    Term::of_annotation(AnnotationFacts {
        id: &annotation.id,
        group: &annotation.group,
        user: &annotation.user,
        tags: annotation.tags.iter().map(String::as_str).collect(),
        references: annotation.references.clone(),
        pages: uri::annotation_keys(pages.map(String::as_str), annotation.version()),
    })
}

/// The plan of a membership change: the user's clients receive their new profile.
fn user_plan(mut event: Fields) -> Result<Plan, InvalidField> {
    let action = event.required("type")?;
    if action != "group-join" && action != "group-leave" {
        let what = format!("must be group-join or group-leave, not {}", quote(&action));
        return Err(event.invalid("type", &what));
    }
    let userid = event.required("userid")?;
    if !is_userid(&userid) {
        return Err(event.invalid("userid", "must look like acct:NAME@AUTHORITY"));
    }
    let model = event
        .object("session_model")?
        .ok_or_else(|| event.invalid("session_model", "is missing"))?;
    check_session_model(&model)?;
    let userid: Box<str> = userid.into();
    let message = json!({ "type": "session-change", "action": action, "model": model });
    Ok(Plan {
        kind: EventKind::SessionChange,
        subject: Subject::User(userid.clone()),
        stamp: Stamp::default(),
        cause: Cause::Event,
        candidates: Candidates::User(userid.clone()),
        exclude_client: None,
        rules: vec![Rule {
            when: vec![Condition::User(userid)],
            then: Decision::Send(0),
        }],
        variants: vec![message.to_string().into()],
    })
}

/// The client replaces its whole profile with the model, and fails without the members checked
/// here.
fn check_session_model(model: &Map<String, Value>) -> Result<(), InvalidField> {
    let mut fields = Fields::new("session_model", model.clone());
    fields.required("userid")?;
    let missing = if fields.objects("groups")?.is_none() {
        "groups"
    } else if fields.object("features")?.is_none() {
        "features"
    } else if fields.object("preferences")?.is_none() {
        "preferences"
    } else {
        return Ok(());
    };
    Err(fields.invalid(missing, "is missing"))
}

impl From<InvalidField> for EventError {
    fn from(invalid: InvalidField) -> Self {
        EventError::Refused(invalid)
    }
}

impl From<rusqlite::Error> for EventError {
    fn from(error: rusqlite::Error) -> Self {
        EventError::Database(error)
    }
}

#[cfg(test)]
mod tests;
