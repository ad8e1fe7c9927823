//! Liveness: after any history, once the network is reliable and the peers read, all progress is
//! made within a bounded number of turns, and no timer is lost.
//!
//! The other checks of a simulation find a lost wake-up at the moment at which the engine is idle.
//! Here, the engine sleeps for exactly as long as it asks for, and the outcome counts.

use h_realtime_engine::Interest;

use crate::client::Client;
use crate::frames::ClientEvent;
use crate::sim::{Checked, PollerFaults, Sim};
use crate::socket::{End, Faults};

impl<H: Checked> Sim<H> {
    /// Ends all faults, lets every client that is left read and receive, and checks that
    ///
    /// - all queued output is sent and all input is processed, within a number of turns in
    ///   proportion to its size, without the clock;
    /// - every healthy open connection answers a ping, without the clock;
    /// - every timer fires: each of these connections is sent pings, and all others end.
    ///
    /// Clients that have vanished stay so.
    pub fn check_liveness(&mut self) {
        self.heal();
        self.converge();
        self.check_sent();
        self.check_pings();
        self.check_timers();
        self.check_sent();
        self.check_pings();
    }

    fn heal(&mut self) {
        self.poller_faults = PollerFaults::default();
        self.environment.lift();
        self.environment.unregistered = 0;
        for client in &mut self.clients {
            client.wire.state().faults = Faults::default();
            if is_healthy(client) && !client.has_requested_stream {
                client.finish_part();
            }
        }
    }

    /// Runs turns, with everything delivered and read before each, until nothing moves and the
    /// engine would sleep.
    fn converge(&mut self) {
        let bound = TURNS + self.pending_bytes() / BYTES_PER_TURN;
        for _ in 0..bound {
            let has_moved = self.exchange_all();
            let events = self.poll(0);
            let is_awake = self.environment.has_event() || self.timeout() == 0;
            if events.is_empty() && !has_moved && !is_awake {
                return self.check_quiet();
            }
            self.turn_with(events);
        }
        panic!(
            "still busy after {bound} turns, {} bytes are pending: {:?}",
            self.pending_bytes(),
            self.engine.counters()
        );
    }

    /// Moves everything in flight to and from all clients that have not vanished.
    fn exchange_all(&mut self) -> bool {
        let mut any = false;
        for number in self.active.clone() {
            if self.clients[number].wire.state().has_vanished {
                continue;
            }
            let unread_output = self.clients[number].wire.state().unread_output();
            self.listen(number, usize::MAX);
            any |= self.clients[number].wire.state().deliver(usize::MAX) || unread_output > 0;
        }
        any
    }

    /// Returns the bytes in flight in either direction, and those in the queues of the engine.
    fn pending_bytes(&self) -> usize {
        let on_wires = self.clients.iter().map(|client| {
            let state = client.wire.state();
            state.unread() + state.unread_output()
        });
        let mail = self.environment.mail() * BYTES_PER_COMMAND;
        on_wires.sum::<usize>() + self.engine.counters().queued_bytes as usize + mail
    }

    /// Nothing may be left for a client that reads.
    fn check_sent(&self) {
        for &number in &self.active {
            let client = &self.clients[number];
            let Some(interest) = client.key.and_then(|key| self.engine.interest(key)) else {
                continue;
            };
            let is_reading = !client.wire.state().has_vanished && client.end() == End::Open;
            let result = match is_reading {
                true => check_sent(client, interest),
                false => Ok(()),
            };
            self.judge(number, result);
        }
    }

    /// Every healthy connection answers a ping, and stays open.
    fn check_pings(&mut self) {
        let healthy = self.healthy();
        for &number in &healthy {
            if !self.clients[number].has_requested_stream {
                self.client(number).ping();
            }
        }
        self.converge();
        for number in healthy {
            let client = &self.clients[number];
            let result = match is_healthy(client) {
                true if client.has_newest_pong() => Ok(()),
                true => Err("does not answer a ping".to_owned()),
                false => self.check_closed(number),
            };
            self.judge(number, result);
        }
    }

