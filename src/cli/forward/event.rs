//! An event to be forwarded, parsed from its line of JSON. Must not know receivers.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::version::version;
use crate::model::UnixMillis;

/// An action of an annotation event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Create,
    Update,
    /// The annotation was deleted, or became unreadable for the receiver.
    Delete,
}

impl Action {
    pub(super) const ALL: [Action; 3] = [Action::Create, Action::Update, Action::Delete];

    /// Returns the name in the API.
    pub(super) fn name(self) -> &'static str {
        match self {
            Action::Create => "create",
            Action::Update => "update",
            Action::Delete => "delete",
        }
    }
}

/// An annotation event. Contains the text of the annotation, so it has no `Debug`.
#[derive(Clone)]
pub(super) struct ForwardEvent {
    /// The id of the annotation.
    pub id: String,
    /// The position of the event in the server's history.
    pub cursor: String,
    /// Identifies this state of the annotation, also when it is received again.
    pub version: String,
    pub action: Action,
    /// The notification as received, on one line.
    pub line: String,
    /// When it was received.
    pub received: UnixMillis,
}

/// 128 bits of a cryptographic digest.
pub(super) type Digest = [u8; 16];

/// A line that is not an event to be forwarded.
#[derive(Debug, PartialEq)]
pub(super) enum NotForwarded {
    /// It concerns the client itself, such as its groups.
    OtherType,
    /// It is not a notification of one annotation.
    Invalid,
}

#[derive(Deserialize)]
struct Notification<'a> {
    #[serde(rename = "type", borrow)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    options: Option<Options<'a>>,
    #[serde(borrow)]
    payload: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct Options<'a> {
    #[serde(borrow)]
    action: Cow<'a, str>,
}

#[derive(Deserialize)]
struct AnnotationId {
    id: String,
}

impl ForwardEvent {
    /// Parses a line.
    pub(super) fn parse(
        line: &str,
        cursor: &str,
        received: UnixMillis,
    ) -> Result<Self, NotForwarded> {
        let notification: Notification<'_> =
            serde_json::from_str(line).map_err(|_| NotForwarded::Invalid)?;
        if notification.kind != "annotation-notification" {
            return Err(NotForwarded::OtherType);
        }
        let action = notification.options.map(|options| options.action);
        let action = Action::ALL
            .into_iter()
            .find(|found| action.as_deref() == Some(found.name()))
            .ok_or(NotForwarded::Invalid)?;
        let payload = notification.payload.unwrap_or_default();
        let [annotation] = payload.as_slice() else {
            return Err(NotForwarded::Invalid);
        };
        let AnnotationId { id } =
            serde_json::from_str(annotation.get()).map_err(|_| NotForwarded::Invalid)?;
        if id.is_empty() || id.len() > MAX_ID {
            return Err(NotForwarded::Invalid);
        }
        Ok(ForwardEvent {
            id,
            cursor: cursor.to_owned(),
            version: version(cursor, action),
            action,
            line: line.to_owned(),
            received,
        })
    }

    /// Returns the JSON of the annotation; for a deletion, it has only the id.
    pub(super) fn annotation(&self) -> &RawValue {
        let notification = serde_json::from_str::<Notification<'_>>(&self.line).ok();
        let payload = notification.and_then(|notification| notification.payload);
        let first = payload.and_then(|payload| payload.first().copied());
        first.unwrap_or(RawValue::NULL)
    }

    /// Returns the id of the event for receivers: the same for all attempts.
    pub(super) fn webhook_id(&self) -> String {
        let parts = [self.id.as_str(), self.version.as_str()];
        format!("evt_{}", encode(&digest(&parts)))
    }
}

/// Returns the id of a batch of events: the same for the same events.
pub(super) fn batch_id(ids: &[String]) -> String {
    let parts: Vec<&str> = ids.iter().map(String::as_str).collect();
    format!("bat_{}", encode(&digest(&parts)))
}

/// Returns a digest of several texts.
pub(super) fn digest(parts: &[&str]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let hash: [u8; 32] = hash.finalize().into();
    hash.first_chunk().copied().unwrap_or_default()
}

/// Returns a digest in characters that need no escaping.
fn encode(digest: &Digest) -> String {
    URL_SAFE_NO_PAD.encode(digest)
}

/// The maximum length of an annotation's id, in bytes. Those of h have 22.
const MAX_ID: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notifications_of_one_annotation_are_parsed() {
        let line = r#"{"type":"annotation-notification","options":{"action":"update"},"payload":[{"text":"x", "id":"A"}],"cursor":"c"}"#;
        let event = ForwardEvent::parse(line, "c", 7).unwrap_or_else(|_| panic!("an event"));
        assert_eq!((event.id.as_str(), event.action), ("A", Action::Update));
        assert_eq!(event.annotation().get(), r#"{"text":"x", "id":"A"}"#);
        let deleted = r#"{"type":"annotation-notification","options":{"action":"delete"},"payload":[{"id":"A"}]}"#;
        let deleted = ForwardEvent::parse(deleted, "c", 7).unwrap_or_else(|_| panic!("an event"));
        assert_eq!(deleted.action, Action::Delete);
        assert_ne!(deleted.webhook_id(), event.webhook_id());
    }

    #[test]
    fn other_lines_are_not_forwarded() {
        let long = format!(
            r#"{{"type":"annotation-notification","options":{{"action":"delete"}},"payload":[{{"id":"{}"}}]}}"#,
            "a".repeat(MAX_ID + 1)
        );
        for (line, expected) in [
            (r#"{"type":"session-change"}"#, NotForwarded::OtherType),
            (
                r#"{"type":"annotation-notification"}"#,
                NotForwarded::Invalid,
            ),
            (
                r#"{"type":"annotation-notification","options":{"action":"flag"},"payload":[{"id":"A"}]}"#,
                NotForwarded::Invalid,
            ),
            (
                r#"{"type":"annotation-notification","options":{"action":"create"},"payload":[{"id":"A"},{"id":"B"}]}"#,
                NotForwarded::Invalid,
            ),
            (
                r#"{"type":"annotation-notification","options":{"action":"create"},"payload":[{"id":1}]}"#,
                NotForwarded::Invalid,
            ),
            (&long, NotForwarded::Invalid),
            ("", NotForwarded::Invalid),
        ] {
            assert_eq!(
                ForwardEvent::parse(line, "c", 0).err(),
                Some(expected),
                "{line}"
            );
        }
    }

    #[test]
    fn webhook_ids_depend_on_annotation_place_and_readability_alone() {
        let event = |id: &str, cursor: &str, action, received: u64| ForwardEvent {
            id: id.to_owned(),
            cursor: cursor.to_owned(),
            version: version(cursor, action),
            action,
            line: received.to_string(),
            received,
        };
        let first = event("A", "c1", Action::Create, 1).webhook_id();
        assert_eq!(first, event("A", "c1", Action::Create, 2).webhook_id());
        for other in [
            event("B", "c1", Action::Create, 1),
            event("A", "c2", Action::Create, 1),
            event("A", "c1", Action::Delete, 1),
            event("Ac", "1", Action::Create, 1),
        ] {
            assert_ne!(first, other.webhook_id());
        }
        assert_eq!(first, event("A", "c1", Action::Update, 1).webhook_id());
        // The signed text separates its parts by periods.
        assert!(first.len() == 26 && !first.contains('.'), "{first}");
    }
}
