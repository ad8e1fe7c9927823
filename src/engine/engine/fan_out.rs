//! Fan-out: delivers messages to many connections, a slice of them in each turn.
//!
//! Owns: the pending deliveries, and the set of connections that get no more messages.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::collections::binary_heap::{BinaryHeap, PeekMut};
use std::rc::Rc;

use super::merge::{MergeEntry, SlotBucket, bucket_of};
use super::shrink::{KEPT_CAPACITY, beyond_kept, shrink_target, shrink_target_above};
use super::{DELIVERY_BUDGET, Engine, FAN_OUT_BUDGET};
use crate::ConnKey;
use crate::conn::Conn;
use crate::conn::output::MAX_SLICES;
use crate::conn::queue::TxQueue;
use crate::frame::{Delivery, Frame};
use crate::handler::Handler;
use crate::io::socket::Socket;
use crate::ledger::{Ledger, recount};

/// The pending deliveries.
///
/// They are processed in batches. A batch consists of all deliveries that were waiting when it
/// began, and visits the connections in slot order. Thus, a connection gets all frames of a batch in
/// one write and in the order in which they were pushed, and no batch overtakes another.
///
/// The deliveries of a batch are merged one bucket at a time. A bucket is a range of slots, so
/// that the cost of finding the next delivery is paid per bucket instead of per receiver.
#[derive(Default)]
pub(super) struct FanOut {
    waiting: Vec<Delivery>,
    batch: Vec<Progress>,
    /// A min-heap of the next bucket of each delivery in the batch, and the index of the delivery.
    next_buckets: BinaryHeap<Reverse<(u32, u32)>>,
    /// The entries of the batch in the current bucket.
    bucket: SlotBucket,
    /// Receivers still to be served, summed over all deliveries.
    backlog: usize,
    /// Memory of the lists in all deliveries, in bytes.
    lists: usize,
    /// The number of bytes counted in the ledger.
    counted: usize,
    /// Open connections that get no more messages.
    muted: HashSet<ConnKey>,
    /// A block of an event stream has been sent. Until then, every frame is one of a WebSocket.
    has_blocks: bool,
}

struct Progress {
    delivery: Delivery,
    next: usize,
}

/// The frames of a batch for one connection.
#[derive(Default)]
struct ConnBatch {
    frames: Vec<Rc<Frame>>,
    /// The arrival time of each frame's event.
    since: Vec<Option<u64>>,
}

impl FanOut {
    pub(super) fn push(&mut self, mut delivery: Delivery, ledger: &mut Ledger) {
        if delivery.to.is_empty() {
            return;
        }
        for frame in &delivery.frames {
            frame.hold(ledger);
            self.note_block(frame);
        }
        self.lists += lists_memory(&delivery);
        delivery.to.sort_unstable_by_key(|(key, _)| *key);
        self.backlog += delivery.to.len();
        self.waiting.push(delivery);
        self.count(ledger);
    }

    pub(super) fn backlog(&self) -> usize {
        self.backlog
    }

    /// Records whether a frame that is about to be sent is a block of an event stream.
    pub(super) fn note_block(&mut self, frame: &Frame) {
        self.has_blocks |= frame.is_block();
    }

    /// Returns whether any frame may be a block of an event stream.
    pub(super) fn has_blocks(&self) -> bool {
        self.has_blocks
    }

    pub(super) fn is_muted(&self, key: ConnKey) -> bool {
        !self.muted.is_empty() && self.muted.contains(&key)
    }

    /// Forgets a muted connection that is no longer open.
    pub(super) fn unmute(&mut self, key: ConnKey) {
        if !self.muted.is_empty() {
            self.muted.remove(&key);
            if self.muted.is_empty() {
                self.muted = HashSet::new();
            }
        }
    }

    /// Returns whether more deliveries may be gathered into the next batch: no batch is in progress,
    /// and a connection that receives all waiting deliveries can still be served in one write.
    pub(super) fn may_gather(&self) -> bool {
        self.batch.is_empty() && self.waiting.len() < MAX_SLICES
    }

