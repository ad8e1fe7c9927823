//! The receivers of an annotation and their views: h's `READ_REALTIME_UPDATES`, `MODERATE`, NIPSA,
//! and checkpoints as rules.
//!
//! Owns: the semantics. Must not know: SQL. The rules deny by default. They are stricter than h
//! where h discloses annotations by mistake: annotations of a muted author reach only the author,
//! and deleted annotations only cause deletion messages.

use super::event::AnnotationEvent;
use super::facts::{Facts, Group};
use super::links::Site;
use super::payload::{self, View};
use crate::backend::Fate;
use crate::model::{
    Candidates, Condition, Decision, DenyReason, EventKind, Plan, Rule, Term, Userids,
};
use crate::uri;

/// Returns the plan of an event, given the current data of its annotation.
///
/// # Errors
/// [`Fate::Missing`] if a deleted annotation was created or updated, [`Fate::Unreadable`] if its
/// row cannot be serialized, and [`Fate::TooLarge`].
pub(super) fn plan(event: &AnnotationEvent, facts: &Facts, site: &Site) -> Result<Plan, Fate> {
    let kind = event.kind();
    if facts.annotation.deleted && kind != EventKind::Delete {
        return Err(Fate::Missing);
    }
    let audience = Audience::new(facts, kind == EventKind::Delete);
    let variants = if kind == EventKind::Delete {
        vec![payload::deletion(&event.action, &event.annotation_id)]
    } else {
        payload::notifications(&event.action, facts, site, &audience.views)?
    };
    if variants
        .iter()
        .any(|variant| variant.len() > MAX_NOTIFICATION)
    {
        return Err(Fate::TooLarge);
    }
    Ok(Plan {
        kind,
        candidates: Candidates::Terms(terms(facts)),
        exclude_client: event.src_client_id.as_deref().map(Into::into),
        rules: audience.rules,
        variants,
    })
}

/// Returns the terms by which filters match the annotation.
fn terms(facts: &Facts) -> Vec<Term> {
    let annotation = &facts.annotation;
    Term::of_annotation(
        annotation.id.to_url_safe(),
        annotation.groupid.clone(),
        annotation.references().map(|id| id.to_url_safe()),
        pages(facts),
    )
}

/// Returns the scope keys of all addresses of the annotated page. An address without a normal form
/// has none, since no filter can name it; neither has a page with a version that no filter can
/// name.
fn pages(facts: &Facts) -> Vec<String> {
    let Some(own) = facts.annotation.target_uri.as_deref() else {
        return Vec::new();
    };
    let Ok(version) = facts.annotation.version.map(u64::try_from).transpose() else {
        return Vec::new();
    };
    // If the annotation was made at the canonical address, all annotations of the page have this
    // address, and the other addresses need not be trusted.
    if facts.pages.iter().any(|page| page.is_canonical) {
        return uri::annotation_keys(std::iter::once(own), version);
    }
    let others = facts.pages.iter().map(|page| page.normalized.as_str());
    uri::annotation_keys(std::iter::once(own).chain(others), version)
}

/// Rules, and the views that their decisions reference by index.
#[derive(Debug, Default, PartialEq, Eq)]
struct Audience {
    rules: Vec<Rule>,
    views: Vec<View>,
}

/// The groups of receivers that get a special view, or none.
struct Parties {
    author: Condition,
    /// The members of the group according to the reactor, which learns of changes from h's events
    /// before the database has them.
    member: Condition,
    /// The moderators according to the database. Former members among them do not count.
    moderators: Option<Condition>,
    flaggers: Option<Condition>,
    /// The users from which a checkpoint hides the annotation.
    kept_out: Option<Condition>,
    muted: bool,
}

impl Parties {
    fn of(facts: &Facts) -> Parties {
        let annotation = &facts.annotation;
        let all = |userids: &[String]| some(userids.iter().map(String::as_str).collect());
        Parties {
            author: Condition::User(annotation.userid.as_str().into()),
            member: Condition::Member(annotation.groupid.as_str().into()),
            // h does not moderate private annotations.
            moderators: all(&facts.moderators).filter(|_| annotation.shared),
            flaggers: all(&facts.flaggers),
            kept_out: some(kept_out(facts)),
            muted: facts.author.as_ref().is_some_and(|author| author.muted),
        }
    }
}

/// Returns the users from which a checkpoint hides the annotation: all students except the author.
/// If the author is an instructor, top-level annotations are visible to all students, and replies
/// to the students that they answer.
fn kept_out(facts: &Facts) -> Userids {
    let annotation = &facts.annotation;
    let by_instructor = facts
        .author
        .as_ref()
        .is_some_and(|author| author.instructs && author.userid == annotation.userid);
    if by_instructor && annotation.references().next().is_none() {
        return Userids::default();
    }
    let is_answered =
        |student: &str| by_instructor && facts.parents.iter().any(|parent| parent == student);
    let students = facts.students.iter().map(String::as_str);
    students
        .filter(|student| *student != annotation.userid && !is_answered(student))
        .collect()
}

