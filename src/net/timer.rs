//! Deadlines: a hashed wheel whose lists run through the connections themselves.

/// The place of one entry in the wheel; it lives in the connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    next: u32,
    prev: u32,
    deadline: Tick,
}

/// Time in steps of [`TICK_MS`], rounded up where it is a deadline.
pub(super) type Tick = u32;

/// Milliseconds a tick: deadlines here are seconds, and a connection must not be cut early.
pub(super) const TICK_MS: u64 = 100;

/// The tick at or after a moment.
pub(super) fn tick_at(mono_ms: u64) -> Tick {
    mono_ms.div_ceil(TICK_MS) as Tick
}

/// Where the links of the entries are.
pub(super) trait Linked {
    /// The links of an entry, `None` where there is no such entry.
    fn links(&mut self, index: u32) -> Option<&mut Links>;
}

impl Links {
    /// Links of an entry that is not armed.
    pub const fn unarmed() -> Self {
        Links {
            next: NIL,
            prev: UNARMED,
            deadline: 0,
        }
    }

    /// The tick it is armed for.
    pub fn deadline(&self) -> Option<Tick> {
        (self.prev != UNARMED).then_some(self.deadline)
    }
}

/// Every armed entry hangs in the list of its deadline modulo [`SLOTS`], or, once it is due,
/// in the list of the due. Arming, disarming and expiring cost the same whatever there is.
pub(super) struct Wheel {
    heads: [u32; SLOTS],
    /// A bit per slot, set where its list may have entries.
    occupied: [u64; WORDS],
    due: u32,
    /// The last tick whose slot has been looked at.
    now: Tick,
}

impl Wheel {
    pub fn new(now: Tick) -> Self {
        Wheel {
            heads: [NIL; SLOTS],
            occupied: [0; WORDS],
            due: NIL,
            now,
        }
    }

    /// Arms an entry, in place of what it was armed for.
    pub fn arm(&mut self, entries: &mut impl Linked, index: u32, deadline: Tick) {
        self.disarm(entries, index);
        // A deadline that has passed already is due at the next tick.
        let deadline = deadline.max(self.now + 1);
        let slot = deadline as usize % SLOTS;
        self.occupied[slot / 64] |= 1 << (slot % 64);
        let head = std::mem::replace(&mut self.heads[slot], index);
        link(entries, index, head, deadline);
    }

    /// Takes an entry out, if it is in.
    pub fn disarm(&mut self, entries: &mut impl Linked, index: u32) {
        let Some(links) = entries.links(index) else {
            return;
        };
        let Links {
            next,
            prev,
            deadline,
        } = *links;
        if prev == UNARMED {
            return;
        }
        *links = Links::unarmed();
        if let Some(next) = entries.links(next) {
            next.prev = prev;
        }
        if let Some(prev) = entries.links(prev) {
            prev.next = next;
        } else if self.due == index {
            self.due = next;
        } else {
            self.heads[deadline as usize % SLOTS] = next;
        }
    }

    /// Moves on to `now`: what has come due can be popped after that. However far the clock
    /// jumped, every slot is looked at once at the most.
    pub fn advance(&mut self, entries: &mut impl Linked, now: Tick) {
        let steps = now.saturating_sub(self.now).min(SLOTS as Tick);
        let first = now - steps;
        self.now = self.now.max(now);
        for tick in first + 1..=first + steps {
            self.collect(entries, tick as usize % SLOTS);
        }
    }

    /// The next entry that is due; it is disarmed.
    pub fn pop_due(&mut self, entries: &mut impl Linked) -> Option<u32> {
        let index = self.due;
        entries.links(index)?;
        self.disarm(entries, index);
        Some(index)
    }

    /// The tick at which to advance next; `None` while nothing is armed.
    pub fn next_tick(&self) -> Option<Tick> {
        if self.due != NIL {
            return Some(self.now);
        }
        let first = (self.now as usize + 1) % SLOTS;
        // A round of the bit map, word by word; the first word's lower bits come last.
        (0..=WORDS)
            .find_map(|word| {
                let at = (first / 64 + word) % WORDS;
                let mask = match word {
                    0 => u64::MAX << (first % 64),
                    WORDS => !(u64::MAX << (first % 64)),
                    _ => u64::MAX,
                };
                let bits = self.occupied[at] & mask;
                (bits != 0).then(|| at * 64 + bits.trailing_zeros() as usize)
            })
            .map(|slot| self.now + 1 + ((slot + SLOTS - first) % SLOTS) as Tick)
    }

    /// Walks every list: how many entries hang in them, or what is wrong with one.
    pub fn verify(&self, links: impl Fn(u32) -> Option<Links>) -> Result<usize, String> {
        let mut count = verify_list(self.due, &links, |entry| entry.deadline <= self.now)?;
        for (number, word) in self.occupied.iter().enumerate() {
            let mut word = *word;
            while word != 0 {
                let slot = 64 * number + word.trailing_zeros() as usize;
                word &= word - 1;
                count += verify_list(self.heads[slot], &links, |entry| {
                    entry.deadline > self.now && entry.deadline as usize % SLOTS == slot
                })?;
            }
        }
        Ok(count)
    }

    /// Moves the entries of a slot that are due to the list of the due; those of a later
    /// round stay.
    fn collect(&mut self, entries: &mut impl Linked, slot: usize) {
        let mut index = std::mem::replace(&mut self.heads[slot], NIL);
        self.occupied[slot / 64] &= !(1 << (slot % 64));
        while let Some(&mut Links { next, deadline, .. }) = entries.links(index) {
            if deadline <= self.now {
                let head = std::mem::replace(&mut self.due, index);
                link(entries, index, head, deadline);
            } else {
                self.occupied[slot / 64] |= 1 << (slot % 64);
                let head = std::mem::replace(&mut self.heads[slot], index);
                link(entries, index, head, deadline);
            }
            index = next;
        }
    }
}

