//! The state of the history: positions, times, the annotations it holds, and the work in progress.

use std::collections::HashSet;

use tokio::time::Instant;

use super::{
    Facts, Fill, Filled, HeldTable, HistoryOptions, MAX_ATTEMPTS, OVERLAP, Origin, PLAN_BATCH,
    Planned, Schedule, Sweep,
};
use crate::backend::DropReason;
use crate::backend::h::ids::Uuid;
use crate::backend::time::PgTime;
use crate::model::{
    AnnotationFacts, Candidates, Cause, Decision, DenyReason, EpochScope, EventKind, HistoryStart,
    Plan, RestoredPlan, Rule, Stamp, Subject, Term, UnixMillis,
};

/// The history as the worker knows it.
pub(in crate::backend::h) struct History {
    pub options: HistoryOptions,
    pub phase: Phase,
    pub held: HeldTable,
    pub schedule: Schedule,
    epoch: u64,
    /// The position of the last plan.
    position: u64,
    /// The database's clock when it was last read, and when that was.
    clock: Option<(PgTime, Instant)>,
    /// The time of the last complete sweep, by the database's clock.
    previous: PgTime,
    /// Changes up to this time were not restored, since the memory was used up.
    restored_since: PgTime,
    /// The last entry of the moderation log that needs not be read again, and a later one that will
    /// not be, once its time is beyond the overlap.
    log_floor: i32,
    log_mark: (PgTime, i32),
    /// Recent changes that the last sweep has left to the next one.
    deferred: HashSet<Uuid>,
    watermark: UnixMillis,
    /// How often the database has become unavailable while annotations were read.
    failures: u8,
    /// The same for the first annotation alone.
    attempts: u8,
}

/// The work in progress.
pub(in crate::backend::h) enum Phase {
    /// There is no history.
    Disabled,
    /// The history is being filled. No plan may be sent before.
    Fill(Box<Fill>),
    /// No sweep is in progress.
    Idle,
    /// A sweep is in progress.
    Sweep(Box<Sweep>),
}

impl History {
    pub(in crate::backend::h) fn new(options: HistoryOptions, epoch: u64, now: Instant) -> History {
        let phase = match options.memory {
            0 => Phase::Disabled,
            memory => Phase::Fill(Box::new(Fill::new(memory, options.window))),
        };
        History {
            options,
            phase,
            held: HeldTable::new(options.memory),
            schedule: Schedule::new(options.sweep, options.grace(), now),
            epoch,
            position: 0,
            clock: None,
            previous: PgTime(0),
            restored_since: PgTime(0),
            log_floor: 0,
            log_mark: (PgTime(0), 0),
            deferred: HashSet::new(),
            watermark: 0,
            failures: 0,
            attempts: 0,
        }
    }

    /// Returns whether plans must wait for the fill.
    pub(in crate::backend::h) fn is_filling(&self) -> bool {
        matches!(self.phase, Phase::Fill(_))
    }

    /// Returns whether a sweep is in progress.
    pub(in crate::backend::h) fn is_sweeping(&self) -> bool {
        matches!(self.phase, Phase::Sweep(_))
    }

    /// Takes out the fill, if one is in progress.
    pub(in crate::backend::h) fn take_fill(&mut self) -> Option<Box<Fill>> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Fill(fill) => Some(fill),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Takes out the sweep, if one is in progress.
    pub(in crate::backend::h) fn take_sweep(&mut self) -> Option<Box<Sweep>> {
        match std::mem::replace(&mut self.phase, Phase::Idle) {
            Phase::Sweep(sweep) => Some(sweep),
            other => {
                self.phase = other;
                None
            }
        }
    }

    /// Returns the time of the next sweep, if there is one.
    pub(in crate::backend::h) fn next_sweep(&self) -> Option<Instant> {
        matches!(self.phase, Phase::Idle).then(|| self.schedule.next())
    }

    /// Begins a sweep if none is in progress.
    pub(in crate::backend::h) fn begin_sweep(&mut self, now: Instant) {
        if let Phase::Idle = self.phase {
            self.schedule.begin(now);
            let deferred = std::mem::take(&mut self.deferred);
            let grace = self.options.grace();
            let since = self.previous.before(OVERLAP).max(self.restored_since);
            let sweep = Sweep::new((self.previous, since), self.log_floor, deferred, grace);
            self.phase = Phase::Sweep(Box::new(sweep));
        }
    }

    /// Abandons a sweep. The next one reads the same changes.
    pub(in crate::backend::h) fn abandon_sweep(&mut self, sweep: Sweep, now: Instant) {
        self.deferred = sweep.into_deferred();
        self.schedule.abandon(now);
        self.phase = Phase::Idle;
    }

    /// Completes a sweep. Returns the new watermark.
    pub(in crate::backend::h) fn finish_sweep(&mut self, sweep: Sweep) -> UnixMillis {
        let began = sweep.began.unwrap_or(self.previous);
        if self.log_mark.0 <= began.before(OVERLAP) {
            self.log_floor = self.log_mark.1;
            self.log_mark = (began, sweep.log_id());
        }
        self.deferred = sweep.young;
        self.previous = began;
        self.held.expire(unix(began.before(self.options.window)));
        self.phase = Phase::Idle;
        self.raise_watermark(began)
    }

