//! Load shedding: selects the connections to close when total memory use is too high.
//!
//! Owns no account: memory is counted in the ledger ([`Ledger`](crate::Ledger)). A connection is
//! closed only if that frees memory. A connection that reads at a reasonable pace is closed only
//! for memory used by it alone, and one that sends at a reasonable pace only after those that do
//! not.

use super::deadlines::ticks;
use super::{Engine, floor_tick};
use crate::ConnKey;
use crate::conn::Conn;
use crate::conn::lifecycle::Event;
use crate::conn::uptake::PACE;
use crate::engine::timer::Tick;
use crate::handler::Handler;
use crate::io::socket::Socket;

/// A connection with output that could be dropped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct OutputCandidate {
    /// The peer does not read at a reasonable pace.
    is_late: bool,
    /// Bytes that no other connection shares.
    private: usize,
    key: ConnKey,
}

/// A connection with incomplete input.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct InputCandidate {
    /// The peer does not send at a reasonable pace.
    is_late: bool,
    /// Large enough to make a difference.
    is_large: bool,
    /// How long the input has been incomplete.
    age: Tick,
    bytes: usize,
    key: ConnKey,
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Keeps the total output below its limit. From half of the limit on, connections that do not
    /// keep pace are closed, those with the most private memory first. Beyond one and a half times
    /// the limit, connections with much private memory are closed regardless of their pace.
    pub(super) fn shed_load(&mut self) {
        let limit = self.config.queue_total as u64;
        // From half of the limit on, further events wait for memory (`has_room`).
        if self.counters.ledger.output() < limit / 2 {
            self.under_pressure_since = None;
            return;
        }
        let now = floor_tick(self.now);
        let pressed = now.saturating_sub(*self.under_pressure_since.get_or_insert(now));
        let mut candidates = self.output_candidates(pressed);
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        for candidate in candidates {
            let ledger = self.counters.ledger.output();
            let is_needed = match candidate.is_late {
                true => ledger > limit / 8 * 3,
                false => ledger > limit / 2 * 3 && candidate.private >= LARGE_PRIVATE_OUTPUT,
            };
            if is_needed && !(candidate.is_late && self.accepts_output_after_pause(candidate.key)) {
                self.drop_output(candidate.key);
            }
        }
    }

    /// Returns whether a pause of this server explains late output: in the time given back after a
    /// pause, the kernel accepts more of it.
    fn accepts_output_after_pause(&mut self, key: ConnKey) -> bool {
        if self.time_lost(self.config.slow_timeout).is_none() {
            return false;
        }
        let before = self.counters.bytes_out;
        self.write_again(key);
        self.counters.bytes_out > before
    }

    /// Returns the connections with output, after `pressed` ticks of memory pressure.
    fn output_candidates(&self, pressed: Tick) -> Vec<OutputCandidate> {
        let now = floor_tick(self.now);
        let slow = ticks(self.config.slow_timeout);
        let (grace, stall) = (PRESSURE_GRACE.min(slow), STALL.min(slow));
        let mut candidates = Vec::new();
        let mut behind = Vec::new();
        let mut from = 0;
        while let Some(key) = self.arena.next_key(from) {
            from = key.index + 1;
            let Some(conn) = self.arena.get(key) else {
                continue;
            };
            let records = conn.transport.records();
            let Some(tx) = &conn.tx else {
                if records > 0 {
                    candidates.push(OutputCandidate {
                        is_late: conn.transport.stalls(now, stall),
                        private: records,
                        key,
                    });
                }
                continue;
            };
            let is_late =
                !tx.keeps_pace(now, grace, self.config.queue_hard) || tx.uptake.stalls(now, stall);
            if !is_late && tx.is_behind(now, grace) {
                behind.push((candidates.len(), tx));
            }
            candidates.push(OutputCandidate {
                is_late,
                private: tx.private() + records,
                key,
            });
        }
        let pace = required_pace(pressed, behind.len());
        for (index, tx) in behind {
            candidates[index].is_late = pace > PACE && !tx.uptake.keeps(pace, now, grace);
        }
        candidates
    }

    /// Closes a connection and drops its output. A close frame is sent if the message in progress
    /// is short. Otherwise the connection is reset, because the close frame would have to wait for
    /// the very memory that is to be freed.
    fn drop_output(&mut self, key: ConnKey) {
        self.apply(key, Event::ShedOutput);
        let conn = self.arena.get(key);
        if conn.is_some_and(|conn| conn.queued() + conn.transport.records() > SHORT_REMAINDER) {
            self.apply(key, Event::Aborted);
        }
    }

    /// Keeps the total incomplete input below its limit. Connections that do not send at a
    /// reasonable pace are dropped first, then the others; within each group, large input before
    /// small, then the oldest first. Input of connections that are already ending is freed soon and
    /// does not count. If the total still exceeds one and a half times the limit, these connections
    /// are dropped immediately.
    pub(super) fn shed_incomplete(&mut self) {
        let limit = self.config.unfinished_total as u64;
        if self.counters.incomplete_bytes <= limit {
            return;
        }
        let (mut staying, mut going) = self.input_candidates();
        let mut ending: u64 = going.iter().map(|&(bytes, _)| bytes as u64).sum();
        staying.sort_unstable_by(|a, b| b.cmp(a));
        for candidate in staying {
            let threshold = match candidate.is_late {
                true => limit / 4 * 3,
                false => limit / 8 * 7,
            };
            if self.counters.incomplete_bytes - ending <= threshold {
                break;
            }
            let conn = self.arena.get(candidate.key);
            let can_respond = conn.is_some_and(|conn| !conn.transport.is_handshaking());
            self.apply(candidate.key, Event::ShedInput { can_respond });
            let left = self.arena.get(candidate.key).map_or(0, Conn::incomplete);
            ending += left as u64;
            going.push((left, candidate.key));
        }
        going.sort_unstable_by(|a, b| b.cmp(a));
        for (_, key) in going {
            if self.counters.incomplete_bytes <= limit / 2 * 3 {
                return;
            }
            self.apply(key, Event::Lost);
        }
    }

    /// Returns the connections with incomplete input, and separately the bytes and keys of those
    /// that are already ending.
    fn input_candidates(&self) -> (Vec<InputCandidate>, Vec<(usize, ConnKey)>) {
        let now = floor_tick(self.now);
        let (mut staying, mut going) = (Vec::new(), Vec::new());
        let (mut sum, mut squares) = (0_u128, 0_u128);
        for (bytes, since, key) in self.incomplete.iter() {
            let conn = self.arena.get(key);
            if conn.is_some_and(|conn| conn.phase.is_closing()) {
                going.push((bytes, key));
                continue;
            }
            let age = now.saturating_sub(since);
            // Unprocessed input is a delay of this server.
            let is_unread = conn.is_some_and(Conn::has_unread);
            let overtime = age.saturating_sub(PRESSURE_GRACE) as usize;
            sum += bytes as u128;
            squares += bytes as u128 * bytes as u128;
            staying.push(InputCandidate {
                is_late: !is_unread && bytes < overtime * PACE,
                is_large: false,
                age,
                bytes,
                key,
            });
        }
        // The mean over bytes, not over connections: many small inputs do not lower it.
        let large = (squares / sum.max(1) / 8) as usize;
        for candidate in &mut staying {
            candidate.is_large = candidate.bytes >= large;
        }
        (staying, going)
    }
}

