//! What is read from a real PostgreSQL with the tables of h: who a token is, and what becomes of
//! an event.
#![cfg(feature = "h")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use h_realtime::backend::h::{AnnotationEvent, Settings, Store};
use h_realtime::backend::{Fate, Stats};
use h_realtime::model::{
    Decision, EventKind, Field, Identity, Plan, Reach, Reason, Role, TokenId, UnixMillis, Who,
};
use serde_json::{Value, json};
use support::{Postgres, sql};

/// A database of a test's own, asked over a connection.
struct World {
    url: String,
    store: Store,
    stats: Arc<Stats>,
    runtime: tokio::runtime::Runtime,
}

impl World {
    fn new() -> World {
        World::of(&Postgres::shared().database())
    }

    fn of(url: &str) -> World {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let stats = Arc::new(Stats::needing(false, true));
        let settings = Settings {
            database_url: url.to_owned(),
            authority: "localhost".to_owned(),
            app_url: "http://localhost:5000".to_owned(),
            bouncer_url: Some("http://localhost:8000".to_owned()),
        };
        let store = Store::new(&settings, Arc::clone(&stats)).unwrap();
        let mut world = World {
            url: url.to_owned(),
            store,
            stats,
            runtime,
        };
        world.connect();
        world
    }

    fn connect(&mut self) {
        self.runtime.block_on(self.store.connect()).unwrap();
        assert!(self.store.is_connected());
    }

    fn sql(&self, statements: &str) {
        sql(&self.url, statements);
    }

    fn identities(&mut self, tokens: &[&str]) -> Vec<Option<Identity>> {
        let asked = self.store.identities(tokens, NOW);
        self.runtime.block_on(asked).unwrap()
    }

    fn identity(&mut self, user: &str) -> Option<Identity> {
        let token = format!("6879-{user}-developer-token");
        self.identities(&[&token]).pop().unwrap()
    }

    fn event(&mut self, event: &Value) -> Result<Plan, Fate> {
        let event = AnnotationEvent::parse(event.as_object().unwrap())?;
        self.runtime
            .block_on(self.store.annotation(&event))
            .unwrap()
    }

    /// The plan for a change of the annotation of a number.
    fn update(&mut self, number: u32) -> Result<Plan, Fate> {
        self.event(&json!({"action": "update", "annotation_id": id(number), "src_client_id": null}))
    }

    /// What each of these gets, or why they get nothing.
    fn received(&mut self, plan: &Plan, users: &[&str]) -> Vec<Result<Value, Reason>> {
        let identities = users.iter().map(|user| self.identity(user));
        let identities: Vec<_> = identities.collect();
        let received = identities
            .iter()
            .map(|identity| received(plan, identity.as_ref()));
        received.collect()
    }

    fn statements(&self) -> u64 {
        self.stats.statements.load(Ordering::Relaxed)
    }
}

/// The id of the seed's annotation of a number.
fn id(number: u32) -> String {
    use base64::Engine as _;
    let uuid = format!("{number:08x}111111e68000{number:012x}");
    let uuid = u128::from_str_radix(&uuid, 16).unwrap().to_be_bytes();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(uuid)
}

/// What somebody gets of a plan: the first rule that holds decides.
fn received(plan: &Plan, identity: Option<&Identity>) -> Result<Value, Reason> {
    let role = |group: &str| {
        let mut memberships = identity?.memberships.iter();
        let membership = memberships.find(|membership| *membership.group == *group);
        membership.map(|membership| membership.role)
    };
    let userid = identity.map(|identity| &*identity.userid);
    let holds = |who: &Who| match who {
        Who::User(user) => userid == Some(user),
        Who::Member(group) => role(group).is_some(),
        Who::Moderator(group) => role(group).is_some_and(Role::moderates),
        Who::OneOf(userids) => userid.is_some_and(|userid| userids.contains(userid)),
    };
    let rule = plan.rules.iter().find(|rule| rule.when.iter().all(holds));
    match rule.expect("a rule for everybody").then {
        Decision::Withhold(reason) => Err(reason),
        Decision::Send(variant) => Ok(serde_json::from_str(&plan.variants[variant]).unwrap()),
    }
}

