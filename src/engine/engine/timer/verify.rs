//! The invariants of the timer wheel, for tests and simulations only.

use super::{Tick, Timer, Wheel, is_scheduled_in};

impl Wheel {
    /// Verifies all lists. Returns the number of timers with a valid entry, or a description of an
    /// inconsistency.
    pub(crate) fn verify(&self, timer: impl Fn(u32) -> Option<Timer>) -> Result<usize, String> {
        let mut found = Vec::new();
        let mut entries = 0;
        let mut look = |list: &[u32], counts: &dyn Fn(Tick) -> bool| {
            entries += list.len();
            let timer =
                |index: &&u32| timer(**index).is_some_and(|timer| counts(timer.scheduled_at));
            found.extend(list.iter().filter(timer));
        };
        look(&self.due, &|scheduled_at| scheduled_at <= self.now);
        for (_, list) in &self.coming {
            look(list, &|scheduled_at| scheduled_at <= self.now);
        }
        for (number, word) in self.occupied.iter().enumerate() {
            let mut word = *word;
            while word != 0 {
                let slot = 64 * number + word.trailing_zeros() as usize;
                word &= word - 1;
                look(&self.slots[slot], &|scheduled_at| {
                    is_scheduled_in(slot, scheduled_at, self.now)
                });
            }
        }
        found.sort_unstable();
        found.dedup();
        if let Some(late) = found
            .iter()
            .find(|&&index| timer(index).is_some_and(is_late))
        {
            return Err(format!("{late} is scheduled after its deadline"));
        }
        match (entries, found.len()) == (self.entries, self.armed) {
            true => Ok(found.len()),
            false => Err(format!(
                "{entries} entries and {} armed, not {} and {}",
                found.len(),
                self.entries,
                self.armed
            )),
        }
    }
}

fn is_late(timer: Timer) -> bool {
    timer.scheduled_at > timer.deadline
}
