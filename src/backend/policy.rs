//! The authorization policy of both backends: which receivers get a notification about an
//! annotation, and which variant of it.
//!
//! Owns: the semantics of h's `READ_REALTIME_UPDATES`, `MODERATE`, NIPSA, and checkpoints, as rules
//! that the reactor evaluates for each receiver. Must not know: the source of the facts. Each
//! backend has a producer of [`AnnotationFacts`]: `embedded/policy_facts.rs` and
//! `h/policy_facts.rs`.
//!
//! The rules deny by default. They are stricter than h where h discloses annotations by mistake:
//! annotations of a muted author reach only the author, whether other receivers are logged in or
//! not, and deleted annotations cause only deletion messages.

use crate::model::{Condition, Decision, DenyReason, Rule, Userids};

/// The facts about an annotation on which its receivers depend.
#[derive(Clone, Debug)]
pub(super) struct AnnotationFacts<'a> {
    /// The author's userid.
    pub author: &'a str,
    /// Whether the author is muted (h's NIPSA).
    pub is_muted: bool,
    /// The readers. A receiver must be one of them.
    pub readers: Vec<Reader<'a>>,
    /// Whether the annotation is hidden by moderation.
    pub is_hidden: bool,
    /// The moderators of the annotation's group.
    pub moderators: Moderators<'a>,
    /// The userids of the users that flagged the annotation.
    pub flaggers: &'a [String],
    /// The checkpoint on the annotation's group and document.
    pub checkpoint: Checkpoint<'a>,
    /// Whether the notification reports the deletion of the annotation. It contains only the id,
    /// so that all receivers get the same variant.
    pub is_deletion: bool,
    /// The reason that is counted for an annotation by a muted author that no other user may read:
    /// [`DenyReason::Permission`] if true, and [`DenyReason::Muted`] if false. The receivers are
    /// the same in both cases. h checks NIPSA first (`h/streamer/messages.py`), but counts nothing.
    pub permission_precedes_mute: bool,
}

/// An entry in the list of an annotation's readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reader<'a> {
    /// All receivers, logged in or not.
    World,
    /// The readers of a group (h's `Group.READ`).
    Group { id: &'a str, visibility: Visibility },
    /// The user with exactly this userid.
    User(&'a str),
}

/// The readers of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visibility {
    /// All receivers, logged in or not (h's `readable_by = 'world'`).
    World,
    /// Its members (h's `readable_by = 'members'`).
    Members,
    /// None: the group does not exist, or its setting is missing or unknown.
    Unreadable,
}

/// The moderators of a group: the users with h's `MODERATE` permission on its shared annotations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moderators<'a> {
    /// None. The rules do not mention moderators.
    None,
    /// The members with a moderating role, according to the reactor's memberships.
    ByRole { group: &'a str },
    /// These users, as far as they are members according to the reactor's memberships, which may be
    /// newer than the list.
    Listed {
        group: &'a str,
        userids: &'a [String],
    },
}

/// A checkpoint (h's "Hide & Reveal"), which hides annotations on a document in a group from
/// students until their teacher reveals them.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Checkpoint<'a> {
    /// The userids of the users to which the checkpoint applies. Empty if none is active.
    pub students: &'a [String],
    /// Whether the author is an instructor of the group.
    pub author_is_instructor: bool,
    /// The userids of the authors of the annotations that this one answers. `None` for an
    /// annotation that is not a reply.
    pub answered: Option<&'a [String]>,
}

/// The form of a notification that a set of receivers gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Variant {
    /// The receiver may moderate the annotation.
    pub moderates: bool,
    /// The receiver has flagged the annotation.
    pub flagged: bool,
    /// The receiver is told that the annotation is hidden. The author never is.
    pub hidden: bool,
}

/// Rules, and the variants that their decisions reference by index.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AccessRules {
    pub rules: Vec<Rule>,
    pub variants: Vec<Variant>,
}

