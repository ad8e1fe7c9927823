//! The work of the backend's thread: it answers requests and converts events into plans, one at a
//! time.
//!
//! Owns: the order of the work, and its handling while the database is unavailable or the reactor's
//! mailbox is full. Must not know: SQL, AMQP, or when to reconnect.

mod history;
mod lookups;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::TryRecvError;
use std::time::Duration;

use tokio::sync::mpsc::Receiver;
use tokio::task::coop::cooperative;
use tokio::time::{Instant, interval, sleep, sleep_until};

use super::backlog::{Backlog, Limits, QueuedEvent};
use super::client::SWEEP_BATCH;
use super::database::{Database, Queries};
use super::drop_log::DropLog;
use super::event::{AnnotationEvent, user_plan};
use super::history::History;
use super::in_flight::InFlight;
use super::pending::{MembershipChange, Pending};
use super::sweep_state::SweepState;
use super::thread::Clocks;
use crate::backend::amqp::Delivery;
use crate::backend::{
    BATCH, DropReason, EventSink, RequestQueue, SinkClosed, SinkError, Stats, Topic,
};
use crate::model::{
    AuthReply, BackendEvent, BackendRequest, Lookup, Plan, RequestId, Secret, TokenId,
};

use lookups::{reject, unavailable};

/// The state of the thread.
pub(super) struct Worker<D, S> {
    database: Database<D>,
    sink: S,
    clocks: Clocks,
    requests: RequestQueue,
    deliveries: Receiver<Delivery>,
    logins: Vec<(RequestId, Secret)>,
    sweep: Option<TokenSweep>,
    /// Look-ups for explanations.
    lookups: VecDeque<(RequestId, Lookup)>,
    events: Backlog,
    /// Limits the plans in the reactor.
    in_flight: InFlight,
    sweep_state: SweepState,
    /// Membership changes stated by events that the database does not have yet.
    pending: Pending,
    /// The health reported last.
    ready: bool,
    drop_log: DropLog,
    history: History,
    stats: Arc<Stats>,
    has_warned_of_clock: bool,
}

/// A sweep of tokens in progress.
struct TokenSweep {
    tokens: Vec<TokenId>,
    /// The number of tokens queried so far.
    done: usize,
}