    /// Returns whether there is nothing to do, and no completed delivery is still held.
    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.batch.is_empty()
    }

    /// Verifies the backlog count. Returns a description of a mismatch.
    pub(super) fn verify(&self) -> Result<(), String> {
        let waiting: usize = self.waiting.iter().map(|delivery| delivery.to.len()).sum();
        let left = |progress: &Progress| progress.delivery.to.len().saturating_sub(progress.next);
        let in_batch: usize = self.batch.iter().map(left).sum();
        let in_bucket = self.bucket.count();
        match waiting + in_batch + in_bucket == self.backlog {
            true => Ok(()),
            false => Err(format!(
                "{waiting}, {in_batch} and {in_bucket} are to be served, not {}",
                self.backlog
            )),
        }
    }

    /// Returns the deliveries whose frames and receivers are counted in the ledger.
    pub(super) fn deliveries(&self) -> impl Iterator<Item = &Delivery> {
        let batch = self.batch.iter().map(|progress| &progress.delivery);
        self.waiting.iter().chain(batch)
    }

    /// Recounts the memory used by deliveries, excluding frames, in bytes. For tests and
    /// simulations only.
    pub(super) fn recount(&self) -> usize {
        self.deliveries().map(lists_memory).sum::<usize>() + self.tables_memory()
    }

    fn tables_memory(&self) -> usize {
        beyond_kept(KEPT_DELIVERIES, self.waiting.capacity()) * size_of::<Delivery>()
            + beyond_kept(KEPT_DELIVERIES, self.batch.capacity()) * size_of::<Progress>()
            + beyond_kept(KEPT_CAPACITY, self.next_buckets.capacity())
                * size_of::<Reverse<(u32, u32)>>()
            + self.bucket.memory()
    }

    /// Updates the ledger.
    fn count(&mut self, ledger: &mut Ledger) {
        let memory = self.lists + self.tables_memory();
        recount(&mut ledger.receivers, &mut self.counted, memory);
    }

    /// Shrinks tables that a large number of deliveries has enlarged.
    pub(super) fn shrink(&mut self, ledger: &mut Ledger) {
        // No table is larger than its kept capacity.
        if self.counted == 0 {
            return;
        }
        let shrink_deliveries = |len, capacity| shrink_target_above(KEPT_DELIVERIES, len, capacity);
        self.bucket.shrink();
        if let Some(target) = shrink_deliveries(self.waiting.len(), self.waiting.capacity()) {
            self.waiting.shrink_to(target);
        }
        if let Some(target) = shrink_deliveries(self.batch.len(), self.batch.capacity()) {
            self.batch.shrink_to(target);
        }
        if let Some(target) = shrink_target(self.next_buckets.len(), self.next_buckets.capacity()) {
            self.next_buckets.shrink_to(target);
        }
        self.count(ledger);
    }

    /// Returns the next connection of the batch, and adds its frames to `conn_batch`. Starts the next
    /// batch when the current one is complete.
    fn next(&mut self, conn_batch: &mut ConnBatch, ledger: &mut Ledger) -> Option<ConnKey> {
        let first = loop {
            if let Some(entry) = self.bucket.pop(None) {
                break entry;
            }
            if self.next_buckets.is_empty() {
                self.begin_batch(ledger);
            }
            let Reverse((bucket, _)) = *self.next_buckets.peek()?;
            self.begin_bucket(bucket, ledger);
        };
        self.take_frame(first, conn_batch);
        while let Some(entry) = self.bucket.pop(Some(first.key)) {
            self.take_frame(entry, conn_batch);
        }
        Some(first.key)
    }

    fn take_frame(&mut self, entry: MergeEntry, conn_batch: &mut ConnBatch) {
        self.backlog -= 1;
        let Some(Progress { delivery, .. }) = self.batch.get(entry.delivery as usize) else {
            return;
        };
        if let Some(frame) = delivery.frames.get(usize::from(entry.variant)) {
            conn_batch.frames.push(Rc::clone(frame));
            conn_batch.since.push(delivery.since);
        }
    }

    fn begin_batch(&mut self, ledger: &mut Ledger) {
        for Progress { delivery, .. } in self.batch.drain(..) {
            delivery
                .frames
                .iter()
                .for_each(|frame| frame.release(ledger));
            self.lists -= lists_memory(&delivery);
        }
        let waiting = self.waiting.drain(..);
        self.batch
            .extend(waiting.map(|delivery| Progress { delivery, next: 0 }));
        for (number, progress) in (0..).zip(&self.batch) {
            if let Some((key, _)) = progress.delivery.to.first() {
                self.next_buckets.push(Reverse((bucket_of(*key), number)));
            }
        }
        self.count(ledger);
    }

    /// Collects the entries of the batch in this bucket, one delivery after another.
    fn begin_bucket(&mut self, bucket: u32, ledger: &mut Ledger) {
        while let Some(mut head) = self.next_buckets.peek_mut()
            && head.0.0 == bucket
        {
            let number = head.0.1;
            let Some(Progress { delivery, next }) = self.batch.get_mut(number as usize) else {
                PeekMut::pop(head);
                continue;
            };
            let in_this_bucket = delivery.to[*next..].iter();
            for &(key, variant) in in_this_bucket.take_while(|(key, _)| bucket_of(*key) == bucket) {
                *next += 1;
                self.bucket.push(MergeEntry {
                    key,
                    delivery: number,
                    variant,
                });
            }
            match delivery.to.get(*next) {
                Some((key, _)) => head.0.0 = bucket_of(*key),
                None => {
                    PeekMut::pop(head);
                    // Free this memory early, without waiting for the end of the batch.
                    self.lists -= lists_memory(delivery);
                    delivery.to = Vec::new();
                    self.lists += lists_memory(delivery);
                    *next = 0;
                }
            }
        }
        self.count(ledger);
    }
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Drops the queued messages of an open connection, and those that are delivered from now on.
    pub(super) fn mute(&mut self, key: ConnKey) {
        if self.arena.get(key).is_some_and(Conn::is_open) {
            self.fan_out.muted.insert(key);
            self.drop_queued(key, TxQueue::drop_messages);
            // The rest may still exceed the soft limit.
            self.watch_queue(key, 0);
            // A long queue no longer keeps it from being read from.
            self.read_again(key);
        }
    }

    /// Serves deliveries, within a turn's budgets of connections and of bytes. Messages that
    /// handlers send meanwhile are recorded in the outbox and pushed afterwards.
    pub(super) fn serve_fan_out(&mut self) {
        if self.fan_out.is_idle() {
            return;
        }
        let mut conn_batch = ConnBatch::default();
        let start = self.counters.bytes_out;
        for _ in 0..FAN_OUT_BUDGET {
            // The kernel may accept megabytes of a long message for each connection.
            if self.counters.bytes_out - start >= DELIVERY_BUDGET as u64 {
                break;
            }
            let ledger = &mut self.counters.ledger;
            let Some(key) = self.fan_out.next(&mut conn_batch, ledger) else {
                break;
            };
            let sent = self.send_shared(key, &mut conn_batch.frames);
            self.counters.messages_out += sent as u64;
            self.counters.undelivered += (conn_batch.frames.len() - sent) as u64;
            conn_batch.frames.clear();
            for since in conn_batch.since.drain(..).take(sent).flatten() {
                self.latencies.add(since);
            }
        }
        self.coalesced.clear();
    }
}

