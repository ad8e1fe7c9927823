//! The ledger of memory that peers and publishers make the engine hold.

/// Bytes held now, by kind. Each piece counts once, however many connections use it, and as long
/// as it is held: a buffer of which a part has been sent counts whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Output that belongs to single connections: their queues, and replies in them.
    pub queues: u64,
    /// Messages that several connections share and that are queued or about to be.
    pub frames: u64,
    /// TLS records that sockets have not taken.
    pub records: u64,
    /// Deliveries that are under way: their receivers, and the tables that merge them.
    pub receivers: u64,
    /// Input that is incomplete or has yet to be processed.
    pub input: u64,
    /// Bodies of requests that are arriving.
    pub bodies: u64,
}

impl Held {
    /// Output of all kinds, limited by [`Config::queue_total`](super::Config::queue_total).
    pub fn output(&self) -> u64 {
        self.queues + self.frames + self.records + self.receivers
    }

    /// Everything.
    pub fn total(&self) -> u64 {
        self.output() + self.input + self.bodies
    }
}

/// Replaces an amount that is part of a sum.
pub(super) fn recount(sum: &mut u64, counted: &mut usize, now: usize) {
    *sum += now as u64;
    *sum -= *counted as u64;
    *counted = now;
}
