//! The facts about an annotation that the history compares: its row, and the rights on which its
//! receivers depend.
//!
//! Owns: their hashes. They are compared within one process only.

use std::collections::{HashMap, HashSet};
use std::fmt::{self, Write as _};
use std::hash::{BuildHasher, Hasher as _, RandomState};

use crate::backend::h::annotation_state::{Annotation, AnnotationState};
use crate::backend::h::ids::Uuid;
use crate::backend::policy::Visibility;
use crate::backend::time::PgTime;
use crate::model::Rule;

/// The state of an annotation's row, as far as changes are detected by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backend::h) struct RowState {
    pub updated: PgTime,
    pub deleted: bool,
    /// The hash of the moderation status, which does not affect `updated`.
    pub status: u64,
}

/// A row of `annotation` that has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backend::h) struct ChangedRow {
    pub id: Uuid,
    pub state: RowState,
    /// The time of the change: that of the row, or of its moderation.
    pub changed: PgTime,
    /// The estimated size of the annotation, in bytes.
    pub size: usize,
}

/// The facts about an annotation when it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::backend::h) struct Facts {
    pub id: Uuid,
    pub state: RowState,
    /// Whether the row has not been updated since its creation.
    pub is_new: bool,
    pub author: String,
    pub group: String,
    pub document: i32,
    /// The size of the annotation's content, in bytes.
    pub size: usize,
    /// Whether the author is muted.
    pub muted: bool,
    /// The hash of the group's visibility and moderators.
    pub group_rights: u64,
    /// The hash of the users to which an active checkpoint applies; 0 without a checkpoint.
    pub checkpoint: u64,
    /// The hash of the plan's rules.
    pub rules: u64,
    /// The time of the transaction, by the database's clock.
    pub read_at: PgTime,
}

/// The reason for sending an annotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backend::h) enum Purpose {
    /// It has changed.
    Event,
    /// Its receivers have changed.
    RightsChange,
}

/// The current rights on annotations.
#[derive(Clone, Debug, Default)]
pub(in crate::backend::h) struct Rights {
    /// The userids of muted authors, as requested.
    pub muted: HashSet<String>,
    /// The rights in each requested group.
    pub groups: HashMap<String, GroupRights>,
}

/// The rights in a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::backend::h) struct GroupRights {
    /// See [`Facts::group_rights`].
    pub rights: u64,
    /// See [`Facts::checkpoint`]: its value on a document with an active checkpoint.
    pub checkpoint: u64,
    /// The documents with an active checkpoint.
    pub documents: Vec<i32>,
}

/// Computes hashes with a key of this process.
#[derive(Clone, Default)]
pub(in crate::backend::h) struct Hasher(RandomState);

impl Hasher {
    /// Returns the facts about an annotation, as the database has them. The rules are set later.
    pub(in crate::backend::h) fn facts(&self, state: &AnnotationState) -> Facts {
        let annotation = &state.annotation;
        let checkpoint = match state.has_checkpoint {
            true => self.checkpoint(state.students.clone()),
            false => 0,
        };
        Facts {
            id: annotation.id,
            state: RowState {
                updated: annotation.updated,
                deleted: annotation.deleted,
                status: self.status(annotation.moderation_status.as_deref()),
            },
            is_new: annotation.created == annotation.updated,
            author: annotation.userid.clone(),
            group: annotation.groupid.clone(),
            document: state.document_id,
            size: size(annotation),
            muted: state.author.as_ref().is_some_and(|author| author.muted),
            group_rights: self.group_rights(state.group, state.moderators.clone()),
            checkpoint,
            rules: 0,
            read_at: state.read_at,
        }
    }

    /// Returns the hash of a moderation status.
    pub(in crate::backend::h) fn status(&self, status: Option<&str>) -> u64 {
        self.0.hash_one(status)
    }

    /// Returns the hash of a group's visibility and moderators, in any order.
    pub(in crate::backend::h) fn group_rights(
        &self,
        visibility: Option<Visibility>,
        mut moderators: Vec<String>,
    ) -> u64 {
        moderators.sort_unstable();
        let visibility = match visibility {
            Some(Visibility::World) => 2,
            Some(Visibility::Members) => 1,
            Some(Visibility::Unreadable) | None => 0,
        };
        self.0.hash_one((visibility, moderators))
    }

    /// Returns the hash of the users to which a checkpoint applies, in any order. Never 0.
    pub(in crate::backend::h) fn checkpoint(&self, mut students: Vec<String>) -> u64 {
        students.sort_unstable();
        self.0.hash_one(students).max(1)
    }

    /// Returns the hash of rules.
    pub(in crate::backend::h) fn rules(&self, rules: &[Rule]) -> u64 {
        let mut text = HashedText(self.0.build_hasher());
        // Writing to a hasher never fails.
        let _ = write!(text, "{rules:?}");
        text.0.finish()
    }
}

fn size(annotation: &Annotation) -> usize {
    let text = annotation.text.as_ref().map_or(0, String::len);
    let selectors = annotation.target_selectors.as_ref();
    text + selectors.map_or(0, String::len) + annotation.extra.len()
}

/// Hashes formatted text without storing it.
struct HashedText<H>(H);

impl<H: std::hash::Hasher> fmt::Write for HashedText<H> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.write(text.as_bytes());
        Ok(())
    }
}
