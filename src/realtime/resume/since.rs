//! The value of `since`: where a client wants to resume.

use crate::model::UnixMillis;
use crate::realtime::history::ReplayCursor;
use crate::realtime::json;

/// The value of `since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::realtime) enum Since {
    /// `"now"`
    Now,
    /// A cursor.
    Cursor(ReplayCursor),
    /// A time, in UNIX milliseconds.
    Time(UnixMillis),
}

/// The reason why `since` is rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::realtime) enum SinceError {
    /// It is neither a cursor, a time, nor `"now"`.
    Malformed,
    /// It is later than all events.
    Future,
}

impl Since {
    /// Parses the JSON text of `since`.
    pub(in crate::realtime) fn parse(value: &str) -> Result<Since, SinceError> {
        let text = json::string(value).ok_or(SinceError::Malformed)?;
        Since::from_text(&text)
    }

    /// Parses the text of `since`.
    pub(in crate::realtime) fn from_text(text: &str) -> Result<Since, SinceError> {
        if text == "now" {
            return Ok(Since::Now);
        }
        if let Ok(since) = Since::from_cursor(text) {
            return Ok(since);
        }
        let time: jiff::Timestamp = text.parse().map_err(|_| SinceError::Malformed)?;
        Ok(Since::Time(
            u64::try_from(time.as_millisecond()).unwrap_or_default(),
        ))
    }

    /// Parses a cursor.
    pub(in crate::realtime) fn from_cursor(text: &str) -> Result<Since, SinceError> {
        let cursor = ReplayCursor::parse(text);
        cursor.map(Since::Cursor).ok_or(SinceError::Malformed)
    }
}
