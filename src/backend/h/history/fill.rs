//! The fill of the history at the start: the newest changes up to the memory limit.
//!
//! Owns: their order, and the time from which they are complete.

use std::collections::{HashSet, VecDeque};

use super::{ChangedRow, Changes, Facts, NEWEST, PAGE, Page, PageKey, Planned, take_batch};
use crate::backend::h::ids::Uuid;
use crate::backend::time::PgTime;
use crate::model::{Candidates, Plan, UnixMillis};

/// A fill in progress.
pub(in crate::backend::h) struct Fill {
    memory: usize,
    window: std::time::Duration,
    /// The time of the first page, and the beginning of the window, by the database's clock.
    began: Option<(PgTime, PgTime)>,
    /// The last row that was read.
    key: PageKey,
    /// All changes in the window have been read.
    is_exhausted: bool,
    /// Reading them took too long.
    is_abandoned: bool,
    /// Moderated annotations, newest first.
    moderated: VecDeque<ChangedRow>,
    /// The key of the last entry of the moderation log that is certainly restored.
    log_id: i32,
    seen: HashSet<Uuid>,
    /// The changes without plans so far, newest first.
    rows: VecDeque<ChangedRow>,
    /// The restored plans, newest first.
    plans: Vec<(UnixMillis, Planned)>,
    bytes: usize,
    /// The change time of the oldest row that has been read.
    oldest: PgTime,
}

/// A completed fill.
pub(in crate::backend::h) struct Filled {
    /// The plans with their change times, oldest first.
    pub plans: Vec<(UnixMillis, Planned)>,
    /// All rows that have changed after this time are contained, if they still exist.
    pub restored_since: PgTime,
    /// All changes after this time are contained.
    pub floor_time: PgTime,
    /// The time of the fill, by the database's clock.
    pub now: PgTime,
    /// The last entry of the moderation log that needs not be read again.
    pub log_id: i32,
}

impl Fill {
    pub(in crate::backend::h) fn new(memory: usize, window: std::time::Duration) -> Fill {
        Fill {
            memory,
            window,
            began: None,
            key: NEWEST,
            is_exhausted: false,
            is_abandoned: false,
            moderated: VecDeque::new(),
            log_id: 0,
            seen: HashSet::new(),
            rows: VecDeque::new(),
            plans: Vec::new(),
            bytes: 0,
            oldest: NEWEST.0,
        }
    }

    /// Returns whether all plans have been made, or the memory is used up.
    pub(in crate::backend::h) fn is_done(&self) -> bool {
        self.bytes >= self.memory || (self.is_exhausted && self.rows.is_empty())
    }

    /// Returns the page to read before more plans can be made.
    pub(in crate::backend::h) fn next_page(&self) -> Option<Page> {
        // The database's clock is unknown before the first page, which is filtered here.
        let since = self.began.map_or(PgTime(0), |(_, since)| since);
        let is_first = self.began.is_none();
        let is_needed = self.rows.is_empty() && !self.is_exhausted;
        is_needed.then_some(Page::Before(self.key, since, is_first))
    }

    /// Adds a page.
    pub(in crate::backend::h) fn add_page(&mut self, changes: Changes) {
        let (_, since) = *self
            .began
            .get_or_insert((changes.now, changes.now.before(self.window)));
        self.is_exhausted = changes.rows.len() < PAGE;
        let safe = changes.now.before(super::OVERLAP);
        if let Some((oldest, _)) = changes.moderated.last() {
            self.log_id = oldest.saturating_sub(1);
        }
        for (log_id, row) in changes.moderated {
            if row.changed < safe {
                self.log_id = self.log_id.max(log_id);
            }
            if row.changed >= since {
                self.moderated.push_back(row);
            }
        }
        for row in changes.rows {
            if row.state.updated < since {
                self.is_exhausted = true;
                break;
            }
            self.key = (row.state.updated, row.id);
            self.add_moderated_after(row.changed);
            self.add_row(row);
        }
        if self.is_exhausted {
            self.add_moderated_after(since);
        }
    }

    fn add_moderated_after(&mut self, time: PgTime) {
        while let Some(row) = self.moderated.front().copied()
            && row.changed >= time
        {
            self.moderated.pop_front();
            self.add_row(row);
        }
    }

    fn add_row(&mut self, row: ChangedRow) {
        if self.seen.insert(row.id) {
            self.rows.push_back(row);
        }
    }

    /// Returns the next rows to read, at most `max`.
    pub(in crate::backend::h) fn batch(&self, max: usize) -> Vec<Uuid> {
        take_batch(self.rows.iter().map(|row| (row.id, row.size)), max)
    }

    /// Adds the plans of the first `count` rows, in any order. Rows without a plan are skipped.
    pub(in crate::backend::h) fn add_plans(&mut self, count: usize, plans: Vec<Planned>) {
        let rows: Vec<ChangedRow> = self.rows.drain(..count.min(self.rows.len())).collect();
        let Some((now, _)) = self.began else {
            return;
        };
        let mut plans: std::collections::HashMap<Uuid, Planned> =
            plans.into_iter().map(|one| (one.facts.id, one)).collect();
        for row in rows {
            self.oldest = self.oldest.min(row.changed);
            if let Some(planned) = plans.remove(&row.id) {
                self.bytes += size(&planned.plan);
                // A change in the future comes from another clock.
                let time = change_time(&row, &planned.facts, now);
                self.plans.push((time.to_unix().unwrap_or(0), planned));
            }
        }
    }

    /// Gives up the changes that have not been read.
    pub(in crate::backend::h) fn abandon(&mut self, now: PgTime) {
        self.began.get_or_insert((now, now));
        if !self.is_exhausted {
            self.oldest = self.oldest.min(now);
            self.is_abandoned = true;
        }
        self.is_exhausted = true;
    }

    /// Completes the fill. `now` is the time if no page has been read.
    pub(in crate::backend::h) fn finish(mut self, now: PgTime) -> Filled {
        let (now, since) = self.began.unwrap_or((now, now));
        let is_complete = self.is_exhausted && self.rows.is_empty() && !self.is_abandoned;
        let restored_since = if is_complete { since } else { self.oldest };
        // Sorting is stable, and times may have changed since the page was read.
        self.plans.reverse();
        self.plans.sort_by_key(|(time, _)| *time);
        Filled {
            plans: self.plans,
            restored_since,
            floor_time: restored_since.max(now.before(super::DELETIONS_KEPT)),
            now,
            log_id: self.log_id,
        }
    }
}

/// Returns the time of a change: that of its row when its plan was made, or of its moderation.
fn change_time(row: &ChangedRow, facts: &Facts, now: PgTime) -> PgTime {
    row.changed
        .max(facts.state.updated)
        .min(now.max(facts.read_at))
}

/// Estimates the memory of a plan in the reactor's history.
fn size(plan: &Plan) -> usize {
    let variants: usize = plan.variants.iter().map(|text| text.len() + 16).sum();
    let terms = match &plan.candidates {
        Candidates::Terms(terms) => terms.iter().map(|term| term.value.len() + 32).sum(),
        Candidates::User(userid) => userid.len(),
    };
    variants + terms + plan.rules.len() * 64 + size_of::<Plan>()
}