/// Returns the condition that the receiver is in a set, or `None` if the set is empty.
fn some(userids: Userids) -> Option<Condition> {
    (!userids.is_empty()).then_some(Condition::OneOf(userids))
}

impl Audience {
    /// With `same_for_all`, all receivers get the same view, since only the annotation's id is
    /// sent.
    fn new(facts: &Facts, same_for_all: bool) -> Audience {
        let annotation = &facts.annotation;
        let mut parties = Parties::of(facts);
        let mut audience = Audience::default();
        if same_for_all {
            parties.flaggers = None;
        }
        if annotation.is_hidden() {
            audience.of_hidden(&parties);
        } else if annotation.shared {
            if same_for_all {
                parties.moderators = None;
            }
            audience.of_shared(&parties, facts);
        } else {
            audience.send(&[&parties.author], &parties, View::default());
            audience.withhold(&[], DenyReason::Permission);
        }
        if same_for_all {
            audience.unite();
        }
        audience
    }

    /// The author gets it without the hidden flag, and moderators with it.
    fn of_hidden(&mut self, parties: &Parties) {
        self.send(&[&parties.author], parties, View::default());
        if parties.muted {
            return self.withhold(&[], DenyReason::Muted);
        }
        if let Some(moderators) = &parties.moderators {
            if let Some(kept_out) = &parties.kept_out {
                self.withhold(&[moderators, kept_out], DenyReason::Checkpoint);
            }
            let hidden = View {
                hidden: true,
                ..View::default()
            };
            self.send(&[moderators, &parties.member], parties, hidden);
        }
        self.withhold(&[], DenyReason::Hidden);
    }

    /// The readers of the group get it. If the author is muted, only the author does, and only as a
    /// reader of the group: as in h, authors who have left the group get nothing.
    fn of_shared(&mut self, parties: &Parties, facts: &Facts) {
        let reading: &[&Condition] = match facts.group {
            Some(Group::World) => &[],
            Some(Group::Members) => &[&parties.member],
            Some(Group::Nobody) | None => return self.withhold(&[], DenyReason::Permission),
        };
        if parties.muted {
            let reading_author = [&[&parties.author], reading].concat();
            self.send(&reading_author, parties, View::default());
            self.withhold(&[&parties.author], DenyReason::Permission);
            return self.withhold(&[], DenyReason::Muted);
        }
        if let Some(kept_out) = &parties.kept_out {
            self.withhold(&[&[kept_out], reading].concat(), DenyReason::Checkpoint);
        }
        self.send(reading, parties, View::default());
        self.withhold(&[], DenyReason::Permission);
    }

    /// Sends to all receivers that meet `when`, each in the appropriate view.
    fn send(&mut self, when: &[&Condition], parties: &Parties, view: View) {
        // The first matching rule decides, so rules with more conditions come first.
        for (moderates, flagged) in [(true, true), (true, false), (false, true), (false, false)] {
            let moderators = moderates.then_some(parties.moderators.as_ref());
            let members = moderates.then_some(Some(&parties.member));
            let flaggers = flagged.then_some(parties.flaggers.as_ref());
            let further = [moderators, members, flaggers].into_iter().flatten();
            let Some(further) = further.collect::<Option<Vec<&Condition>>>() else {
                continue; // there are no such receivers
            };
            let view = View {
                moderates,
                flagged,
                ..view
            };
            let index = self.view(view);
            self.rule(&[when, &further].concat(), Decision::Send(index));
        }
    }

    fn withhold(&mut self, when: &[&Condition], reason: DenyReason) {
        self.rule(when, Decision::Deny(reason));
    }

    fn rule(&mut self, when: &[&Condition], then: Decision) {
        let mut conditions: Vec<Condition> = Vec::with_capacity(when.len());
        for who in when {
            // Hidden annotations have these conditions in `when` already.
            if !conditions.contains(who) {
                conditions.push((*who).clone());
            }
        }
        // Omit the rule if an earlier one matches every receiver that this one would match.
        let decided = |rule: &Rule| rule.when.iter().all(|who| conditions.contains(who));
        if !self.rules.iter().any(decided) {
            let when = conditions;
            self.rules.push(Rule { when, then });
        }
    }

    fn view(&mut self, view: View) -> usize {
        let known = self.views.iter().position(|known| *known == view);
        known.unwrap_or_else(|| {
            self.views.push(view);
            self.views.len() - 1
        })
    }

    /// Gives all receivers the same view.
    fn unite(&mut self) {
        self.views = vec![View::default()];
        let rules = std::mem::take(&mut self.rules);
        for Rule { when, then } in rules {
            let then = match then {
                Decision::Send(_) => Decision::Send(0),
                withhold @ Decision::Deny(_) => withhold,
            };
            self.rule(&when.iter().collect::<Vec<_>>(), then);
        }
    }
}

/// The maximum length of a notification, in bytes. It far exceeds the limits of h's API; a longer
/// one would only fill the output queues of its receivers.
const MAX_NOTIFICATION: usize = 4 * 1024 * 1024;

#[cfg(test)]
mod tests;
