//! Heartbeats while the server sends events to all clients without a break.

use std::ops::Range;
use std::time::Duration;

use h_realtime_engine::{Config, Mail};

use crate::api::Command;
use crate::environment::FRESH;

use super::{Crowd, event, sockets};

/// The heartbeats of a saturated server.
#[derive(Clone, Copy, Debug, Default)]
pub struct Saturation {
    pub turns: usize,
    /// Notifications of events.
    pub deliveries: usize,
    pub pings: usize,
    /// The longest time between two pings of a client, and between its arrival and the first one, in
    /// milliseconds.
    pub longest_interval: u64,
    /// The clients whose connections the server has closed.
    pub closed: usize,
}

impl Crowd {
    /// Creates a server like [`Crowd::new`], with the default interval of heartbeats, and clients that
    /// also filter for a page that they share.
    pub fn for_saturation(connections: usize) -> Self {
        let interval = Config::default().ping_interval;
        Crowd::with(connections, interval, Some(SHARED_PAGE))
    }

    /// Publishes an event for all clients whenever the last one has been delivered. Each turn takes the
    /// time of its writes: `delivery` for a notification, and `heartbeat` for a ping and its pong.
    pub fn saturate(
        &mut self,
        time: Duration,
        delivery: Duration,
        heartbeat: Duration,
    ) -> Saturation {
        let clients = self.keys.len();
        let (start, open) = (self.clock, self.engine.counters().open);
        let mut last_pings = vec![start; clients];
        let mut result = Saturation::default();
        let (mut published, mut elapsed) = (0, Duration::ZERO);
        let mut pinged = Vec::new();
        sockets::take_output();
        sockets::clear_input();
        let pong = sockets::store(&self.pong);
        self.answer_pings(&pong, &mut pinged);
        pinged.clear();
        while elapsed < time {
            if result.deliveries >= published * clients {
                published += 1;
                let plan = event(SHARED_PAGE, "shared");
                self.environment.send(Mail::Command(Command::Event(plan)));
            }
            self.turn();
            let writes = sockets::take_output().writes;
            self.answer_pings(&pong, &mut pinged);
            let deliveries = writes - pinged.len();
            result.turns += 1;
            result.deliveries += deliveries;
            result.pings += pinged.len();
            for number in &pinged {
                let last = &mut last_pings[*number as usize];
                let last = std::mem::replace(last, self.clock);
                result.longest_interval = result.longest_interval.max(self.clock - last);
            }
            pinged.clear();
            elapsed += IDLE_TURN + delivery * deliveries as u32;
            elapsed += heartbeat * (writes - deliveries) as u32;
            self.clock = start + elapsed.as_millis() as u64;
        }
        let waiting = last_pings.iter().map(|last| self.clock - last).max();
        result.longest_interval = result.longest_interval.max(waiting.unwrap_or_default());
        sockets::clear_input();
        result.closed = (open - self.engine.counters().open) as usize;
        result
    }

    /// Clients that have been sent a ping answer it in the next turn. Appends them to `pinged`.
    fn answer_pings(&mut self, pong: &Range<u32>, pinged: &mut Vec<u32>) {
        sockets::take_pinged(pinged);
        for number in pinged.iter() {
            sockets::send_stored(*number, pong.clone());
            self.environment.ready(self.keys[*number as usize], FRESH);
        }
    }
}

/// The page that all clients have in their filters.
const SHARED_PAGE: &str = "https://example.org/articles/shared.html";
/// The time of a turn that sends nothing.
const IDLE_TURN: Duration = Duration::from_micros(20);
