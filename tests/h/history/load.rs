//! The load on PostgreSQL: the processor time of the connection, with and without sweeps.
//!
//! `SWEEP_LOAD=60 cargo test --release --all-features --test h -- --ignored --nocapture sweep_load`
//! measures for a minute each with 100,000 rows, as in docs/replacing-h.md. Otherwise, the load and
//! the time are small.

use std::fs;
use std::time::{Duration, Instant};

use serde_json::json;

use super::feed::Feed;
use crate::support::Site;

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn sweep_load_is_small() {
    let seconds = std::env::var("SWEEP_LOAD").ok();
    let seconds: u64 = seconds.map_or(3, |text| text.parse().unwrap());
    let rows = if seconds < 60 { 5_000 } else { 100_000 };
    let site = Site::new();
    site.sql(&format!(
        "INSERT INTO annotation (created, updated, userid, groupid, text, shared, target_uri, document_id)
         SELECT time, time, 'acct:user' || number % 5000 || '@localhost', '__world__',
             repeat('text ', 40), true, 'http://example.com/page', 1
         FROM (
             SELECT number, now() AT TIME ZONE 'utc' - number * interval '6 seconds' AS time
             FROM generate_series(1, {rows}) AS number
         ) AS numbered;
         INSERT INTO \"user\" (username, authority)
         SELECT 'user' || number, 'localhost' FROM generate_series(0, 4999) AS number;
         ANALYZE"
    ));
    let without = measure(&site, Duration::from_secs(3600), seconds);
    let each_minute = measure(&site, Duration::from_secs(60), seconds);
    let each_second = measure(&site, Duration::from_secs(1), seconds);
    let per_sweep = (each_second.processor.saturating_sub(without.processor)).as_secs_f64()
        * 1000.0
        / each_second.sweeps as f64;
    println!(
        "{rows} rows, {} held, {EVENTS_PER_SECOND} events a second for {seconds} s; processor time \
         of PostgreSQL: {:?} without sweeps, {:?} with {} at 60 s, {:?} with {} at 1 s: {per_sweep:.2} \
         ms per sweep; statements: {}, {}, {}",
        without.held,
        without.processor,
        each_minute.processor,
        each_minute.sweeps,
        each_second.processor,
        each_second.sweeps,
        without.statements,
        each_minute.statements,
        each_second.statements,
    );
    println!("{}", site.sql(EXPLAIN));
    // A debug build of this program does not change the load on PostgreSQL.
    assert!(per_sweep < 250.0, "{per_sweep}");
}

struct Load {
    held: usize,
    sweeps: u64,
    statements: u64,
    processor: Duration,
}

/// Creates annotations and publishes their events, and measures the connection to the database.
fn measure(site: &Site, interval: Duration, seconds: u64) -> Load {
    use std::sync::atomic::Ordering::Relaxed;
    let mut feed = Feed::with(site, interval);
    let publisher = site.publisher();
    match interval > Duration::from_secs(10) {
        true => feed.settle(),
        false => feed.wait_for_sweeps(3),
    }
    let (sweeps, statements) = (feed.sweeps(), feed.stats.statements.load(Relaxed));
    let (processor, began) = (processor_time(site), Instant::now());
    for number in 0..seconds * EVENTS_PER_SECOND {
        let created = site.sql(
            "INSERT INTO annotation (created, updated, userid, text, shared, target_uri, document_id)
             VALUES (now() AT TIME ZONE 'utc', now() AT TIME ZONE 'utc',
                 'acct:user' || floor(random() * 5000) || '@localhost', repeat('text ', 40), true,
                 'http://example.com/page', 1)
             RETURNING rtrim(translate(encode(uuid_send(id), 'base64'), '+/', '-_'), '=')",
        );
        let id = created.lines().next().unwrap();
        let event = json!({"action": "create", "annotation_id": id, "src_client_id": "tab"});
        publisher.publish("annotation", &event);
        let line = feed.line();
        assert!(line.starts_with("create "), "{line}");
        let due = Duration::from_millis((number + 1) * 1000 / EVENTS_PER_SECOND);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
    feed.wait_for_quiet();
    Load {
        held: feed.restored.len(),
        sweeps: feed.sweeps() - sweeps,
        statements: feed.stats.statements.load(Relaxed) - statements,
        processor: processor_time(site).saturating_sub(processor),
    }
}

/// Returns the processor time of the server's process for the connection.
fn processor_time(site: &Site) -> Duration {
    let pid = site.sql(
        "SELECT pid FROM pg_stat_activity
         WHERE application_name = 'h-realtime' AND datname = current_database()",
    );
    let stat = fs::read_to_string(format!("/proc/{}/schedstat", pid.trim())).unwrap();
    let nanoseconds = stat.split(' ').next().unwrap().parse().unwrap();
    Duration::from_nanos(nanoseconds)
}

const EVENTS_PER_SECOND: u64 = 10;
const EXPLAIN: &str = "EXPLAIN ANALYZE
    SELECT id, updated, deleted, moderation_status::text,
        coalesce(octet_length(text), 0)::bigint + coalesce(pg_column_size(target_selectors), 0)
        + pg_column_size(extra) AS size
    FROM annotation
    WHERE updated >= now() AT TIME ZONE 'utc' - interval '90 seconds'
    AND (updated, id) > (now() AT TIME ZONE 'utc' - interval '90 seconds',
        'ffffffff-ffff-ffff-ffff-ffffffffffff')
    AND updated < 'infinity'
    ORDER BY updated, id LIMIT 1000";
