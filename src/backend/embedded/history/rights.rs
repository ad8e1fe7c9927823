//! The effects of changed rights on stored events.

use std::collections::{HashSet, VecDeque};

use rusqlite::Connection;

use super::rows::{Meta, StoredEvent, insert, invalid_row};
use super::state;
use super::stored::WorkError;
use crate::backend::embedded::change_log::Affected;
use crate::backend::embedded::directory::Directory;
use crate::backend::embedded::publish::{PlannedEvent, PublishFailure, replan};
use crate::model::{Cause, Plan, UnixMillis};

/// The changes of rights whose effects are yet to be determined, in order.
#[derive(Debug, Default)]
pub(super) struct RightsQueue {
    tasks: VecDeque<Task>,
    queued: HashSet<Affected>,
}

#[derive(Clone, Debug)]
struct Task {
    affected: Affected,
    /// The events up to this id have been examined.
    examined: i64,
    /// The last position at the time of the change. Later events have the new rights.
    end: Option<i64>,
}

impl RightsQueue {
    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    pub(super) fn add(&mut self, affected: &Affected) {
        // An equal task that has begun might have passed an affected event.
        let is_waiting = self.queued.contains(affected) || self.queued.contains(&Affected::All);
        if is_waiting {
            return;
        }
        let affected = match self.tasks.len() < TASKS {
            true => affected.clone(),
            false => Affected::All,
        };
        if affected == Affected::All {
            *self = RightsQueue::default();
        }
        self.queued.insert(affected.clone());
        self.tasks.push_back(Task {
            affected,
            examined: 0,
            end: None,
        });
    }

    /// Examines some of the affected events, and stores those whose rules differ now. Returns their
    /// plans, and the queue after this step, which takes effect with the transaction.
    pub(super) fn step(
        &self,
        db: &Connection,
        directory: &Directory<'_>,
        meta: &mut Meta,
        origin: i64,
        now: UnixMillis,
    ) -> Result<(Vec<Plan>, RightsProgress), WorkError> {
        let mut progress = RightsProgress::default();
        let (mut plans, mut budget) = (Vec::new(), STEP);
        for task in &self.tasks {
            let mut task = task.clone();
            let end = *task.end.get_or_insert(meta.last);
            let rows = affected_events(db, &task, end, budget)?;
            let is_done = rows.len() < budget;
            budget -= rows.len().min(budget);
            task.examined = rows.last().map_or(task.examined, |row| row.id);
            for row in rows {
                plans.extend(restate(db, directory, meta, row, origin, now)?);
            }
            if !is_done {
                progress.current = Some(task);
                break;
            }
            progress.done += 1;
        }
        Ok((plans, progress))
    }

    /// Applies the progress of a step that was committed.
    pub(super) fn commit(&mut self, progress: RightsProgress) {
        for task in self.tasks.drain(..progress.done.min(self.tasks.len())) {
            self.queued.remove(&task.affected);
        }
        if let (Some(current), Some(first)) = (progress.current, self.tasks.front_mut()) {
            // The same change can happen again from now on.
            self.queued.remove(&first.affected);
            *first = current;
        }
    }
}

/// The result of a step.
#[derive(Debug, Default)]
pub(super) struct RightsProgress {
    done: usize,
    current: Option<Task>,
}

fn affected_events(
    db: &Connection,
    task: &Task,
    end: i64,
    limit: usize,
) -> Result<Vec<StoredEvent>, WorkError> {
    let limit = i64::try_from(limit).unwrap_or(i64::MAX);
    let range = "id > ?1 AND seq <= ?2";
    let (condition, name) = match &task.affected {
        Affected::All => (format!("WHERE {range}"), None),
        Affected::Author(userid) => (format!("WHERE {range} AND author = ?4"), Some(userid)),
        Affected::Group(group) => (
            format!(
                "WHERE {range} AND (grp = ?4
                     OR id IN (SELECT event FROM reader_group WHERE reader_group.grp = ?4))"
            ),
            Some(group),
        ),
    };
    let condition = format!("{condition} ORDER BY id LIMIT ?3");
    let mut parameters: Vec<&dyn rusqlite::ToSql> = vec![&task.examined, &end, &limit];
    if let Some(name) = name {
        parameters.push(name);
    }
    Ok(StoredEvent::query(db, &condition, &parameters)?)
}

/// Makes the plan of a stored event again. If its receivers differ from those stored, stores it at a
/// new position and returns it.
pub(super) fn restate(
    db: &Connection,
    directory: &Directory<'_>,
    meta: &mut Meta,
    row: StoredEvent,
    origin: i64,
    now: UnixMillis,
) -> Result<Option<Plan>, WorkError> {
    let (before, event_seq) = (row.state.clone(), row.event_seq);
    let mut planned = rebuild(directory, row, Some(Cause::RightsChange))?;
    if state::is_state_of(&before, &planned.plan) {
        return Ok(None);
    }
    insert(db, meta, &mut planned, Some(event_seq), origin, now)?;
    Ok(Some(planned.plan))
}

/// Makes the plan of a stored event again, with the rights of now. `cause` replaces the stored cause.
pub(super) fn rebuild(
    directory: &Directory<'_>,
    row: StoredEvent,
    cause: Option<Cause>,
) -> Result<PlannedEvent, WorkError> {
    let seq = row.seq;
    let replanned = replan(row.body, directory, row.time, cause.unwrap_or(row.cause));
    let mut planned = replanned.map_err(|error| match error {
        PublishFailure::Publisher(error) => WorkError::History(invalid_row(seq, error.reason())),
        PublishFailure::Database(error) => WorkError::Users(error),
    })?;
    planned.plan.stamp.position = seq.unsigned_abs();
    planned.plan.stamp.time = row.time;
    Ok(planned)
}

/// The number of events that are examined in a turn.
const STEP: usize = 1024;
/// The number of changes that may wait. Beyond it, all events are examined.
const TASKS: usize = 256;