    /// Starts the history with the plans of a fill. Returns the start, the plans in the order of
    /// their positions, and the watermark.
    pub(in crate::backend::h) fn start(
        &mut self,
        filled: Filled,
        now: Instant,
    ) -> (HistoryStart, Vec<RestoredPlan>, UnixMillis) {
        self.clock = Some((filled.now, now));
        self.previous = filled.now;
        self.restored_since = filled.restored_since;
        (self.log_floor, self.log_mark) = (filled.log_id, (filled.now, filled.log_id));
        let mut restored = Vec::with_capacity(filled.plans.len());
        for (time, Planned { mut plan, facts }) in filled.plans {
            plan.stamp = self.stamp(time);
            let place = (plan.stamp.position, time);
            self.held.record(&facts, None, Origin::Fill, place);
            restored.push(RestoredPlan {
                event_position: plan.stamp.position,
                plan,
                past: Vec::new(),
            });
        }
        let start = HistoryStart {
            epoch: self.epoch,
            scope: EpochScope::Process,
            floor: 0,
            floor_time: unix(filled.floor_time),
            head: self.position,
        };
        self.phase = Phase::Idle;
        (start, restored, self.raise_watermark(filled.now))
    }

    /// Stamps the plan of an event from the queue, and records it.
    ///
    /// # Errors
    /// [`DropReason::Duplicate`] if a sweep has delivered the same state.
    pub(in crate::backend::h) fn accept(
        &mut self,
        planned: Planned,
        now: Instant,
    ) -> Result<Plan, DropReason> {
        let Planned { mut plan, facts } = planned;
        if let Phase::Disabled = self.phase {
            return Ok(plan);
        }
        self.clock = Some((facts.read_at, now));
        let is_deletion = plan.kind == EventKind::Delete;
        if is_deletion == facts.state.deleted && self.held.was_swept(&facts) {
            return Err(DropReason::Duplicate);
        }
        plan.stamp = self.stamp(unix(facts.read_at));
        let place = (plan.stamp.position, plan.stamp.time);
        let client = plan.exclude_client.clone();
        self.held.record(&facts, client, Origin::Queue, place);
        Ok(plan)
    }

    /// Stamps the plan of a user's event, which is not read from the database.
    pub(in crate::backend::h) fn stamp_user(&mut self, plan: &mut Plan, now: Instant) {
        if let (Some((time, at)), false) = (self.clock, matches!(self.phase, Phase::Disabled)) {
            let elapsed = u64::try_from((now - at).as_millis()).unwrap_or(0);
            plan.stamp = self.stamp(unix(time) + elapsed);
        }
    }

    /// Stamps the plan of an annotation that a sweep has found, and records it.
    pub(in crate::backend::h) fn accept_swept(&mut self, planned: Planned, origin: Origin) -> Plan {
        let Planned { mut plan, facts } = planned;
        let client = self.held.client(&facts);
        plan.exclude_client.clone_from(&client);
        plan.stamp = self.stamp(unix(facts.read_at));
        let place = (plan.stamp.position, plan.stamp.time);
        self.held.record(&facts, client, origin, place);
        plan
    }

    /// Returns a plan that retracts an annotation that no longer exists, if the history holds it.
    /// The receivers of its earlier plan are notified of the deletion.
    pub(in crate::backend::h) fn retract(&mut self, id: Uuid, now: Instant) -> Option<Plan> {
        let held = self.held.get(id).filter(|held| !held.state.deleted)?;
        let group = held.group.to_string();
        let text = id.to_url_safe();
        let mut plan = Plan {
            kind: EventKind::Delete,
            subject: Subject::Annotation(text.as_str().into()),
            stamp: Stamp::default(),
            cause: Cause::RightsChange,
            candidates: Candidates::Terms(Term::of_annotation(AnnotationFacts {
                id: &text,
                group: &group,
                ..AnnotationFacts::default()
            })),
            exclude_client: None,
            rules: vec![Rule {
                when: Vec::new(),
                then: Decision::Deny(DenyReason::Permission),
            }],
            variants: Vec::new(),
        };
        self.stamp_user(&mut plan, now);
        self.held.remove(id);
        Some(plan)
    }

    /// Records whether a batch of annotations could be read. Returns whether the first one must be
    /// skipped, since the database becomes unavailable whenever it is read.
    pub(in crate::backend::h) fn record_read(&mut self, size: usize, is_read: bool) -> bool {
        if is_read {
            (self.failures, self.attempts) = (self.failures.saturating_sub(1), 0);
            return false;
        }
        self.failures = self
            .failures
            .saturating_add(1)
            .min(PLAN_BATCH.ilog2() as u8);
        if size > 1 {
            return false;
        }
        self.attempts += 1;
        let is_hopeless = self.attempts >= MAX_ATTEMPTS;
        if is_hopeless {
            self.attempts = 0;
        }
        is_hopeless
    }

    /// Returns the number of annotations to read in the next batch.
    pub(in crate::backend::h) fn batch_limit(&self) -> usize {
        (PLAN_BATCH >> self.failures).max(1)
    }

    /// Returns whether a state of an annotation was sent, given the facts.
    pub(in crate::backend::h) fn is_known(&self, facts: &Facts) -> bool {
        self.held.is_known(facts.id, &facts.state)
    }

    fn stamp(&mut self, time: UnixMillis) -> Stamp {
        self.position += 1;
        Stamp {
            position: self.position,
            time,
        }
    }

    fn raise_watermark(&mut self, now: PgTime) -> UnixMillis {
        self.watermark = self.watermark.max(unix(now.before(OVERLAP)));
        self.watermark
    }
}

fn unix(time: PgTime) -> UnixMillis {
    time.to_unix().unwrap_or(UnixMillis::MAX)
}
