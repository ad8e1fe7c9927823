//! Converts an event on an annotation and the annotation's state into a plan.
//!
//! Owns: the terms by which filters match. Must not know: SQL, or the rules that select receivers.

use super::annotation_state::AnnotationState;
use super::event::AnnotationEvent;
use super::payload;
use super::policy_facts::policy_facts;
use super::urls::UrlBuilder;
use crate::backend::DropReason;
use crate::backend::annotation_json;
use crate::backend::policy::{AccessRules, access_rules};
use crate::model::{AnnotationFacts, Candidates, Cause, EventKind, Plan, Stamp, Subject, Term};
use crate::uri;

/// Returns the plan of an event, given the current data of its annotation.
///
/// # Errors
/// [`DropReason::Missing`] if a deleted annotation was created or updated,
/// [`DropReason::Unreadable`] if its row cannot be serialized, and [`DropReason::TooLarge`].
pub(super) fn plan(
    event: &AnnotationEvent,
    state: &AnnotationState,
    urls: &UrlBuilder,
) -> Result<Plan, DropReason> {
    let kind = event.kind();
    if state.annotation.deleted && kind != EventKind::Delete {
        return Err(DropReason::Missing);
    }
    let notification = Notification {
        kind,
        action: &event.action,
        id: &event.annotation_id,
    };
    notification.plan(
        state,
        urls,
        access(state, kind),
        event.src_client_id.as_deref(),
    )
}

/// Returns the rules on a notification of this kind about an annotation.
pub(super) fn access(state: &AnnotationState, kind: EventKind) -> AccessRules {
    access_rules(&policy_facts(state, kind == EventKind::Delete))
}

/// The parts of a notification that do not depend on the annotation's data.
pub(super) struct Notification<'a> {
    pub kind: EventKind,
    pub action: &'a str,
    /// The annotation's id, as in the event.
    pub id: &'a str,
}

impl Notification<'_> {
    /// Returns the plan of the notification. `access` must be the rules for its kind.
    ///
    /// # Errors
    /// [`DropReason::Unreadable`] and [`DropReason::TooLarge`], as for [`plan`].
    pub(super) fn plan(
        &self,
        state: &AnnotationState,
        urls: &UrlBuilder,
        access: AccessRules,
        client: Option<&str>,
    ) -> Result<Plan, DropReason> {
        let variants = match self.kind {
            EventKind::Delete => vec![annotation_json::deletion(self.action, self.id)],
            _ => payload::notifications(self.action, state, urls, &access.variants)?,
        };
        if variants
            .iter()
            .any(|variant| variant.len() > MAX_NOTIFICATION)
        {
            return Err(DropReason::TooLarge);
        }
        Ok(Plan {
            kind: self.kind,
            subject: Subject::Annotation(self.id.into()),
            stamp: Stamp::default(),
            cause: Cause::Event,
            candidates: Candidates::Terms(terms(state)),
            exclude_client: client.map(Into::into),
            rules: access.rules,
            variants,
        })
    }
}

/// Returns the terms by which filters match the annotation.
fn terms(state: &AnnotationState) -> Vec<Term> {
    let annotation = &state.annotation;
    let tags = annotation.tags.iter().flatten();
    Term::of_annotation(AnnotationFacts {
        id: &annotation.id.to_url_safe(),
        group: &annotation.groupid,
        user: &annotation.userid,
        tags: tags.filter_map(|tag| tag.as_deref()).collect(),
        references: annotation.references().map(|id| id.to_url_safe()).collect(),
        pages: pages(state),
    })
}

/// Returns the scope keys of all addresses of the annotated page. An address without a normal form
/// has none, since no filter can name it; neither has a page with a version that no filter can
/// name.
fn pages(state: &AnnotationState) -> Vec<String> {
    let Some(own) = state.annotation.target_uri.as_deref() else {
        return Vec::new();
    };
    let Ok(version) = state.annotation.version.map(u64::try_from).transpose() else {
        return Vec::new();
    };
    // If the annotation was made at the canonical address, all annotations of the page have this
    // address, and the other addresses need not be trusted.
    if state.pages.iter().any(|page| page.is_canonical) {
        return uri::annotation_keys(std::iter::once(own), version);
    }
    let others = state.pages.iter().map(|page| page.normalized.as_str());
    uri::annotation_keys(std::iter::once(own).chain(others), version)
}

/// The maximum length of a notification, in bytes. It far exceeds the limits of h's API; a longer
/// one would only fill the output queues of its receivers.
const MAX_NOTIFICATION: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests;
