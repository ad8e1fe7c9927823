//! Connections that wait to be accepted, and the reactor's way with them where descriptors run
//! out or a poller does not take a socket.

use std::collections::VecDeque;

/// A listener's backlog, and the descriptors of the process.
pub struct Backlog<T> {
    waiting: VecDeque<T>,
    /// Connections that there are descriptors for.
    pub descriptors: usize,
    /// How often a poller does not take a socket, in percent.
    pub unregistered: u32,
    /// When to try again after a failure: what waits makes no new edge.
    retry: Option<u64>,
    /// It was not for want of descriptors.
    is_refused: bool,
}

/// What `accept` says.
pub enum Accept<T> {
    One(T),
    /// EMFILE.
    NoDescriptor,
    /// Nobody waits, or it is not tried now.
    Nobody,
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

    /// The next one, while so many connections have descriptors already.
    pub fn accept(&mut self, clock: u64, connections: u64) -> Accept<T> {
        if self.retry.is_some_and(|at| clock < at) {
            return Accept::Nobody;
        }
        self.retry = None;
        self.is_refused = false;
        if !self.waiting.is_empty() && connections >= self.descriptors as u64 {
            self.retry = Some(clock + RETRY);
            return Accept::NoDescriptor;
        }
        self.waiting.pop_front().map_or(Accept::Nobody, Accept::One)
    }

    /// The poller has not taken the one that was accepted last.
    pub fn refuse(&mut self, clock: u64) {
        self.retry = Some(clock + RETRY);
        self.is_refused = true;
    }

    /// The engine has freed connections.
    pub fn reaped(&mut self) {
        self.retry = None;
    }

    /// From now on there are descriptors for everybody.
    pub fn lift(&mut self) {
        self.descriptors = usize::MAX;
        self.retry = None;
    }

    /// Milliseconds until it is tried again.
    pub fn timeout(&self, clock: u64) -> u64 {
        match self.retry {
            Some(at) => at.saturating_sub(clock),
            None if self.waiting.is_empty() => u64::MAX,
            None => 0,
        }
    }

    /// All is quiet: nobody waits for whom there is a descriptor.
    pub fn check_quiet(&self, connections: u64) -> Result<(), String> {
        let is_right = self.is_refused || connections >= self.descriptors as u64;
        match self.waiting.is_empty() || is_right {
            true => Ok(()),
            false => Err(format!("{} wait, and there is room", self.waiting.len())),
        }
    }
}

/// The reactor's, in milliseconds.
const RETRY: u64 = 100;
