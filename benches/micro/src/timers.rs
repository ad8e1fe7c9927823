//! The engine's timer wheel alone, over standalone timers.

use wheel::{Tick, Timer, Wheel};

// The module is private to the engine, so it is compiled here a second time.
#[allow(dead_code, reason = "the engine uses all of it")]
#[path = "../../../src/engine/engine/timer.rs"]
mod wheel;

/// A wheel and its timers.
pub struct Timers {
    wheel: Wheel,
    entries: Entries,
    /// Timers that are due together.
    due: Vec<u32>,
}

struct Entries(Vec<Timer>);

impl wheel::Timers for Entries {
    fn timer(&mut self, index: u32) -> Option<&mut Timer> {
        self.0.get_mut(index as usize)
    }
}

impl Timers {
    /// Creates `count` timers, none of them armed.
    pub fn new(count: usize) -> Self {
        Timers {
            wheel: Wheel::new(0),
            entries: Entries(vec![Timer::unarmed(); count]),
            due: Vec::new(),
        }
    }

    /// Arms or re-arms a timer for a tick.
    pub fn arm(&mut self, index: u32, deadline: u32) {
        let timer = &mut self.entries.0[index as usize];
        self.wheel.arm(timer, index, deadline as Tick);
    }

    /// Disarms a timer.
    pub fn disarm(&mut self, index: u32) {
        self.wheel.disarm(&mut self.entries.0[index as usize]);
    }

    /// Does the maintenance of every turn.
    pub fn tidy(&mut self) {
        self.wheel.tidy(&mut self.entries);
    }

    /// Advances to a tick and returns the number of timers that are due.
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
