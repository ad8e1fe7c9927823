//! Tokens, users, and their memberships.
//!
//! Owns: the result of authentication, and the reasons why it ends. Must not know: the storage or
//! the transport of credentials.

use std::fmt;

use super::time::UnixMillis;

/// A bearer token as sent by a client. It can be compared, but neither `Debug` nor any log shows
/// it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// A backend's identifier of a token, stable for the token's lifetime. It is not the token itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TokenId(pub u64);

/// A member's role in a group (h's `GroupMembershipRoles`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// May read the group.
    Member,
    /// May read the group and moderate its annotations.
    Moderator,
    /// Has the same rights as a moderator.
    Admin,
    /// Has the same rights as a moderator.
    Owner,
}

impl Role {
    /// Returns whether the role carries h's `MODERATE` permission.
    pub fn moderates(self) -> bool {
        self != Role::Member
    }

    /// Returns h's name of the role.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Member => "member",
            Role::Moderator => "moderator",
            Role::Admin => "admin",
            Role::Owner => "owner",
        }
    }
}

impl std::str::FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        [Role::Member, Role::Moderator, Role::Admin, Role::Owner]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or(())
    }
}

/// A user's membership in a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Membership {
    /// The group's id in the API (h's `pubid`).
    pub group: Box<str>,
    /// The user's role in the group.
    pub role: Role,
}

/// The identity of a token's user at the time of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The userid, `acct:name@authority`, in the stored spelling.
    pub userid: Box<str>,
    /// The user's memberships.
    pub memberships: Vec<Membership>,
    /// The token.
    pub token: TokenId,
    /// The time of expiry; `None` means never.
    pub expires: Option<UnixMillis>,
}

/// The result of authentication.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthReply {
    /// The token is valid.
    Known(Identity),
    /// The token is unknown, expired, or revoked, or its user has been deleted.
    Unknown,
    /// The backend cannot check the token now, since its database is unavailable.
    Unavailable,
}

/// The reason why a token has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndCause {
    /// The token has expired.
    Expired,
    /// The token was revoked, or belongs to another user now.
    Revoked,
    /// The token's user was deleted.
    UserDeleted,
}

impl EndCause {
    /// Returns the reason for the close frame.
    pub fn as_str(self) -> &'static str {
        match self {
            EndCause::Expired => "token expired",
            EndCause::Revoked => "token revoked",
            EndCause::UserDeleted => "user deleted",
        }
    }
}

/// The treatment of a handshake with an invalid token.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InvalidToken {
    /// The connection is anonymous, as in h.
    #[default]
    Anonymous,
    /// The handshake is rejected with 401.
    Reject,
}

/// The treatment of an open connection whose token has expired or was revoked, or whose user was
/// deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExpiry {
    /// The connection is closed with 3000, and may reconnect with another token.
    #[default]
    Close,
    /// The connection stays open, as in h.
    Keep,
}

#[cfg(test)]
mod tests {
    use super::*;

    // CVE-2026-33247
    #[test]
    fn debug_output_does_not_show_a_secret() {
        let secret = Secret("hunter2".to_owned());
        assert!(!format!("{secret:?} {secret:#?}").contains("hunter2"));
    }
}
