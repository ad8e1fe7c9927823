//! The facts about a published annotation for the authorization [`policy`](crate::backend::policy):
//! from its `permissions.read`, and from the database.

use super::annotation::{Annotation, ReadPermission, WORLD};
use super::directory::{Directory, ReadableBy};
use crate::backend::policy::{AnnotationFacts, Checkpoint, Moderators, Reader, Visibility};

/// Returns the facts about an annotation by a muted or unmuted author.
pub(super) fn policy_facts<'a>(
    annotation: &'a Annotation,
    is_muted: bool,
    is_deletion: bool,
    directory: &Directory<'_>,
) -> Result<AnnotationFacts<'a>, rusqlite::Error> {
    let mut readers = Vec::with_capacity(annotation.readers.len());
    for permission in &annotation.readers {
        readers.push(reader(permission, &annotation.group, directory)?);
    }
    // Without moderators, the moderators' variant is not needed.
    let moderators = match directory.is_moderated(&annotation.group)? {
        true => Moderators::ByRole {
            group: &annotation.group,
        },
        false => Moderators::None,
    };
    Ok(AnnotationFacts {
        author: &annotation.user,
        is_muted,
        readers,
        is_hidden: annotation.hidden,
        moderators,
        // The database records neither flags nor checkpoints.
        flaggers: &[],
        checkpoint: Checkpoint::default(),
        is_deletion,
        permission_precedes_mute: false,
    })
}

fn reader<'a>(
    permission: &'a ReadPermission,
    own_group: &'a str,
    directory: &Directory<'_>,
) -> Result<Reader<'a>, rusqlite::Error> {
    Ok(match permission {
        ReadPermission::World if own_group == WORLD => Reader::World,
        // h writes this entry for groups that the world can read. If the group is known to be
        // private, the group's setting takes precedence.
        ReadPermission::World => match directory.readable_by(own_group)? {
            None => Reader::World,
            known => Reader::Group {
                id: own_group,
                visibility: visibility(known),
            },
        },
        ReadPermission::Group(id) => Reader::Group {
            id,
            visibility: visibility(directory.readable_by(id)?),
        },
        ReadPermission::User(userid) => Reader::User(userid),
    })
}

/// Returns the visibility of a group; `None` is a group that does not exist.
fn visibility(readable_by: Option<ReadableBy>) -> Visibility {
    match readable_by {
        Some(ReadableBy::World) => Visibility::World,
        Some(ReadableBy::Members) => Visibility::Members,
        None => Visibility::Unreadable,
    }
}

#[cfg(test)]
mod tests;
