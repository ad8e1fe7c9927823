//! Keeps an Atom feed in a file: the newest annotations of a filter.
//!
//! Owns: the entries, the files, and the moments of writing. The state file has the entries and the
//! cursor up to which they are current. After a gap, or as another user, the entries may be
//! unreadable. They are dropped, and the feed is filled again from the history.

use std::fmt;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::atom::{Entry, FeedHead, render};
use super::event::{Action, ForwardEvent, NotForwarded};
use super::metrics::ForwardMetrics;
use crate::cli::listen::{EventConsumer, claim, is_acceptable, read_at_most, replace_file};
use crate::exit::{Exit, of_io};
use crate::model::{UnixMillis, unix_now};

/// The settings of a feed.
pub(super) struct FeedSettings {
    pub out: PathBuf,
    pub state: PathBuf,
    pub head: FeedHead,
    /// The maximum number of entries.
    pub entries: usize,
    /// The server and the filter: with others, the stored entries are not used.
    pub source: Value,
    /// The position to start from without a state file.
    pub since: Option<String>,
}

/// The consumer of the stream.
pub(super) struct Feed {
    settings: FeedSettings,
    content: FeedContent,
    metrics: Arc<ForwardMetrics>,
    /// The feed, or only its position, has changed since the last write.
    is_changed: bool,
    is_moved: bool,
    /// The feed must be filled again on another connection.
    must_refill: bool,
    written_at: Option<Instant>,
    _lock: File,
}

/// The content of the state file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
struct FeedContent {
    #[serde(rename = "h_realtime_feed")]
    version: u64,
    source: Value,
    /// The line about the identity of the client.
    identity: Option<String>,
    cursor: Option<String>,
    updated: UnixMillis,
    entries: Vec<Entry>,
}

impl Feed {
    /// Opens the state file, and writes the feed.
    ///
    /// # Errors
    /// 65 if the state file is damaged, 69 if it is in use, 74 or 77 if a file cannot be written.
    pub(super) fn open(
        mut settings: FeedSettings,
        metrics: Arc<ForwardMetrics>,
    ) -> Result<Self, Exit> {
        let (state, lock) = claim(&settings.state)?;
        settings.state = state;
        let stored = read(&settings.state)?;
        let content = stored.filter(|content| content.source == settings.source);
        let content = content.unwrap_or_else(|| FeedContent {
            version: VERSION,
            source: settings.source.clone(),
            identity: None,
            cursor: None,
            updated: unix_now(),
            entries: Vec::new(),
        });
        let mut feed = Feed {
            settings,
            content,
            metrics,
            is_changed: true,
            is_moved: true,
            must_refill: false,
            written_at: None,
            _lock: lock,
        };
        feed.content.shorten(feed.settings.entries);
        feed.save()?;
        Ok(feed)
    }

    /// Writes the feed if it has changed.
    pub(super) fn finish(&mut self) -> Result<(), Exit> {
        self.save()
    }

    fn save(&mut self) -> Result<(), Exit> {
        // The feed precedes the position: after a crash, the events in between are repeated.
        if self.is_changed {
            let text = render(
                &self.settings.head,
                &self.content.entries,
                self.content.updated,
            );
            write(&self.settings.out, text.as_bytes(), true)?;
            self.is_changed = false;
            self.is_moved = true;
        }
        if self.is_moved {
            let mut text = serde_json::to_vec(&self.content)
                .map_err(|error| Exit::new(Exit::OS, format!("cannot store the feed: {error}")))?;
            text.push(b'\n');
            write(&self.settings.state, &text, false)?;
            self.is_moved = false;
            self.metrics.position_moved();
            self.written_at = Some(Instant::now());
        }
        Ok(())
    }

    fn advance(&mut self, cursor: &str) {
        if is_acceptable(cursor) {
            self.content.cursor = Some(cursor.to_owned());
            self.is_moved = true;
        }
    }

    /// Drops all entries, since they may not be readable anymore.
    fn clear(&mut self, cursor: Option<String>) {
        self.is_changed |= !self.content.entries.is_empty();
        self.content.entries.clear();
        self.content.updated = unix_now();
        self.content.cursor = cursor;
        self.is_moved = true;
    }

    fn due(&self, now: Instant) -> Option<Duration> {
        let interval = match (self.is_changed, self.is_moved) {
            (true, _) => WRITE_INTERVAL,
            (false, true) => MOVE_INTERVAL,
            (false, false) => return None,
        };
        let since = self.written_at.map(|at| now.saturating_duration_since(at));
        Some(since.map_or(Duration::ZERO, |since| interval.saturating_sub(since)))
    }
}

impl FeedContent {
    /// Applies an event. Returns whether the entries have changed.
    fn apply(&mut self, event: &ForwardEvent, most: usize) -> bool {
        let before = self.entries.clone();
        self.entries.retain(|entry| entry.annotation != event.id);
        if event.action != Action::Delete {
            self.entries.push(Entry::of(event));
        }
        self.shorten(most);
        let is_changed = self.entries != before;
        if is_changed {
            self.updated = event.received.max(self.updated);
        }
        is_changed
    }

    /// Sorts the entries, the newest first, and drops those beyond the maximum.
    fn shorten(&mut self, most: usize) {
        self.entries.sort_by(|one, other| {
            let order = other.updated.cmp(&one.updated);
            order.then_with(|| other.annotation.cmp(&one.annotation))
        });
        self.entries.truncate(most);
    }
}

