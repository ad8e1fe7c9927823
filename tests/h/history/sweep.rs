//! Changes that no event reports.

use std::sync::atomic::Ordering;

use h_realtime::backend::DropReason;
use h_realtime::model::{DenyReason, Identity, Membership, Role, TokenId, unix_now};
use serde_json::{Value, json};

use super::feed::Feed;
use crate::store::world::{id, received};
use crate::support::{OF_GROUP, PATIENCE, PUBLIC, Site, action_and_id, eventually};

/// A statement that touches an annotation as h does.
fn touch(number: u32, changes: &str) -> String {
    format!(
        "UPDATE annotation SET updated = now() AT TIME ZONE 'utc' {changes}
         WHERE id = '{number:08x}-1111-11e6-8000-{number:012x}'"
    )
}

/// A statement that creates an annotation.
fn create(number: u32) -> String {
    format!(
        "INSERT INTO annotation (id, created, updated, userid, shared, target_uri, document_id)
         VALUES ('{number:08x}-1111-11e6-8000-{number:012x}', now() AT TIME ZONE 'utc',
             now() AT TIME ZONE 'utc', 'acct:bob@localhost', true, 'http://example.com/page', 1)"
    )
}

fn event(action: &str, number: u32, client: &str) -> Value {
    json!({"action": action, "annotation_id": id(number), "src_client_id": client})
}

