//! Losses of the broker and of the database.

use std::thread;
use std::time::Duration;

use serde_json::json;

use super::feed::Feed;
use crate::store::world::id;
use crate::support::{PATIENCE, Postgres, RabbitMq, Site, eventually};

/// The servers of the tests lose commits in a crash otherwise.
const TOUCH: &str = "SET synchronous_commit = on;
    UPDATE annotation SET updated = now() AT TIME ZONE 'utc'
    WHERE id = '00000001-1111-11e6-8000-000000000001'";

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn changes_during_outages_are_found_at_once() {
    let broker = thread::spawn(RabbitMq::start);
    let database = Postgres::start();
    let broker = broker.join().unwrap();
    let site = Site::on(&database, &broker);
    // Only outages cause sweeps.
    let mut feed = Feed::with(&site, Duration::from_secs(3600));
    feed.settle();
    let update = format!("update {}", id(0x01));

    broker.stop();
    eventually(PATIENCE, || (!feed.stats.broker.is_up()).then_some(()));
    site.sql(TOUCH);
    broker.start_again();
    assert_eq!(feed.line(), update);
    eventually(PATIENCE, || feed.stats.broker.is_up().then_some(()));

    // Events that wait for the database keep their client, and are not sent twice.
    let publisher = site.publisher();
    site.sql(TOUCH);
    database.stop();
    eventually(PATIENCE, || (!feed.stats.database.is_up()).then_some(()));
    publisher.publish(
        "annotation",
        &json!({
            "action": "update", "annotation_id": id(0x01), "src_client_id": "tab",
        }),
    );
    database.start_again();
    assert_eq!(feed.line(), format!("{update} without tab"));
    site.sql(TOUCH);
    database.stop();
    eventually(PATIENCE, || (!feed.stats.database.is_up()).then_some(()));
    database.start_again();
    assert_eq!(feed.line(), update);
}
