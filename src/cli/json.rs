//! The JSON output of `--json`: an object has the same shape in every command.
//!
//! The shapes are documented in docs/operating.md. Members may be added, but are never renamed.

use serde_json::{Value, json};

use super::console::Console;
use crate::backend::embedded::{GroupRow, TokenRow, UserRow};
use crate::backend::time;
use crate::exit::Exit;
use crate::model::{Role, UnixMillis};

/// Prints a value on one line.
pub(super) fn print(value: &Value, console: &mut Console<'_>) -> Result<(), Exit> {
    writeln!(console.out, "{value}")?;
    Ok(())
}

/// Returns a user with their tokens and groups.
pub(super) fn user(
    user: &UserRow,
    tokens: &[TokenRow],
    groups: &[(String, Role)],
    now: UnixMillis,
) -> Value {
    let tokens = tokens.iter().filter(|token| token.userid == user.userid);
    json!({
        "userid": user.userid,
        "display_name": user.display_name,
        "muted": user.muted,
        "created": time::format_rfc3339(user.created),
        "tokens": tokens.map(|row| token(row, now)).collect::<Vec<_>>(),
        "groups": groups
            .iter()
            .map(|(id, role)| json!({"id": id, "role": role.as_str()}))
            .collect::<Vec<_>>(),
    })
}

/// Returns a token's record, without the token itself.
pub(super) fn token(token: &TokenRow, now: UnixMillis) -> Value {
    json!({
        "id": token.id.0,
        "userid": token.userid,
        "created": time::format_rfc3339(token.created),
        "expires": token.expires.map(time::format_rfc3339),
        "expired": token.has_expired(now),
    })
}

/// Returns a group with its members.
pub(super) fn group(group: &GroupRow) -> Value {
    json!({
        "id": group.id,
        "readable_by": group.readable_by.as_str(),
        "created": time::format_rfc3339(group.created),
        "members": group
            .members
            .iter()
            .map(|(userid, role)| json!({"userid": userid, "role": role.as_str()}))
            .collect::<Vec<_>>(),
    })
}
