//! A sweep: reads the changes since the last one, and the rights on held annotations.
//!
//! Owns: the order of its steps. Each step is one transaction, so that requests and events are
//! processed in between.

use std::collections::{HashSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use super::{
    ChangedRow, Changes, Facts, HeldTable, Names, PAGE, Page, PageKey, Purpose, RIGHTS_BATCH,
    Rights, RowState, VERIFY_AFTER, take_batch,
};
use crate::backend::h::ids::Uuid;
use crate::backend::time::PgTime;

/// A sweep in progress.
pub(in crate::backend::h) struct Sweep {
    grace: Duration,
    /// The time of the sweep before this one.
    previous: PgTime,
    /// Earlier changes have been sent, or are too old.
    since: PgTime,
    /// The time of the first page, by the database's clock.
    pub began: Option<PgTime>,
    key: PageKey,
    is_exhausted: bool,
    /// The key after which the next entries of the moderation log are read, and whether there are
    /// more.
    log_id: i32,
    log_is_exhausted: bool,
    /// Changes that were left to this sweep by the one before.
    deferred: HashSet<Uuid>,
    /// Changes that this sweep leaves to the next one.
    pub young: HashSet<Uuid>,
    queue: VecDeque<Queued>,
    /// The names with rights that have not been read. `None` before all changes have been read.
    names: Option<Names>,
    rights: Rights,
    has_compared: bool,
    /// The number of changes without events.
    pub found: u64,
    /// A change that is in the future by the database's clock.
    pub ahead: Option<Duration>,
}

/// An annotation to read.
#[derive(Clone, Copy, Debug)]
struct Queued {
    id: Uuid,
    /// The estimated size, in bytes.
    size: usize,
    /// The state of its row, if it has changed.
    state: Option<RowState>,
}

/// The next step of a sweep.
pub(in crate::backend::h) enum Step {
    /// Read these annotations, and send those that have changed.
    Annotations(Vec<Uuid>),
    /// Read a page of changes.
    Page(Page),
    /// Read these rights.
    Rights(Names),
    /// Nothing is left.
    Done,
}

impl Sweep {
    /// Begins a sweep of the changes after `since`, which follows the one at `previous`. `log_id` is the last entry of the
    /// moderation log that needs not be read again.
    pub(in crate::backend::h) fn new(
        (previous, since): (PgTime, PgTime),
        log_id: i32,
        deferred: HashSet<Uuid>,
        grace: Duration,
    ) -> Sweep {
        Sweep {
            grace,
            previous,
            began: None,
            since,
            key: (since, Uuid([0xff; 16])),
            is_exhausted: false,
            log_id,
            log_is_exhausted: false,
            deferred,
            young: HashSet::new(),
            queue: VecDeque::new(),
            names: None,
            rights: Rights::default(),
            has_compared: false,
            found: 0,
            ahead: None,
        }
    }

    /// Returns the next step, with at most `max` annotations.
    pub(in crate::backend::h) fn next(&mut self, held: &HeldTable, max: usize) -> Step {
        if self.queue.is_empty()
            && self.is_exhausted
            && self.log_is_exhausted
            && !self.has_compared
            && self.rights_are_read(held)
        {
            self.compare(held);
        }
        if !self.queue.is_empty() {
            let queued = self.queue.iter().map(|one| (one.id, one.size));
            return Step::Annotations(take_batch(queued, max));
        }
        if !self.is_exhausted || !self.log_is_exhausted {
            let log_id = (!self.log_is_exhausted).then_some(self.log_id);
            return Step::Page(Page::After(self.key, log_id));
        }
        match &self.names {
            Some(names) if !self.has_compared => {
                let part = |names: &[Rc<str>]| names[..names.len().min(RIGHTS_BATCH)].to_vec();
                Step::Rights(Names {
                    authors: part(&names.authors),
                    groups: part(&names.groups),
                })
            }
            _ => Step::Done,
        }
    }

    /// Adds a page of changes. Those that were sent are skipped.
    pub(in crate::backend::h) fn add_page(&mut self, changes: Changes, held: &HeldTable) {
        let began = *self.began.get_or_insert(changes.now);
        self.is_exhausted |= changes.rows.len() < PAGE;
        self.log_is_exhausted |= changes.moderated.len() < PAGE;
        if let Some(last) = changes.rows.last() {
            self.key = (last.state.updated, last.id);
        }
        if let Some((log_id, _)) = changes.moderated.last() {
            self.log_id = *log_id;
        }
        let moderated = changes.moderated.into_iter().map(|(_, row)| row);
        for row in changes.rows.into_iter().chain(moderated) {
            self.add_row(&row, began, held);
        }
    }

    fn add_row(&mut self, row: &ChangedRow, began: PgTime, held: &HeldTable) {
        if held.is_known(row.id, &row.state) || row.changed <= self.since {
            return;
        }
        if row.changed > began {
            let micros = u64::try_from(row.changed.0.saturating_sub(began.0)).unwrap_or(0);
            self.ahead = self.ahead.max(Some(Duration::from_micros(micros)));
        }
        let is_young = row.changed > began.before(self.grace) && !self.deferred.contains(&row.id);
        if is_young && self.young.len() < MAX_YOUNG {
            self.young.insert(row.id);
        } else if !self.queue.iter().any(|one| one.id == row.id) {
            self.queue.push_back(Queued {
                id: row.id,
                size: row.size,
                state: Some(row.state),
            });
        }
    }

    /// Returns the reason to send an annotation that has been read, if any. A change that is newer
    /// than the row in the page may have an event that is on its way.
    pub(in crate::backend::h) fn decide(&self, facts: &Facts, held: &HeldTable) -> Option<Purpose> {
        let is_young = facts.state.updated > facts.read_at.before(self.grace)
            && !self.deferred.contains(&facts.id);
        match held.purpose(facts) {
            Some(Purpose::Event) if self.has_compared || is_young => None,
            purpose => purpose,
        }
    }

    /// Returns the state of a queued row, if it has changed.
    pub(in crate::backend::h) fn state(&self, id: Uuid) -> Option<RowState> {
        let mut queue = self.queue.iter();
        queue.find(|one| one.id == id).and_then(|one| one.state)
    }

    /// Continues without the rights that have not been read.
    pub(in crate::backend::h) fn skip_rights(&mut self) {
        self.has_compared = true;
    }

    /// Removes annotations from the queue that have been read.
    pub(in crate::backend::h) fn pop(&mut self, count: usize) {
        self.queue.drain(..count.min(self.queue.len()));
    }

    /// Adds the rights of the names in the last step.
    pub(in crate::backend::h) fn add_rights(&mut self, rights: Rights) {
        self.rights.muted.extend(rights.muted);
        self.rights.groups.extend(rights.groups);
        if let Some(Names { authors, groups }) = &mut self.names {
            authors.drain(..authors.len().min(RIGHTS_BATCH));
            groups.drain(..groups.len().min(RIGHTS_BATCH));
        }
    }

    /// Returns the changes that were left to this sweep, for one that replaces it.
    pub(in crate::backend::h) fn into_deferred(self) -> HashSet<Uuid> {
        self.deferred
    }

    /// Returns the last entry of the moderation log that has been read.
    pub(in crate::backend::h) fn log_id(&self) -> i32 {
        self.log_id
    }

    /// Returns whether the rights of all names have been read. Collects the names first.
    fn rights_are_read(&mut self, held: &HeldTable) -> bool {
        let names = self.names.get_or_insert_with(|| held.names());
        names.authors.is_empty() && names.groups.is_empty()
    }

    /// Queues the annotations with changed rights. After a long pause, deleted rows may have
    /// disappeared: all annotations are queued.
    fn compare(&mut self, held: &HeldTable) {
        self.has_compared = true;
        let began = self.began.unwrap_or(self.previous);
        let is_stale = began.before(VERIFY_AFTER) > self.previous;
        let ids = match is_stale {
            true => held.live(),
            false => held.changed_rights(&self.rights),
        };
        let queued = |(id, size)| Queued {
            id,
            size,
            state: None,
        };
        self.queue.extend(ids.into_iter().map(queued));
    }
}

/// The maximum number of changes that are left to the next sweep. Beyond it, h has changed many
/// annotations at once, which it does without events.
const MAX_YOUNG: usize = 65_536;