impl EventConsumer for Feed {
    fn event(&mut self, line: &str, cursor: Option<&str>) -> Result<bool, Exit> {
        let Some(cursor) = cursor else {
            let message = "the server sends events without cursors: without a history, a feed \
                           could not be kept current; h-realtime is required";
            return Err(Exit::new(Exit::UNAVAILABLE, message));
        };
        match ForwardEvent::parse(line, cursor, unix_now()) {
            Ok(event) => {
                self.metrics.received(event.action);
                self.is_changed |= self.content.apply(&event, self.settings.entries);
            }
            Err(NotForwarded::OtherType) => {}
            Err(NotForwarded::Invalid) => {
                self.status("ignored a notification that is not about one annotation");
            }
        }
        self.advance(cursor);
        Ok(true)
    }

    fn status(&mut self, line: impl fmt::Display) {
        // A closed standard error does not end the command.
        let _ = writeln!(io::stderr(), "{line}");
    }

    fn wait(&mut self, delay: Duration) -> Result<bool, Exit> {
        self.save()?;
        thread::sleep(delay);
        Ok(true)
    }

    fn mark(&mut self, cursor: &str) {
        self.advance(cursor);
    }

    fn connected(&mut self, identity: &str) {
        self.metrics.connected(true);
        let identity = identity.to_owned();
        let stored = self.content.identity.replace(identity.clone());
        if stored.is_some_and(|stored| stored != identity) {
            self.status("another user than before: filling the feed again");
            self.clear(None);
            self.must_refill = true;
        }
        self.is_moved = true;
        self.status(identity);
    }

    fn disconnected(&mut self) {
        self.metrics.connected(false);
    }

    fn gap(&mut self, oldest: Option<&str>) -> Option<String> {
        // At the first start, the feed is filled with everything that the history has.
        let is_first = self.content.cursor.is_none() && self.settings.since.is_none();
        if !is_first {
            self.metrics.gap();
            self.status("gap: the server no longer has all events; filling the feed again");
        }
        let oldest = oldest.filter(|oldest| is_acceptable(oldest));
        self.clear(oldest.map(str::to_owned));
        oldest.map(|_| "to fill the feed from the history".to_owned())
    }

    fn position(&self) -> Option<String> {
        let cursor = self.content.cursor.clone();
        let start = cursor.or_else(|| self.settings.since.clone());
        Some(start.unwrap_or_else(|| BEGINNING.to_owned()))
    }

    fn turn(&mut self, _is_current: bool, now: Instant) -> Result<Option<String>, Exit> {
        if self.due(now) == Some(Duration::ZERO) {
            self.save()?;
        }
        let must_refill = std::mem::take(&mut self.must_refill);
        Ok(must_refill.then(|| "to fill the feed from the history".to_owned()))
    }

    fn timeout(&self, now: Instant) -> Option<Duration> {
        self.due(now)
    }
}

fn read(path: &Path) -> Result<Option<FeedContent>, Exit> {
    let Some(bytes) = read_at_most(path, MAX_FILE)? else {
        return Ok(None);
    };
    let content: Option<FeedContent> = serde_json::from_slice(&bytes).ok();
    let is_usable = |content: &FeedContent| {
        let cursor = content.cursor.as_deref();
        content.version == VERSION && cursor.is_none_or(is_acceptable)
    };
    match content.filter(is_usable) {
        Some(content) => Ok(Some(content)),
        None => {
            let message = format!(
                "{}: not a state file of a feed, damaged, or from a newer version of h-realtime: \
                 give another --state, or remove the file to fill the feed again",
                path.display()
            );
            Err(Exit::new(Exit::DATA, message))
        }
    }
}

fn write(path: &Path, text: &[u8], is_public: bool) -> Result<(), Exit> {
    replace_file(path, text, is_public).map_err(|error| {
        let path = path.display();
        let message =
            format!("{path}: cannot write: {error}; the directory must exist and be writable");
        Exit::new(of_io(error.kind()), message)
    })
}

const VERSION: u64 = 1;
/// The number of bytes that are read: more than any state file has.
const MAX_FILE: u64 = 1 << 30;
/// The minimum interval between two writes of a changed feed, and of a changed position alone.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);
const MOVE_INTERVAL: Duration = Duration::from_secs(10);
/// A time before all events: the server responds with the oldest cursor that it has.
const BEGINNING: &str = "1970-01-01T00:00:00Z";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(action: &str, id: &str, updated: u64) -> ForwardEvent {
        let updated = format!("2024-01-01T00:00:{updated:02}Z");
        let line = json!({"type": "annotation-notification", "options": {"action": action},
            "payload": [{"id": id, "updated": updated}]});
        ForwardEvent::parse(&line.to_string(), "c", 5).unwrap_or_else(|_| panic!("an event"))
    }

    fn ids(content: &FeedContent) -> Vec<&str> {
        let entries = content.entries.iter();
        entries.map(|entry| entry.annotation.as_str()).collect()
    }

    #[test]
    fn newest_entries_are_kept_updates_replace_and_deletions_remove() {
        let mut content = FeedContent {
            version: VERSION,
            source: Value::Null,
            identity: None,
            cursor: None,
            updated: 0,
            entries: Vec::new(),
        };
        for (action, id, updated, expected) in [
            ("create", "A", 1, &["A"][..]),
            ("create", "B", 3, &["B", "A"]),
            ("create", "C", 2, &["B", "C", "A"]),
            ("create", "D", 4, &["D", "B", "C"]),
            ("update", "C", 5, &["C", "D", "B"]),
            ("delete", "D", 0, &["C", "B"]),
        ] {
            assert!(content.apply(&event(action, id, updated), 3), "{id}");
            assert_eq!(ids(&content), expected);
        }
        assert_eq!(content.updated, 5);
        assert!(!content.apply(&event("delete", "unknown", 0), 3));
        assert!(!content.apply(&event("update", "C", 5), 3));
    }
}