impl<D, S> Worker<D, S>
where
    D: Queries,
    S: EventSink,
{
    pub(super) fn new(
        database: Database<D>,
        sink: S,
        clocks: Clocks,
        (stats, limits): (Arc<Stats>, Limits),
        history: History,
        requests: RequestQueue,
        deliveries: Receiver<Delivery>,
    ) -> Self {
        Worker {
            database,
            sink,
            clocks,
            requests,
            deliveries,
            logins: Vec::new(),
            sweep: None,
            lookups: VecDeque::new(),
            events: Backlog::new(limits),
            in_flight: InFlight::default(),
            sweep_state: SweepState::default(),
            pending: Pending::default(),
            ready: false,
            drop_log: DropLog::new(Arc::clone(&stats), limits),
            history,
            stats,
            has_warned_of_clock: false,
        }
    }

    /// Runs until the request queue or the reactor's mailbox is closed.
    pub(super) async fn run(mut self) {
        let Err(SinkClosed) = self.work().await;
    }

    async fn work(&mut self) -> Result<Infallible, SinkClosed> {
        loop {
            if !self.database.is_up() {
                self.wait_for_database().await?;
            }
            self.drop_log.flush();
            self.receive_requests().await?;
            // Clients wait for logins and sweeps, so these overtake any number of waiting events.
            // Each batch of them is followed by one event.
            self.answer_logins().await?;
            if self.database.is_up()
                && let Some(sweep) = self.sweep.take()
            {
                self.continue_sweep(sweep).await?;
            }
            if self.database.is_up() {
                self.answer_lookup().await?;
            }
            // Memberships that are due to be read again are read before the next event is
            // delivered.
            if self.database.is_up() && self.recheck_memberships().await? {
                self.process_events().await?;
            }
        }
    }

    /// Makes one step of the history's work and processes one event, or waits for work.
    async fn process_events(&mut self) -> Result<(), SinkClosed> {
        // The history must be complete before the first plan.
        if self.history.is_filling() {
            return self.continue_fill().await;
        }
        self.schedule_sweep();
        let has_requests =
            !self.logins.is_empty() || self.sweep.is_some() || !self.lookups.is_empty();
        if self.in_flight.is_full() {
            return match has_requests {
                true => Ok(()),
                false => self.wait_for_capacity().await,
            };
        }
        self.continue_history_sweep().await?;
        match self.next_event() {
            Some(queued) => self.handle(queued).await,
            None if self.begin_due_sweep() || has_requests => Ok(()),
            None => self.wait_for_work().await,
        }
    }

    /// Waits until the reactor has delivered enough plans, or there is other work. Further events
    /// stay with the broker.
    async fn wait_for_capacity(&mut self) -> Result<(), SinkClosed> {
        tokio::select! {
            biased;
            request = next_request(&self.requests) => self.dispatch(request?).await,
            () = self.in_flight.wait() => Ok(()),
            () = sleep(PROBE_PERIOD) => {
                self.database.probe().await;
                Ok(())
            }
        }
    }

    /// Waits for work.
    async fn wait_for_work(&mut self) -> Result<(), SinkClosed> {
        let probe = Instant::now() + PROBE_PERIOD;
        let until = self.pending.next_due().map_or(probe, |due| due.min(probe));
        let until = self
            .history
            .next_sweep()
            .map_or(until, |due| due.min(until));
        tokio::select! {
            biased;
            request = next_request(&self.requests) => self.dispatch(request?).await,
            Some(delivery) = self.deliveries.recv() => {
                self.enqueue(delivery);
                Ok(())
            }
            () = sleep_until(until) => {
                self.database.probe().await;
                Ok(())
            }
        }
    }

    /// Takes a batch of requests that can be answered together.
    async fn receive_requests(&mut self) -> Result<(), SinkClosed> {
        while self.logins.len() < BATCH {
            match self.requests.try_recv() {
                Ok(request) => self.dispatch(request).await?,
                Err(TryRecvError::Empty) => return Ok(()),
                Err(TryRecvError::Disconnected) => return Err(SinkClosed),
            }
        }
        Ok(())
    }

    async fn dispatch(&mut self, request: BackendRequest) -> Result<(), SinkClosed> {
        match request {
            BackendRequest::Authenticate { request_id, token } => {
                self.logins.push((request_id, token))
            }
            BackendRequest::Sweep { mut tokens } => {
                tokens.sort_unstable();
                tokens.dedup();
                self.sweep = Some(TokenSweep { tokens, done: 0 });
            }
            BackendRequest::LookUp { request_id, lookup } => {
                self.lookups.push_back((request_id, lookup));
            }
            other => reject(&self.sink, other).await?,
        }
        Ok(())
    }

    async fn answer_logins(&mut self) -> Result<(), SinkClosed> {
        if self.logins.is_empty() {
            return Ok(());
        }
        let logins = std::mem::take(&mut self.logins);
        let tokens: Vec<&str> = logins.iter().map(|(_, token)| &*token.0).collect();
        let (now, read_at) = ((self.clocks.unix)(), Instant::now());
        let identities = self
            .database
            .query(async |data| data.identities(&tokens, now).await)
            .await;
        let mut identities = identities.map(Vec::into_iter);
        for (request_id, _) in logins {
            let reply = match &mut identities {
                Some(identities) => match identities.next().flatten() {
                    Some(mut identity) => {
                        let memberships = &mut identity.memberships;
                        self.pending.apply(&identity.userid, memberships, read_at);
                        self.sweep_state.record_login(&identity);
                        AuthReply::Known(identity)
                    }
                    None => AuthReply::Unknown,
                },
                None => AuthReply::Unavailable,
            };
            send(
                &self.sink,
                BackendEvent::Authenticated { request_id, reply },
            )
            .await?;
        }
        Ok(())
    }

    /// Sweeps a part of the tokens, for changes without events: logins must not wait for the whole
    /// sweep. If the database is unavailable, the sweep is abandoned and the next one starts from
    /// the beginning.
    async fn continue_sweep(&mut self, mut sweep: TokenSweep) -> Result<(), SinkClosed> {
        let rest = &sweep.tokens[sweep.done..];
        let batch = &rest[..rest.len().min(SWEEP_BATCH)];
        let (now, read_at) = ((self.clocks.unix)(), Instant::now());
        let found = self
            .database
            .query(async |data| data.sweep(batch, now).await)
            .await;
        let Some(mut found) = found else {
            return Ok(());
        };
        for (userid, memberships) in found
            .iter_mut()
            .filter_map(|(_, found)| found.as_mut().ok())
        {
            self.pending.apply(userid, memberships, read_at);
        }
        sweep.done += batch.len();
        for event in self.sweep_state.changes(found) {
            send(&self.sink, event).await?;
        }
        if sweep.done < sweep.tokens.len() {
            self.sweep = Some(sweep);
        } else {
            self.sweep_state.retain_swept(&sweep.tokens);
        }
        Ok(())
    }

    /// Adds an event to those that wait.
    fn enqueue(&mut self, delivery: Delivery) {
        let dropped = self.events.push(delivery);
        self.drop_log.overflow(dropped);
        if dropped > 0 {
            self.history.schedule.hurry(Instant::now());
        }
    }

    fn next_event(&mut self) -> Option<QueuedEvent> {
        if let Some(queued) = self.events.pop() {
            return Some(queued);
        }
        let delivery = self.deliveries.try_recv().ok()?;
        Some(QueuedEvent {
            delivery,
            failures: 0,
        })
    }

    /// Processes an event. Its receipt is passed on with the resulting plan.
    async fn handle(&mut self, mut queued: QueuedEvent) -> Result<(), SinkClosed> {
        let delivery = &queued.delivery;
        let outcome = match delivery.topic {
            Topic::Annotation => self.annotation(delivery).await,
            Topic::User => self.user(delivery).await?,
        };
        match outcome {
            Some(Ok(plan)) => {
                let Delivery { received, ack, .. } = queued.delivery;
                let happened = BackendEvent::QueueEvents {
                    received,
                    ack: self.in_flight.admit(&plan, ack),
                    plans: vec![plan],
                };
                send(&self.sink, happened).await?;
            }
            Some(Err(reason)) => self.drop_log.count(reason),
            // Events are not reordered, so one that repeatedly makes the database unavailable must
            // be dropped.
            None => {
                queued.failures += 1;
                if queued.failures < MAX_FAILURES {
                    self.events.push_front(queued);
                } else {
                    self.drop_log.count(DropReason::Unreadable);
                }
            }
        }
        Ok(())
    }

    /// Returns the plan of an event on an annotation, or `None` while the database is unavailable.
    async fn annotation(&mut self, delivery: &Delivery) -> Option<Result<Plan, DropReason>> {
        let event = match AnnotationEvent::parse(&delivery.event) {
            Ok(event) => event,
            Err(reason) => return Some(Err(reason)),
        };
        let pending = &self.pending;
        let planned = self
            .database
            .query(async |data| data.annotation(&event, pending).await)
            .await?;
        let now = Instant::now();
        Some(planned.and_then(|planned| self.history.accept(planned, now)))
    }

    /// Like [`Worker::annotation`], for an event on a user. Its membership change takes effect at
    /// once. All memberships are read again and reported before the plan.
    async fn user(
        &mut self,
        delivery: &Delivery,
    ) -> Result<Option<Result<Plan, DropReason>>, SinkClosed> {
        let (userid, mut plan) = match user_plan(&delivery.event) {
            Ok(read) => read,
            Err(reason) => return Ok(Some(Err(reason))),
        };
        if let Some(change) = MembershipChange::parse(&delivery.event) {
            let age = (self.clocks.mono)().since(delivery.received);
            if !self.pending.record(&userid, change, age, Instant::now()) {
                self.drop_log.discard_statement();
            }
        }
        let Some((event, _)) = self.membership_update(&userid).await else {
            return Ok(None);
        };
        send(&self.sink, event).await?;
        self.history.stamp_user(&mut plan, Instant::now());
        Ok(Some(Ok(plan)))
    }

    /// Reads the memberships that are due again. Returns whether all of them have been read.
    async fn recheck_memberships(&mut self) -> Result<bool, SinkClosed> {
        for _ in 0..BATCH {
            let now = Instant::now();
            let Some(userid) = self.pending.due(now) else {
                return Ok(true);
            };
            let Some((event, is_new)) = self.membership_update(&userid).await else {
                return Ok(false);
            };
            self.pending.record_check(&userid, now);
            if is_new {
                send(&self.sink, event).await?;
            }
        }
        Ok(false)
    }

    /// Returns a report of a user's memberships, which combines the database with unconfirmed
    /// changes, and whether they differ from the last report. Returns `None` while the database is
    /// unavailable.
    async fn membership_update(&mut self, userid: &str) -> Option<(BackendEvent, bool)> {
        let read_at = Instant::now();
        let found = self
            .database
            .query(async |data| data.memberships(userid).await)
            .await?;
        let userid: Box<str> = userid.into();
        let Some(mut memberships) = found else {
            self.pending.forget(&userid);
            self.sweep_state.record_deletion(&userid);
            return Some((BackendEvent::UserDeleted { userid }, true));
        };
        self.pending.apply(&userid, &mut memberships, read_at);
        let is_new = self.sweep_state.record_memberships(&userid, &memberships);
        let event = BackendEvent::Memberships {
            userid,
            memberships,
        };
        Some((event, is_new))
    }

    /// Waits for the database. Meanwhile requests are answered as unavailable, and events wait.
    async fn wait_for_database(&mut self) -> Result<(), SinkClosed> {
        if std::mem::take(&mut self.ready) {
            send(&self.sink, BackendEvent::Health { ready: false }).await?;
        }
        for (request_id, _) in self.logins.drain(..) {
            send(&self.sink, unavailable(request_id)).await?;
        }
        for (request_id, lookup) in self.lookups.drain(..) {
            reject(&self.sink, BackendRequest::LookUp { request_id, lookup }).await?;
        }
        let mut reconnected = pin!(self.database.reconnect());
        let mut flush = interval(PROBE_PERIOD);
        loop {
            tokio::select! {
                biased;
                () = &mut reconnected => break,
                request = next_request(&self.requests) => {
                    reject(&self.sink, request?).await?;
                }
                Some(delivery) = self.deliveries.recv() => {
                    let dropped = self.events.push(delivery);
                    self.drop_log.overflow(dropped);
                }
                _ = flush.tick() => self.drop_log.flush(),
            }
        }
        self.drop_log.finish_overflow();
        // Events may have been dropped meanwhile, and the oldest changes must be found first.
        self.history.schedule.hurry(Instant::now());
        self.ready = true;
        send(&self.sink, BackendEvent::Health { ready: true }).await
    }
}

/// Sends a message to the reactor, and retries while its mailbox is full. Only this task waits; the
/// connections to the servers stay alive.
async fn send<S: EventSink>(sink: &S, mut event: BackendEvent) -> Result<(), SinkClosed> {
    loop {
        match sink.try_send(event) {
            Ok(()) => return Ok(()),
            Err(SinkError::Full(returned)) => event = returned,
            Err(SinkError::Closed) => return Err(SinkClosed),
        }
        sleep(RETRY).await;
    }
}

/// Waits for the next request. Yields to the runtime from time to time, even if requests never
/// cease.
async fn next_request(requests: &RequestQueue) -> Result<BackendRequest, SinkClosed> {
    cooperative(requests.recv()).await.ok_or(SinkClosed)
}

/// The delay before retrying to send to the reactor's mailbox.
const RETRY: Duration = Duration::from_millis(5);
/// How often an idle database connection is checked.
const PROBE_PERIOD: Duration = Duration::from_secs(1);
/// How often an event is tried if the database becomes unavailable while it is processed.
const MAX_FAILURES: u8 = 3;

#[cfg(test)]
mod tests;
