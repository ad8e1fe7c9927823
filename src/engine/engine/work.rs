//! Scheduling by cost: the recent work caused by each connection, and the run queue, which serves
//! the connections with the least recent work first.
//!
//! A unit of work is about a nanosecond on a common processor. The engine charges for bytes,
//! messages, requests, and system calls; a handler adds its own work with
//! [`Cx::charge`](crate::Cx::charge). No clock is read, so that equal input costs the same
//! in every run.

use std::collections::VecDeque;

use crate::conn::Conn;
use crate::engine::timer::Tick;
use crate::{ConnKey, ListenerId};

/// The recent work of one connection, with a half-life of eight ticks (0.8 s): a floating-point
/// number with five bits of exponent and three of mantissa, in units of [`GRAIN`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RecentWork(u8);

impl RecentWork {
    /// The initial value of a connection. Its cost is unknown, so for nine ticks it ranks after
    /// connections known to be cheap: a crowd of new clients, with their requests and first
    /// messages, does not delay those that have been connected for longer.
    pub(crate) const NEW: RecentWork = RecentWork(FIRST_END + 8);

    /// Returns the value after `ticks` more ticks.
    pub(crate) fn decayed(self, ticks: Tick) -> RecentWork {
        // A half-life has as many ticks as there are codes between a value and its half.
        RecentWork(self.0.saturating_sub(ticks.min(255) as u8))
    }

    /// Adds work. A remainder below the precision is rounded up with a probability proportional to
    /// it, so that many small amounts add up to their sum. `random` decides.
    #[inline]
    pub(crate) fn add(&mut self, work: u64, random: u64) {
        // Small amounts are added rarely, as proportionally larger ones: adding exactly would cost
        // a tenth of a ping.
        if work >= RARE {
            self.add_exactly(work, random);
        } else if work > random % RARE {
            self.add_exactly(RARE, random / RARE);
        }
    }

    fn add_exactly(&mut self, work: u64, random: u64) {
        let exact = self.grains().saturating_add(work / GRAIN);
        let exact = exact + u64::from(work % GRAIN > random % GRAIN);
        if exact < 8 {
            self.0 = exact as u8;
            return;
        }
        let exponent = (exact.ilog2() - 2).min(31);
        let mantissa = (exact >> (exponent - 1)).min(15);
        let lost = exact.saturating_sub(mantissa << (exponent - 1));
        let is_rounded_up = lost > (random / GRAIN) & ((1 << (exponent - 1)) - 1);
        let code = (exponent << 3) as u64 + (mantissa - 8) + u64::from(is_rounded_up);
        self.0 = code.min(u64::from(u8::MAX)) as u8;
    }

    /// Returns the value in grains.
    fn grains(self) -> u64 {
        let (exponent, mantissa) = (self.0 >> 3, u64::from(self.0 & 7));
        match exponent {
            0 => mantissa,
            _ => (8 + mantissa) << (exponent - 1),
        }
    }

    /// Returns the priority class of a connection with this much recent work.
    pub(super) fn class(self) -> Class {
        let level = match self.0 < FIRST_END {
            true => 0,
            false => ((self.0 - FIRST_CLASS) / CLASS_WIDTH).min(LEVELS as u8 - 1),
        };
        match level < QUICK_CLASSES as u8 {
            true => Class(level),
            false => Class(QUICK_CLASSES as u8 + level),
        }
    }
}

/// A priority class; lower classes are served first.
///
/// The first classes handle only small messages while other connections wait. For each of their
/// levels of recent work, there is another class for large messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Class(u8);

impl Class {
    pub(super) const FIRST: Class = Class(0);

    /// Returns whether only small messages are handled while other connections wait.
    pub(super) fn is_quick(self) -> bool {
        self.0 < QUICK_CLASSES as u8
    }

    /// Returns the class for large messages of connections of this class.
    pub(super) fn for_large(self) -> Class {
        match self.is_quick() {
            true => Class(self.0 + QUICK_CLASSES as u8),
            false => self,
        }
    }

    /// Returns the work after which a connection of this class goes to the back of the queue.
    pub(super) fn share(self) -> u64 {
        if self.is_quick() {
            SMALL_SHARE
        } else {
            LARGE_SHARE
        }
    }
}

