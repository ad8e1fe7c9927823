//! The engine's timer wheel alone, over timers that are in nothing else.

use wheel::{Tick, Timer, Wheel};

// Nothing outside of the engine may name it; so it is built here once more.
#[allow(dead_code, reason = "the engine uses all of it")]
#[path = "../../../src/engine/engine/timer.rs"]
mod wheel;

/// A wheel and the timers that it is for.
pub struct Timers {
    wheel: Wheel,
    entries: Entries,
    /// Those that have come due at once.
    due: Vec<u32>,
}

struct Entries(Vec<Timer>);

impl wheel::Timers for Entries {
    fn timer(&mut self, index: u32) -> Option<&mut Timer> {
        self.0.get_mut(index as usize)
    }
}

impl Timers {
    /// So many timers, none of them armed.
    pub fn new(count: usize) -> Self {
        Timers {
            wheel: Wheel::new(0),
            entries: Entries(vec![Timer::unarmed(); count]),
            due: Vec::new(),
        }
    }

    /// Arms a timer for a tick, in place of what it was armed for.
    pub fn arm(&mut self, index: u32, deadline: u32) {
        let timer = &mut self.entries.0[index as usize];
        self.wheel.arm(timer, index, deadline as Tick);
    }

    /// Disarms a timer.
    pub fn disarm(&mut self, index: u32) {
        self.wheel.disarm(&mut self.entries.0[index as usize]);
    }

    /// What is done in every turn.
    pub fn tidy(&mut self) {
        self.wheel.tidy(&mut self.entries);
    }

    /// Moves on to a tick, and says how many timers have come due.
    pub fn advance(&mut self, now: u32) -> usize {
        self.wheel.advance(now as Tick);
        let mut count = 0;
        while self.wheel.has_due() {
            self.wheel.take_due(&mut self.entries, &mut self.due);
            count += self.due.len();
            self.due.clear();
        }
        count
    }
}
