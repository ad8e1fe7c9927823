//! A queue of event batches that are delivered in bounded steps.
//!
//! Owns: the order of events, and the number of events delivered in a turn. A batch may have
//! thousands of events, and each of them thousands of receivers. The engine holds an entry for each
//! receiver, so an event is only delivered when the previous deliveries are nearly complete. Must
//! not know: the sources of batches, or the contents of events.

use std::collections::VecDeque;
use std::rc::Rc;
use std::vec;

use crate::model::{MonoMillis, Plan};

/// Batches of events. They are delivered in the order in which they were pushed, which is that of
/// their positions in the history: an annotation's earlier state never follows a later one, and an
/// event with a cursor follows all events before that cursor.
///
/// `T` identifies the source of a batch, and is returned when all of it has been passed to the
/// engine.
pub struct EventQueue<T> {
    batches: VecDeque<Batch<T>>,
    limits: TurnLimits,
}

/// Limits on the work in a turn.
#[derive(Clone, Copy, Debug)]
pub struct TurnLimits {
    /// The number of pending receivers in the engine at which delivery pauses. The last event may
    /// exceed it by its own receivers.
    pub backlog: usize,
    /// Terms looked up and connections examined in a turn.
    pub matches: usize,
    /// Events in a turn.
    pub events: usize,
    /// Bytes of messages that are encoded, and compressed where negotiated, in a turn.
    pub bytes: usize,
}

/// Progress of a delivery.
#[derive(Debug)]
pub enum Completion<'a, T> {
    /// An event has been passed to the engine for this number of connections.
    Event(&'a Plan, usize),
    /// All events of a batch have been. Contains the number of connections for each.
    Batch(T, &'a [usize]),
}

struct Batch<T> {
    plans: vec::IntoIter<Plan>,
    received: MonoMillis,
    /// The number of receivers of each event delivered so far.
    sent: Vec<usize>,
    tag: T,
}

/// The cost of an event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cost {
    /// The number of receivers.
    pub sent: usize,
    /// Terms looked up and connections examined.
    pub matches: usize,
}

impl<T> EventQueue<T> {
    /// Creates an empty queue.
    pub fn new(limits: TurnLimits) -> Self {
        EventQueue {
            batches: VecDeque::new(),
            limits,
        }
    }

    /// Adds a batch of events, which arrived at `received`.
    pub fn push(&mut self, plans: Vec<Plan>, received: MonoMillis, tag: T) {
        self.batches.push_back(Batch {
            sent: Vec::with_capacity(plans.len()),
            plans: plans.into_iter(),
            received,
            tag,
        });
    }

    /// Removes the positions of the waiting events, whose history has been lost. They are delivered to
    /// open connections, and not kept in the new history.
    pub fn forget_positions(&mut self) {
        for batch in &mut self.batches {
            for plan in batch.plans.as_mut_slice() {
                plan.stamp.position = 0;
            }
        }
    }

    /// Returns the number of waiting events.
    pub fn len(&self) -> usize {
        self.batches.iter().map(|batch| batch.plans.len()).sum()
    }

    /// Returns whether the queue is empty.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    /// Delivers events with `deliver`, which returns the cost of each, until a limit is reached.
    /// Returns whether events remain.
    pub(super) fn run_turn<C>(
        &mut self,
        context: &mut C,
        backlog: impl Fn(&C) -> usize,
        mut deliver: impl FnMut(&mut C, &Rc<Plan>, MonoMillis) -> Cost,
        mut on_complete: impl FnMut(&mut C, Completion<'_, T>),
    ) -> bool {
        let (mut events, mut matches, mut bytes) = (0, 0, 0);
        let limits = self.limits;
        while let Some(batch) = self.batches.front_mut() {
            if events >= limits.events
                || matches >= limits.matches
                || bytes >= limits.bytes
                || backlog(context) >= limits.backlog
            {
                return true;
            }
            if let Some(plan) = batch.plans.next() {
                let plan = Rc::new(plan);
                let cost = deliver(context, &plan, batch.received);
                batch.sent.push(cost.sent);
                events += 1;
                matches += cost.matches;
                if cost.sent > 0 {
                    bytes += plan.variants.iter().map(|text| text.len()).sum::<usize>();
                }
                on_complete(context, Completion::Event(&plan, cost.sent));
            }
            if batch.plans.len() == 0
                && let Some(batch) = self.batches.pop_front()
            {
                on_complete(context, Completion::Batch(batch.tag, &batch.sent));
            }
        }
        // Release the memory of a long queue that has been drained.
        self.batches.shrink_to(MIN_CAPACITY);
        false
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

/// The capacity in batches that an empty queue keeps.
const MIN_CAPACITY: usize = 16;

#[cfg(test)]
mod tests;