/// Returns the priority class of a connection.
#[inline]
pub(super) fn class_of<S, C>(conn: &Conn<S, C>, now: Tick, reserved: Option<ListenerId>) -> Class {
    // Recent work only decays over time.
    if conn.recent.class() == Class::FIRST || Some(conn.listener) == reserved {
        return Class::FIRST;
    }
    conn.recent
        .decayed(now.saturating_sub(conn.last_activity))
        .class()
}

/// Connections with input, each in the queue of its class and at most once.
#[derive(Default)]
pub(super) struct RunQueue {
    queues: [VecDeque<ConnKey>; CLASSES],
    /// Work for which each class may still be served when the budget of a turn is used up.
    credits: [i64; CLASSES],
    /// One bit per class, set if connections wait in it.
    occupied: u16,
    /// The number of `shrink_next` calls.
    shrinks: u8,
}

impl RunQueue {
    pub(super) fn push(&mut self, key: ConnKey, class: Class) {
        self.occupied |= 1 << class.0;
        self.queues[usize::from(class.0)].push_back(key);
    }

    pub(super) fn pop(&mut self, class: Class) -> Option<ConnKey> {
        let queue = &mut self.queues[usize::from(class.0)];
        let key = queue.pop_front()?;
        if queue.is_empty() {
            self.occupied &= !(1 << class.0);
        }
        Some(key)
    }

    /// Returns each nonempty class with its queue length, in the order of service.
    #[inline]
    pub(super) fn waiting(&self) -> impl Iterator<Item = (Class, usize)> + use<> {
        let mut lens = [0; CLASSES];
        for class in bits(self.occupied) {
            lens[class] = self.queues[class].len();
        }
        bits(self.occupied).map(move |class| (Class(class as u8), lens[class]))
    }

    /// Grants a class its part of a turn whose budget is used up. Otherwise, lower classes could
    /// starve it.
    pub(super) fn grant(&mut self, class: Class) {
        let credit = &mut self.credits[usize::from(class.0)];
        *credit = (*credit + TURN_PART).min(TURN_PART);
    }

    pub(super) fn has_credit(&self, class: Class) -> bool {
        self.credits[usize::from(class.0)] > 0
    }

    /// Deducts work from the credit of a class. The credit may become negative, which carries the
    /// debt over to later turns.
    pub(super) fn spend(&mut self, class: Class, work: u64) {
        self.credits[usize::from(class.0)] -= work as i64;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.occupied == 0
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &ConnKey> {
        self.queues.iter().flatten()
    }

    /// Shrinks one queue if it was much longer, a different one in each call.
    pub(super) fn shrink_next(&mut self) {
        self.shrinks = self.shrinks.wrapping_add(1);
        let queue = &mut self.queues[usize::from(self.shrinks) % CLASSES];
        if queue.capacity() > 2 * KEPT_CAPACITY {
            let capacity = (2 * queue.len()).max(KEPT_CAPACITY);
            if queue.capacity() > 2 * capacity {
                queue.shrink_to(capacity);
            }
        }
    }
}

/// Returns the indices of the set bits in ascending order.
fn bits(mut bits: u16) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = bits.trailing_zeros() as usize;
        bits &= bits.wrapping_sub(1);
        (lowest < CLASSES).then_some(lowest)
    })
}