fn values(plan: &Plan, field: Field) -> BTreeSet<&str> {
    let Reach::Terms(terms) = &plan.reach else {
        panic!("{plan:?}");
    };
    let terms = terms.iter().filter(|term| term.field == field);
    terms.map(|term| &*term.value).collect()
}

// What h was recorded to send, to whom.
#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn each_annotation_goes_to_those_to_whom_h_sends_it_as_h_sends_it() {
    let mut world = World::new();
    let recorded = include_str!("data/transcripts/deliveries.jsonl");
    let mut sent = 0;
    for line in recorded.lines() {
        let transcript: Value = serde_json::from_str(line).unwrap();
        let name = transcript["name"].as_str().unwrap();
        let steps = transcript["steps"].as_array().unwrap();
        let conns = steps[0]["conn"].as_array().unwrap();
        let tokens = steps[0]["tokens"].as_array().unwrap();
        let tokens: Vec<&str> = tokens.iter().map(|it| it.as_str().unwrap_or("")).collect();
        let identities = world.identities(&tokens);
        for step in steps.iter().filter(|step| step["op"] == "publish") {
            let event = &step["events"][0];
            let plan = world.event(event).unwrap();
            assert!(values(&plan, Field::Id).contains(event["annotation_id"].as_str().unwrap()));
            for (conn, identity) in conns.iter().zip(&identities) {
                let is_for = |expected: &&Value| match &expected["conn"] {
                    Value::Array(conns) => conns.contains(conn),
                    one => one == conn,
                };
                let expected = step["expect"].as_array();
                let expected = expected.and_then(|all| all.iter().find(is_for));
                let got = received(&plan, identity.as_ref());
                let difference = difference(name, event);
                let expected = match (expected, difference) {
                    (_, Some(Difference::Delivered)) => {
                        assert!(got.is_ok(), "{name}: {conn}");
                        continue;
                    }
                    (None, _) => {
                        assert!(got.is_err(), "{name}: {conn} got {got:?}");
                        continue;
                    }
                    (Some(expected), _) => expected,
                };
                let payload = expected["payload"].as_u64().unwrap();
                let mut payload = transcript["payloads"][payload as usize].clone();
                if let Some(Difference::Links) = difference {
                    for mention in payload["mentions"].as_array_mut().unwrap() {
                        if let Value::String(link) = &mut mention["link"] {
                            *link = link.replace("http://localhost/", "http://localhost:5000/");
                        }
                    }
                }
                let message = json!({
                    "type": "annotation-notification",
                    "options": {"action": expected["action"]},
                    "payload": [payload],
                });
                assert_eq!(got, Ok(message), "{name}: {conn}");
                sent += 1;
            }
        }
    }
    assert!(sent > 700, "only {sent} are compared");
}

/// In what this is not h's.
#[derive(Clone, Copy)]
enum Difference {
    /// h sends nothing to anybody.
    Delivered,
    /// h does not know its own address.
    Links,
}

