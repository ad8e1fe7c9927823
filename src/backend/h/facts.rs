//! What the database says of an annotation at the moment of an event, as plain data.
//!
//! Owns: nothing but the names. What follows from it is [`plan`](super::plan)'s.

use super::ids::Uuid;
use super::time::PgTime;

/// All of it, read in one transaction.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub annotation: Annotation,
    /// The group of the annotation's `groupid`, if there is one.
    pub group: Option<Group>,
    /// The user of the annotation's `userid`, if there is one, muted or deleted too.
    pub author: Option<Author>,
    /// Of the document.
    pub title: Option<String>,
    /// The newest web address of the document; asked for only where the annotation is of a PDF
    /// by its fingerprint.
    pub web_address: Option<String>,
    /// What the document that has the annotation's page is known as, in normal form. None where
    /// no document has it.
    pub pages: Vec<Page>,
    pub mentions: Vec<Mention>,
    /// The userids of those who flagged the annotation.
    pub flaggers: Vec<String>,
    /// The userids of those who moderate the group.
    pub moderators: Vec<String>,
    /// Whether a checkpoint is active for the group and the document.
    pub has_checkpoint: bool,
    /// The userids of those from whom a checkpoint hides what others write on the document in the
    /// group. None where no checkpoint is active.
    pub students: Vec<String>,
    /// The userids of those who wrote what the annotation refers to, in its group.
    pub parents: Vec<String>,
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

/// Who reads a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Group {
    World,
    Members,
    /// Its column is empty.
    Nobody,
}

/// The annotation's author, as a row of `user`.
#[derive(Clone, Debug)]
pub(super) struct Author {
    pub userid: String,
    pub display_name: Option<String>,
    /// h's NIPSA.
    pub muted: bool,
    /// An instructor of the annotation's group.
    pub instructs: bool,
}

/// A name of a document.
#[derive(Clone, Debug)]
pub(super) struct Page {
    pub normalized: String,
    /// The document's canonical address, and exactly the annotation's.
    pub is_canonical: bool,
}

/// A row of `mention`, with its user.
#[derive(Clone, Debug)]
pub(super) struct Mention {
    /// What the user was called when mentioned.
    pub original_username: String,
    pub username: String,
    pub authority: String,
    pub display_name: Option<String>,
    pub description: Option<String>,
    pub joined: Option<PgTime>,
}

impl Annotation {
    /// Hidden by moderation.
    pub fn is_hidden(&self) -> bool {
        let status = self.moderation_status.as_deref();
        status.is_some_and(|status| status != APPROVED)
    }

    /// What it refers to: the thread's beginning first. An annotation without any is no reply.
    pub fn references(&self) -> impl Iterator<Item = Uuid> + '_ {
        self.references.iter().flatten().copied().flatten()
    }
}

/// The one status that does not hide.
pub(super) const APPROVED: &str = "APPROVED";
/// The group of everybody.
pub(super) const WORLD: &str = "__world__";

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// An annotation that says little.
    pub fn facts(userid: &str, groupid: &str) -> Facts {
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
        Facts {
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
        }
    }
}
