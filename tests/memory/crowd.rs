//! Memory of idle connections, each with a client id and a filter of its own, by their number; and of
//! the clients of other servers.
//!
//! `benches/million` measures the same with up to a million connections, and the cost of events.

use h_realtime::realtime::parts::{Digester, Record, start_client_log};
use h_realtime::realtime::{ClientLogDecoder, Cursor};
use h_realtime_test_kit::crowd::{Counted, Crowd};

use crate::{HEAP, alone};

// M8
#[test]
fn connection_takes_the_same_memory_at_any_number_of_connections() {
    let name = "connection_takes_the_same_memory_at_any_number_of_connections";
    alone(module_path!(), name, measure_connections);
}

fn measure_connections() {
    let mut crowd = Crowd::new(*SIZES.last().unwrap());
    let base = HEAP.current_usage();
    for size in SIZES {
        HEAP.reset_peak_usage();
        crowd.arrive(size, Counted::Not);
        let heap = HEAP.current_usage().saturating_sub(base);
        let most = size * EACH + PAGES;
        assert!(heap <= most, "{heap} bytes for {size} connections");
        // A table that doubles would exist twice meanwhile.
        let peak = HEAP.peak_usage().saturating_sub(base);
        assert!(peak <= heap + GROWTH, "{peak} bytes on the way to {heap}");
    }
    crowd.publish(SIZES[0], "annotation", Counted::Not);
    crowd.depart_all(Counted::Not);
    let left = HEAP.current_usage().saturating_sub(base);
    let remembered = crowd.api_counters().remembered_bytes as usize;
    assert!(left <= remembered + PAGES, "{left} bytes are left");
}

// M15
#[test]
fn connected_client_of_another_server_takes_at_most_64_bytes() {
    let name = "connected_client_of_another_server_takes_at_most_64_bytes";
    alone(module_path!(), name, measure_other_clients);
}

fn measure_other_clients() {
    let (seed, mut bytes) = ([1, 2, 3, 4], Vec::with_capacity(1024));
    let digester = Digester::new(seed);
    let base = HEAP.current_usage();
    HEAP.reset_peak_usage();
    let mut decoder = ClientLogDecoder::new(CLIENTS);
    start_client_log(seed, &mut bytes);
    for number in 1..=CLIENTS {
        let client = digester.client_id(&number.to_string());
        Record::Connected(client, Cursor::default()).encode(&mut bytes);
        decoder.feed(&bytes);
        bytes.clear();
    }
    let heap = HEAP.current_usage().saturating_sub(base);
    let most = CLIENTS * 64 + PAGES;
    assert!(heap <= most, "{heap} bytes for {CLIENTS} clients");
    // No table exists twice while it grows.
    let peak = HEAP.peak_usage().saturating_sub(base);
    assert!(peak <= most, "{peak} bytes on the way to {heap}");
    assert_eq!(decoder.finish().clients.len(), CLIENTS);
}

/// Clients of another server.
const CLIENTS: usize = 18_500;
/// Numbers of connections, some of them just beyond a power of two or 7/8 of it.
const SIZES: [usize; 7] = [1_000, 5_000, 8_200, 10_000, 14_400, 16_400, 20_000];
/// Bytes of a connection.
const EACH: usize = 160;
/// Bytes of partly filled pages and of tables for a few entries.
const PAGES: usize = 48 << 10;
/// Bytes that are needed while clients arrive, and the next lists of timers and pages.
const GROWTH: usize = 128 << 10;