/// Deliveries for which a table always keeps memory.
const KEPT_DELIVERIES: usize = 64;

/// Returns the memory used by a delivery's lists of receivers and frames, in bytes.
fn lists_memory(delivery: &Delivery) -> usize {
    delivery.to.capacity() * size_of::<(ConnKey, u8)>()
        + delivery.frames.capacity() * size_of::<Rc<Frame>>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(index: u32) -> ConnKey {
        ConnKey {
            index,
            generation: 1,
        }
    }

    fn delivery(text: &str, to: &[u32]) -> Delivery {
        Delivery {
            frames: vec![Frame::text("other"), Frame::text(text)],
            to: to.iter().map(|&index| (key(index), 1)).collect(),
            since: None,
        }
    }

    fn all(fan_out: &mut FanOut, ledger: &mut Ledger) -> Vec<(u32, String)> {
        let mut out = Vec::new();
        let mut conn_batch = ConnBatch::default();
        while let Some(key) = fan_out.next(&mut conn_batch, ledger) {
            let text: String = conn_batch
                .frames
                .drain(..)
                .map(|frame| String::from_utf8_lossy(&frame.bytes()[2..]).into_owned())
                .collect();
            out.push((key.index, text));
        }
        out
    }

    #[test]
    fn batch_groups_frames_by_connection_in_push_order() {
        let ledger = &mut Ledger::default();
        let mut fan_out = FanOut::default();
        fan_out.push(delivery("a", &[3, 1, 2]), ledger);
        fan_out.push(delivery("b", &[2, 9]), ledger);
        fan_out.push(delivery("c", &[]), ledger);
        fan_out.push(delivery("d", &[2, 2, 1]), ledger);
        assert_eq!(fan_out.backlog(), 8);
        let want = [(1, "ad"), (2, "abdd"), (3, "a"), (9, "b")].map(|(k, t)| (k, t.to_owned()));
        assert_eq!(all(&mut fan_out, ledger), want);
        assert_eq!(fan_out.backlog(), 0);
    }

    // Equivalent to a stable sort of all receivers by slot.
    #[test]
    fn batch_order_is_a_stable_sort_by_slot() {
        let ledger = &mut Ledger::default();
        let mut state = 1_u64;
        let mut random = |below: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        for _ in 0..200 {
            let mut fan_out = FanOut::default();
            let mut want: Vec<(u32, String)> = Vec::new();
            for number in 0..1 + random(20) {
                let slots = 1 + random(400);
                let to: Vec<u32> = (0..random(60)).map(|_| random(slots) as u32).collect();
                want.extend(to.iter().map(|index| (*index, format!("{number} "))));
                fan_out.push(delivery(&format!("{number} "), &to), ledger);
                assert_eq!(fan_out.verify(), Ok(()));
            }
            want.sort_by_key(|(index, _)| *index);
            let mut got = Vec::new();
            for (index, texts) in all(&mut fan_out, ledger) {
                assert!(got.last().is_none_or(|(last, _)| *last < index));
                got.extend(
                    texts
                        .split_inclusive(' ')
                        .map(|text| (index, text.to_owned())),
                );
            }
            assert_eq!(got, want);
            assert_eq!((fan_out.verify(), fan_out.backlog()), (Ok(()), 0));
        }
    }

    #[test]
    fn invalid_variant_index_sends_nothing() {
        let ledger = &mut Ledger::default();
        let mut fan_out = FanOut::default();
        for text in ["a", "b"] {
            let mut delivery = delivery(text, &[1, 70, 200]);
            delivery.to[1].1 = 7;
            fan_out.push(delivery, ledger);
        }
        let want = [(1, "ab"), (70, ""), (200, "ab")].map(|(key, texts)| (key, texts.to_owned()));
        assert_eq!(all(&mut fan_out, ledger), want);
        assert_eq!((fan_out.verify(), fan_out.backlog()), (Ok(()), 0));
    }

    #[test]
    fn delivery_pushed_during_a_batch_joins_the_next() {
        let ledger = &mut Ledger::default();
        let mut fan_out = FanOut::default();
        fan_out.push(delivery("a", &[1, 5]), ledger);
        assert_eq!(
            fan_out.next(&mut ConnBatch::default(), ledger),
            Some(key(1))
        );
        fan_out.push(delivery("b", &[1, 5]), ledger);
        assert_eq!(all(&mut fan_out, ledger).len(), 3);
    }
}
