//! Reconciles open connections with the history after their user's memberships have changed.
//!
//! Owns: the connections to be reconciled, and their progress. An annotation that has become
//! unreadable is sent as a deletion, and one that has become readable as a creation.

use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;

use crate::model::{Decision, EventKind};
use crate::net::{ConnKey, Cx};

use super::{
    Item, MAX_BACKLOG, MAX_BYTES, MAX_EXAMINED, MAX_ITEMS, Place, STEPS_OF_ENTRY, message_len,
};
use crate::realtime::history::{Entry, MAX_STEPS, StateAt};
use crate::realtime::interest::Interest;
use crate::realtime::outgoing::Form;
use crate::realtime::principals::Principal;
use crate::realtime::rules::decide;
use crate::realtime::{ApiSession, Realtime};

/// The connections to be reconciled, in order.
#[derive(Default)]
pub(in crate::realtime) struct Reconciles {
    queue: VecDeque<Reconcile>,
    /// The connections for which nothing has been examined since their last change, with the newest
    /// position at that time.
    unstarted: HashMap<ConnKey, u64>,
}

struct Reconcile {
    key: ConnKey,
    /// The user before the change.
    before: Rc<Principal>,
    /// The position up to which the history has been examined.
    position: u64,
    /// The newest position at the time of the change. Later events have been delivered by the new
    /// memberships.
    end: u64,
    /// The replay that was in progress at the time of the change: the position from which the client
    /// had resumed, and the one up to which it had been sent everything by the former memberships.
    replay: Option<(u64, u64)>,
}

impl Reconciles {
    /// Returns the connections with the positions from and up to which they are examined, in order.
    /// For tests.
    #[cfg(test)]
    pub(in crate::realtime) fn progress(&self) -> impl Iterator<Item = (ConnKey, u64, u64)> {
        let queue = self.queue.iter();
        queue.map(|reconcile| (reconcile.key, reconcile.position, reconcile.end))
    }

    /// Forgets all connections.
    pub(in crate::realtime) fn clear(&mut self) {
        *self = Reconciles::default();
    }

    /// Adds a connection, unless it is waiting already, and nothing has been sent since: then it is
    /// compared with the user before the first change.
    fn push(&mut self, reconcile: Reconcile) {
        let end = reconcile.end;
        if self.unstarted.insert(reconcile.key, end) != Some(end) {
            self.queue.push_back(reconcile);
        }
    }

    fn pop(&mut self) -> Option<Reconcile> {
        let reconcile = self.queue.pop_front()?;
        if self.queue.is_empty() {
            self.queue.shrink_to(KEPT);
        }
        Some(reconcile)
    }
}

impl Realtime {
    /// Queues the connections of all users whose memberships have changed since the last call.
    pub(in crate::realtime) fn queue_reconciles(&mut self) {
        for before in self.principals.take_changes() {
            if self.history.len() == 0 {
                continue;
            }
            let before = Rc::new(before);
            for key in self.principals.connections_of(before.userid()) {
                // A connection that waits for the history gets what the user may read then.
                if self.resumption.waiting.contains_key(&key) {
                    continue;
                }
                self.reconciles.push(Reconcile {
                    key,
                    before: Rc::clone(&before),
                    position: 0,
                    end: self.history.head(),
                    replay: self.replays.range(key),
                });
            }
        }
    }

    /// Continues to reconcile connections as far as the limits of a turn allow. Returns whether any
    /// are left.
    pub(super) fn reconcile_queued(&mut self, cx: &mut Cx<'_, ApiSession>) -> bool {
        if self.reconciles.queue.is_empty() {
            return false;
        }
        let (mut items, mut examined, mut has_progress) = (Vec::new(), 0, false);
        // Connections that cannot proceed now. Their later changes must wait as well.
        let mut paused = HashSet::new();
        for _ in 0..self.reconciles.queue.len() {
            if items.len() >= MAX_ITEMS || examined >= MAX_EXAMINED || cx.backlog() >= MAX_BACKLOG {
                has_progress = true;
                break;
            }
            let Some(mut reconcile) = self.reconciles.pop() else {
                break;
            };
            let key = reconcile.key;
            let mut is_complete = false;
            if !paused.contains(&key) && cx.buffered(key) == 0 {
                has_progress = true;
                self.reconciles.unstarted.remove(&key);
                let (count, is_done) = self.reconcile(cx, &mut reconcile, &mut items);
                examined += count;
                is_complete = is_done;
            }
            if !is_complete {
                paused.insert(key);
                self.reconciles.queue.push_back(reconcile);
            }
        }
        self.send_batch(cx, items);
        has_progress && !self.reconciles.queue.is_empty()
    }

