//! Deliveries: one message, or several, to many connections, a slice in each turn.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::mem;
use std::rc::Rc;

use super::super::ConnKey;
use super::super::conn::Conn;
use super::super::frame::{Delivery, Frame};
use super::super::handler::Handler;
use super::super::socket::Socket;
use super::{Engine, FAN_OUT_BUDGET};

/// The deliveries under way.
///
/// They go in waves: a wave is all deliveries that were waiting when it began, and it visits
/// the connections in the order of their slots. So a connection gets what the wave has for it
/// in one write, and in the order in which it was said; and a wave never overtakes another.
#[derive(Default)]
pub(super) struct FanOut {
    waiting: Vec<Delivery>,
    wave: Vec<Progress>,
    /// The next receiver of each delivery of the wave, by key, then by delivery.
    heads: BinaryHeap<Reverse<(ConnKey, usize)>>,
    /// Receivers still to be served, each delivery's counted.
    backlog: usize,
}

struct Progress {
    delivery: Delivery,
    next: usize,
}

/// What a wave has for one connection.
#[derive(Default)]
struct Share {
    frames: Vec<Rc<Frame>>,
    /// For each frame, when what it tells of had arrived.
    since: Vec<Option<u64>>,
}

impl FanOut {
    pub fn push(&mut self, mut delivery: Delivery) {
        if delivery.to.is_empty() {
            return;
        }
        delivery.to.sort_unstable_by_key(|(key, _)| *key);
        self.backlog += delivery.to.len();
        self.waiting.push(delivery);
    }

    pub fn backlog(&self) -> usize {
        self.backlog
    }

    /// Whether the backlog is what is left to do; says what is not.
    pub fn verify(&self) -> Result<(), String> {
        let waiting: usize = self.waiting.iter().map(|delivery| delivery.to.len()).sum();
        let left = |progress: &Progress| progress.delivery.to.len().saturating_sub(progress.next);
        let under_way: usize = self.wave.iter().map(left).sum();
        match waiting + under_way == self.backlog {
            true => Ok(()),
            false => Err(format!(
                "{waiting} and {under_way} are to be served, not {}",
                self.backlog
            )),
        }
    }

    /// The next connection of the wave, with all that the wave has for it. A wave that is over
    /// makes room for the next.
    fn next(&mut self, share: &mut Share) -> Option<ConnKey> {
        if self.heads.is_empty() {
            self.begin_wave();
        }
        let Reverse((key, _)) = *self.heads.peek()?;
        while let Some(Reverse((head, number))) = self.heads.peek().copied()
            && head == key
        {
            self.heads.pop();
            let Some(progress) = self.wave.get_mut(number) else {
                continue;
            };
            if let Some((_, variant)) = progress.delivery.to.get(progress.next) {
                if let Some(frame) = progress.delivery.frames.get(usize::from(*variant)) {
                    share.frames.push(Rc::clone(frame));
                    share.since.push(progress.delivery.since);
                }
                self.backlog -= 1;
            }
            progress.next += 1;
            if let Some((next, _)) = progress.delivery.to.get(progress.next) {
                self.heads.push(Reverse((*next, number)));
            } else {
                // Its memory need not wait for the wave's end.
                progress.delivery = Delivery::default();
            }
        }
        Some(key)
    }

    fn begin_wave(&mut self) {
        self.wave = mem::take(&mut self.waiting)
            .into_iter()
            .map(|delivery| Progress { delivery, next: 0 })
            .collect();
        for (number, progress) in self.wave.iter().enumerate() {
            if let Some((key, _)) = progress.delivery.to.first() {
                self.heads.push(Reverse((*key, number)));
            }
        }
    }
}

impl<S: Socket, H: Handler> Engine<S, H> {
    /// Serves deliveries, within a turn's budget of connections.
    pub(super) fn serve_fan_out(&mut self) {
        let mut fan_out = mem::take(&mut self.fan_out);
        let mut share = Share::default();
        for _ in 0..FAN_OUT_BUDGET {
            let Some(key) = fan_out.next(&mut share) else {
                break;
            };
            let sent = match self.arena.get(key).is_some_and(Conn::is_open) {
                true => self.send_shared(key, &mut share.frames),
                false => 0,
            };
            self.counters.messages_out += sent as u64;
            self.counters.undelivered += (share.frames.len() - sent) as u64;
            share.frames.clear();
            for since in share.since.drain(..).take(sent).flatten() {
                self.written.add(since);
            }
        }
        // What handlers say meanwhile is recorded in the outbox, and comes here after it.
        self.fan_out = fan_out;
    }
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

    fn all(fan_out: &mut FanOut) -> Vec<(u32, String)> {
        let mut out = Vec::new();
        let mut share = Share::default();
        while let Some(key) = fan_out.next(&mut share) {
            let text: String = share
                .frames
                .drain(..)
                .map(|frame| String::from_utf8_lossy(&frame.bytes()[2..]).into_owned())
                .collect();
            out.push((key.index, text));
        }
        out
    }

    #[test]
    fn a_wave_gives_each_connection_all_it_has_in_the_order_it_was_said() {
        let mut fan_out = FanOut::default();
        fan_out.push(delivery("a", &[3, 1, 2]));
        fan_out.push(delivery("b", &[2, 9]));
        fan_out.push(delivery("c", &[]));
        fan_out.push(delivery("d", &[2, 2, 1]));
        assert_eq!(fan_out.backlog(), 8);
        let want = [(1, "ad"), (2, "abdd"), (3, "a"), (9, "b")].map(|(k, t)| (k, t.to_owned()));
        assert_eq!(all(&mut fan_out), want);
        assert_eq!(fan_out.backlog(), 0);
    }

    #[test]
    fn what_is_said_during_a_wave_waits_for_the_next() {
        let mut fan_out = FanOut::default();
        fan_out.push(delivery("a", &[1, 5]));
        assert_eq!(fan_out.next(&mut Share::default()), Some(key(1)));
        fan_out.push(delivery("b", &[1, 5]));
        assert_eq!(all(&mut fan_out).len(), 3);
    }
}
