//! Changes of rights: on a running server, and while no server runs.

use super::*;
use crate::model::Role;

#[test]
fn muting_and_unmuting_the_author_is_sent_with_the_rules_of_now() {
    let site = Site::new();
    let (mut server, _) = site.started();
    let published = server.publish(&[create("a"), create("b")].join("\n"));
    assert!(is_public(&published[0]));
    for muted in [true, false] {
        site.users().set_muted(JOE, muted).unwrap();
        let plans = server.poll();
        assert_eq!(plans.iter().map(id).collect::<Vec<_>>(), ["a", "b"]);
        for plan in &plans {
            assert_eq!(is_public(plan), !muted);
            assert_eq!(
                (plan.cause, plan.kind),
                (Cause::RightsChange, EventKind::Create)
            );
            assert!(plan.stamp.position > published[1].stamp.position);
        }
        assert!(server.poll().is_empty());
    }
    site.users().set_muted(ANN, true).unwrap();
    assert!(server.poll().is_empty(), "another author");
}

#[test]
fn update_becomes_a_creation_and_a_deletion_stays_one() {
    let site = Site::new();
    let (mut server, _) = site.started();
    server.publish(&event("update", "a", &["group:__world__"], ""));
    server.publish(&event("delete", "b", &["group:__world__"], ""));
    site.users().set_muted(JOE, true).unwrap();
    let plans = server.poll();
    let actions: Vec<_> = plans.iter().map(|plan| (plan.kind, action(plan))).collect();
    assert_eq!(
        actions,
        [
            (EventKind::Create, "create".to_owned()),
            (EventKind::Delete, "delete".to_owned())
        ]
    );
}

#[test]
fn changed_group_visibility_is_sent() {
    let site = Site::new();
    let (mut server, _) = site.started();
    server.publish(&event("create", "a", &["group:g"], ""));
    server.publish(&event("create", "b", &["group:__world__"], ""));
    site.users()
        .set_readable_by("g", ReadableBy::World)
        .unwrap();
    let plans = server.poll();
    assert_eq!(plans.iter().map(id).collect::<Vec<_>>(), ["a"]);
    assert!(is_public(&plans[0]));
    site.users().delete_group("g", 0).unwrap();
    let plans = server.poll();
    assert_eq!(plans.iter().map(id).collect::<Vec<_>>(), ["a"]);
    assert!(!is_public(&plans[0]));
    // An unknown group that becomes known.
    server.publish(&event("create", "c", &["group:new"], ""));
    site.users().add_group("new", ReadableBy::World, 0).unwrap();
    let plans = server.poll();
    assert_eq!(plans.iter().map(id).collect::<Vec<_>>(), ["c"]);
    assert!(is_public(&plans[0]));
}

#[test]
fn group_that_an_annotation_of_another_group_names_is_observed() {
    let site = Site::new();
    let (mut server, _) = site.started();
    let mut event: Value = serde_json::from_str(&event("create", "a", &["group:g"], "")).unwrap();
    event["annotation"]["group"] = "other".into();
    server.publish(&event.to_string());
    site.users()
        .set_readable_by("g", ReadableBy::World)
        .unwrap();
    let plans = server.poll();
    assert!(is_public(&plans[0]));
}

#[test]
fn first_and_last_moderator_change_the_rules_of_hidden_annotations() {
    let site = Site::new();
    let (mut server, _) = site.started();
    let mut event: Value = serde_json::from_str(&event("create", "a", &["group:g"], "")).unwrap();
    event["annotation"]["hidden"] = true.into();
    let before = server.publish(&event.to_string());
    site.users().set_member("g", ANN, Role::Member).unwrap();
    assert!(server.poll().is_empty());
    site.users().set_member("g", ANN, Role::Moderator).unwrap();
    let plans = server.poll();
    assert_eq!(plans.len(), 1);
    assert!(plans[0].rules.len() > before[0].rules.len());
    site.users().set_member("g", ANN, Role::Admin).unwrap();
    assert!(server.poll().is_empty());
    site.users().remove_member("g", ANN).unwrap();
    assert_eq!(server.poll()[0].rules, before[0].rules);
}

#[test]
fn deleted_user_stays_muted() {
    let site = Site::new();
    let (mut server, _) = site.started();
    site.users().set_muted(JOE, true).unwrap();
    server.publish(&create("a"));
    site.users().delete_user(JOE).unwrap();
    assert!(server.poll().is_empty());
    assert!(!is_public(&server.publish(&create("b"))[0]));
    // A new user of this name is another one.
    site.users().add_user(JOE, None, 0).unwrap();
    let plans = server.poll();
    assert_eq!(plans.len(), 2);
    assert!(plans.iter().all(is_public));
}

#[test]
fn renamed_muted_user_stays_muted_under_both_names() {
    let site = Site::new();
    let (mut server, _) = site.started();
    server.publish(&create("a"));
    site.users().set_muted(JOE, true).unwrap();
    assert_eq!(server.poll().len(), 1);
    let rename = "UPDATE user SET userid = 'acct:joseph@example.org' WHERE userid = ?1";
    site.users().db().execute(rename, [JOE]).unwrap();
    assert!(server.poll().is_empty());
}

