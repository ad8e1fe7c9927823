//! Looks up the facts for an explanation: a user, and the plan that an event would have now.
//!
//! Nothing is stored: the plan is made as for a published event, and returned.

use serde_json::{Value, json};

use super::directory::Directory;
use super::history::History;
use super::publish::{PublishFailure, plans};
use crate::model::{
    ExplainError, ExplainedEvent, Findings, FoundUser, Lookup, Plan, PublishError, UnixMillis,
};

/// Returns the facts.
pub(super) fn look_up(
    lookup: &Lookup,
    directory: &Directory<'_>,
    history: &History,
    now: UnixMillis,
) -> Result<Result<Findings, ExplainError>, rusqlite::Error> {
    let mut findings = Findings::default();
    if let Some(userid) = &lookup.user {
        let memberships = directory.memberships(userid)?;
        findings.user = memberships.map(|memberships| FoundUser {
            userid: userid.clone(),
            memberships,
        });
    }
    let event = match &lookup.event {
        None => None,
        Some(ExplainedEvent::Published(event)) => Some(event.as_bytes().to_vec()),
        Some(ExplainedEvent::Annotation { id, action }) => {
            let stored = history.event_on(id);
            stored.and_then(|event| with_action(event, action.as_deref()))
        }
    };
    let Some(event) = event else {
        return Ok(Ok(findings));
    };
    match plan(&event, directory, now) {
        Ok(plan) => findings.plan = plan,
        Err(PublishFailure::Database(error)) => return Err(error),
        Err(PublishFailure::Publisher(error)) => {
            return Ok(Err(match error {
                PublishError::Invalid { reason, .. } => ExplainError::Invalid(reason),
                error => ExplainError::Unavailable(error.reason().to_owned()),
            }));
        }
    }
    Ok(Ok(findings))
}

fn plan(
    event: &[u8],
    directory: &Directory<'_>,
    now: UnixMillis,
) -> Result<Option<Plan>, PublishFailure> {
    let mut planned = plans(event, directory, now)?;
    let is_single = planned.len() == 1;
    Ok(planned.pop().filter(|_| is_single).map(|one| one.plan))
}

/// Returns a stored event with another action.
fn with_action(event: Vec<u8>, action: Option<&str>) -> Option<Vec<u8>> {
    let Some(action) = action else {
        return Some(event);
    };
    let mut event: Value = serde_json::from_slice(&event).ok()?;
    *event.get_mut("action")? = json!(action);
    Some(event.to_string().into_bytes())
}