/// Returns the rules for a notification about an annotation. The first rule whose conditions a
/// receiver meets decides; the last one has no conditions.
pub(super) fn access_rules(facts: &AnnotationFacts<'_>) -> AccessRules {
    let mut builder = Builder::new(facts);
    match facts.is_hidden {
        true => builder.hidden(),
        false => builder.visible(),
    }
    builder.output
}

impl AnnotationFacts<'_> {
    /// Returns whether the annotation is shared. Private annotations are not moderated.
    fn is_shared(&self) -> bool {
        self.readers
            .iter()
            .any(|reader| !matches!(reader, Reader::User(_)))
    }

    /// Returns whether no user except the author may read the annotation.
    fn is_readable_by_author_only(&self) -> bool {
        self.readers.iter().all(|reader| match *reader {
            Reader::World => false,
            Reader::Group { visibility, .. } => visibility == Visibility::Unreadable,
            Reader::User(userid) => userid == self.author,
        })
    }
}

impl Reader<'_> {
    /// Returns the conditions that a receiver must meet to be this reader. `None` if there is no
    /// such receiver.
    fn conditions(self) -> Option<Vec<Condition>> {
        match self {
            Reader::World => Some(Vec::new()),
            Reader::Group { id, visibility } => match visibility {
                Visibility::World => Some(Vec::new()),
                Visibility::Members => Some(vec![Condition::Member(id.into())]),
                Visibility::Unreadable => None,
            },
            Reader::User(userid) => Some(vec![Condition::User(userid.into())]),
        }
    }
}

impl Moderators<'_> {
    /// Returns the conditions that a moderator meets. Empty if there are no moderators.
    fn conditions(self) -> Vec<Condition> {
        match self {
            Moderators::None => Vec::new(),
            Moderators::ByRole { group } => vec![Condition::Moderator(group.into())],
            Moderators::Listed { group, userids } => match one_of(userids.iter()) {
                Some(listed) => vec![listed, Condition::Member(group.into())],
                None => Vec::new(),
            },
        }
    }
}

impl Checkpoint<'_> {
    /// Returns the condition that the checkpoint hides the annotation from the receiver: a student
    /// other than the author. An instructor's annotation is visible to all students, and an
    /// instructor's reply to the students that it answers. `None` if it is hidden from none.
    fn conceals(&self, author: &str) -> Option<Condition> {
        let is_visible_to = |student: &str| match self.answered {
            None => self.author_is_instructor,
            Some(answered) => {
                self.author_is_instructor && answered.iter().any(|userid| userid == student)
            }
        };
        let students = self.students.iter();
        one_of(students.filter(|student| **student != author && !is_visible_to(student)))
    }
}

/// Returns the condition that the receiver is in a set, or `None` if the set is empty.
fn one_of<'a>(userids: impl Iterator<Item = &'a String>) -> Option<Condition> {
    let userids: Userids = userids.map(String::as_str).collect();
    (!userids.is_empty()).then_some(Condition::OneOf(userids))
}

/// Builds the rules in order.
struct Builder {
    author: Condition,
    is_muted: bool,
    /// The alternative conditions of the readers: a receiver must meet one list of them.
    readers: Vec<Vec<Condition>>,
    /// The conditions that a moderator meets. Empty without moderators.
    moderators: Vec<Condition>,
    flagger: Option<Condition>,
    /// Met by receivers from which a checkpoint hides the annotation.
    concealed: Option<Condition>,
    /// All receivers get the same variant.
    is_uniform: bool,
    output: AccessRules,
}

impl Builder {
    fn new(facts: &AnnotationFacts<'_>) -> Builder {
        let is_denied_anyway = facts.permission_precedes_mute && facts.is_readable_by_author_only();
        let readers = facts.readers.iter();
        let is_shared = facts.is_shared();
        Builder {
            author: Condition::User(facts.author.into()),
            is_muted: facts.is_muted && (facts.is_hidden || !is_denied_anyway),
            readers: readers.filter_map(|reader| reader.conditions()).collect(),
            moderators: match is_shared {
                true => facts.moderators.conditions(),
                false => Vec::new(),
            },
            flagger: one_of(facts.flaggers.iter()),
            concealed: match is_shared {
                true => facts.checkpoint.conceals(facts.author),
                false => None,
            },
            is_uniform: facts.is_deletion,
            output: AccessRules::default(),
        }
    }