fn student(name: &str) -> Identity {
    Identity {
        userid: format!("acct:{name}@localhost").into(),
        memberships: vec![Membership {
            group: "lmsgrp12".into(),
            role: Role::Member,
        }],
        token: TokenId(1),
        expires: None,
    }
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn lost_events_arrive_late_and_once() {
    let site = Site::new();
    let mut feed = Feed::start(&site);
    let before = unix_now();
    site.sql(&create(0x100));
    let plan = feed.plan();
    assert_eq!(super::feed::line(&plan), format!("create {}", id(0x100)));
    assert!(plan.stamp.time.abs_diff(before) < 20_000);
    let shown = received(&plan, None).unwrap();
    assert_eq!(shown["options"]["action"], "create");
    assert_eq!(shown["payload"][0]["id"], id(0x100));
    site.sql(&touch(0x100, ", text = 'b'"));
    assert_eq!(feed.line(), format!("update {}", id(0x100)));
    site.sql(&touch(0x100, ", deleted = true"));
    assert_eq!(feed.line(), format!("delete {}", id(0x100)));
    feed.is_quiet_for(3);
    assert_eq!(feed.stats.swept.load(Ordering::Relaxed), 3);
    // Many at once, more than a page and a batch.
    site.sql(
        "INSERT INTO annotation (created, updated, userid, shared, target_uri, document_id)
         SELECT now() AT TIME ZONE 'utc', now() AT TIME ZONE 'utc', 'acct:bob@localhost', true,
             'http://example.com/page', 1
         FROM generate_series(1, 2500)",
    );
    let mut ids: Vec<_> = (0..2500).map(|_| feed.line()).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 2500);
    feed.is_quiet_for(3);
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn annotations_of_deleted_user_arrive_as_deletions() {
    let site = Site::new();
    let mut feed = Feed::start(&site);
    let of_carol = "userid = 'acct:carol@localhost' AND NOT deleted";
    let count = format!("SELECT count(*) FROM annotation WHERE {of_carol}");
    let count: usize = site.sql(&count).trim().parse().unwrap();
    assert!(count > 0);
    site.sql(&format!(
        "UPDATE annotation SET deleted = true, updated = now() AT TIME ZONE 'utc' WHERE {of_carol};
         UPDATE \"user\" SET deleted = true WHERE username = 'carol'"
    ));
    for _ in 0..count {
        assert!(feed.line().starts_with("delete "));
    }
    feed.is_quiet_for(3);
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn delivered_events_are_not_repeated_by_sweeps() {
    let site = Site::new();
    let mut feed = Feed::start(&site);
    let publisher = site.publisher();
    for round in 0..3 {
        for number in 0x100..0x110 {
            let (statement, action) = match round {
                0 => (create(number), "create"),
                1 => (touch(number, ", text = 'b'"), "update"),
                _ => (touch(number, ", deleted = true"), "delete"),
            };
            // A sweep must not run between the two.
            let swept = feed.stats.swept.load(Ordering::Relaxed);
            site.sql(&statement);
            publisher.publish("annotation", &event(action, number, "tab"));
            let line = feed.line();
            let is_swept = feed.stats.swept.load(Ordering::Relaxed) > swept;
            let client = if is_swept { "" } else { " without tab" };
            assert_eq!(line, format!("{action} {}{client}", id(number)));
        }
        feed.is_quiet_for(4);
    }
    // Each change that a sweep found first has one event, which is dropped.
    let swept = feed.stats.swept.load(Ordering::Relaxed);
    assert_eq!(feed.stats.dropped(DropReason::Duplicate), swept);
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn changes_of_rights_replan_annotations() {
    let site = Site::new();
    let mut feed = Feed::start(&site);
    let publisher = site.publisher();
    for number in [0x01, 0x29] {
        publisher.publish("annotation", &event("update", number, "tab"));
        assert_eq!(feed.line(), format!("update {} without tab", id(number)));
    }
    let of_alice = format!("[create {} without tab]", id(0x01));
    let of_student = format!("[create {} without tab]", id(0x29));
    let mut replanned = |statement: &str, expected: &str| {
        site.sql(statement);
        let plan = feed.plan();
        assert_eq!(super::feed::line(&plan), expected, "{statement}");
        feed.is_quiet_for(2);
        plan
    };
    let mute =
        |muted: bool| format!("UPDATE \"user\" SET nipsa = {muted} WHERE username = 'alice'");
    let plan = replanned(&mute(true), &of_alice);
    assert_eq!(received(&plan, None), Err(DenyReason::Muted));
    let plan = replanned(&mute(false), &of_alice);
    assert!(received(&plan, None).is_ok());
    let moderate = |status: &str| {
        format!(
            "UPDATE annotation SET moderation_status = '{status}'
             WHERE id = '00000001-1111-11e6-8000-000000000001';
             INSERT INTO moderation_log (annotation_id, new_moderation_status, created)
             VALUES ('00000001-1111-11e6-8000-000000000001', '{status}', now() AT TIME ZONE 'utc')"
        )
    };
    let plan = replanned(&moderate("SPAM"), &of_alice);
    assert_eq!(received(&plan, None), Err(DenyReason::Hidden));
    let plan = replanned(&moderate("APPROVED"), &of_alice);
    assert_eq!(
        received(&plan, None).unwrap()["options"]["action"],
        "create"
    );

    let (first, second) = (student("student1"), student("student2"));
    let readable =
        |by: &str| format!("UPDATE \"group\" SET readable_by = {by} WHERE pubid = 'lmsgrp12'");
    let plan = replanned(&readable("NULL"), &of_student);
    assert_eq!(received(&plan, Some(&first)), Err(DenyReason::Permission));
    let plan = replanned(&readable("'members'"), &of_student);
    assert!(received(&plan, Some(&first)).is_ok());
    assert_eq!(received(&plan, Some(&second)), Err(DenyReason::Checkpoint));
    // The checkpoint's date passes.
    let reveal =
        "UPDATE checkpoint SET reveal_date = now() AT TIME ZONE 'utc' + interval '1 second'";
    let plan = replanned(reveal, &of_student);
    assert!(received(&plan, Some(&second)).is_ok());
    let conceal = "UPDATE checkpoint SET reveal_date = '2099-01-01'";
    let plan = replanned(conceal, &of_student);
    assert_eq!(received(&plan, Some(&second)), Err(DenyReason::Checkpoint));
    // A new member of the group.
    let join = "INSERT INTO user_group (user_id, group_id, lms_role) VALUES (2, 6, 'lms_student')";
    let plan = replanned(join, &of_student);
    assert_eq!(
        received(&plan, Some(&student("bob"))),
        Err(DenyReason::Checkpoint)
    );
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn row_that_disappears_is_retracted_when_its_rights_are_read() {
    let site = Site::new();
    let mut feed = Feed::start(&site);
    let publisher = site.publisher();
    publisher.publish("annotation", &event("update", 0x04, "tab"));
    assert_eq!(feed.line(), format!("update {} without tab", id(0x04)));
    site.sql(
        "DELETE FROM annotation WHERE id = '00000004-1111-11e6-8000-000000000004';
         UPDATE \"group\" SET readable_by = NULL",
    );
    let plan = feed.plan();
    assert_eq!(super::feed::line(&plan), format!("[delete {}]", id(0x04)));
    assert_eq!(received(&plan, None), Err(DenyReason::Permission));
    feed.is_quiet_for(2);
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn watermark_precedes_uncommitted_changes() {
    let site = Site::new();
    let mut feed = Feed::start(&site);
    let transaction = site.begin(&create(0x100));
    let set = unix_now();
    feed.is_quiet_for(3);
    assert!(feed.watermark < set);
    transaction.commit();
    assert_eq!(feed.line(), format!("create {}", id(0x100)));
    let (before, sweeps) = (feed.watermark, feed.sweeps());
    feed.wait_for_sweeps(5);
    assert!(feed.watermark > before && feed.sweeps() > sweeps);
    assert!(feed.watermark + 30_000 <= unix_now());
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn moderation_log_is_optional() {
    let site = Site::new();
    site.sql("DROP TABLE moderation_log");
    let mut feed = Feed::start(&site);
    site.sql(&create(0x100));
    assert_eq!(feed.line(), format!("create {}", id(0x100)));
    drop(feed);
    let site = Site::new();
    site.sql(
        "DROP ROLE IF EXISTS unlogged; CREATE ROLE unlogged LOGIN;
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO unlogged;
         REVOKE SELECT ON moderation_log FROM unlogged",
    );
    let limited = Site {
        database: site.database.replace("postgres@", "unlogged@"),
        broker: site.broker.clone(),
    };
    let mut feed = Feed::start(&limited);
    site.sql(&create(0x100));
    assert_eq!(feed.line(), format!("create {}", id(0x100)));
    drop(feed);
    site.sql("DROP OWNED BY unlogged; DROP ROLE unlogged");
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn clients_receive_changes_without_events() {
    let site = Site::new();
    let server = site.server("[auth]\nsweep = \"200ms\"");
    let mut client = server.user_of_h("bob");
    let ids = json!([PUBLIC, OF_GROUP]);
    let clause = json!({"field": "/id", "operator": "one_of", "value": ids});
    client.send(&crate::support::filter(json!([clause])).to_string());
    assert_eq!(client.drain(), []);
    site.sql(&touch(0x01, ""));
    assert_eq!(action_and_id(&client.json()), ("update", PUBLIC));
    site.sql(&touch(0x03, ", deleted = true"));
    assert_eq!(action_and_id(&client.json()), ("delete", OF_GROUP));
    let sweeps = "h_realtime_sweeps_total";
    let before = server.metric(sweeps);
    eventually(PATIENCE, || {
        (server.metric(sweeps) > before + 3.0).then_some(())
    });
    assert_eq!(client.drain(), []);
    assert_eq!(server.metric("h_realtime_swept_events_total"), 2.0);
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn clients_are_notified_of_changed_rights() {
    let site = Site::new();
    let server = site.server("[auth]\nsweep = \"200ms\"");
    let publisher = site.publisher();
    let (mut bob, mut alice) = (server.user_of_h("bob"), server.user_of_h("alice"));
    for client in [&mut bob, &mut alice] {
        client.subscribe("/id", PUBLIC);
    }
    publisher.publish("annotation", &event("update", 0x01, "tab"));
    for client in [&mut bob, &mut alice] {
        assert_eq!(action_and_id(&client.json()), ("update", PUBLIC));
    }
    site.sql("UPDATE \"user\" SET nipsa = true WHERE username = 'alice'");
    assert_eq!(action_and_id(&bob.json()), ("delete", PUBLIC));
    site.sql("UPDATE \"user\" SET nipsa = false WHERE username = 'alice'");
    assert_eq!(action_and_id(&bob.json()), ("create", PUBLIC));
    // The author could read it all the time.
    assert_eq!(alice.drain(), []);
    assert_eq!(server.metric("h_realtime_replanned_total"), 2.0);
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn cursor_of_another_process_is_valid_after_a_restart() {
    let site = Site::new();
    let config = "[auth]\nsweep = \"200ms\"";
    let mut since = "now".to_owned();
    let clause = json!({"field": "/group", "operator": "one_of", "value": ["__world__"]});
    let mut filter = crate::support::filter(json!([clause]));
    filter["id"] = json!(3);
    for round in 0..3_u32 {
        let server = site.server(config);
        server.wait_until_ready();
        let mut client = server.anonymous();
        filter["since"] = json!(since);
        client.send(&filter.to_string());
        let reply = client.json();
        assert_eq!(reply["recovered"], true, "{reply}");
        if round > 0 {
            // At least the change that was made while no server was running.
            let expected = id(0x100 + round - 1);
            loop {
                let message = client.json();
                if action_and_id(&message) == ("create", &expected) {
                    break;
                }
            }
        }
        since = reply["cursor"].as_str().unwrap().to_owned();
        drop(server);
        site.sql(&create(0x100 + round));
    }
}
