//! The position of the command in the server's history: the newest cursor, and the times to store
//! it. Must not know sockets or messages: the time is an argument.

use std::path::Path;
use std::time::{Duration, Instant};

use super::state_file::{StateFile, is_acceptable};
use crate::exit::Exit;

/// The position from which the next connection resumes.
pub(in crate::cli) struct Resume {
    /// The value of `since` in the next filter. `None` if the command uses no cursors.
    since: Option<String>,
    state: Option<StateFile>,
    /// The events and marks since the last save.
    unsaved: u32,
    saved_at: Option<Instant>,
}

impl Resume {
    /// Starts with the cursor in the file `state`, or else with `since`, or else with the next
    /// event. Without both, the command uses no cursors.
    pub(in crate::cli) fn start(since: Option<&str>, state: Option<&Path>) -> Result<Self, Exit> {
        let (state, stored) = match state {
            Some(path) => StateFile::open(path).map(|(state, stored)| (Some(state), stored))?,
            None => (None, None),
        };
        let default = state.as_ref().map(|_| NOW.to_owned());
        Ok(Resume {
            since: stored.or(since.map(str::to_owned)).or(default),
            state,
            unsaved: 0,
            saved_at: None,
        })
    }

    /// Returns the value of `since` for the next filter, if the command uses cursors.
    pub(super) fn since(&self) -> Option<&str> {
        self.since.as_deref()
    }

    /// Returns whether no cursor is known, and all events up to now are skipped.
    pub(super) fn is_from_now(&self) -> bool {
        self.since() == Some(NOW)
    }

    /// Moves the position to that of a consumer that keeps its own.
    pub(super) fn restart_at(&mut self, position: String) {
        self.since = Some(position);
    }

    /// Returns the path of the state file.
    pub(super) fn state_path(&self) -> Option<&Path> {
        self.state.as_ref().map(StateFile::path)
    }

    /// Moves the position: everything up to `cursor` has been written. Stores it if that is due.
    pub(super) fn advance(&mut self, cursor: &str, now: Instant) -> Result<(), Exit> {
        match &mut self.since {
            Some(since) if is_acceptable(cursor) => {
                since.clear();
                since.push_str(cursor);
                self.unsaved = self.unsaved.saturating_add(1);
                self.save_if_due(now)
            }
            _ => Ok(()),
        }
    }

    /// Returns the time until the position must be stored. `None` if there is nothing to store.
    pub(super) fn timeout(&self, now: Instant) -> Option<Duration> {
        if self.unsaved == 0 || self.state.is_none() {
            return None;
        }
        let due = match self.saved_at {
            Some(saved_at) if self.unsaved < MAX_UNSAVED => saved_at + SAVE_INTERVAL,
            _ => now,
        };
        Some(due.saturating_duration_since(now))
    }

    /// Stores the position if that is due.
    pub(super) fn save_if_due(&mut self, now: Instant) -> Result<(), Exit> {
        match self.timeout(now) {
            Some(Duration::ZERO) => self.save(now),
            _ => Ok(()),
        }
    }

    /// Stores the position if it has moved.
    pub(super) fn save(&mut self, now: Instant) -> Result<(), Exit> {
        if self.unsaved > 0
            && let (Some(state), Some(cursor)) = (&self.state, &self.since)
        {
            state.save(cursor)?;
            self.saved_at = Some(now);
            self.unsaved = 0;
        }
        Ok(())
    }
}

/// The value of `since` that skips all events up to now.
pub(super) const NOW: &str = "now";
/// In a busy stream, the position is stored after this time, or this number of events, whichever
/// comes first. That many events may be repeated after the process was killed.
const SAVE_INTERVAL: Duration = Duration::from_millis(200);
const MAX_UNSAVED: u32 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(path: &Path) -> String {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        value["cursor"].as_str().unwrap_or_default().to_owned()
    }

    fn started(since: Option<&str>, state: Option<&Path>) -> Resume {
        Resume::start(since, state).unwrap_or_else(|exit| panic!("{}", exit.message))
    }

    fn advance(resume: &mut Resume, cursor: &str, now: Instant) {
        let moved = resume.advance(cursor, now);
        moved.unwrap_or_else(|exit| panic!("{}", exit.message));
    }

    #[test]
    fn state_precedes_since_which_precedes_now() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("state");
        assert_eq!(started(None, None).since(), None);
        assert_eq!(started(Some("x"), None).since(), Some("x"));
        assert_eq!(started(None, Some(&path)).since(), Some("now"));
        assert_eq!(started(Some("x"), Some(&path)).since(), Some("x"));
        advance(&mut started(None, Some(&path)), "stored", Instant::now());
        assert_eq!(started(Some("x"), Some(&path)).since(), Some("stored"));
    }

    #[test]
    fn busy_stream_is_stored_once_per_interval_or_hundred_events() {
        let folder = tempfile::tempdir().expect("a directory");
        let path = folder.path().join("state");
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut resume = started(None, Some(&path));
        assert_eq!(resume.timeout(start), None);
        advance(&mut resume, "c0", start);
        assert_eq!(stored(&path), "c0", "the first event is stored at once");
        for number in 1..100 {
            advance(&mut resume, &format!("c{number}"), at(1));
        }
        assert_eq!(stored(&path), "c0");
        assert_eq!(resume.timeout(at(50)), Some(Duration::from_millis(150)));
        advance(&mut resume, "c100", at(2));
        assert_eq!(stored(&path), "c100");
        advance(&mut resume, "c101", at(3));
        assert!(resume.save_if_due(at(201)).is_ok());
        assert_eq!(stored(&path), "c100");
        assert!(resume.save_if_due(at(202)).is_ok());
        assert_eq!(stored(&path), "c101");
        advance(&mut resume, "c102", at(203));
        assert!(resume.save(at(203)).is_ok());
        assert_eq!(stored(&path), "c102", "the end of a session does not wait");
    }

    #[test]
    fn cursors_are_ignored_if_not_in_use_or_unusable() {
        let mut unused = started(None, None);
        advance(&mut unused, "c", Instant::now());
        assert_eq!(unused.since(), None);
        let mut used = started(Some("x"), None);
        for cursor in ["", "a\nb", &"c".repeat(2000)] {
            advance(&mut used, cursor, Instant::now());
        }
        assert_eq!(used.since(), Some("x"));
        assert_eq!(used.timeout(Instant::now()), None);
    }
}
