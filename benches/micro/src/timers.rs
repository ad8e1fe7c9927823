//! The engine's timer wheel alone, over links that are in nothing else.

use wheel::{Linked, Links, Tick, Wheel};

// Nothing outside of the engine may name it; so it is built here once more.
#[allow(dead_code, reason = "the engine uses all of it")]
#[path = "../../../src/net/timer.rs"]
mod wheel;

/// A wheel and its entries.
pub struct Timers {
    wheel: Wheel,
    entries: Entries,
}

struct Entries(Vec<Links>);

impl Linked for Entries {
    fn links(&mut self, index: u32) -> Option<&mut Links> {
        self.0.get_mut(index as usize)
    }
}

impl Timers {
    /// So many entries, none of them armed.
    pub fn new(count: usize) -> Self {
        Timers {
            wheel: Wheel::new(0),
            entries: Entries(vec![Links::unarmed(); count]),
        }
    }

    /// Arms an entry for a tick, in place of what it was armed for.
    pub fn arm(&mut self, index: u32, deadline: u32) {
        self.wheel.arm(&mut self.entries, index, deadline as Tick);
    }

    /// Disarms an entry.
    pub fn disarm(&mut self, index: u32) {
        self.wheel.disarm(&mut self.entries, index);
    }

    /// Moves on to a tick, and says how many entries have come due.
    pub fn advance(&mut self, now: u32) -> usize {
        self.wheel.advance(&mut self.entries, now as Tick);
        let mut due = 0;
        while self.wheel.pop_due(&mut self.entries).is_some() {
            due += 1;
        }
        due
    }
}
