//! Limits the plans that wait in the reactor for delivery.
//!
//! Owns: the count, and waiting for it to fall. RabbitMQ's prefetch count is no substitute: it must
//! allow for all events that wait for the database, and a small event can have a large plan, which
//! contains the annotation.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use crate::model::{AckGuard, Plan};

/// Counts the plans whose receipts have not been dropped.
#[derive(Clone, Debug, Default)]
pub(super) struct InFlight(Arc<Usage>);

#[derive(Debug, Default)]
struct Usage {
    plans: AtomicUsize,
    /// The total length of the plans' messages.
    bytes: AtomicUsize,
    freed: Notify,
}

impl InFlight {
    /// Counts a plan until the returned receipt has been dropped.
    pub(super) fn admit(&self, plan: &Plan, ack: AckGuard) -> AckGuard {
        let bytes = plan.variants.iter().map(|text| text.len()).sum();
        self.0.plans.fetch_add(1, Ordering::Relaxed);
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
        let usage = Arc::clone(&self.0);
        AckGuard::new(move || {
            usage.plans.fetch_sub(1, Ordering::Relaxed);
            usage.bytes.fetch_sub(bytes, Ordering::Relaxed);
            usage.freed.notify_one();
            drop(ack);
        })
    }

    /// Returns whether no further plan may be made. The last plan admitted may exceed the limit by
    /// any amount.
    pub(super) fn is_full(&self) -> bool {
        self.0.plans.load(Ordering::Relaxed) >= MAX_PLANS
            || self.0.bytes.load(Ordering::Relaxed) >= MAX_BYTES
    }

    /// Waits until there is room.
    pub(super) async fn wait(&self) {
        while self.is_full() {
            // `Notify` stores a wakeup from between the check and this call.
            self.0.freed.notified().await;
        }
    }
}

/// The maximum number of plans that wait in the reactor.
pub(super) const MAX_PLANS: usize = 256;
/// The maximum total length of their messages, in bytes. The last one may exceed it.
pub(super) const MAX_BYTES: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Candidates, Cause, EventKind, Stamp, Subject};

    fn plan(size: usize) -> Plan {
        Plan {
            kind: EventKind::Create,
            subject: Subject::Annotation("a".into()),
            stamp: Stamp::default(),
            cause: Cause::Event,
            candidates: Candidates::User("acct:a@b".into()),
            exclude_client: None,
            rules: Vec::new(),
            variants: vec!["x".repeat(size).into()],
        }
    }

    #[test]
    fn room_is_limited_by_count_and_bytes_until_receipts_are_dropped() {
        let dropped = Arc::new(AtomicUsize::new(0));
        let ack = || {
            let dropped = Arc::clone(&dropped);
            AckGuard::new(move || {
                dropped.fetch_add(1, Ordering::Relaxed);
            })
        };
        let in_flight = InFlight::default();
        let large = in_flight.admit(&plan(MAX_BYTES), ack());
        assert!(in_flight.is_full());
        drop(large);
        assert!(!in_flight.is_full());
        let mut small: Vec<_> = (0..MAX_PLANS)
            .map(|_| in_flight.admit(&plan(1), ack()))
            .collect();
        assert!(in_flight.is_full());
        assert_eq!(dropped.load(Ordering::Relaxed), 1);
        small.pop();
        assert!(!in_flight.is_full());
        assert_eq!(dropped.load(Ordering::Relaxed), 2);
    }
}
