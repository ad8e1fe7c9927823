//! How fast a peer takes its output, on a clock that runs only while the peer is waited for.

use super::timer::Tick;

/// Times and amounts of a queue's output. All times are on [`Uptake::clock`], so that a client
/// that reads is not taken for a slow one because this server is busy.
#[derive(Debug, Default)]
pub(super) struct Uptake {
    /// When the kernel last took output, or when the queue was begun.
    progressed: Tick,
    /// When the first entry became the first.
    first_since: Tick,
    /// From when on `recent` counts.
    recent_since: Tick,
    /// Bytes that the kernel has taken lately.
    recent: usize,
    /// Since when the kernel has had room for more.
    room_since: Option<Tick>,
    /// Time for which the kernel had room, but this server sent nothing.
    server_delay: Tick,
}

impl Uptake {
    /// The time on the clock of the queue. It stands still while the kernel has room: output waits
    /// for this server then, not for the peer.
    pub fn clock(&self, now: Tick) -> Tick {
        let now = self.room_since.map_or(now, |since| since.min(now));
        now.saturating_sub(self.server_delay)
    }

    /// The kernel has room.
    pub fn note_room(&mut self, now: Tick) {
        self.room_since.get_or_insert(now);
    }

    /// The kernel is full.
    pub fn note_full(&mut self, now: Tick) {
        if let Some(since) = self.room_since.take() {
            self.server_delay += now.saturating_sub(since);
        }
    }

    /// A first entry joins an empty queue, at this time of the clock.
    pub fn begin(&mut self, clock: Tick) {
        self.progressed = clock;
        self.first_since = clock;
        (self.recent_since, self.recent) = (clock, 0);
    }

    /// Another entry becomes the first, at this time of the clock.
    pub fn note_next(&mut self, clock: Tick) {
        self.first_since = clock;
    }

    /// The kernel has taken bytes, at this time of the clock. From [`RECENT`] on, both the bytes and
    /// their time are halved.
    pub fn note_taken(&mut self, count: usize, clock: Tick) {
        self.progressed = clock;
        self.recent += count;
        let time = clock.saturating_sub(self.recent_since);
        if time >= RECENT {
            self.recent_since += time / 2;
            self.recent /= 2;
        }
    }

    /// How long the first entry has been the first.
    pub fn of_first(&self, now: Tick) -> Tick {
        self.clock(now).saturating_sub(self.first_since)
    }

    /// Whether the peer has lately taken at least `pace` bytes a tick, `grace` ticks aside. All
    /// messages count, so that the next message at the front brings no further grace.
    pub fn keeps(&self, pace: usize, now: Tick, grace: Tick) -> bool {
        let time = self.clock(now).saturating_sub(self.recent_since);
        self.recent >= time.saturating_sub(grace) as usize * pace
    }

    /// Whether nothing has been taken for longer than this.
    pub fn stalls(&self, now: Tick, longest: Tick) -> bool {
        self.clock(now).saturating_sub(self.progressed) > longest
    }
}

/// Bytes in a tick that a connection has to take of a large message: 64 KiB a second.
pub(super) const PACE: usize = 64 * 1024 / 10;
/// Ticks after which earlier progress counts for half: eight seconds.
const RECENT: Tick = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_the_kernel_had_room_does_not_count() {
        let mut uptake = Uptake::default();
        uptake.begin(uptake.clock(1000));
        assert!(!uptake.stalls(1030, 30));
        assert!(uptake.stalls(1031, 30));
        uptake.note_room(1020);
        uptake.note_room(1040);
        assert!(!uptake.stalls(5000, 30));
        assert_eq!(uptake.of_first(5000), 20);
        uptake.note_full(2020);
        uptake.note_full(2022);
        assert!(!uptake.stalls(2030, 30));
        assert!(uptake.stalls(2031, 30));
        uptake.note_taken(3 * PACE, uptake.clock(2031));
        assert!(!uptake.stalls(2061, 30));
        assert!(uptake.keeps(PACE, 2031, 28));
        assert!(!uptake.keeps(PACE, 2031, 27));
    }
}
