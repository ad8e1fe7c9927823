//! The history at the start of the backend.

use std::time::Duration;

use h_realtime::model::{EpochScope, unix_now};
use serde_json::json;

use super::feed::{Feed, id, line};
use crate::store::world::{World, id as of_number};
use crate::support::Site;

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn recent_changes_are_restored_in_their_order() {
    let site = Site::new();
    site.sql(
        "UPDATE annotation SET updated = now() AT TIME ZONE 'utc' - interval '3 hours'
         WHERE id = '00000001-1111-11e6-8000-000000000001';
         UPDATE annotation SET updated = now() AT TIME ZONE 'utc' - interval '4 hours', deleted = true
         WHERE id = '00000005-1111-11e6-8000-000000000005';
         UPDATE annotation SET moderation_status = 'DENIED'
         WHERE id = '00000006-1111-11e6-8000-000000000006';
         INSERT INTO moderation_log (annotation_id, new_moderation_status, created)
         VALUES ('00000006-1111-11e6-8000-000000000006', 'DENIED',
             now() AT TIME ZONE 'utc' - interval '1 hour');
         UPDATE annotation SET created = now() AT TIME ZONE 'utc', updated = now() AT TIME ZONE 'utc'
         WHERE id = '00000014-1111-11e6-8000-000000000014';
         UPDATE annotation SET updated = now() AT TIME ZONE 'utc' - interval '8 days'
         WHERE id = '00000015-1111-11e6-8000-000000000015'",
    );
    let feed = Feed::with(&site, Duration::from_secs(3600));
    let lines: Vec<_> = feed.restored.iter().map(|one| line(&one.plan)).collect();
    let expected = [
        format!("delete {}", of_number(0x05)),
        format!("update {}", of_number(0x01)),
        // It has not been updated since its creation.
        format!("create {}", of_number(0x06)),
        format!("create {}", of_number(0x14)),
    ];
    assert_eq!(lines, expected);
    let now = unix_now();
    let hour = 3_600_000;
    let stamps = feed.restored.iter().map(|one| one.plan.stamp);
    for (stamp, ago) in stamps.zip([4 * hour, 3 * hour, hour, 0]) {
        assert!((now - stamp.time).abs_diff(ago) < 60_000, "{stamp:?}");
    }
    assert_eq!(feed.start.scope, EpochScope::Process);
    assert_eq!((feed.start.floor, feed.start.head), (0, 4));
    // h removes the rows of deleted annotations after ten minutes.
    assert!((now - feed.start.floor_time).abs_diff(600_000) < 60_000);
    assert!((now - feed.watermark).abs_diff(30_000) < 25_000);
}

// The statements for batches return the same as those for one annotation.
#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn restored_plans_equal_plans_of_events() {
    let site = Site::new();
    site.sql(
        "UPDATE annotation SET created = now() AT TIME ZONE 'utc', updated = now() AT TIME ZONE 'utc';
         UPDATE checkpoint SET reveal_date = '2099-01-01' WHERE id = 1",
    );
    let count: usize = site
        .sql("SELECT count(*) FROM annotation")
        .trim()
        .parse()
        .unwrap();
    let feed = Feed::with(&site, Duration::from_secs(3600));
    assert_eq!(feed.restored.len(), count);
    let mut world = World::of(&site.database);
    for restored in &feed.restored {
        let action = restored.plan.kind.as_str();
        let event = json!({
            "action": action, "annotation_id": id(&restored.plan), "src_client_id": null,
        });
        let mut expected = world.event(&event).unwrap();
        expected.stamp = restored.plan.stamp;
        assert_eq!(restored.plan, expected);
    }
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn unreadable_row_does_not_affect_the_rest_of_the_history() {
    let site = Site::new();
    site.sql(
        "UPDATE annotation SET created = now() AT TIME ZONE 'utc', updated = now() AT TIME ZONE 'utc';
         UPDATE annotation SET tags = '{{a,b},{c,d}}' WHERE text = 'Nested reply';
         UPDATE annotation SET created = 'infinity' WHERE id = '00000001-1111-11e6-8000-000000000001';
         UPDATE annotation SET updated = 'infinity' WHERE id = '00000005-1111-11e6-8000-000000000005'",
    );
    let count: usize = site
        .sql("SELECT count(*) FROM annotation")
        .trim()
        .parse()
        .unwrap();
    let mut feed = Feed::start(&site);
    assert_eq!(feed.restored.len(), count - 3);
    feed.is_quiet_for(3);
}
