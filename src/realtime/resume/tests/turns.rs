//! The limits of a turn, which replays and reconciliations of many connections share.

use super::rights::set_groups;
use super::*;
use crate::model::Role;
use crate::realtime::testing::{identity, key};

impl Server {
    /// Continues with replays for a turn. Returns whether more can be sent at once, and the messages.
    pub(super) fn turn(&mut self) -> (bool, Vec<(u32, String)>) {
        let (has_more, outputs) = self.api.call(|realtime, cx| realtime.replay_queued(cx));
        let sent = outputs.into_iter().flat_map(|output| match output {
            Output::Deliver(to) => to,
            other => panic!("{other:?}"),
        });
        (has_more, short(sent.collect()))
    }
}

/// Continues with replays for a turn. Returns whether more can be sent at once, and the number of messages.
fn turn(server: &mut Server) -> (bool, usize) {
    let (has_more, sent) = server.turn();
    (has_more, sent.len())
}

/// Sets a filter with a pattern that is compared with all annotations, and resumes from the start.
fn scan(server: &mut Server, index: u32, pattern: &str) {
    let text = format!(
        r#"{{"since":"{}","filter":{{"match_policy":"include_any","clauses":[{{"field":"/wildcard_uri","value":"{pattern}"}}],"actions":{{}}}}}}"#,
        cursor(0)
    );
    assert_eq!(server.api.text(index, &text), []);
}

/// Creates an annotation at an address.
fn create_at(server: &mut Server, id: &str, address: &str) {
    let pages = crate::uri::annotation_keys([address].into_iter(), None);
    let facts = crate::model::AnnotationFacts {
        id,
        group: "page",
        user: "acct:a@x",
        tags: Vec::new(),
        references: Vec::new(),
        pages,
    };
    let plan = Plan {
        candidates: Candidates::Terms(crate::model::Term::of_annotation(facts)),
        ..server.plan(EventKind::Create, id, members("g"))
    };
    server.deliver(plan);
}

fn create_long(server: &mut Server, id: &str, rules: Vec<Rule>) {
    let mut plan = server.plan(EventKind::Create, id, rules);
    plan.variants[0] = format!("{}{}", plan.variants[0], " ".repeat(40_000)).into();
    server.deliver(plan);
}

/// Opens connections of one user.
fn open_many(server: &mut Server, count: u32, groups: &[(&str, Role)]) {
    for index in 0..count {
        let identity = identity("acct:m@x", 1, groups);
        server.api.open_as(index, identity);
        server.api.filter(index, "/group", &["page"]);
    }
}

// M14
#[test]
fn replays_share_a_limit_on_messages() {
    let mut server = Server::new();
    for number in 0..100 {
        server.create(&number.to_string());
    }
    for index in 0..40 {
        server.api.open(index);
        server.since(index, &cursor(0));
    }
    assert_eq!(turn(&mut server), (true, 2048));
    assert_eq!(server.replay().len(), 40 * 100 - 2048);
}

// M14
#[test]
fn replays_share_a_limit_on_bytes() {
    let mut server = Server::new();
    for id in ["a", "b", "c"] {
        create_long(&mut server, id, public());
    }
    for index in 0..10 {
        server.api.open(index);
        server.since(index, &cursor(0));
    }
    // Each connection is sent 80,000 bytes, and the limit is 512 KiB.
    assert_eq!(turn(&mut server), (true, 14));
    assert_eq!(server.replay().len(), 30 - 14);
}

/// Returns the number of connections whose replay has begun.
fn begun(server: &Server, count: u32) -> usize {
    let replays = &server.api.realtime.replays;
    let has_begun = |index: &u32| match replays.progress(key(*index)) {
        Some((from, position, _)) => position > from,
        None => true,
    };
    (0..count).filter(has_begun).count()
}

// M7
#[test]
fn replays_share_a_limit_on_examined_entries() {
    let mut server = Server::new();
    for number in 0..2000 {
        server.create(&number.to_string());
    }
    for index in 0..20 {
        server.api.open(index);
        scan(&mut server, index, "http://a.com/*");
    }
    // A step examines 1024 entries, and a turn 8192.
    assert_eq!(turn(&mut server), (true, 0));
    assert_eq!(begun(&server, 20), 8);
    assert_eq!(server.replay(), []);
}

// M7
#[test]
fn replays_share_a_limit_on_comparisons() {
    let mut server = Server::new();
    let address = format!("http://a.com/{}", "a".repeat(2000));
    for number in 0..50 {
        create_at(&mut server, &number.to_string(), &address);
    }
    for index in 0..20 {
        server.api.open(index);
        let pattern = format!("http://a.com/*{}b", "a".repeat(100));
        scan(&mut server, index, &pattern);
    }
    // Each step takes 2^20 units at least, which count as 4096 entries.
    assert_eq!(turn(&mut server), (true, 0));
    assert_eq!(begun(&server, 20), 2);
}

// M14
#[test]
fn reconciliations_share_a_limit_on_messages() {
    let mut server = Server::new();
    for number in 0..100 {
        server.event(EventKind::Create, &number.to_string(), members("g"));
    }
    open_many(&mut server, 40, &[("g", Role::Member)]);
    set_groups(&mut server, &[]);
    assert_eq!(turn(&mut server), (true, 2048));
    let rest = server.replay();
    assert_eq!(rest.len(), 40 * 100 - 2048);
    assert!(rest.iter().all(|(_, text)| text.starts_with("delete ")));
}

// M14
#[test]
fn appearances_share_a_limit_on_bytes_of_each_connection() {
    let mut server = Server::new();
    for id in ["a", "b", "c"] {
        create_long(&mut server, id, members("g"));
    }
    open_many(&mut server, 3, &[]);
    set_groups(&mut server, &["g"]);
    // 64 KiB are exceeded by the second message.
    assert_eq!(turn(&mut server), (true, 6));
    assert_eq!(turn(&mut server), (false, 3));
}

// M7
#[test]
fn reconciliations_share_a_limit_on_examined_entries_and_comparisons() {
    let long = format!("http://a.com/{}", "a".repeat(2000));
    for (count, address, pattern, expected) in [
        (2000, "http://b.com/", "http://a.com/*".to_owned(), 8),
        (50, &*long, format!("http://a.com/*{}b", "a".repeat(100)), 2),
    ] {
        let mut server = Server::new();
        for number in 0..count {
            create_at(&mut server, &number.to_string(), address);
        }
        open_many(&mut server, 20, &[]);
        for index in 0..20 {
            let text = format!(
                r#"{{"filter":{{"match_policy":"include_any","clauses":[{{"field":"/wildcard_uri","value":"{pattern}"}}],"actions":{{}}}}}}"#
            );
            assert_eq!(server.api.text(index, &text), []);
        }
        set_groups(&mut server, &["g"]);
        assert_eq!(turn(&mut server), (true, 0));
        let progress = server.api.realtime.reconciles.progress();
        let begun = progress.filter(|(_, progress)| progress.position > 0);
        assert_eq!(begun.count(), expected, "{pattern:.20}");
    }
}
