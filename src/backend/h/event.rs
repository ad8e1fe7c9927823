//! The events of h's message queue, as their JSON says them.

use serde_json::{Map, Value, json};

use super::ids::Uuid;
use crate::backend::Fate;
use crate::model::{Decision, EventKind, Plan, Reach, Rule, Who};

/// Something happened to an annotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotationEvent {
    /// h's word for it: `create`, `update`, `delete`. Others are passed on, as h does.
    pub action: String,
    /// The id of the annotation, as it was sent.
    pub annotation_id: String,
    /// The client whose request it came of.
    pub src_client_id: Option<String>,
    pub(super) uuid: Uuid,
}

impl AnnotationEvent {
    /// Reads an event of the routing key `annotation`.
    ///
    /// # Errors
    /// [`Fate::Malformed`] if it lacks one of its parts, or the id is none.
    pub fn parse(event: &Map<String, Value>) -> Result<AnnotationEvent, Fate> {
        let annotation_id = string(event, "annotation_id")?;
        let src_client_id = event.get("src_client_id").ok_or(Fate::Malformed)?;
        Ok(AnnotationEvent {
            action: string(event, "action")?.to_owned(),
            annotation_id: annotation_id.to_owned(),
            // A client's id is a string here, so any other is no client's.
            src_client_id: src_client_id.as_str().map(str::to_owned),
            uuid: Uuid::from_url_safe(annotation_id).ok_or(Fate::Malformed)?,
        })
    }

    /// The kind, for counting. What h calls otherwise is something that changed.
    pub(super) fn kind(&self) -> EventKind {
        match self.action.as_str() {
            "create" => EventKind::Create,
            "delete" => EventKind::Delete,
            _ => EventKind::Update,
        }
    }
}

/// The user of an event of the routing key `user`, and the plan for it: the user's clients are
/// given their new profile, whatever is in it.
///
/// # Errors
/// [`Fate::Malformed`] if it lacks one of its parts.
pub fn user_plan(event: &Map<String, Value>) -> Result<(Box<str>, Plan), Fate> {
    let action = string(event, "type")?;
    let userid: Box<str> = string(event, "userid")?.into();
    let model = event.get("session_model").ok_or(Fate::Malformed)?;
    if !model.is_object() {
        return Err(Fate::Malformed);
    }
    let message = json!({ "type": "session-change", "action": action, "model": model });
    let plan = Plan {
        kind: EventKind::SessionChange,
        reach: Reach::User(userid.clone()),
        exclude_client: None,
        rules: vec![Rule {
            when: vec![Who::User(userid.clone())],
            then: Decision::Send(0),
        }],
        variants: vec![message.to_string().into()],
    };
    Ok((userid, plan))
}

fn string<'a>(event: &'a Map<String, Value>, key: &str) -> Result<&'a str, Fate> {
    event
        .get(key)
        .and_then(Value::as_str)
        .ok_or(Fate::Malformed)
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
    fn an_annotation_event_is_read() {
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
    fn an_event_of_no_client_excludes_nobody() {
        for value in [Value::Null, json!(5), json!({})] {
            let event = AnnotationEvent::parse(&with("src_client_id", value)).unwrap();
            assert_eq!(event.src_client_id, None);
        }
    }

    #[test]
    fn what_lacks_a_part_is_malformed() {
        for key in ["action", "annotation_id", "src_client_id"] {
            let mut event = with("more", json!(1));
            event.remove(key);
            assert_eq!(
                AnnotationEvent::parse(&event),
                Err(Fate::Malformed),
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
            assert_eq!(AnnotationEvent::parse(&event), Err(Fate::Malformed));
        }
    }

    #[test]
    fn a_user_event_goes_to_its_user_as_it_came() {
        let event = object(json!({
            "type": "group-join", "userid": "acct:a@b", "group": "g",
            "session_model": { "userid": "acct:a@b", "features": { "n": 1.50 }, "x": null },
        }));
        let (userid, plan) = user_plan(&event).unwrap();
        assert_eq!(&*userid, "acct:a@b");
        assert_eq!(plan.reach, Reach::User(userid.clone()));
        assert_eq!(plan.rules[0].when, [Who::User(userid)]);
        assert_eq!(
            &*plan.variants[0],
            r#"{"type":"session-change","action":"group-join","model":{"userid":"acct:a@b","features":{"n":1.5},"x":null}}"#
        );
        for key in ["type", "userid", "session_model"] {
            for wrong in [None, Some(json!(5)), Some(Value::Null)] {
                let mut event = event.clone();
                event.remove(key);
                event.extend(wrong.map(|wrong| (key.to_owned(), wrong)));
                assert_eq!(user_plan(&event), Err(Fate::Malformed), "{key}");
            }
        }
    }
}
