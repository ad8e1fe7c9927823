//! The rate at which a peer accepts output, on a clock that runs only while this server waits for
//! the peer.

use crate::engine::timer::Tick;

/// Times and amounts of a queue's output. All times are on [`Uptake::clock`], so that a client is
/// not considered slow because this server is busy.
#[derive(Debug, Default)]
pub(crate) struct Uptake {
    /// When the kernel last accepted output, or when the queue was created.
    progressed: Tick,
    /// When the first entry reached the front.
    first_since: Tick,
    /// The start of the period covered by `recent`.
    recent_since: Tick,
    /// Bytes accepted by the kernel recently.
    recent: usize,
    /// The time since which the kernel has had buffer space.
    room_since: Option<Tick>,
    /// Total time during which the kernel had buffer space, but this server sent nothing.
    server_delay: Tick,
}

impl Uptake {
    /// Returns the time on the queue's clock. It stands still while the kernel has buffer space,
    /// because output is then waiting for this server, not for the peer.
    pub(crate) fn clock(&self, now: Tick) -> Tick {
        let now = self.room_since.map_or(now, |since| since.min(now));
        now.saturating_sub(self.server_delay)
    }

    /// Records that the kernel has buffer space.
    pub(crate) fn note_room(&mut self, now: Tick) {
        self.room_since.get_or_insert(now);
    }

    /// Records that the kernel's buffer is full.
    pub(crate) fn note_full(&mut self, now: Tick) {
        if let Some(since) = self.room_since.take() {
            self.server_delay += now.saturating_sub(since);
        }
    }

    /// Records that a first entry has joined an empty queue, at this time on the clock.
    pub(crate) fn begin(&mut self, clock: Tick) {
        self.progressed = clock;
        self.first_since = clock;
        (self.recent_since, self.recent) = (clock, 0);
    }

    /// Records that another entry has reached the front, at this time on the clock.
    pub(crate) fn note_next(&mut self, clock: Tick) {
        self.first_since = clock;
    }

    /// Records that the kernel has accepted bytes, at this time on the clock. After [`RECENT`]
    /// ticks, both the bytes and their period are halved.
    pub(crate) fn note_taken(&mut self, count: usize, clock: Tick) {
        self.progressed = clock;
        self.recent += count;
        let time = clock.saturating_sub(self.recent_since);
        if time >= RECENT {
            self.recent_since += time / 2;
            self.recent /= 2;
        }
    }

    /// Returns how long the first entry has been at the front.
    pub(crate) fn of_first(&self, now: Tick) -> Tick {
        self.clock(now).saturating_sub(self.first_since)
    }

    /// Returns whether the peer has recently accepted at least `pace` bytes per tick, after `grace`
    /// ticks. All messages count, so that a new message at the front brings no further grace.
    pub(crate) fn keeps(&self, pace: usize, now: Tick, grace: Tick) -> bool {
        let time = self.clock(now).saturating_sub(self.recent_since);
        self.recent >= time.saturating_sub(grace) as usize * pace
    }

    /// Returns whether nothing has been accepted for longer than `longest`.
    pub(crate) fn stalls(&self, now: Tick, longest: Tick) -> bool {
        self.clock(now).saturating_sub(self.progressed) > longest
    }
}

/// Bytes per tick that a connection must accept of a large message: 64 KiB per second.
pub(crate) const PACE: usize = 64 * 1024 / 10;
/// Ticks after which earlier progress counts half: eight seconds.
const RECENT: Tick = 80;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_with_kernel_buffer_space_does_not_count() {
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

    #[test]
    fn earlier_progress_counts_half() {
        let mut uptake = Uptake::default();
        uptake.begin(1000);
        uptake.note_taken(60 * PACE, 1000 + RECENT - 1);
        assert!(uptake.keeps(PACE, 1060, 0) && !uptake.keeps(PACE, 1061, 0));
        uptake.note_taken(40 * PACE, 1000 + RECENT);
        // 50 ticks after the middle of the period.
        assert!(uptake.keeps(PACE, 1090, 0) && !uptake.keeps(PACE, 1091, 0));
    }
}