/// Returns the pace, in bytes per tick, required of a connection with old output after `pressed`
/// ticks of memory pressure: up to sixteen times [`PACE`], limited by the rate at which the server
/// can be expected to send to all of them.
fn required_pace(pressed: Tick, connections: usize) -> usize {
    let wanted = PACE << (pressed / PRESSURE_GRACE).min(4);
    wanted.min(OUTPUT_RATE / connections.max(1)).max(PACE)
}

/// The assumed total send rate of the server, in bytes per tick: 32 MiB per second, about a third
/// of a gigabit link. Beyond it, the link may be the bottleneck rather than the clients.
const OUTPUT_RATE: usize = 32 * 1024 * 1024 / 10;
/// How long a message may wait at the front of a queue under memory pressure.
const PRESSURE_GRACE: Tick = 20;
/// How long a connection may accept no output at all under memory pressure.
const STALL: Tick = 30;
/// Private output in bytes above which a connection is closed even if it keeps pace. A connection
/// that only receives events has almost none.
const LARGE_PRIVATE_OUTPUT: usize = 16 * 1024;
/// Output in progress, in bytes, that an evicted connection may keep for the close frame after it.
const SHORT_REMAINDER: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn required_pace_rises_with_time_up_to_the_server_send_rate() {
        let second = PRESSURE_GRACE / 2;
        let of = |pressed, connections| required_pace(pressed * second, connections) / PACE;
        assert_eq!(
            [0, 1, 2, 4, 6, 8, 300].map(|time| of(time, 8)),
            [1, 1, 2, 4, 8, 16, 16]
        );
        assert_eq!(
            [8, 32, 64, 128, 512, 4000].map(|all| of(300, all)),
            [16, 16, 8, 4, 1, 1]
        );
    }
}
