//! The data of an annotation in the database at the time of an event.
//!
//! Owns: only the types. [`plan`](super::plan) draws the conclusions.

use super::ids::Uuid;
use crate::backend::policy::Visibility;
use crate::backend::time::PgTime;

/// All data, read in one transaction.
#[derive(Clone, Debug)]
pub(super) struct AnnotationState {
    pub annotation: Annotation,
    /// The visibility of the group with the annotation's `groupid`, if it exists.
    pub group: Option<Visibility>,
    /// The user with the annotation's `userid`, if it exists, including muted and deleted users.
    pub author: Option<Author>,
    /// The title of the document.
    pub title: Option<String>,
    /// The newest web address of the document. Only queried if the annotation refers to a PDF by
    /// its fingerprint.
    pub web_address: Option<String>,
    /// The normalized addresses of the document that contains the annotation's page. Empty if no
    /// document does.
    pub pages: Vec<Page>,
    pub mentions: Vec<Mention>,
    /// The userids of the users that flagged the annotation.
    pub flaggers: Vec<String>,
    /// The userids of the group's moderators.
    pub moderators: Vec<String>,
    /// Whether a checkpoint is active for the group and the document.
    pub has_checkpoint: bool,
    /// The userids of the users to which a checkpoint applies: it hides other users' annotations on
    /// the document in the group from them. Empty if no checkpoint is active.
    pub students: Vec<String>,
    /// The userids of the authors of the annotations that this one references, in its group.
    pub parents: Vec<String>,
    pub document_id: i32,
    /// The time of the transaction, by the database's clock.
    pub read_at: PgTime,
}

/// A row of `annotation`.
#[derive(Clone, Debug)]
pub(super) struct Annotation {
    pub id: Uuid,
    pub created: PgTime,
    pub updated: PgTime,
    pub userid: String,
    pub groupid: String,
    pub text: Option<String>,
    pub tags: Option<Vec<Option<String>>>,
    pub shared: bool,
    pub target_uri: Option<String>,
    /// JSON.
    pub target_selectors: Option<String>,
    pub references: Option<Vec<Option<Uuid>>>,
    /// JSON.
    pub extra: String,
    pub deleted: bool,
    pub moderation_status: Option<String>,
    pub target_description: Option<String>,
    pub version: Option<i32>,
}

/// The annotation's author, as a row of `user`.
#[derive(Clone, Debug)]
pub(super) struct Author {
    pub userid: String,
    pub display_name: Option<String>,
    /// h's NIPSA.
    pub muted: bool,
    /// Whether the author is an instructor of the annotation's group.
    pub instructs: bool,
}

/// An address of a document.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub normalized: String,
    /// Whether this is the document's canonical address and equals the annotation's exactly.
    pub is_canonical: bool,
}

/// A row of `mention`, with its user.
#[derive(Clone, Debug)]
pub(super) struct Mention {
    /// The username at the time of the mention.
    pub original_username: String,
    pub username: String,
    pub authority: String,
    pub display_name: Option<String>,
    pub description: Option<String>,
    pub joined: Option<PgTime>,
}

impl Annotation {
    /// Returns whether the annotation is hidden by moderation.
    pub(super) fn is_hidden(&self) -> bool {
        let status = self.moderation_status.as_deref();
        status.is_some_and(|status| status != APPROVED)
    }

    /// Returns the referenced annotations, starting with the root of the thread. An annotation
    /// without references is not a reply.
    pub(super) fn references(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.references.iter().flatten().copied().flatten()
    }
}

/// The only status that does not hide an annotation.
pub(super) const APPROVED: &str = "APPROVED";
/// The world group.
pub(super) const WORLD: &str = "__world__";

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// Returns a minimal annotation.
    pub(crate) fn state(userid: &str, groupid: &str) -> AnnotationState {
        let annotation = Annotation {
            id: Uuid(0x0000_0001_1111_11e6_8000_0000_0000_0001_u128.to_be_bytes()),
            created: PgTime(0),
            updated: PgTime(1_500_000),
            userid: userid.to_owned(),
            groupid: groupid.to_owned(),
            text: Some("Hello".to_owned()),
            tags: Some(Vec::new()),
            shared: true,
            target_uri: Some("http://example.com/a".to_owned()),
            target_selectors: Some("[]".to_owned()),
            references: Some(Vec::new()),
            extra: "{}".to_owned(),
            deleted: false,
            moderation_status: None,
            target_description: None,
            version: None,
        };
        AnnotationState {
            annotation,
            group: None,
            author: None,
            title: None,
            web_address: None,
            pages: Vec::new(),
            mentions: Vec::new(),
            flaggers: Vec::new(),
            moderators: Vec::new(),
            has_checkpoint: false,
            students: Vec::new(),
            parents: Vec::new(),
            document_id: 1,
            read_at: PgTime(2_000_000),
        }
    }
}
