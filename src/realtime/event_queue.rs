//! Events that wait to be delivered: batch by batch, in bounded pieces.
//!
//! Owns: the order of events, and how many of them a turn delivers. A batch may have thousands of
//! events and each of them thousands of receivers; the engine holds an entry for each receiver, so
//! an event becomes a delivery only when the deliveries before it are nearly done. Must not know
//! the sources of batches, or the contents of events.

use std::collections::VecDeque;
use std::vec;

use crate::model::{MonoMillis, Plan};
use crate::net::Cx;

use super::{Realtime, Session};

/// Batches of events, in lanes. The events of a lane are delivered in the order in which they were
/// pushed, so that an annotation's earlier state never follows a later one. Lanes take turns, event
/// by event, so that a long batch holds up only its own lane.
///
/// `T` identifies the source of a batch, and is returned when all of it has been handed to the
/// engine.
pub struct EventQueue<T> {
    lanes: Vec<VecDeque<Batch<T>>>,
    /// The lane whose turn it is.
    next: usize,
    limits: TurnLimits,
}

/// How much is delivered at once.
#[derive(Clone, Copy, Debug)]
pub struct TurnLimits {
    /// Receivers that may wait in the engine. An event is delivered only while fewer do, so there
    /// are at most as many more as one event has.
    pub backlog: usize,
    /// Terms looked up and connections considered in a turn.
    pub matches: usize,
    /// Events in a turn.
    pub events: usize,
    /// Bytes of the messages that a turn encodes and, where clients have agreed to it, compresses.
    pub bytes: usize,
}

/// Progress of a delivery.
#[derive(Debug)]
pub enum Delivered<'a, T> {
    /// An event is on its way to this number of connections.
    Event(&'a Plan, usize),
    /// All events of a batch are; with the number of connections of each.
    Batch(T, &'a [usize]),
}

struct Batch<T> {
    plans: vec::IntoIter<Plan>,
    received: MonoMillis,
    /// How many connections each event so far is on its way to.
    sent: Vec<usize>,
    tag: T,
}

/// The cost of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// Connections that it is on its way to.
    pub sent: usize,
    /// Terms looked up and connections considered.
    pub matches: usize,
}

impl<T> EventQueue<T> {
    /// An empty queue of so many lanes.
    pub fn new(lanes: usize, limits: TurnLimits) -> Self {
        EventQueue {
            lanes: (0..lanes.max(1)).map(|_| VecDeque::new()).collect(),
            next: 0,
            limits,
        }
    }

    /// Adds a batch of events that arrived at this moment to a lane.
    pub fn push(&mut self, lane: usize, plans: Vec<Plan>, received: MonoMillis, tag: T) {
        let lane = lane.min(self.lanes.len() - 1);
        self.lanes[lane].push_back(Batch {
            sent: Vec::with_capacity(plans.len()),
            plans: plans.into_iter(),
            received,
            tag,
        });
    }

    /// How many events wait.
    pub fn len(&self) -> usize {
        let batches = self.lanes.iter().flatten();
        batches.map(|batch| batch.plans.len()).sum()
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.iter().all(VecDeque::is_empty)
    }

    /// Delivers events by `deliver`, which returns the cost of each, until the limits of a turn are
    /// reached. Returns whether any are left.
    fn serve<C>(
        &mut self,
        context: &mut C,
        backlog: impl Fn(&C) -> usize,
        mut deliver: impl FnMut(&mut C, &Plan, MonoMillis) -> Cost,
        mut done: impl FnMut(&mut C, Delivered<'_, T>),
    ) -> bool {
        let (mut events, mut matches, mut bytes) = (0, 0, 0);
        let limits = self.limits;
        while let Some(lane) = self.next_lane() {
            if events >= limits.events
                || matches >= limits.matches
                || bytes >= limits.bytes
                || backlog(context) >= limits.backlog
            {
                return true;
            }
            self.next = (lane + 1) % self.lanes.len();
            let Some(batch) = self.lanes[lane].front_mut() else {
                continue;
            };
            if let Some(plan) = batch.plans.next() {
                let cost = deliver(context, &plan, batch.received);
                batch.sent.push(cost.sent);
                events += 1;
                matches += cost.matches;
                if cost.sent > 0 {
                    bytes += plan.variants.iter().map(|text| text.len()).sum::<usize>();
                }
                done(context, Delivered::Event(&plan, cost.sent));
            }
            if batch.plans.len() == 0
                && let Some(batch) = self.lanes[lane].pop_front()
            {
                done(context, Delivered::Batch(batch.tag, &batch.sent));
            }
        }
        // A long queue has been worked off; its memory is not kept.
        for lane in &mut self.lanes {
            lane.shrink_to(LANE_KEPT);
        }
        false
    }

    /// The next lane with a batch in it.
    fn next_lane(&self) -> Option<usize> {
        let count = self.lanes.len();
        let lanes = (self.next..self.next + count).map(|lane| lane % count);
        let mut waiting = lanes.filter(|&lane| !self.lanes[lane].is_empty());
        waiting.next()
    }
}

impl Realtime {
    /// Delivers events of a queue, as many as a turn should: the receivers of an event are decided
    /// when it is delivered, by the identities, memberships and filters that connections have
    /// then, not when it was pushed. `done` is called for each event and for each batch. Returns
    /// whether any are left.
    pub fn deliver_from<T>(
        &mut self,
        cx: &mut Cx<'_, Session>,
        queue: &mut EventQueue<T>,
        done: impl FnMut(&mut Cx<'_, Session>, Delivered<'_, T>),
    ) -> bool {
        queue.serve(
            cx,
            |cx| cx.backlog(),
            |cx, plan, received| {
                self.expire(cx.now());
                self.deliver_one(cx, plan, received)
            },
            done,
        )
    }
}

impl Default for TurnLimits {
    fn default() -> Self {
        TurnLimits {
            backlog: 196_608,
            matches: 16_384,
            events: 256,
            bytes: 256 * 1024,
        }
    }
}

/// Batches for which room is kept in a lane that has become empty.
const LANE_KEPT: usize = 16;

#[cfg(test)]
mod tests;
