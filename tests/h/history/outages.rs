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

// PostgreSQL cancels statements after four seconds, for example during a migration of h.
#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn change_is_found_after_statements_have_timed_out() {
    let site = Site::new();
    let mut feed = Feed::start(&site);
    feed.wait_for_sweeps(2);
    let timeouts = || {
        let text = site
            .sql("SELECT xact_rollback FROM pg_stat_database WHERE datname = current_database()");
        text.trim().parse::<u64>().unwrap()
    };
    for (number, table) in [(0x100, "mention"), (0x101, "annotation")] {
        let before = timeouts();
        let create = format!(
            "INSERT INTO annotation (id, created, updated, userid, shared, target_uri, document_id)
             VALUES ('{number:08x}-1111-11e6-8000-{number:012x}', now() AT TIME ZONE 'utc',
                 now() AT TIME ZONE 'utc', 'acct:bob@localhost', true, 'http://example.com', 1)"
        );
        let lock = format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; {create}");
        let transaction = match table {
            "mention" => {
                let transaction = site.begin("LOCK TABLE mention IN ACCESS EXCLUSIVE MODE");
                site.sql(&create);
                transaction
            }
            _ => site.begin(&lock),
        };
        eventually(PATIENCE, || (timeouts() > before).then_some(()));
        transaction.commit();
        assert_eq!(feed.line(), format!("create {}", id(number)), "{table}");
        feed.is_quiet_for(2);
    }
}
