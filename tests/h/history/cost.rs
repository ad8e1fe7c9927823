//! The cost of sweeps.

use std::sync::atomic::Ordering;

use super::feed::Feed;
use crate::support::{PATIENCE, Site, eventually};

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn sweep_has_a_fixed_number_of_statements() {
    let site = Site::new();
    site.sql("UPDATE annotation SET updated = now() AT TIME ZONE 'utc' - interval '1 hour'");
    let mut feed = Feed::start(&site);
    feed.wait_for_sweeps(3);
    let statements = |feed: &Feed| feed.stats.statements.load(Ordering::Relaxed);
    // A count between two sweeps belongs to complete ones.
    let cost = eventually(PATIENCE, || {
        let (sweeps, before) = (feed.sweeps(), statements(&feed));
        feed.wait_for_sweeps(10);
        let cost = (statements(&feed) - before) as f64 / (feed.sweeps() - sweeps) as f64;
        (cost == PER_SWEEP).then_some(cost)
    });
    assert_eq!(cost, PER_SWEEP);
}

/// Five in a transaction for changes, and two for rights.
const PER_SWEEP: f64 = 7.0;
