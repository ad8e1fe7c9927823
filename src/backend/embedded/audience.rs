//! Who hears of an annotation, and as whom: h's `READ_REALTIME_UPDATES` as rules.
//!
//! The rules deny by default, and stricter than h where that lets something through by mistake:
//! a muted author's annotations reach nobody else, anonymous or not.

use super::annotation::{Annotation, Reader, View, WORLD};
use super::directory::{Directory, ReadableBy};
use crate::model::{Decision, Reason, Rule, Who};

/// Rules, and the views that their decisions name by index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Audience {
    pub rules: Vec<Rule>,
    pub views: Vec<View>,
}

/// The audience of an annotation whose author is muted or not. With `same_for_all` every receiver
/// gets the same view, since nothing of the annotation but its id is sent.
pub(super) fn audience(
    annotation: &Annotation,
    muted: bool,
    same_for_all: bool,
    directory: &Directory<'_>,
) -> Result<Audience, rusqlite::Error> {
    let author = Who::User(annotation.user.as_str().into());
    // h knows no moderation of what is private. Where nobody moderates there is nobody to send
    // the moderators' view to.
    let moderator = if annotation.is_shared() && directory.is_moderated(&annotation.group)? {
        Some(Who::Moderator(annotation.group.as_str().into()))
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

/// The conditions of which a receiver must meet one; `None` is met by everybody.
fn readers(
    annotation: &Annotation,
    directory: &Directory<'_>,
) -> Result<Vec<Option<Who>>, rusqlite::Error> {
    let mut conditions = Vec::new();
    for reader in &annotation.readers {
        let condition = match reader {
            Reader::World if annotation.group == WORLD => None,
            // h writes this for groups that are open to the world. Where the group is known not
            // to be, the group's own word counts.
            Reader::World => match directory.readable_by(&annotation.group)? {
                None | Some(ReadableBy::World) => None,
                Some(ReadableBy::Members) => Some(Who::Member(annotation.group.as_str().into())),
            },
            Reader::Group(group) => match directory.readable_by(group)? {
                Some(ReadableBy::World) => None,
                Some(ReadableBy::Members) => Some(Who::Member(group.as_str().into())),
                None => continue, // nobody reads a group that is not there
            },
            Reader::User(userid) => Some(Who::User(userid.as_str().into())),
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
    /// For the author, who is not told that it is hidden, and for moderators, who are.
    fn of_hidden(&mut self, author: Who, moderator: Option<Who>, muted: bool) {
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
        let reason = if muted { Reason::Muted } else { Reason::Hidden };
        self.withhold(Vec::new(), reason);
    }

    /// For the readers; where the author is muted, for none but the author, who must be a reader
    /// all the same: as in h, authors who have left a group do not hear of it.
    fn of_live(
        &mut self,
        readers: &[Option<Who>],
        author: Who,
        moderator: Option<Who>,
        muted: bool,
    ) {
        let only = muted.then_some(author);
        let reading = |as_moderator: Option<&Who>| {
            let when = |reader: &Option<Who>| {
                let all = [only.as_ref(), as_moderator, reader.as_ref()];
                all.into_iter().flatten().cloned().collect()
            };
            readers.iter().map(when).collect::<Vec<Vec<Who>>>()
        };
        // The first rule that holds decides, so the view with more in it comes first.
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
                self.withhold(vec![author], Reason::Permission);
                self.withhold(Vec::new(), Reason::Muted);
            }
            None => self.withhold(Vec::new(), Reason::Permission),
        }
    }

    fn send(&mut self, when: Vec<Who>, view: View) {
        let known = self.views.iter().position(|known| *known == view);
        let index = known.unwrap_or_else(|| {
            self.views.push(view);
            self.views.len() - 1
        });
        self.rule(when, Decision::Send(index));
    }

    fn withhold(&mut self, when: Vec<Who>, reason: Reason) {
        self.rule(when, Decision::Withhold(reason));
    }

    /// Adds a rule, unless one before it has decided for everybody it could hold for.
    fn rule(&mut self, when: Vec<Who>, then: Decision) {
        let decided = |rule: &Rule| rule.when.iter().all(|who| when.contains(who));
        if !self.rules.iter().any(decided) {
            self.rules.push(Rule { when, then });
        }
    }
}

#[cfg(test)]
mod tests;