#[test]
fn rights_that_changed_while_no_server_ran_are_restored_at_new_positions() {
    let site = Site::new();
    let mut server = site.server();
    let other = create("b").replace(JOE, ANN);
    let before = server.publish(&[create("a"), other].join("\n"));
    drop(server);
    site.users().set_muted(JOE, true).unwrap();
    let (_, restored) = site.started();
    assert_eq!(restored.ids(), ["b", "a"]);
    let muted = &restored.plans[1];
    assert_eq!(muted.plan.cause, Cause::RightsChange);
    assert!(!is_public(&muted.plan));
    assert_eq!(muted.past.len(), 1);
    assert_eq!(muted.past[0].until, muted.plan.stamp.position);
    assert_eq!(muted.past[0].rules, before[0].rules);
    assert_eq!(muted.event_position, before[0].stamp.position);
    // Nothing changes again at the next start.
    let (_, again) = site.started();
    assert_eq!(again.positions(), restored.positions());
}

#[test]
fn replaced_users_database_is_compared_with_all_stored_rules() {
    let site = Site::new();
    let (mut server, _) = site.started();
    let copy = site.temp.path().join("copy");
    fs::copy(site.data().database(), &copy).unwrap();
    site.users().set_muted(JOE, true).unwrap();
    server.publish(&create("a"));
    fs::rename(copy, site.data().database()).unwrap();
    let plans = server.poll();
    assert_eq!(plans.iter().map(id).collect::<Vec<_>>(), ["a"]);
    assert!(is_public(&plans[0]));
}

#[test]
fn many_affected_events_are_examined_in_several_turns() {
    let site = Site::new();
    let (mut server, _) = site.started();
    for batch in 0..13 {
        let events: Vec<_> = (0..200).map(|n| create(&format!("{batch}-{n}"))).collect();
        server.publish(&events.join("\n"));
    }
    site.users().set_muted(JOE, true).unwrap();
    let mut counts = Vec::new();
    let mut seen = std::collections::HashSet::new();
    loop {
        let plans = server.poll();
        if plans.is_empty() {
            break;
        }
        counts.push(plans.len());
        assert!(plans.iter().all(|plan| !is_public(plan)));
        seen.extend(plans.iter().map(|plan| id(plan).to_owned()));
    }
    assert_eq!(seen.len(), 2600);
    assert_eq!(counts.iter().sum::<usize>(), 2600);
    assert!(
        counts.len() > 2 && counts.iter().all(|&count| count <= 1024),
        "{counts:?}"
    );
}

#[test]
fn change_during_the_examination_is_applied_to_all_events() {
    let site = Site::new();
    let (mut server, _) = site.started();
    for batch in 0..10 {
        let events: Vec<_> = (0..200).map(|n| create(&format!("{batch}-{n}"))).collect();
        server.publish(&events.join("\n"));
    }
    site.users().set_muted(JOE, true).unwrap();
    assert_eq!(server.poll().len(), 1024);
    site.users().set_muted(JOE, false).unwrap();
    let mut last = std::collections::HashMap::new();
    for _ in 0..5 {
        let plans = server.poll();
        last.extend(
            plans
                .iter()
                .map(|plan| (id(plan).to_owned(), is_public(plan))),
        );
    }
    assert!(server.poll().is_empty());
    assert!(last.len() >= 1024 && last.values().all(|is_public| *is_public));
    drop(server);
    assert!(
        site.started()
            .1
            .plans
            .iter()
            .all(|one| is_public(&one.plan))
    );
}

#[test]
fn changes_beyond_the_work_of_a_turn_are_examined_later() {
    const STEP: usize = 1024;
    let site = Site::new();
    let (mut server, _) = site.started();
    let mut other: Value = serde_json::from_str(&create("other")).unwrap();
    other["annotation"]["user"] = ANN.into();
    server.publish(&other.to_string());
    let events: Vec<_> = (0..STEP).map(|n| create(&format!("{n}"))).collect();
    server.publish(&events.join("\n"));
    site.users().set_muted(JOE, true).unwrap();
    site.users().set_muted(ANN, true).unwrap();
    let mut changed: Vec<_> = (0..3).flat_map(|_| server.poll()).collect();
    assert_eq!(changed.len(), STEP + 1);
    assert_eq!(id(&changed.pop().unwrap()), "other");
    assert!(server.poll().is_empty());
}

#[test]
fn replaced_event_follows_its_new_author_and_groups() {
    let site = Site::new();
    let (mut server, _) = site.started();
    let by = |user: &str, readers: &[&str]| {
        let mut event: Value = serde_json::from_str(&event("update", "a", readers, "")).unwrap();
        event["annotation"]["user"] = user.into();
        event["annotation"]["group"] = "other".into();
        event.to_string()
    };
    server.publish(&by(JOE, &["group:g"]));
    server.publish(&by(ANN, &["group:__world__"]));
    site.users().set_muted(JOE, true).unwrap();
    site.users()
        .set_readable_by("g", ReadableBy::World)
        .unwrap();
    assert!(server.poll().is_empty());
    site.users().set_muted(ANN, true).unwrap();
    assert_eq!(server.poll().len(), 1);
    let count = "SELECT count(*) FROM reader_group WHERE grp = 'g'";
    let count: i64 = (site.file().query_row(count, [], |row| row.get(0))).unwrap();
    assert_eq!(count, 0);
}
