//! The actions of which a filter selects notifications.

use super::FilterError;
use crate::model::{Cause, EventKind, Plan};
use crate::realtime::json;

/// A set of actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actions(u8);

impl Actions {
    /// All actions.
    pub const ALL: Actions = Actions(0b111);

    /// Parses the member `actions` of a filter. Only a literal `false` removes an action; any other
    /// JSON has no effect, as in h.
    pub(super) fn parse(actions: &str) -> Result<Actions, FilterError> {
        if actions == OFFICIAL || !actions.starts_with('{') || !actions.contains("false") {
            return Ok(Actions::ALL);
        }
        let mut set = Actions::ALL;
        json::members(actions, |key, value| {
            let bit = match key {
                "create" => CREATE,
                "update" => UPDATE,
                "delete" => DELETE,
                _ => return,
            };
            // As in Python, the last of duplicate keys wins.
            match value {
                "false" => set.0 &= !bit,
                _ => set.0 |= bit,
            }
        })?;
        Ok(set)
    }

    /// Returns whether notifications of an action are selected. Changes of memberships always are.
    pub fn contains(self, kind: EventKind) -> bool {
        let bit = match kind {
            EventKind::Create => CREATE,
            EventKind::Update => UPDATE,
            EventKind::Delete => DELETE,
            EventKind::SessionChange => return true,
        };
        self.0 & bit != 0
    }

    /// Returns whether the notification of a plan is selected. A change of rights creates annotations
    /// for their new readers.
    pub fn allow(self, plan: &Plan) -> bool {
        match (plan.cause, plan.kind) {
            (Cause::RightsChange, EventKind::Update) => self.contains(EventKind::Create),
            (_, kind) => self.contains(kind),
        }
    }

    /// Returns whether no action is selected.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The official client's value.
const OFFICIAL: &str = r#"{"create":true,"update":true,"delete":true}"#;
const CREATE: u8 = 1;
const UPDATE: u8 = 1 << 1;
const DELETE: u8 = 1 << 2;
