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
use crate::backend::policy::access_rules;
use crate::model::{Candidates, Cause, EventKind, Plan, Stamp, Subject, Term};
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
    let is_deletion = kind == EventKind::Delete;
    let access = access_rules(&policy_facts(state, is_deletion));
    let variants = if is_deletion {
        vec![annotation_json::deletion(
            &event.action,
            &event.annotation_id,
        )]
    } else {
        payload::notifications(&event.action, state, urls, &access.variants)?
    };
    if variants
        .iter()
        .any(|variant| variant.len() > MAX_NOTIFICATION)
    {
        return Err(DropReason::TooLarge);
    }
    Ok(Plan {
        kind,
        subject: Subject::Annotation(event.annotation_id.as_str().into()),
        stamp: Stamp::default(),
        cause: Cause::Event,
        candidates: Candidates::Terms(terms(state)),
        exclude_client: event.src_client_id.as_deref().map(Into::into),
        rules: access.rules,
        variants,
    })
}

/// Returns the terms by which filters match the annotation.
fn terms(state: &AnnotationState) -> Vec<Term> {
    let annotation = &state.annotation;
    Term::of_annotation(
        annotation.id.to_url_safe(),
        annotation.groupid.clone(),
        annotation.references().map(|id| id.to_url_safe()),
        pages(state),
    )
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
