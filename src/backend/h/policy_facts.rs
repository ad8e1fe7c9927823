//! The facts about an annotation of h's database for the authorization
//! [`policy`](crate::backend::policy).

use super::annotation_state::AnnotationState;
use crate::backend::policy::{AnnotationFacts, Checkpoint, Moderators, Reader, Visibility};

/// Returns the facts about an annotation.
///
/// In h, an annotation has one reader: its group if it is shared, and its author otherwise
/// (`READ_REALTIME_UPDATES` in `h/security/permission_map.py`).
pub(super) fn policy_facts(state: &AnnotationState, is_deletion: bool) -> AnnotationFacts<'_> {
    let annotation = &state.annotation;
    let author = state.author.as_ref();
    let reader = match annotation.shared {
        true => Reader::Group {
            id: &annotation.groupid,
            visibility: state.group.unwrap_or(Visibility::Unreadable),
        },
        false => Reader::User(&annotation.userid),
    };
    AnnotationFacts {
        author: &annotation.userid,
        is_muted: author.is_some_and(|author| author.muted),
        readers: vec![reader],
        is_hidden: annotation.is_hidden(),
        // The reactor learns of membership changes from h's events before the database has them.
        // The list may therefore contain former members, who do not count.
        moderators: Moderators::Listed {
            group: &annotation.groupid,
            userids: &state.moderators,
        },
        flaggers: &state.flaggers,
        checkpoint: Checkpoint {
            students: &state.students,
            // h compares userids exactly, in the spelling of the tables.
            author_is_instructor: author
                .is_some_and(|author| author.instructs && author.userid == annotation.userid),
            answered: annotation.references().next().map(|_| &*state.parents),
        },
        is_deletion,
        permission_precedes_mute: true,
    }
}