    /// A hidden annotation: the author gets it without the hidden flag, and moderators with it.
    fn hidden(&mut self) {
        let author = vec![self.author.clone()];
        self.send(std::slice::from_ref(&author), false);
        if self.is_muted {
            return self.deny(&[], DenyReason::Muted);
        }
        if let Some(moderator) = self.moderators.first().cloned() {
            if let Some(concealed) = self.concealed.clone() {
                self.deny(&[moderator, concealed], DenyReason::Checkpoint);
            }
            let moderator = self.moderators.clone();
            self.send(std::slice::from_ref(&moderator), true);
        }
        self.deny(&[], DenyReason::Hidden);
    }

    /// A visible annotation: the readers get it. If the author is muted, only the author does, and
    /// only as a reader: as in h, authors who have left the group get nothing.
    fn visible(&mut self) {
        let mut readers = std::mem::take(&mut self.readers);
        if self.is_muted {
            for reader in &mut readers {
                reader.insert(0, self.author.clone());
            }
            self.send(&readers, false);
            let author = self.author.clone();
            self.deny(std::slice::from_ref(&author), DenyReason::Permission);
            return self.deny(&[], DenyReason::Muted);
        }
        if let Some(concealed) = self.concealed.clone() {
            for reader in &readers {
                let when = [std::slice::from_ref(&concealed), reader].concat();
                self.deny(&when, DenyReason::Checkpoint);
            }
        }
        self.send(&readers, false);
        self.deny(&[], DenyReason::Permission);
    }

    /// Sends to all receivers that meet one of the lists of conditions, each in the appropriate
    /// variant.
    fn send(&mut self, alternatives: &[Vec<Condition>], hidden: bool) {
        // The first matching rule decides, so rules with more conditions come first.
        for (moderates, flagged) in [(true, true), (true, false), (false, true), (false, false)] {
            let is_missing =
                (moderates && self.moderators.is_empty()) || (flagged && self.flagger.is_none());
            if is_missing || (self.is_uniform && (moderates || flagged)) {
                continue;
            }
            let moderators = self.moderators.iter().filter(|_| moderates);
            let flagger = self.flagger.iter().filter(|_| flagged);
            let further: Vec<Condition> = moderators.chain(flagger).cloned().collect();
            let variant = match self.is_uniform {
                true => Variant::default(),
                false => Variant {
                    moderates,
                    flagged,
                    hidden,
                },
            };
            for when in alternatives {
                let when = [when.as_slice(), &further].concat();
                self.rule(&when, |output| Decision::Send(output.index_of(variant)));
            }
        }
    }

    fn deny(&mut self, when: &[Condition], reason: DenyReason) {
        self.rule(when, |_| Decision::Deny(reason));
    }

    /// Adds a rule, unless an earlier one matches every receiver that this one would match.
    fn rule(&mut self, when: &[Condition], decide: impl FnOnce(&mut AccessRules) -> Decision) {
        let is_decided = |rule: &Rule| rule.when.iter().all(|condition| when.contains(condition));
        if self.output.rules.iter().any(is_decided) {
            return;
        }
        let mut conditions: Vec<Condition> = Vec::with_capacity(when.len());
        for condition in when {
            if !conditions.contains(condition) {
                conditions.push(condition.clone());
            }
        }
        let then = decide(&mut self.output);
        self.output.rules.push(Rule {
            when: conditions,
            then,
        });
    }
}

impl AccessRules {
    /// Returns the index of a variant, which is added if it is new.
    fn index_of(&mut self, variant: Variant) -> usize {
        let known = self.variants.iter().position(|known| *known == variant);
        known.unwrap_or_else(|| {
            self.variants.push(variant);
            self.variants.len() - 1
        })
    }
}

#[cfg(test)]
mod tests;