    /// Sleeps for exactly as long as the engine asks for, until only healthy connections are left.
    fn check_timers(&mut self) {
        let healthy = self.healthy();
        let heartbeats: Vec<usize> = healthy
            .iter()
            .map(|&number| self.heartbeats(number))
            .collect();
        let start = self.clock;
        while self.clock < start + SHORTEST || self.clock < start + LONGEST && self.has_others() {
            let Some(wait) = self.environment.wait() else {
                break;
            };
            let wait = (wait.as_millis() as u64).max(1);
            self.clock = self.clock.saturating_add(wait).min(start + LONGEST);
            self.turn();
            self.converge();
        }
        for number in self.active.clone() {
            let is_left = self.is_registered(number) && !is_healthy(&self.clients[number]);
            let result = match is_left {
                true => Err(format!("is left after {} ms", self.clock - start)),
                false => Ok(()),
            };
            self.judge(number, result);
        }
        if self.is_draining {
            return assert!(self.healthy().is_empty(), "connections after a shutdown");
        }
        for (number, before) in healthy.into_iter().zip(heartbeats) {
            let due = (self.clock - start) / HEARTBEAT;
            let received = (self.heartbeats(number) - before) as u64;
            let result = match is_healthy(&self.clients[number]) {
                true if received >= due => Ok(()),
                true => Err(format!("received {received} heartbeats instead of {due}")),
                false => self.check_closed(number),
            };
            self.judge(number, result);
        }
    }

    /// A healthy connection is closed only by a shutdown or by the application.
    fn check_closed(&self, number: usize) -> Result<(), String> {
        let has_reason =
            self.is_draining || self.engine.handler().has_closed(&self.clients[number]);
        match has_reason {
            true => Ok(()),
            false => Err("was closed although it answers pings".to_owned()),
        }
    }

    fn healthy(&self) -> Vec<usize> {
        let numbers = self.active.iter().copied();
        numbers
            .filter(|&number| is_healthy(&self.clients[number]))
            .collect()
    }

    /// Returns whether the engine has connections besides the healthy ones.
    fn has_others(&self) -> bool {
        let mut numbers = self.active.iter();
        numbers.any(|&number| self.is_registered(number) && !is_healthy(&self.clients[number]))
            || self.is_draining && self.engine.counters().connections > 0
    }

    fn is_registered(&self, number: usize) -> bool {
        self.interest(number).is_some()
    }

    /// Returns the number of pings, or of comments of an event stream, that a client has received.
    fn heartbeats(&self, number: usize) -> usize {
        let events = self.clients[number].events.iter();
        events
            .filter(|event| matches!(event, ClientEvent::Ping(_) | ClientEvent::Comment))
            .count()
    }
}

/// Returns whether a connection must stay open: both sides are open, and have followed the protocol.
fn is_healthy(client: &Client) -> bool {
    let behavior = &client.behavior;
    client.progress.is_open
        && !client.progress.is_closed
        && !behavior.is_wrong
        && !behavior.is_mute
        && !behavior.has_finished
        && !behavior.has_sent_close
        && client.end() == End::Open
}

fn check_sent(client: &Client, interest: Interest) -> Result<(), String> {
    if interest.queued > 0 {
        return Err(format!("has unsent output: {interest:?}"));
    }
    if !client.is_done() && !interest.is_deferred {
        return Err(format!("has unprocessed input: {interest:?}"));
    }
    Ok(())
}

/// The turns for which the engine may be busy, besides those for the bytes.
const TURNS: usize = 500;
/// The least that the engine processes in a turn, on average.
const BYTES_PER_TURN: usize = 100;
/// The output that a command may cause.
const BYTES_PER_COMMAND: usize = 1000;
/// Beyond the longest sum of an interval between pings and of the wait for a pong, in milliseconds.
const SHORTEST: u64 = 65_000;
/// Within this time, all other connections end: even one with queued output, or with several
/// requests that the application does not answer.
const LONGEST: u64 = 400_000;
/// The longest time between two pings.
const HEARTBEAT: u64 = 45_000;