    /// Examines the next entries for a connection. Returns their number, and whether all have been
    /// examined.
    fn reconcile(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        reconcile: &mut Reconcile,
        items: &mut Vec<Item>,
    ) -> (usize, bool) {
        let key = reconcile.key;
        let Some(session) = cx.session(key) else {
            return (1, true);
        };
        let encoding = session.encoding();
        let client = session.client();
        let interest = self.interest_of(key);
        let (max, mut positions) = (self.replays.max_entries, Vec::new());
        let history = &self.history;
        let found = history.matches(&interest, reconcile.position, max, &mut positions);
        let mut until = found.until;
        let (searched, mut bytes) = (interest.spent(), 0);
        // Everything up to here has been sent to the connection.
        let place = self.replays.place(key, encoding).unwrap_or(Place {
            position: self.history.head(),
            within: None,
        });
        let limit = self.expiry_limit(cx.now());
        let is_silenced = self.principals.is_silenced(key, limit);
        let (from, replayed) = reconcile.sent(self.replays.range(key));
        for position in positions {
            if bytes >= MAX_BYTES || interest.spent() - searched >= MAX_STEPS {
                until = Some(reconcile.position);
                break;
            }
            reconcile.position = position;
            let entry = self.history.at(position).filter(|_| !is_silenced);
            let form = entry.and_then(|entry| {
                let after = self.principals.of(key);
                // The client knows the state that it has caused.
                let since = match client.is_some() && self.client_of(entry) == client {
                    true => from.max(entry.event_position),
                    false => from,
                };
                let form = reconciled_form(entry, &interest, reconcile, (since, after))?;
                // The replay sends it by the new memberships.
                let is_ahead = position > replayed && entry.event_position > from;
                (form == Form::Retraction || !is_ahead).then_some(form)
            });
            let Some(form) = form else {
                continue;
            };
            bytes += entry.map_or(0, |entry| message_len(entry, form));
            items.push(Item {
                position,
                place,
                key,
                form,
                encoding,
            });
        }
        if let Some(until) = until {
            reconcile.position = until;
        }
        let examined = found.examined + 1 + interest.spent() / STEPS_OF_ENTRY;
        (examined, until.is_none())
    }
}

impl Reconcile {
    /// Returns the position from which the connection has resumed, in a replay that is in progress now
    /// or was at the time of the change, and the position up to which it was sent everything by the
    /// former memberships.
    fn sent(&self, replay: Option<(u64, u64)>) -> (u64, u64) {
        match (self.replay, replay) {
            (None, None) => (self.end, u64::MAX),
            (Some(range), None) | (None, Some(range)) => range,
            (Some(before), Some(now)) => (before.0.min(now.0), before.1.min(now.1)),
        }
    }
}

/// Returns the form in which a user, whose memberships have changed, gets an entry; `None` if it gets
/// nothing. The connection has received everything up to `from`.
fn reconciled_form(
    entry: &Entry,
    interest: &Interest,
    reconcile: &Reconcile,
    (from, after): (u64, Option<&Principal>),
) -> Option<Form> {
    let Reconcile { before, end, .. } = reconcile;
    let could_read = |state: StateAt<'_>| {
        let decision = decide(state.rules, Some(before));
        interest.matches(state) && matches!(decision, Decision::Send(_))
    };
    let mut states = entry.states_between(from.min(*end), *end);
    match decide(&entry.plan.rules, after) {
        Decision::Deny(_) => states.any(could_read).then_some(Form::Retraction),
        // A later event has been delivered by the new memberships.
        Decision::Send(variant) => {
            let is_new = !states.all(could_read)
                && entry.event_position <= *end
                && interest.matches(entry.state())
                && entry.plan.kind != EventKind::Delete;
            let form = interest.appearance_form(&entry.plan, variant);
            form.filter(|_| is_new)
        }
    }
}

/// The capacity that an empty queue keeps.
const KEPT: usize = 64;
