//! The receivers of an annotation and their views: h's `READ_REALTIME_UPDATES` as rules.
//!
//! The rules deny by default. They are stricter than h where h discloses annotations by mistake:
//! annotations of a muted author reach only the author, whether other receivers are logged in or
//! not.

use super::annotation::{Annotation, Reader, View, WORLD};
use super::directory::{Directory, ReadableBy};
use crate::model::{Condition, Decision, DenyReason, Rule};

/// Rules, and the views that their decisions reference by index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Audience {
    pub rules: Vec<Rule>,
    pub views: Vec<View>,
}

/// Returns the audience of an annotation by a muted or unmuted author. With `same_for_all`, all
/// receivers get the same view, since only the annotation's id is sent.
pub(super) fn audience(
    annotation: &Annotation,
    muted: bool,
    same_for_all: bool,
    directory: &Directory<'_>,
) -> Result<Audience, rusqlite::Error> {
    let author = Condition::User(annotation.user.as_str().into());
    // h does not moderate private annotations. Without moderators, the moderators' view is not
    // needed.
    let moderator = if annotation.is_shared() && directory.is_moderated(&annotation.group)? {
        Some(Condition::Moderator(annotation.group.as_str().into()))
    } else {
        None
    };
    let mut audience = Audience::default();
    if annotation.hidden {
        audience.of_hidden(author, moderator, muted);
    } else {
        let readers = readers(annotation, directory)?;
        let moderator = moderator.filter(|_| !same_for_all);
        audience.of_live(&readers, author, moderator, muted);
    }
    if same_for_all {
        audience.views = vec![View::default()];
        for rule in &mut audience.rules {
            if let Decision::Send(view) = &mut rule.then {
                *view = 0;
            }
        }
    }
    Ok(audience)
}

/// Returns the conditions of which a receiver must meet one; `None` is met by all receivers.
fn readers(
    annotation: &Annotation,
    directory: &Directory<'_>,
) -> Result<Vec<Option<Condition>>, rusqlite::Error> {
    let mut conditions = Vec::new();
    for reader in &annotation.readers {
        let condition = match reader {
            Reader::World if annotation.group == WORLD => None,
            // h writes this entry for groups that the world can read. If the group is known to be
            // private, the group's setting takes precedence.
            Reader::World => match directory.readable_by(&annotation.group)? {
                None | Some(ReadableBy::World) => None,
                Some(ReadableBy::Members) => {
                    Some(Condition::Member(annotation.group.as_str().into()))
                }
            },
            Reader::Group(group) => match directory.readable_by(group)? {
                Some(ReadableBy::World) => None,
                Some(ReadableBy::Members) => Some(Condition::Member(group.as_str().into())),
                None => continue, // a missing group has no readers
            },
            Reader::User(userid) => Some(Condition::User(userid.as_str().into())),
        };
        if condition.is_none() {
            return Ok(vec![None]);
        }
        if !conditions.contains(&condition) {
            conditions.push(condition);
        }
    }
    Ok(conditions)
}

impl Audience {
    /// The author gets it without the hidden flag, and moderators with it.
    fn of_hidden(&mut self, author: Condition, moderator: Option<Condition>, muted: bool) {
        let mut view = View::default();
        if let Some(moderator) = &moderator {
            view.moderates = true;
            self.send(vec![author.clone(), moderator.clone()], view);
            view.moderates = false;
        }
        self.send(vec![author], view);
        if let Some(moderator) = moderator.filter(|_| !muted) {
            let view = View {
                moderates: true,
                hidden: true,
            };
            self.send(vec![moderator], view);
        }
        let reason = if muted {
            DenyReason::Muted
        } else {
            DenyReason::Hidden
        };
        self.withhold(Vec::new(), reason);
    }

    /// The readers get it. If the author is muted, only the author does, and only as a reader: as
    /// in h, authors who have left the group get nothing.
    fn of_live(
        &mut self,
        readers: &[Option<Condition>],
        author: Condition,
        moderator: Option<Condition>,
        muted: bool,
    ) {
        let only = muted.then_some(author);
        let reading = |as_moderator: Option<&Condition>| {
            let when = |reader: &Option<Condition>| {
                let all = [only.as_ref(), as_moderator, reader.as_ref()];
                all.into_iter().flatten().cloned().collect()
            };
            readers.iter().map(when).collect::<Vec<Vec<Condition>>>()
        };
        // The first matching rule decides, so the moderators' view precedes the readers' view.
        if let Some(moderator) = &moderator {
            for when in reading(Some(moderator)) {
                let moderates = true;
                let hidden = false;
                self.send(when, View { moderates, hidden });
            }
        }
        for when in reading(None) {
            self.send(when, View::default());
        }
        match only {
            Some(author) => {
                self.withhold(vec![author], DenyReason::Permission);
                self.withhold(Vec::new(), DenyReason::Muted);
            }
            None => self.withhold(Vec::new(), DenyReason::Permission),
        }
    }

    fn send(&mut self, when: Vec<Condition>, view: View) {
        let known = self.views.iter().position(|known| *known == view);
        let index = known.unwrap_or_else(|| {
            self.views.push(view);
            self.views.len() - 1
        });
        self.rule(when, Decision::Send(index));
    }

    fn withhold(&mut self, when: Vec<Condition>, reason: DenyReason) {
        self.rule(when, Decision::Deny(reason));
    }

    /// Adds a rule, unless an earlier one matches every receiver that this one would match.
    fn rule(&mut self, when: Vec<Condition>, then: Decision) {
        let decided = |rule: &Rule| rule.when.iter().all(|who| when.contains(who));
        if !self.rules.iter().any(decided) {
            self.rules.push(Rule { when, then });
        }
    }
}

#[cfg(test)]
mod tests;