/// Puts an entry before `head`.
fn link(entries: &mut impl Linked, index: u32, head: u32, deadline: Tick) {
    if let Some(links) = entries.links(index) {
        *links = Links {
            next: head,
            prev: NIL,
            deadline,
        };
    }
    if let Some(head) = entries.links(head) {
        head.prev = index;
    }
}

fn verify_list(
    head: u32,
    links: impl Fn(u32) -> Option<Links>,
    belongs: impl Fn(&Links) -> bool,
) -> Result<usize, String> {
    let (mut count, mut before, mut index) = (0, NIL, head);
    while index != NIL {
        let entry = links(index).ok_or_else(|| format!("{index} is not there"))?;
        if entry.prev != before || !belongs(&entry) {
            return Err(format!("{index} hangs wrongly: {entry:?}"));
        }
        (before, index) = (index, entry.next);
        count += 1;
    }
    Ok(count)
}

/// 51.2 s a round: longer than any deadline of the default configuration.
const SLOTS: usize = 512;
const WORDS: usize = SLOTS / 64;
/// No entry; no arena grows to this index.
const NIL: u32 = u32::MAX;
const UNARMED: u32 = u32::MAX - 1;

#[cfg(test)]
mod tests {
    use super::*;

    struct Entries(Vec<Links>);

    impl Linked for Entries {
        fn links(&mut self, index: u32) -> Option<&mut Links> {
            self.0.get_mut(index as usize)
        }
    }

    fn entries(count: usize) -> Entries {
        Entries(vec![Links::unarmed(); count])
    }

    fn pop_all(wheel: &mut Wheel, entries: &mut Entries, now: Tick) -> Vec<u32> {
        wheel.advance(entries, now);
        let mut due: Vec<_> = std::iter::from_fn(|| wheel.pop_due(entries)).collect();
        due.sort_unstable();
        due
    }

    #[test]
    fn entries_come_due_at_their_tick() {
        let (mut wheel, mut e) = (Wheel::new(0), entries(4));
        wheel.arm(&mut e, 0, 5);
        wheel.arm(&mut e, 1, 5);
        wheel.arm(&mut e, 2, 5 + SLOTS as Tick);
        wheel.arm(&mut e, 3, 7);
        assert_eq!(wheel.next_tick(), Some(5));
        assert_eq!(pop_all(&mut wheel, &mut e, 4), Vec::<u32>::new());
        assert_eq!(pop_all(&mut wheel, &mut e, 5), [0, 1]);
        wheel.disarm(&mut e, 3);
        assert_eq!(pop_all(&mut wheel, &mut e, 100), Vec::<u32>::new());
        assert_eq!(pop_all(&mut wheel, &mut e, 5 + SLOTS as Tick), [2]);
        assert_eq!(wheel.next_tick(), None);
    }

    // W19
    #[test]
    fn a_clock_that_jumps_an_hour_finds_everything_due_once() {
        let (mut wheel, mut e) = (Wheel::new(0), entries(1000));
        for index in 0..1000 {
            wheel.arm(&mut e, index, 1 + index * 3);
        }
        assert_eq!(pop_all(&mut wheel, &mut e, 36_000).len(), 1000);
        assert_eq!(pop_all(&mut wheel, &mut e, 72_000), Vec::<u32>::new());
    }

    #[test]
    fn what_is_due_but_not_popped_can_be_disarmed_and_armed_again() {
        let (mut wheel, mut e) = (Wheel::new(0), entries(3));
        for index in 0..3 {
            wheel.arm(&mut e, index, 2);
        }
        wheel.advance(&mut e, 2);
        wheel.disarm(&mut e, 1);
        wheel.arm(&mut e, 0, 1);
        assert_eq!(wheel.pop_due(&mut e), Some(2));
        assert_eq!(wheel.pop_due(&mut e), None);
        assert_eq!(
            pop_all(&mut wheel, &mut e, 3),
            [0],
            "a past deadline is the next tick"
        );
    }

    // CVE-2026-79677
    #[test]
    fn agrees_with_a_sorted_list() {
        let (mut wheel, mut e) = (Wheel::new(0), entries(200));
        let mut naive: Vec<Option<Tick>> = vec![None; 200];
        let (mut seed, mut now) = (1_u64, 0);
        for _ in 0..20_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let index = (seed >> 33) as u32 % 200;
            match (seed >> 20) % 4 {
                0 | 1 => {
                    let deadline = now + (seed >> 45) as Tick % 2000;
                    wheel.arm(&mut e, index, deadline);
                    naive[index as usize] = Some(deadline.max(now + 1));
                }
                2 => {
                    wheel.disarm(&mut e, index);
                    naive[index as usize] = None;
                }
                _ => {
                    now += (seed >> 50) as Tick % 40;
                    let want: Vec<u32> = (0..200)
                        .filter(|&i| naive[i as usize].is_some_and(|d| d <= now))
                        .collect();
                    assert_eq!(pop_all(&mut wheel, &mut e, now), want);
                    want.iter().for_each(|&i| naive[i as usize] = None);
                }
            }
            let soonest = naive.iter().flatten().min();
            assert!(wheel.next_tick() <= soonest.copied().or(wheel.next_tick()));
            assert!(soonest.is_none() || wheel.next_tick().is_some());
            let naive_slot = (1..=SLOTS as Tick).map(|ahead| now + ahead).find(|tick| {
                let slot = *tick as usize % SLOTS;
                wheel.occupied[slot / 64] & (1 << (slot % 64)) != 0
            });
            assert!(wheel.due != NIL || wheel.next_tick() == naive_slot);
        }
    }
}
