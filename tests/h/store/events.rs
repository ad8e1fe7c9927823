//! The plan of an event: search terms, recipients, and the number of statements.

use std::collections::BTreeSet;

use h_realtime::backend::DropReason;
use h_realtime::model::{DenyReason, EventKind, Field};
use serde_json::{Value, json};

use super::world::{World, id, received, values};

// Independent of the number of recipients.
#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn each_event_is_one_transaction_of_ten_statements() {
    let mut world = World::new();
    for number in [0x01, 0x05, 0x15, 0x1c, 0x1d, 0x1f, 0x21, 0x25, 0x28, 0x2b] {
        let before = world.statements();
        world.update(number).unwrap();
        assert_eq!(world.statements() - before, 10, "{number:#x}");
    }
    // An event about a missing row needs fewer.
    let before = world.statements();
    assert_eq!(world.update(0xffff), Err(DropReason::Missing));
    assert_eq!(world.statements() - before, 3);
    world.update(0x01).unwrap();
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn page_matches_all_uris_of_its_document() {
    let mut world = World::new();
    let mut pages = |number: u32| {
        let plan = world.update(number).unwrap();
        let pages = values(&plan, Field::Uri).into_iter();
        let plain = pages.filter(|page| !page.ends_with("__vall"));
        plain.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    for (number, expected) in [
        (0x14, PAPER), // by its URL
        (0x15, PAPER), // by its fingerprint
        (0x18, "httpx://nodocs.example/x?a=1&b=2"),
        (0x17, "httpx://example.org/canon"), // annotated under its canonical URL
        (
            0x16,
            "httpx://example.org/canon httpx://example.org/canon?ref=1",
        ),
        (
            0x11,
            "httpx://example.com/versioned-alt__v2 httpx://example.com/versioned__v2",
        ),
        (
            0x12,
            "httpx://example.com/versioned httpx://example.com/versioned-alt",
        ),
        // Of the documents that have the page, the annotation's own.
        (0x32, "httpx://dup.example/a httpx://dup.example/shared"),
        (0x35, ""), // the empty URL, which h treats as a page
        (0x25, ""), // no URL
        (0x26, ""), // one without a normal form
    ] {
        assert_eq!(pages(number), expected, "{number:#x}");
    }
    let plan = world.update(0x35).unwrap();
    assert_eq!(values(&plan, Field::Uri), BTreeSet::from(["", "__vall"]));
    let plan = world.update(0x25).unwrap();
    assert_eq!(values(&plan, Field::Uri), BTreeSet::new());
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn filters_find_an_annotation_by_id_group_and_references() {
    let mut world = World::new();
    let plan = world.update(0x06).unwrap();
    assert_eq!(values(&plan, Field::Id), BTreeSet::from([&*id(0x06)]));
    assert_eq!(values(&plan, Field::Group), BTreeSet::from(["__world__"]));
    assert_eq!(
        values(&plan, Field::References),
        BTreeSet::from([&*id(0x01), &*id(0x05)])
    );
    let without = world.update(0x1b).unwrap(); // NULL
    assert_eq!(values(&without, Field::References), BTreeSet::new());
    // Another spelling of the same id.
    let event = |action: &str| {
        let same = format!("{}R", &id(0x01)[..21]);
        json!({"action": action, "annotation_id": same, "src_client_id": "c"})
    };
    let plan = world.event(&event("create")).unwrap();
    assert_eq!(plan.exclude_client.as_deref(), Some("c"));
    assert_eq!(received(&plan, None).unwrap()["payload"][0]["id"], id(0x01));
    let plan = world.event(&event("delete")).unwrap();
    assert_eq!(values(&plan, Field::Id), BTreeSet::from([&*id(0x01)]));
    let deletion = received(&plan, None).unwrap();
    assert_eq!(
        deletion["payload"][0],
        json!({"id": format!("{}R", &id(0x01)[..21])})
    );
    let plan = world.event(&event("a \"word\" of its own")).unwrap();
    assert_eq!(plan.kind, EventKind::Update);
    let action = received(&plan, None).unwrap()["options"]["action"].clone();
    assert_eq!(action, "a \"word\" of its own");
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn muted_authors_annotations_reach_only_the_author() {
    let mut world = World::new();
    for number in [0x0f, 0x10] {
        let plan = world.update(number).unwrap();
        let got = world.received(&plan, &["nobody", "alice", "bob", "dave"]);
        assert!(
            got[..3].iter().all(|one| *one == Err(DenyReason::Muted)),
            "{got:?}"
        );
        assert!(got[3].is_ok());
    }
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn deleted_annotations_only_cause_delete_events() {
    let mut world = World::new();
    for number in [0x0c, 0x0d, 0x0e] {
        for action in ["create", "update"] {
            let event =
                json!({"action": action, "annotation_id": id(number), "src_client_id": null});
            assert_eq!(world.event(&event), Err(DropReason::Missing), "{number:#x}");
        }
    }
    let mut end = |number: u32, users: &[&str]| {
        let event = json!({"action": "delete", "annotation_id": id(number), "src_client_id": null});
        let plan = world.event(&event).unwrap();
        assert_eq!(plan.variants.len(), 1);
        let got = world.received(&plan, users);
        got.into_iter().map(|one| one.is_ok()).collect::<Vec<_>>()
    };
    assert_eq!(end(0x0c, &["nobody", "alice"]), [true, true]);
    assert_eq!(end(0x0e, &["nobody", "bob", "alice"]), [false, false, true]);
    // Hidden by moderation: recipients could see it before.
    let users = ["nobody", "dave", "alice", "bob", "carol"];
    assert_eq!(end(0x0d, &users), [false, false, true, true, true]);
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn flags_and_moderation_are_visible_to_their_users_only() {
    let mut world = World::new();
    let plan = world.update(0x1d).unwrap();
    let got = world.received(&plan, &["alice", "bob", "carol", "dave", "nobody"]);
    let seen = got.into_iter().map(|one| {
        let payload = &one.ok()?["payload"][0];
        let parts = ["flagged", "moderation", "actions"].map(|key| payload[key].clone());
        Some(Value::from(parts.to_vec()).to_string())
    });
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [
            Some(r#"[false,{"flagCount":2},["moderate"]]"#.to_owned()),
            Some(r#"[true,{"flagCount":2},["moderate"]]"#.to_owned()),
            Some("[true,null,[]]".to_owned()),
            Some("[false,null,[]]".to_owned()),
            None,
        ]
    );
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn checkpoint_hides_annotations_until_its_date() {
    let mut world = World::new();
    let (hidden, told) = (Err(DenyReason::Checkpoint), Ok(()));
    for (change, expected) in [
        ("reveal_date = NULL", hidden),
        ("reveal_date = '2001-01-01'", told),
        ("reveal_date = '2099-01-01'", hidden),
        ("group_id = 4", told),
        ("group_id = 6, document_id = 5", told),
        ("document_id = 6", hidden),
    ] {
        world.sql(&format!("UPDATE checkpoint SET {change}"));
        let plan = world.update(0x29).unwrap();
        let got = world.received(&plan, &["student2", "student1", "teacher"]);
        let got: Vec<_> = got.into_iter().map(|one| one.map(|_| ())).collect();
        assert_eq!(got, [expected, told, told], "{change}");
    }
    // An instructor sees everything.
    world.sql("UPDATE user_group SET lms_role = 'lms_instructor' WHERE user_id = 10");
    let plan = world.update(0x29).unwrap();
    assert!(world.received(&plan, &["student2"])[0].is_ok());
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn unreadable_row_only_fails_its_own_event() {
    let mut world = World::new();
    for damage in [
        "created = 'infinity'",
        "updated = '0001-01-01 BC'",
        "tags = '{{a,b},{c,d}}'",
    ] {
        world.sql(&format!(
            "UPDATE annotation SET {damage} WHERE text = 'Nested reply'"
        ));
        assert_eq!(world.update(0x06), Err(DropReason::Unreadable), "{damage}");
        assert!(world.store.is_connected(), "{damage}");
        assert!(world.update(0x05).is_ok(), "{damage}");
    }
    // A deletion is delivered all the same, if the row can be read at all.
    world.sql(
        "UPDATE annotation SET tags = '{a,NULL}', created = now() WHERE text = 'Nested reply'",
    );
    let event = json!({"action": "delete", "annotation_id": id(0x06), "src_client_id": null});
    assert!(received(&world.event(&event).unwrap(), None).is_ok());
    world.sql("UPDATE annotation SET updated = now() WHERE text = 'Nested reply'");
    let shown = received(&world.update(0x06).unwrap(), None).unwrap();
    assert_eq!(shown["payload"][0]["tags"], json!(["a"]));
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn author_without_valid_userid_has_no_links() {
    let mut world = World::new();
    let shown = received(&world.update(0x1f).unwrap(), None).unwrap();
    let payload = &shown["payload"][0];
    assert_eq!(payload["user"], "notauserid");
    assert_eq!(payload["user_info"], Value::Null);
    let links: Vec<_> = payload["links"].as_object().unwrap().keys().collect();
    assert_eq!(links, ["incontext", "json"]);
}

const PAPER: &str = "doi:10.1000/12345 httpx://example.com/paper.html httpx://example.com/paper.pdf urn:x-pdf:abcdef0123456789";
