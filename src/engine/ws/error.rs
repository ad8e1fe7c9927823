//! Close codes, and the violations that end a connection with one.

use std::fmt;

/// A close code, §7.4.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CloseCode(pub u16);

impl CloseCode {
    /// "A normal closure".
    pub const NORMAL: Self = CloseCode(1000);
    /// "An endpoint is 'going away'". Some clients do not reconnect after it.
    pub const GOING_AWAY: Self = CloseCode(1001);
    /// "A protocol error".
    pub const PROTOCOL_ERROR: Self = CloseCode(1002);
    /// "Data within a message that was not consistent with the type of the message".
    pub const INVALID_DATA: Self = CloseCode(1007);
    /// "A message that violates its policy".
    pub const POLICY: Self = CloseCode(1008);
    /// "A message that is too big for it to process".
    pub const TOO_BIG: Self = CloseCode(1009);
    /// "An unexpected condition".
    pub const INTERNAL_ERROR: Self = CloseCode(1011);
    /// Service restart (IANA registry): the client may reconnect after a random delay.
    pub const SERVICE_RESTART: Self = CloseCode(1012);
    /// Try again later (IANA registry): the server is overloaded, or the client is too slow.
    pub const TRY_AGAIN_LATER: Self = CloseCode(1013);

    /// Returns whether a peer may send the code. §7.4.1: 1004 is reserved, and 1005, 1006, and 1015
    /// "MUST NOT be set as a status code in a Close control frame by an endpoint".
    pub fn may_be_sent(self) -> bool {
        matches!(self.0, 1000..=1003 | 1007..=1014 | 3000..=4999)
    }
}

/// The peer violated the protocol or exceeded a limit. The connection must be failed (§7.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolError {
    /// The code of the close frame.
    pub code: CloseCode,
    /// The reason in the close frame.
    pub reason: &'static str,
}

impl ProtocolError {
    pub(crate) fn new(code: CloseCode, reason: &'static str) -> Self {
        ProtocolError { code, reason }
    }
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.code.0, self.reason)
    }
}

impl std::error::Error for ProtocolError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_text_is_the_code_and_the_reason() {
        let error = ProtocolError::new(CloseCode::TOO_BIG, "message is too big");
        assert_eq!(error.to_string(), "1009 message is too big");
    }
}