/// A pseudorandom number generator: xorshift64.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Random(seed | 1)
    }

    #[inline]
    pub(super) fn draw(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Work below which amounts are added probabilistically.
const RARE: u64 = 16 * GRAIN;
/// Entries for which a queue always keeps memory.
const KEPT_CAPACITY: usize = 32;
/// Units of work per grain.
const GRAIN: u64 = 1024;
/// The code at which the lowest class would begin if it were as wide as the others.
const FIRST_CLASS: u8 = 40;
/// The code at which the lowest class ends: it is wider than the others.
const FIRST_END: u8 = 60;
/// Codes per class: each class spans a factor of four.
const CLASS_WIDTH: u8 = 16;
/// Levels of recent work: up to 0.8 ms, 2 ms, 8 ms, 33 ms, 131 ms, 524 ms, 2 s, and beyond. Fifty
/// pings a second amount to 350 µs, with a standard deviation of a fifth: the first level has room
/// for it, because a client in another one waits until a crowd has left the first.
const LEVELS: usize = 8;
/// Levels that have a separate class for small messages.
const QUICK_CLASSES: usize = 4;
const CLASSES: usize = QUICK_CLASSES + LEVELS;
/// A share of work in the quick classes. With a thousand connections, each is served after at most
/// a thousand shares.
const SMALL_SHARE: u64 = 16_000;
/// A share of work in the other classes.
pub(super) const LARGE_SHARE: u64 = 128_000;

/// Work of all connections in one turn, before the turn continues with its other duties.
pub(super) const TURN_WORK: u64 = 1_000_000;
/// Work granted to one class when the budget of a turn is used up, so that lower classes slow it
/// down but do not starve it.
const TURN_PART: i64 = TURN_WORK as i64 / 16;
/// The longest message, in bytes, that is handled in a quick class while others wait.
pub(super) const SMALL_MESSAGE: usize = 512;

/// A read system call.
pub(super) const READ_COST: u64 = 1_500;
/// Bytes read per unit of work: copying, whether or not the bytes are used.
pub(super) const RECEIVED_BYTES: u64 = 4;
/// A write system call, including the kernel's processing.
pub(super) const WRITE_COST: u64 = 4_000;
/// A frame: header and handler call.
pub(super) const FRAME_COST: u64 = 300;
/// A byte of a message: unmasking, UTF-8 validation, and parsing in the handler.
pub(super) const MESSAGE_BYTE_COST: u64 = 2;
/// Setting up decompression.
pub(super) const INFLATE_COST: u64 = 1_000;
/// A decompressed byte.
pub(super) const INFLATED_BYTE_COST: u64 = 1;
/// A request: parsing its head and creating a response.
pub(super) const REQUEST_COST: u64 = 5_000;
/// A byte of a request's head.
pub(super) const HEAD_BYTE_COST: u64 = 10;
/// A framing byte of a chunked body: parsing it, and moving the data after it. Each chunk has at
/// least five of them, regardless of its size.
pub(super) const CHUNK_BYTE_COST: u64 = 4;
/// A step of a TLS handshake: a signature and a key exchange, or the verification of a Finished
/// message.
pub(super) const TLS_STEP_COST: u64 = 100_000;
/// A byte of a TLS record that is not plaintext. Each record has at least 22 of them, regardless of
/// its size, and takes 230 ns to decrypt. A key update of 27 bytes takes 3.4 µs.
pub(super) const TLS_RECORD_BYTE_COST: u64 = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn new_connection_ranks_after_quiet_ones_at_first() {
        assert_eq!(RecentWork::NEW.class(), Class(1));
        assert_eq!(RecentWork::NEW.decayed(8).class(), Class(1));
        assert_eq!(RecentWork::NEW.decayed(9).class(), Class::FIRST);
        assert_eq!(RecentWork::NEW.grains(), 1536);
    }

    #[test]
    fn run_queue_lists_classes_in_order_with_counts() {
        let mut queue = RunQueue::default();
        for (index, class) in (0..).zip([5, 0, 7, 5]) {
            let generation = 1;
            queue.push(ConnKey { index, generation }, Class(class));
        }
        let waiting: Vec<_> = queue.waiting().collect();
        assert_eq!(waiting, [(Class(0), 1), (Class(5), 2), (Class(7), 1)]);
        for (class, count) in waiting {
            for _ in 0..count {
                assert!(queue.pop(class).is_some());
            }
            assert_eq!(queue.pop(class), None);
        }
        assert!(queue.is_empty() && queue.waiting().next().is_none());
    }

    #[test]
    fn popping_the_last_of_a_class_leaves_the_others_waiting() {
        let mut queue = RunQueue::default();
        let key = |index| ConnKey {
            index,
            generation: 1,
        };
        queue.push(key(1), Class(2));
        queue.push(key(2), Class(5));
        assert_eq!(queue.pop(Class(2)), Some(key(1)));
        assert!(!queue.is_empty());
        assert_eq!(queue.waiting().collect::<Vec<_>>(), [(Class(5), 1)]);
        assert_eq!(queue.pop(Class(5)), Some(key(2)));
        assert!(queue.is_empty());
    }

    #[test]
    fn class_without_credit_waits() {
        let mut queue = RunQueue::default();
        assert!(!queue.has_credit(Class::FIRST));
        queue.grant(Class::FIRST);
        assert!(queue.has_credit(Class::FIRST));
        queue.spend(Class::FIRST, TURN_PART as u64);
        assert!(!queue.has_credit(Class::FIRST));
    }

    #[test]
    fn only_the_first_classes_are_quick() {
        let last = Class(QUICK_CLASSES as u8 - 1);
        let next = Class(QUICK_CLASSES as u8);
        assert!(last.is_quick() && !next.is_quick());
        assert_eq!(next.for_large(), next);
    }

    #[test]
    fn remainder_is_rounded_up_if_it_exceeds_the_random_number() {
        for (work, random, grains) in [
            (GRAIN + 1, 0, 2),
            (GRAIN + 1, 1, 1),
            (GRAIN + 2, 1, 2),
            (GRAIN + 1, GRAIN, 2),
        ] {
            let mut recent = RecentWork::default();
            recent.add_exactly(work, random);
            assert_eq!(recent.grains(), grains, "{work} {random}");
        }
        for (work, random, is_added) in [
            (RARE - 1, RARE - 1, false),
            (RARE - 1, RARE - 2, true),
            (RARE, RARE - 1, true),
        ] {
            let mut recent = RecentWork::default();
            recent.add(work, random);
            assert_eq!(recent.grains() > 0, is_added, "{work} {random}");
        }
    }

    fn of(work: u64) -> RecentWork {
        let mut recent = RecentWork::default();
        recent.add_exactly(work, u64::MAX);
        recent
    }

    #[test]
    fn recent_work_is_within_an_eighth_and_halves_in_eight_ticks() {
        for work in (10..40).map(|bits| 3_u64 << bits) {
            let got = of(work).grains() * GRAIN;
            assert!(got <= work && got >= work / 8 * 7, "{work}: {got}");
            let half = of(work).decayed(8).grains() * GRAIN;
            let is_half = half <= work / 2 + GRAIN && half + GRAIN >= work / 16 * 7;
            assert!(is_half || work < 16 * GRAIN, "{work}: {half}");
        }
        assert_eq!(of(u64::MAX).decayed(Tick::MAX), RecentWork::default());
    }

    #[test]
    fn many_small_amounts_add_up_to_their_sum() {
        let mut random = 1_u64;
        let mut recent = RecentWork::default();
        for _ in 0..100_000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            recent.add(100, random);
        }
        let got = recent.grains() * GRAIN;
        assert!((7_000_000..14_000_000).contains(&got), "{got}");
    }

    #[test]
    fn more_work_is_never_a_lower_class() {
        let mut last = Class::FIRST;
        for code in 0..=u8::MAX {
            let class = RecentWork(code).class();
            assert!(class >= last);
            last = class;
        }
        assert_eq!(last, Class(CLASSES as u8 - 1));
        assert_eq!(of(770_000).class(), Class(0));
        assert_eq!(of(810_000).class(), Class(1));
        assert_eq!(of(9_000_000).class(), Class(3));
        assert_eq!(of(9_000_000).class().for_large(), Class(7));
        assert_eq!(of(40_000_000).class(), Class(8));
        assert_eq!(of(40_000_000).class().for_large(), Class(8));
    }

    // R11
    #[test]
    fn fifty_pings_a_second_stay_in_the_first_class() {
        let mut random = Random::new(7);
        let mut recent = RecentWork::default();
        let mut above = 0;
        for ping in 0..1_000_000 {
            recent.add(READ_COST + FRAME_COST + WRITE_COST + 600, random.draw());
            above += usize::from(recent.class() != Class::FIRST);
            // A tick takes 100 ms.
            if ping % 5 == 4 {
                recent = recent.decayed(1);
            }
        }
        assert!(above < 1000, "{above} of a million");
    }

    // R11
    #[test]
    fn each_class_gets_a_sixteenth_of_exhausted_turns() {
        let mut run = RunQueue::default();
        let mut spent = 0;
        for _ in 0..1600 {
            run.grant(Class::FIRST);
            if run.has_credit(Class::FIRST) {
                run.spend(Class::FIRST, 300_000);
                spent += 300_000;
            }
        }
        let part = 100 * TURN_WORK;
        assert!((part..=part + 300_000).contains(&spent), "{spent}");
    }

    #[test]
    fn large_messages_have_a_larger_share() {
        assert_eq!(Class::FIRST.share(), SMALL_SHARE);
        assert_eq!(Class::FIRST.for_large().share(), LARGE_SHARE);
    }
}
