//! Parses the events of h's message queue from their JSON.

use serde_json::{Map, Value, json};

use super::ids::Uuid;
use crate::backend::DropReason;
use crate::model::{Candidates, Cause, Condition, Decision, EventKind, Plan, Rule, Stamp, Subject};

/// An event on an annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotationEvent {
    /// h's name of the action: `create`, `update`, or `delete`. As in h, others are passed on.
    pub action: String,
    /// The id of the annotation, as it was sent.
    pub annotation_id: String,
    /// The client that caused the event.
    pub src_client_id: Option<String>,
    pub(super) uuid: Uuid,
}

impl AnnotationEvent {
    /// Parses an event with the routing key `annotation`.
    ///
    /// # Errors
    /// [`DropReason::Malformed`] if a member is missing, or the id is invalid.
    pub fn parse(event: &Map<String, Value>) -> Result<AnnotationEvent, DropReason> {
        let annotation_id = string(event, "annotation_id")?;
        let src_client_id = event.get("src_client_id").ok_or(DropReason::Malformed)?;
        Ok(AnnotationEvent {
            action: string(event, "action")?.to_owned(),
            annotation_id: annotation_id.to_owned(),
            // Client ids are strings here, so any other value matches no client.
            src_client_id: src_client_id.as_str().map(str::to_owned),
            uuid: Uuid::from_url_safe(annotation_id).ok_or(DropReason::Malformed)?,
        })
    }

    /// Returns the kind for the counters. Unknown actions count as updates.
    pub(super) fn kind(&self) -> EventKind {
        match self.action.as_str() {
            "create" => EventKind::Create,
            "delete" => EventKind::Delete,
            _ => EventKind::Update,
        }
    }
}

/// Parses an event with the routing key `user`. Returns the user and the plan, which sends the
/// unchecked profile to the user's clients.
///
/// # Errors
/// [`DropReason::Malformed`] if a member is missing.
pub fn user_plan(event: &Map<String, Value>) -> Result<(Box<str>, Plan), DropReason> {
    let action = string(event, "type")?;
    let userid: Box<str> = string(event, "userid")?.into();
    let model = event.get("session_model").ok_or(DropReason::Malformed)?;
    if !model.is_object() {
        return Err(DropReason::Malformed);
    }
    let message = json!({ "type": "session-change", "action": action, "model": model });
    let plan = Plan {
        kind: EventKind::SessionChange,
        subject: Subject::User(userid.clone()),
        stamp: Stamp::default(),
        cause: Cause::Event,
        candidates: Candidates::User(userid.clone()),
        exclude_client: None,
        rules: vec![Rule {
            when: vec![Condition::User(userid.clone())],
            then: Decision::Send(0),
        }],
        variants: vec![message.to_string().into()],
    };
    Ok((userid, plan))
}

fn string<'a>(event: &'a Map<String, Value>, key: &str) -> Result<&'a str, DropReason> {
    event
        .get(key)
        .and_then(Value::as_str)
        .ok_or(DropReason::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(value: Value) -> Map<String, Value> {
        match value {
            Value::Object(object) => object,
            other => panic!("{other} is no object"),
        }
    }

    fn with(key: &str, value: Value) -> Map<String, Value> {
        let mut event = object(json!({
            "action": "create", "annotation_id": "AAAAAREREeaAAAAAAAAAAQ", "src_client_id": "c",
        }));
        event.insert(key.to_owned(), value);
        event
    }

    #[test]
    fn annotation_event_is_parsed() {
        let event = AnnotationEvent::parse(&with("action", "update".into())).unwrap();
        assert_eq!(event.kind(), EventKind::Update);
        assert_eq!(event.annotation_id, "AAAAAREREeaAAAAAAAAAAQ");
        assert_eq!(event.src_client_id.as_deref(), Some("c"));
        assert_eq!(event.uuid.to_hex(), "00000001111111e68000000000000001");
        let kind = |action: &str| {
            let event = AnnotationEvent::parse(&with("action", action.into()));
            event.unwrap().kind()
        };
        assert_eq!(kind("create"), EventKind::Create);
        assert_eq!(kind("delete"), EventKind::Delete);
        assert_eq!(kind("archive"), EventKind::Update);
    }

    #[test]
    fn event_without_client_excludes_no_connection() {
        for value in [Value::Null, json!(5), json!({})] {
            let event = AnnotationEvent::parse(&with("src_client_id", value)).unwrap();
            assert_eq!(event.src_client_id, None);
        }
    }

    #[test]
    fn event_with_missing_member_is_malformed() {
        for key in ["action", "annotation_id", "src_client_id"] {
            let mut event = with("more", json!(1));
            event.remove(key);
            assert_eq!(
                AnnotationEvent::parse(&event),
                Err(DropReason::Malformed),
                "{key}"
            );
        }
        for (key, value) in [
            ("action", json!(5)),
            ("action", Value::Null),
            ("annotation_id", Value::Null),
            ("annotation_id", json!([])),
            ("annotation_id", json!("nope")),
            (
                "annotation_id",
                json!("00000001-1111-11e6-8000-000000000001"),
            ),
        ] {
            let event = with(key, value);
            assert_eq!(AnnotationEvent::parse(&event), Err(DropReason::Malformed));
        }
    }

    #[test]
    fn user_event_is_sent_unchanged_to_its_user() {
        let event = object(json!({
            "type": "group-join", "userid": "acct:a@b", "group": "g",
            "session_model": { "userid": "acct:a@b", "features": { "n": 1.50 }, "x": null },
        }));
        let (userid, plan) = user_plan(&event).unwrap();
        assert_eq!(&*userid, "acct:a@b");
        assert_eq!(plan.candidates, Candidates::User(userid.clone()));
        assert_eq!(plan.rules[0].when, [Condition::User(userid)]);
        assert_eq!(
            &*plan.variants[0],
            r#"{"type":"session-change","action":"group-join","model":{"userid":"acct:a@b","features":{"n":1.5},"x":null}}"#
        );
        for key in ["type", "userid", "session_model"] {
            for wrong in [None, Some(json!(5)), Some(Value::Null)] {
                let mut event = event.clone();
                event.remove(key);
                event.extend(wrong.map(|wrong| (key.to_owned(), wrong)));
                assert_eq!(user_plan(&event), Err(DropReason::Malformed), "{key}");
            }
        }
    }
}
