//! The comparison: the memory allocated for peers and publishers matches the ledger up to
//! constants.

use h_realtime_engine::Ledger;

use crate::alone;

use super::peer::Tls;
use super::site::{HOLDS, Hold, Site};
use super::tls::tls;

// M14
#[test]
fn memory_allocated_for_peers_is_in_the_ledger() {
    let name = "memory_allocated_for_peers_is_in_the_ledger";
    alone(module_path!(), name, || play(tls()));
}

fn play(tls: Option<Tls>) {
    for seed in 0..SEEDS {
        let hold = HOLDS[seed as usize % HOLDS.len()];
        eprintln!("seed {seed}: {hold:?}");
        // Turns with many connections take longer.
        let steps = if hold == Hold::ManyConnections {
            STEPS / 4
        } else {
            STEPS
        };
        Site::new(seed, tls.clone()).play(hold, steps);
    }
}

/// The memory in use, and its accounts.
pub struct Account {
    /// Bytes that the engine and the API have allocated beyond the idle state.
    pub allocated: i64,
    pub held: Ledger,
    /// Bytes of the index of filters.
    pub filters: u64,
    /// Bytes of events that have not become deliveries.
    pub events: usize,
    /// The largest number at once: tables keep their size until the next tick.
    pub connections: usize,
    pub tls_connections: usize,
}

impl Account {
    pub fn check(&self) {
        let counted = (self.held.total() + self.filters) as usize + self.events;
        let constant = self.connections * PER_CONNECTION
            + self.tls_connections * PER_TLS_CONNECTION
            + PER_REACTOR;
        let excess = self.allocated - (counted + constant) as i64;
        assert!(
            excess <= 0,
            "{excess} allocated bytes are not counted: {} allocated; {:?}, {} of filters, {} of events; \
             {constant} allowed for {} connections, {} with TLS",
            self.allocated,
            self.held,
            self.filters,
            self.events,
            self.connections,
            self.tls_connections,
        );
    }
}

/// The slot and session, entries in tables of up to twice the required size, the boxes around a
/// partial or deferred request, and a ping without a pong.
const PER_CONNECTION: usize = 320;
/// The session of the TLS library during its handshake.
const PER_TLS_CONNECTION: usize = 2048;
/// Retained capacity of tables, and the buffer for replies.
const PER_REACTOR: usize = 64 * 1024;
/// Two seeds for each way of holding memory.
const SEEDS: u64 = 28;
const STEPS: usize = 100;
