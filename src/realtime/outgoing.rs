//! The messages of a plan in the forms in which receivers get them.
//!
//! Owns: the frames of a delivery, each encoded when its first receiver is added. Must not know: the
//! selection of receivers.

use std::rc::Rc;

use crate::http::Block;
use crate::model::{Cause, EventKind, Plan, Subject};
use crate::net::{ConnKey, Delivery, Frame};

use super::history::ReplayCursor;
use super::reply;

/// The form in which a receiver gets a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Form {
    /// The plan's variant with this index.
    Variant(usize),
    /// The same, as the creation of the annotation: it has become readable for the receiver without
    /// an event.
    Appearance(usize),
    /// The deletion of the annotation: it has become unreadable for the receiver.
    Retraction,
}

/// The encoding of messages to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Encoding {
    /// A WebSocket message as it is.
    Plain,
    /// A WebSocket message with its cursor.
    WithCursor,
    /// A block of an event stream, with the cursor as its id.
    EventStream,
}

impl Encoding {
    /// Returns whether messages carry cursors.
    #[inline]
    pub(super) fn has_cursor(self) -> bool {
        self != Encoding::Plain
    }
}

/// A delivery under construction.
pub(super) struct DeliveryBuilder<'a> {
    plan: &'a Plan,
    /// The cursor of the plan, for receivers that use cursors.
    cursor: ReplayCursor,
    /// The frame of each variant as it is, which most receivers get.
    plain: Vec<Option<u8>>,
    /// The frames of other forms and encodings.
    forms: Vec<((Form, Encoding), u8)>,
    delivery: Delivery,
}

impl<'a> DeliveryBuilder<'a> {
    /// Creates a delivery without receivers. `since` is the arrival time of an event that is
    /// delivered live.
    pub(super) fn new(plan: &'a Plan, cursor: ReplayCursor, since: Option<u64>) -> Self {
        DeliveryBuilder {
            plan,
            cursor,
            plain: vec![None; plan.variants.len()],
            forms: Vec::new(),
            delivery: Delivery {
                since,
                ..Delivery::default()
            },
        }
    }

    /// Adds a receiver. Returns false if the plan has no such variant. In that case nothing is sent
    /// rather than a wrong message.
    pub(super) fn add(&mut self, key: ConnKey, form: Form, encoding: Encoding) -> bool {
        if let (Form::Variant(variant), Encoding::Plain) = (form, encoding) {
            return self.add_plain(key, variant);
        }
        let wanted = (form, encoding);
        let mut known = self.forms.iter();
        let frame = match known.find(|(known, _)| *known == wanted) {
            Some((_, frame)) => Some(*frame),
            None => self.encode(wanted),
        };
        let Some(frame) = frame else {
            return false;
        };
        if self.forms.iter().all(|(known, _)| *known != wanted) {
            self.forms.push((wanted, frame));
        }
        self.delivery.to.push((key, frame));
        true
    }

    /// Adds a receiver of a variant as it is.
    #[inline]
    pub(super) fn add_plain(&mut self, key: ConnKey, variant: usize) -> bool {
        let Some(known) = self.plain.get(variant) else {
            return false;
        };
        let frame = match *known {
            Some(frame) => frame,
            None => {
                let Some(frame) = self.encode((Form::Variant(variant), Encoding::Plain)) else {
                    return false;
                };
                self.plain[variant] = Some(frame);
                frame
            }
        };
        self.delivery.to.push((key, frame));
        true
    }

    /// Returns the number of receivers.
    pub(super) fn len(&self) -> usize {
        self.delivery.to.len()
    }

    /// Returns the delivery.
    pub(super) fn finish(self) -> Delivery {
        self.delivery
    }

    /// Encodes a message. Returns its index.
    #[inline(never)]
    fn encode(&mut self, (form, encoding): (Form, Encoding)) -> Option<u8> {
        let index = u8::try_from(self.delivery.frames.len()).ok()?;
        let mut changed = String::new();
        let mut text = match form {
            Form::Variant(variant) | Form::Appearance(variant) => {
                self.plan.variants.get(variant)?
            }
            Form::Retraction => {
                let Subject::Annotation(id) = &self.plan.subject else {
                    return None;
                };
                reply::retraction(&mut changed, id);
                &*changed
            }
        };
        let appearance;
        if matches!(form, Form::Appearance(_)) {
            appearance = as_creation(text);
            text = &appearance;
        }
        let (marked, cursor);
        let frame: Rc<Frame> = match (encoding, self.plan.kind) {
            (Encoding::EventStream, _) => {
                cursor = self.cursor.encode();
                Frame::block(&Block {
                    id: Some(&cursor),
                    data: Some(text),
                    ..Block::default()
                })
            }
            (Encoding::WithCursor, kind) => {
                marked = with_member(text, &self.cursor.encode());
                message(kind, &marked)
            }
            (Encoding::Plain, kind) => message(kind, text),
        };
        self.delivery.frames.push(frame);
        Some(index)
    }
}

/// Returns a WebSocket message.
fn message(kind: EventKind, text: &str) -> Rc<Frame> {
    match kind {
        // Not compressed: the message contains private data of the user, which its compressed length
        // could leak (CRIME, BREACH). Annotations are the same for all their readers.
        EventKind::SessionChange => Frame::uncompressed(text),
        EventKind::Create | EventKind::Update | EventKind::Delete => Frame::text(text),
    }
}

/// Returns the form of a plan for a receiver that may read it, and has not been sent an event since
/// it may.
pub(super) fn first_sight(plan: &Plan, variant: usize) -> Form {
    match plan.cause {
        Cause::Event => Form::Appearance(variant),
        // Its variants are creations already.
        Cause::RightsChange => Form::Variant(variant),
    }
}

/// Returns a notification with the action `create` instead of `update`.
fn as_creation(text: &str) -> String {
    match text.strip_prefix(UPDATE) {
        Some(rest) => [CREATE, rest].concat(),
        None => text.to_owned(),
    }
}

/// Adds the member `cursor` to a JSON object.
fn with_member(object: &str, cursor: &str) -> String {
    match object.trim_end().strip_suffix('}') {
        Some(members) => [members, r#","cursor":""#, cursor, r#""}"#].concat(),
        None => object.to_owned(),
    }
}

/// The beginning of notifications as backends write them.
const UPDATE: &str = r#"{"type":"annotation-notification","options":{"action":"update"}"#;
const CREATE: &str = r#"{"type":"annotation-notification","options":{"action":"create"}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn update_becomes_a_creation() {
        let rest = r#","payload":[{"text":"{\"action\":\"update\"}"}]}"#;
        assert_eq!(
            as_creation(&format!("{UPDATE}{rest}")),
            format!("{CREATE}{rest}")
        );
        for other in [CREATE, "{}", ""] {
            assert_eq!(as_creation(other), other);
        }
    }

    #[test]
    fn cursor_is_the_last_member() {
        let object = r#"{"payload":[{"a":"}"}]}"#;
        let expected = r#"{"payload":[{"a":"}"}],"cursor":"abc"}"#;
        assert_eq!(with_member(object, "abc"), expected);
        assert_eq!(with_member(&format!("{object}\n"), "abc"), expected);
        assert_eq!(with_member("text", "abc"), "text");
    }
}
