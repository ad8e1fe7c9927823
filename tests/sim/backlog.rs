//! Connections waiting to be accepted, and the reactor's retry policy when descriptors run out or
//! the poller rejects a socket.

use std::collections::VecDeque;

/// A listener's backlog, and the descriptors of the process.
pub struct Backlog<T> {
    waiting: VecDeque<T>,
    /// The number of connections for which there are descriptors.
    pub descriptors: usize,
    /// How often the poller rejects a socket, in percent.
    pub unregistered: u32,
    /// When to retry after a failure, since waiting connections cause no new edge.
    retry: Option<u64>,
    /// The failure was not a lack of descriptors.
    is_refused: bool,
}

/// The result of `accept`.
pub enum Accept<T> {
    One(T),
    /// EMFILE.
    NoDescriptor,
    /// No connection is waiting, or the retry is not due.
    Nothing,
}

impl<T> Backlog<T> {
    pub fn new() -> Self {
        Backlog {
            waiting: VecDeque::new(),
            descriptors: usize::MAX,
            unregistered: 0,
            retry: None,
            is_refused: false,
        }
    }

    pub fn push(&mut self, arrival: T) {
        self.waiting.push_back(arrival);
    }

    /// Accepts the next connection if `connections` leave a free descriptor.
    pub fn accept(&mut self, clock: u64, connections: u64) -> Accept<T> {
        if self.retry.is_some_and(|at| clock < at) {
            return Accept::Nothing;
        }
        self.retry = None;
        self.is_refused = false;
        if !self.waiting.is_empty() && connections >= self.descriptors as u64 {
            self.retry = Some(clock + RETRY);
            return Accept::NoDescriptor;
        }
        self.waiting
            .pop_front()
            .map_or(Accept::Nothing, Accept::One)
    }

    /// The poller has rejected the connection accepted last.
    pub fn refuse(&mut self, clock: u64) {
        self.retry = Some(clock + RETRY);
        self.is_refused = true;
    }

    /// The engine has freed connections.
    pub fn reaped(&mut self) {
        self.retry = None;
    }

    /// Removes the limit on descriptors.
    pub fn lift(&mut self) {
        self.descriptors = usize::MAX;
        self.retry = None;
    }

    /// Returns the milliseconds until the next retry.
    pub fn timeout(&self, clock: u64) -> u64 {
        match self.retry {
            Some(at) => at.saturating_sub(clock),
            None if self.waiting.is_empty() => u64::MAX,
            None => 0,
        }
    }

    /// Checks at rest that no connection is waiting although there is a descriptor.
    pub fn check_quiet(&self, connections: u64) -> Result<(), String> {
        let is_right = self.is_refused || connections >= self.descriptors as u64;
        match self.waiting.is_empty() || is_right {
            true => Ok(()),
            false => Err(format!(
                "{} connections wait although there are descriptors",
                self.waiting.len()
            )),
        }
    }
}

/// The reactor's interval, in milliseconds.
const RETRY: u64 = 100;