fn difference(name: &str, event: &Value) -> Option<Difference> {
    match name {
        "deliver_refs_null" | "deliver_uri_bad" | "deliver_uri_null" => Some(Difference::Delivered),
        "deliver_mention" if event["action"] != "delete" => Some(Difference::Links),
        _ => None,
    }
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn one_statement_says_who_many_tokens_are() {
    let mut world = World::new();
    let before = world.statements();
    let identities = world.identities(&[
        "6879-alice-developer-token",
        "6879-nope",
        "",
        "6879-alice\0-developer-token",
        "5768-alice-oauth",
        "5768-alice-oauth-expired",
        "5768-alice-oauth-noexpiry-refreshexpired",
        "4657-alice-refresh",
        "6879-erin-developer-token",
        "6879-üñí",
        "6879-luis-developer-token",
        "6879-alice-developer-token",
    ]);
    assert_eq!(world.statements() - before, 1);
    let userids = identities
        .iter()
        .map(|identity| Some(&*identity.as_ref()?.userid));
    let alice = Some("acct:alice@localhost");
    assert_eq!(
        userids.collect::<Vec<_>>(),
        [
            alice,
            None,
            None,
            None,
            alice,
            None,
            alice,
            None,
            None,
            Some("acct:carol@localhost"),
            Some("acct:Luis.Silva@localhost"),
            alice,
        ]
    );
    let [first, .., last] = &*identities else {
        panic!("no identities");
    };
    assert_eq!(first, last);
    let first = first.as_ref().unwrap();
    assert_eq!((first.token, first.expires), (TokenId(1), None));
    let mut groups: Vec<_> = first
        .memberships
        .iter()
        .map(|it| (&*it.group, it.role))
        .collect();
    groups.sort_unstable();
    let owner = |group| (group, Role::Owner);
    assert_eq!(
        groups,
        ["nullread", "open1234", "priv1234", "rest1234"].map(owner)
    );
    let temporary = identities[4].as_ref().unwrap();
    assert_eq!(temporary.token, TokenId(12));
    assert_eq!(temporary.expires, Some(4_070_908_800_000)); // 2099
    assert_eq!(world.identities(&["", "\0"]), [None, None]);
    assert_eq!(
        world.statements() - before,
        1,
        "nobody's tokens are not asked for"
    );
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn a_token_ends_in_the_millisecond_that_it_says() {
    let mut world = World::new();
    world.sql("UPDATE token SET expires = '2026-01-01 00:00:00.000900' WHERE id = 1");
    let end = 1_767_225_600_000;
    for (now, is_known) in [(end - 1, true), (end, false), (end + 1, false)] {
        let asked = world.store.identities(&["6879-alice-developer-token"], now);
        let identities = world.runtime.block_on(asked).unwrap();
        assert_eq!(identities[0].is_some(), is_known, "{now}");
    }
    world.sql("UPDATE token SET expires = 'infinity' WHERE id = 1");
    assert_eq!(world.identity("alice").unwrap().expires, None);
    world.sql("UPDATE token SET expires = '-infinity' WHERE id = 1");
    assert_eq!(world.identity("alice"), None);
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn the_groups_of_a_user_are_those_of_now() {
    let mut world = World::new();
    let mut groups = |userid: &str| {
        let memberships = world.runtime.block_on(world.store.memberships(userid));
        let memberships = memberships.unwrap()?;
        let groups = memberships
            .iter()
            .map(|it| format!("{} {}", it.group, it.role.as_str()));
        Some(
            groups
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
                .join(", "),
        )
    };
    let bob = "acct:bob@localhost";
    assert_eq!(
        groups(bob).as_deref(),
        Some("priv1234 moderator, priv5678 owner, rest1234 admin")
    );
    assert_eq!(groups("acct:nogroups@localhost").as_deref(), Some(""));
    // Dots and letters make no other name.
    assert_eq!(groups("acct:LuisSilva@localhost").as_deref(), Some(""));
    for nobody in [
        "acct:erin@localhost",
        "acct:bob@example.com",
        "acct:nobody@localhost",
        "bob",
        "acct:b\0ob@localhost",
    ] {
        assert_eq!(groups(nobody), None, "{nobody:?}");
    }
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn one_statement_says_what_has_become_of_many_tokens() {
    let mut world = World::new();
    world.sql(
        "DELETE FROM token WHERE id = 2;
         UPDATE token SET expires = '2001-01-01' WHERE id = 3;
         UPDATE \"user\" SET deleted = true WHERE username = 'dave';
         UPDATE \"user\" SET username = 'other' WHERE username = 'mallory';
         DELETE FROM user_group WHERE user_id = 1 AND group_id = 4",
    );
    let before = world.statements();
    let tokens = [1, 2, 3, 4, 7, 11, 5000, u64::MAX].map(TokenId);
    let swept = world.store.sweep(&tokens, NOW);
    let swept = world.runtime.block_on(swept).unwrap();
    assert_eq!(world.statements() - before, 1);
    assert_eq!(
        swept.iter().map(|(token, _)| *token).collect::<Vec<_>>(),
        tokens
    );
    let standing = |place: usize| swept[place].1.as_ref();
    let (userid, memberships) = standing(0).unwrap();
    assert_eq!(&**userid, "acct:alice@localhost");
    let groups: BTreeSet<&str> = memberships.iter().map(|it| &*it.group).collect();
    assert_eq!(groups, BTreeSet::from(["nullread", "open1234", "rest1234"]));
    for place in [1, 2, 3, 6, 7] {
        assert_eq!(standing(place), None, "{place}");
    }
    assert_eq!(&*standing(4).unwrap().0, "acct:other@example.com");
    assert_eq!(standing(5).unwrap().1, []);
}

// However many hear of it.
#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn each_event_is_one_transaction_of_ten_statements() {
    let mut world = World::new();
    for number in [0x01, 0x05, 0x15, 0x1c, 0x1d, 0x1f, 0x21, 0x25, 0x28, 0x2b] {
        let before = world.statements();
        world.update(number).unwrap();
        assert_eq!(world.statements() - before, 10, "{number:#x}");
    }
    // What is not there needs less.
    let before = world.statements();
    assert_eq!(world.update(0xffff), Err(Fate::Missing));
    assert_eq!(world.statements() - before, 3);
    world.update(0x01).unwrap();
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn a_page_is_found_under_all_names_of_its_document() {
    let mut world = World::new();
    let mut pages = |number: u32| {
        let plan = world.update(number).unwrap();
        let pages = values(&plan, Field::Uri).into_iter();
        let plain = pages.filter(|page| !page.ends_with("__vall"));
        plain.map(str::to_owned).collect::<Vec<_>>().join(" ")
    };
    for (number, expected) in [
        (0x14, PAPER), // by its address
        (0x15, PAPER), // by its fingerprint
        (0x18, "httpx://nodocs.example/x?a=1&b=2"),
        (0x17, "httpx://example.org/canon"), // annotated under its canonical address
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
        (0x35, ""), // the empty address, which h knows as a page
        (0x25, ""), // no address
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
    // Another text of the same id.
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
fn a_muted_authors_annotations_reach_only_the_author() {
    let mut world = World::new();
    for number in [0x0f, 0x10] {
        let plan = world.update(number).unwrap();
        let got = world.received(&plan, &["nobody", "alice", "bob", "dave"]);
        assert!(
            got[..3].iter().all(|one| *one == Err(Reason::Muted)),
            "{got:?}"
        );
        assert!(got[3].is_ok());
    }
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn of_what_is_deleted_only_the_end_is_told() {
    let mut world = World::new();
    for number in [0x0c, 0x0d, 0x0e] {
        for action in ["create", "update"] {
            let event =
                json!({"action": action, "annotation_id": id(number), "src_client_id": null});
            assert_eq!(world.event(&event), Err(Fate::Missing), "{number:#x}");
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
    // Hidden by moderation: those who could see it till then.
    let users = ["nobody", "dave", "alice", "bob", "carol"];
    assert_eq!(end(0x0d, &users), [false, false, true, true, true]);
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn who_flagged_and_who_moderates_see_what_is_theirs() {
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
fn a_checkpoint_hides_until_its_date() {
    let mut world = World::new();
    let (hidden, told) = (Err(Reason::Checkpoint), Ok(()));
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
    // Whoever becomes an instructor sees it all.
    world.sql("UPDATE user_group SET lms_role = 'lms_instructor' WHERE user_id = 10");
    let plan = world.update(0x29).unwrap();
    assert!(world.received(&plan, &["student2"])[0].is_ok());
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn a_row_that_cannot_be_told_costs_only_its_own_event() {
    let mut world = World::new();
    for damage in [
        "created = 'infinity'",
        "updated = '0001-01-01 BC'",
        "tags = '{{a,b},{c,d}}'",
    ] {
        world.sql(&format!(
            "UPDATE annotation SET {damage} WHERE text = 'Nested reply'"
        ));
        assert_eq!(world.update(0x06), Err(Fate::Unreadable), "{damage}");
        assert!(world.store.is_connected(), "{damage}");
        assert!(world.update(0x05).is_ok(), "{damage}");
    }
    // An end is told all the same, of what can be read at all.
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
fn an_author_whose_name_is_no_userid_is_told_of_without_links_to_them() {
    let mut world = World::new();
    let shown = received(&world.update(0x1f).unwrap(), None).unwrap();
    let payload = &shown["payload"][0];
    assert_eq!(payload["user"], "notauserid");
    assert_eq!(payload["user_info"], Value::Null);
    let links: Vec<_> = payload["links"].as_object().unwrap().keys().collect();
    assert_eq!(links, ["incontext", "json"]);
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn an_event_over_which_the_server_always_fails_is_given_up() {
    let world = World::new();
    world.sql(
        "DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN;
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest",
    );
    let mut guest = World::of(&world.url.replace("postgres@", "guest@"));
    guest.update(0x01).unwrap();
    world.sql("REVOKE SELECT ON flag FROM guest");
    let event = |number| {
        let event = json!({"action": "update", "annotation_id": id(number), "src_client_id": null});
        AnnotationEvent::parse(event.as_object().unwrap()).unwrap()
    };
    let (first, second) = (event(0x01), event(0x05));
    for event in [&first, &second, &first] {
        let away = guest.runtime.block_on(guest.store.annotation(event));
        let away = away.unwrap_err().to_string();
        assert!(away.contains("permission denied"), "{away}");
        assert!(!guest.store.is_connected());
        guest.connect();
    }
    let given_up = guest.runtime.block_on(guest.store.annotation(&first));
    assert_eq!(given_up.unwrap(), Err(Fate::Unreadable));
    world.sql("GRANT SELECT ON flag TO guest");
    guest.connect();
    guest.update(0x05).unwrap();
    drop(guest);
    world.sql("DROP OWNED BY guest; DROP ROLE guest");
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn a_database_that_stops_is_away_until_it_is_connected_to_again() {
    let postgres = Postgres::start();
    let mut world = World::of(&postgres.database());
    world.update(0x01).unwrap();
    assert_eq!(world.stats.database.connects(), 1);
    postgres.stop();
    let away = world.store.identities(&["6879-alice-developer-token"], NOW);
    let away = world.runtime.block_on(away).unwrap_err().to_string();
    assert!(!away.is_empty());
    assert!(!world.store.is_connected());
    let away = world
        .runtime
        .block_on(world.store.memberships("acct:bob@localhost"));
    assert_eq!(away.unwrap_err().to_string(), "not connected");
    let refused = world.runtime.block_on(world.store.connect()).unwrap_err();
    assert!(refused.to_string().contains("connect"), "{refused}");
    assert!(!world.stats.database.is_up());
    assert_eq!(world.stats.database.losses(), 1);
    postgres.start_again();
    world.connect();
    world.update(0x01).unwrap();
    assert_eq!(world.stats.database.connects(), 2);
    assert!(world.stats.database.is_up());
}

// It is told as soon as the connection's end is known, not when somebody asks.
#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn a_connection_that_is_cut_is_known_to_be_lost() {
    let mut world = World::new();
    world.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'h-realtime' AND datname = current_database()");
    world.runtime.block_on(async {
        while world.store.is_connected() {
            tokio::task::yield_now().await;
        }
        while world.stats.database.is_up() {
            tokio::task::yield_now().await;
        }
    });
    world.connect();
    assert!(world.identity("alice").is_some());
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn what_is_no_database_of_h_is_no_connection() {
    let url = Postgres::shared().database();
    sql(&url, "DROP TABLE checkpoint");
    let settings = Settings {
        database_url: url,
        authority: String::new(),
        app_url: String::new(),
        bouncer_url: None,
    };
    let stats = Arc::new(Stats::needing(false, true));
    let mut store = Store::new(&settings, Arc::clone(&stats)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let away = runtime.block_on(store.connect()).unwrap_err().to_string();
    assert!(away.contains("checkpoint"), "{away}");
    assert!(!store.is_connected());
    assert_eq!(stats.database.connects(), 0);
}

/// 2026-01-01.
const NOW: UnixMillis = 1_767_225_600_000;
const PAPER: &str = "doi:10.1000/12345 httpx://example.com/paper.html httpx://example.com/paper.pdf urn:x-pdf:abcdef0123456789";
