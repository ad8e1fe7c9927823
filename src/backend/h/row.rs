//! Converts rows of the database into plain data. Must not know: the queries.

use std::error::Error as StdError;

use tokio_postgres::types::{FromSql, Type, accepts};
use tokio_postgres::{Error, Row};

use super::annotation_state::{Annotation, AnnotationState, Author, Mention, Page};
use super::ids::Uuid;
use crate::backend::policy::Visibility;
use crate::backend::time::PgTime;
use crate::backend::userid;
use crate::model::{Membership, Role, TokenId};

type SqlResult<T> = Result<T, Box<dyn StdError + Sync + Send>>;

impl FromSql<'_> for Uuid {
    fn from_sql(_: &Type, raw: &[u8]) -> SqlResult<Self> {
        Ok(Uuid(raw.try_into()?))
    }

    accepts!(UUID);
}

impl FromSql<'_> for PgTime {
    fn from_sql(_: &Type, raw: &[u8]) -> SqlResult<Self> {
        Ok(PgTime(i64::from_be_bytes(raw.try_into()?)))
    }

    accepts!(TIMESTAMP);
}

/// Returns the userid of a row with the two columns of a user.
pub(super) fn userid(row: &Row) -> Result<String, Error> {
    Ok(userid::join(
        row.try_get("username")?,
        row.try_get("authority")?,
    ))
}

/// Returns the token id of a row of `token`.
pub(super) fn token(row: &Row) -> Result<TokenId, Error> {
    let id: i32 = row.try_get("id")?;
    // Sequences start at 1. A negative id cannot be represented, and becomes one that the next
    // sweep removes.
    Ok(TokenId(u64::try_from(id).unwrap_or(u64::MAX)))
}

/// Returns the memberships of a row with the columns `groups` and `roles`.
pub(super) fn memberships(row: &Row) -> Result<Vec<Membership>, Error> {
    let groups: Option<Vec<String>> = row.try_get("groups")?;
    let roles: Option<Vec<Option<String>>> = row.try_get("roles")?;
    let roles = roles.unwrap_or_default().into_iter();
    let both = groups.unwrap_or_default().into_iter().zip(roles);
    Ok(both
        .map(|(group, role)| Membership {
            group: group.into(),
            // An unknown role has at least the rights of a member.
            role: role
                .and_then(|role| role.parse().ok())
                .unwrap_or(Role::Member),
        })
        .collect())
}

fn annotation(id: Uuid, row: &Row) -> Result<Annotation, Error> {
    Ok(Annotation {
        id,
        created: row.try_get("created")?,
        updated: row.try_get("updated")?,
        userid: row.try_get("userid")?,
        groupid: row.try_get("groupid")?,
        text: row.try_get("text")?,
        tags: row.try_get("tags")?,
        shared: row.try_get("shared")?,
        target_uri: row.try_get("target_uri")?,
        target_selectors: row.try_get("target_selectors")?,
        references: row.try_get("references")?,
        extra: row.try_get("extra")?,
        deleted: row.try_get("deleted")?,
        moderation_status: row.try_get("moderation_status")?,
        target_description: row.try_get("target_description")?,
        version: row.try_get("version")?,
    })
}

/// Returns the state of an annotation without the rows that a second round trip reads.
pub(super) fn state(id: Uuid, row: &Row) -> Result<AnnotationState, Error> {
    Ok(AnnotationState {
        annotation: annotation(id, row)?,
        group: group(row)?,
        title: row.try_get("title")?,
        web_address: row.try_get("web_address")?,
        author: None,
        pages: Vec::new(),
        mentions: Vec::new(),
        flaggers: Vec::new(),
        moderators: Vec::new(),
        has_checkpoint: row.try_get("has_checkpoint")?,
        students: Vec::new(),
        parents: Vec::new(),
        document_id: row.try_get("document_id")?,
        read_at: row.try_get("read_at")?,
    })
}

/// Returns the visibility of an annotation's group, if the group exists.
pub(super) fn group(row: &Row) -> Result<Option<Visibility>, Error> {
    let id: Option<i32> = row.try_get("group_id")?;
    let readable_by: Option<&str> = row.try_get("readable_by")?;
    Ok(id.map(|_| match readable_by {
        Some("world") => Visibility::World,
        Some("members") => Visibility::Members,
        // An unknown value comes from a later version of h. Deny access, since its meaning is
        // unknown.
        _ => Visibility::Unreadable,
    }))
}

pub(super) fn author(row: &Row) -> Result<Author, Error> {
    Ok(Author {
        userid: userid(row)?,
        display_name: row.try_get("display_name")?,
        muted: row.try_get("nipsa")?,
        instructs: row.try_get("instructs")?,
    })
}

pub(super) fn page(row: &Row) -> Result<Page, Error> {
    Ok(Page {
        normalized: row.try_get("uri_normalized")?,
        is_canonical: row.try_get("is_canonical")?,
    })
}

pub(super) fn mention(row: &Row) -> Result<Mention, Error> {
    Ok(Mention {
        original_username: row.try_get("original_username")?,
        username: row.try_get("username")?,
        authority: row.try_get("authority")?,
        display_name: row.try_get("display_name")?,
        description: row.try_get("description")?,
        joined: row.try_get("activation_date")?,
    })
}
