//! The worker's part in the history: the fill at the start, and sweeps.
//!
//! Owns: the messages to the reactor that result from them.

use std::sync::atomic::Ordering;

use log::{info, warn};
use tokio::time::Instant;

use super::{SinkClosed, Worker, send};
use crate::backend::h::database::Queries;
use crate::backend::h::history::{Fill, Origin, Phase, Planned, Purpose, Step, Sweep};
use crate::backend::h::history_queries::{Swept, SweptPlan};
use crate::backend::h::ids::Uuid;
use crate::backend::time::PgTime;
use crate::backend::{DropReason, EventSink};
use crate::model::{AckGuard, BackendEvent, HistoryEvent, Plan};

impl<D, S> Worker<D, S>
where
    D: Queries,
    S: EventSink,
{
    /// Requests a sweep at once if events may have been lost since the last call, and begins a
    /// sweep that must not wait any longer.
    pub(super) fn schedule_sweep(&mut self) {
        let now = Instant::now();
        let connects = self.stats.broker.connects() + self.stats.database.connects();
        self.history.schedule.observe(connects, now);
        if self.history.schedule.is_overdue(now) {
            self.history.begin_sweep(now);
        }
    }

    /// Begins a sweep if one is due. Returns whether it has begun.
    pub(super) fn begin_due_sweep(&mut self) -> bool {
        let now = Instant::now();
        if self.history.schedule.is_due(now) {
            self.history.begin_sweep(now);
        }
        self.history.is_sweeping()
    }

    /// Makes one step of the fill: at most one transaction.
    pub(super) async fn continue_fill(&mut self) -> Result<(), SinkClosed> {
        let Some(mut fill) = self.history.take_fill() else {
            return Ok(());
        };
        if fill.is_done() {
            return self.start_history(*fill).await;
        }
        match fill.next_page() {
            Some(page) => {
                let changes = self.database.query(async |data| data.changes(page).await);
                match changes.await {
                    Some(Some(changes)) => {
                        if !changes.knows_moderation {
                            log_unknown_moderation();
                        }
                        fill.add_page(changes);
                    }
                    Some(None) => {
                        warn!(
                            "reading recent changes from the database timed out; the history \
                             begins without them"
                        );
                        fill.abandon(self.wall_clock());
                    }
                    None => {}
                }
            }
            None => self.fill_batch(&mut fill).await,
        }
        self.history.phase = Phase::Fill(fill);
        Ok(())
    }

    async fn fill_batch(&mut self, fill: &mut Fill) {
        let ids = fill.batch(self.history.batch_limit());
        let all = |_: &_| Some(Purpose::Event);
        let pending = &self.pending;
        let read = self
            .database
            .query(async |data| data.annotations(&ids, pending, &all).await)
            .await;
        let must_skip = self.history.record_read(ids.len(), read.is_some());
        match read {
            Some(read) => fill.add_plans(ids.len(), read.into_iter().filter_map(plan).collect()),
            None if must_skip => fill.add_plans(1, Vec::new()),
            None => {}
        }
    }

    /// Sends the contents of the history.
    async fn start_history(&mut self, fill: Fill) -> Result<(), SinkClosed> {
        let now = Instant::now();
        let filled = fill.finish(self.wall_clock());
        let (start, mut plans, watermark) = self.history.start(filled, now);
        info!(
            "restored the history from the database: annotations={}",
            plans.len()
        );
        self.send_history(HistoryEvent::Start(start)).await?;
        while !plans.is_empty() {
            let rest = plans.split_off(plans.len().min(RESTORE_BATCH));
            self.send_history(HistoryEvent::Restored(plans)).await?;
            plans = rest;
        }
        // Cursors contain the watermark, so it precedes the first one.
        self.send_history(HistoryEvent::Watermark(watermark))
            .await?;
        self.send_history(HistoryEvent::Ready).await
    }

    /// Makes one step of a sweep, if one is in progress.
    pub(super) async fn continue_history_sweep(&mut self) -> Result<(), SinkClosed> {
        let Some(mut sweep) = self.history.take_sweep() else {
            return Ok(());
        };
        match sweep.next(&self.history.held, self.history.batch_limit()) {
            Step::Page(page) => {
                let changes = self.database.query(async |data| data.changes(page).await);
                match changes.await {
                    Some(Some(changes)) => sweep.add_page(changes, &self.history.held),
                    Some(None) => {
                        warn!("a sweep of changes in the database timed out; retrying later");
                        self.history.abandon_sweep(*sweep, Instant::now());
                        return Ok(());
                    }
                    None => {}
                }
            }
            Step::Rights(names) => {
                let authors: Vec<&str> = names.authors.iter().map(|name| &**name).collect();
                let groups: Vec<&str> = names.groups.iter().map(|name| &**name).collect();
                let rights = self
                    .database
                    .query(async |data| data.rights(&authors, &groups).await);
                match rights.await {
                    Some(Some(rights)) => sweep.add_rights(rights),
                    Some(None) => {
                        warn!(
                            "reading the rights on recent annotations timed out; retrying in the \
                             next sweep"
                        );
                        sweep.skip_rights();
                    }
                    None => {}
                }
            }
            Step::Annotations(ids) => self.sweep_batch(&mut sweep, &ids).await?,
            Step::Done => return self.finish_sweep(*sweep).await,
        }
        self.history.phase = Phase::Sweep(sweep);
        Ok(())
    }

    /// Reads annotations, and sends those that have changed. All are sent before anything else is
    /// read, so that a later state cannot overtake them.
    async fn sweep_batch(&mut self, sweep: &mut Sweep, ids: &[Uuid]) -> Result<(), SinkClosed> {
        let (pending, held) = (&self.pending, &self.history.held);
        let decide = |facts: &_| sweep.decide(facts, held);
        let read = self
            .database
            .query(async |data| data.annotations(ids, pending, &decide).await)
            .await;
        let must_skip = self.history.record_read(ids.len(), read.is_some());
        match read {
            Some(read) => {
                for swept in read {
                    self.send_swept(sweep, swept).await?;
                }
                sweep.pop(ids.len());
            }
            None if must_skip => {
                self.drop_log.count(DropReason::Unreadable);
                if let Some((id, state)) =
                    ids.first().zip(ids.first().and_then(|id| sweep.state(*id)))
                {
                    self.history.held.record_unreadable(*id, state);
                }
                sweep.pop(1);
            }
            None => {}
        }
        Ok(())
    }

    async fn send_swept(&mut self, sweep: &mut Sweep, swept: Swept) -> Result<(), SinkClosed> {
        match swept.result {
            Ok(SweptPlan::Send(planned, Purpose::Event)) => {
                let plan = self.history.accept_swept(*planned, Origin::Sweep);
                sweep.found += 1;
                self.stats.swept.fetch_add(1, Ordering::Relaxed);
                let ack = self.in_flight.admit(&plan, AckGuard::new(|| {}));
                let event = BackendEvent::QueueEvents {
                    received: (self.clocks.mono)(),
                    plans: vec![plan],
                    ack,
                };
                send(&self.sink, event).await
            }
            Ok(SweptPlan::Send(planned, Purpose::RightsChange)) => {
                let plan = self.history.accept_swept(*planned, Origin::RightsChange);
                self.replan(plan).await
            }
            Ok(SweptPlan::Skip(facts)) => {
                self.history.held.refresh(&facts);
                if !self.history.is_known(&facts) {
                    sweep.young.insert(facts.id);
                }
                Ok(())
            }
            // h has removed the row of a deleted annotation.
            Err((DropReason::Missing, _)) => match self.history.retract(swept.id, Instant::now()) {
                Some(plan) => self.replan(plan).await,
                None => Ok(()),
            },
            Err((reason, state)) => {
                self.drop_log.count(reason);
                if let Some(state) = state.or_else(|| sweep.state(swept.id)) {
                    self.history.held.record_unreadable(swept.id, state);
                }
                Ok(())
            }
        }
    }

    async fn replan(&mut self, plan: Plan) -> Result<(), SinkClosed> {
        self.stats.replanned.fetch_add(1, Ordering::Relaxed);
        let plans = vec![plan];
        send(&self.sink, BackendEvent::Replanned { plans }).await
    }

    async fn finish_sweep(&mut self, sweep: Sweep) -> Result<(), SinkClosed> {
        if sweep.found > 0 {
            info!(
                "found changes in the database without an event from the queue: {}; sent them late",
                sweep.found
            );
        }
        if let Some(ahead) = sweep.ahead
            && ahead > self.history.options.grace()
            && !std::mem::replace(&mut self.has_warned_of_clock, true)
        {
            warn!(
                "a clock of h is ahead of the database's: by={:.1}s; such changes are found late \
                 if their events are lost",
                ahead.as_secs_f64()
            );
        }
        self.stats.sweeps.fetch_add(1, Ordering::Relaxed);
        let watermark = self.history.finish_sweep(sweep);
        self.send_history(HistoryEvent::Watermark(watermark)).await
    }

    async fn send_history(&self, event: HistoryEvent) -> Result<(), SinkClosed> {
        send(&self.sink, BackendEvent::History(event)).await
    }

    /// The time of this process, in place of that of the database.
    fn wall_clock(&self) -> PgTime {
        PgTime::from_unix((self.clocks.unix)())
    }
}

/// Returns the plan that a fill has read.
fn plan(swept: Swept) -> Option<Planned> {
    match swept.result {
        Ok(SweptPlan::Send(planned, _)) => Some(*planned),
        _ => None,
    }
}

fn log_unknown_moderation() {
    warn!(
        "cannot read h's table moderation_log: it does not exist, or the role lacks the privilege; \
         moderation is not detected if its event is lost; to detect it, run GRANT SELECT ON \
         moderation_log and restart"
    );
}

/// The maximum number of plans in one message to the reactor.
const RESTORE_BATCH: usize = 256;
