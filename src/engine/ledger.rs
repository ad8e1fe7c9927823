//! The ledger of memory that the engine holds on behalf of peers and publishers.

/// Bytes currently held, by kind. Shared memory counts once, regardless of the number of
/// connections that use it. A partially sent buffer counts in full as long as it is allocated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Ledger {
    /// Private output: the queues of single connections, and replies in them.
    pub queues: u64,
    /// Shared messages that are queued or about to be.
    pub frames: u64,
    /// TLS records that sockets have not accepted.
    pub records: u64,
    /// Pending deliveries: their receivers, and the tables that merge them.
    pub receivers: u64,
    /// Input that is incomplete or not yet processed.
    pub input: u64,
    /// Request bodies that are being received, with their heads.
    pub bodies: u64,
}

impl Ledger {
    /// Returns the output of all kinds, limited by
    /// [`Config::queue_total`](crate::Config::queue_total).
    pub fn output(&self) -> u64 {
        self.queues + self.frames + self.records + self.receivers
    }

    /// Returns the total.
    pub fn total(&self) -> u64 {
        self.output() + self.input + self.bodies
    }
}

/// Replaces an amount that is part of a sum.
pub(crate) fn recount(sum: &mut u64, counted: &mut usize, now: usize) {
    *sum += now as u64;
    *sum -= *counted as u64;
    *counted = now;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_is_part_of_the_total() {
        let ledger = Ledger {
            queues: 1,
            frames: 10,
            records: 100,
            receivers: 1000,
            input: 10_000,
            bodies: 100_000,
        };
        assert_eq!((ledger.output(), ledger.total()), (1111, 111_111));
    }

    #[test]
    fn recounted_amount_replaces_the_last_one() {
        let (mut sum, mut counted) = (100, 0);
        for (now, want) in [(7, 107), (3, 103), (0, 100)] {
            recount(&mut sum, &mut counted, now);
            assert_eq!((sum, counted), (want, now));
        }
    }
}
