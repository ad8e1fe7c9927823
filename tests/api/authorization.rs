//! Who hears of what, and as what: every kind of annotation, event and reader, over real
//! sockets, against an oracle that is written from the rules as the documentation words them.

use serde_json::{Value, json};

use crate::support::{Client, Received, Server};

/// Where an annotation is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Public,
    OpenGroup,
    ClosedGroup,
    Private,
}

/// One event about one annotation.
#[derive(Clone, Copy, Debug)]
struct Event {
    place: Place,
    hidden: bool,
    author: &'static str,
    action: &'static str,
}

/// One connection.
struct Reader {
    /// Empty for who is not logged in.
    userid: &'static str,
    is_member: bool,
    moderates: bool,
    client: Client,
}

/// The rules. Who may read: private, the author; a group's, its members, and everybody if the
/// world may read it. Hidden: only the author and the moderators. By a muted author: only the
/// author.
fn may_hear(event: Event, reader: &Reader) -> bool {
    let is_author = reader.userid == event.author;
    let may_read = match event.place {
        Place::Public | Place::OpenGroup => true,
        Place::ClosedGroup => reader.is_member,
        Place::Private => is_author,
    };
    let may_see = !event.hidden || is_author || reader.moderates;
    let is_heard = event.author != MUTED || is_author;
    may_read && may_see && is_heard
}

/// What is shown, as the keys whose values depend on the reader.
fn shown(event: Event, reader: &Reader) -> Value {
    let moderates = reader.moderates && event.place != Place::Private;
    let actions: &[&str] = if moderates { &["moderate"] } else { &[] };
    json!({
        "actions": actions,
        "moderation": moderates.then_some(json!({"flagCount": 3})),
        // Authors are never told.
        "hidden": event.hidden && reader.userid != event.author,
        "flagged": false,
    })
}

fn events() -> Vec<Event> {
    let mut events = Vec::new();
    for place in [
        Place::Public,
        Place::OpenGroup,
        Place::ClosedGroup,
        Place::Private,
    ] {
        for hidden in [false, true] {
            for author in [AUTHOR, MUTED, OWNER] {
                for action in ["create", "update", "delete"] {
                    events.push(Event {
                        place,
                        hidden,
                        author,
                        action,
                    });
                }
            }
        }
    }
    events
}

fn to_publish(event: Event, id: &str) -> Value {
    let (group, read) = match event.place {
        Place::Public => ("__world__", "group:__world__"),
        // h says of a group that the world may read what it says of the public one.
        Place::OpenGroup if event.action == "update" => ("open", "group:__world__"),
        Place::OpenGroup => ("open", "group:open"),
        Place::ClosedGroup => ("closed", "group:closed"),
        Place::Private => ("closed", event.author),
    };
    json!({
        "topic": "annotation", "action": event.action, "annotation_id": id, "src_client_id": null,
        "annotation": {
            "id": id, "user": event.author, "uri": PAGE, "group": group, "text": "Hello",
            "permissions": {"read": [read]}, "hidden": event.hidden,
            "moderation": {"flagCount": 3}, "actions": ["moderate"], "flagged": true,
        },
    })
}

/// A server with users and groups, and the connections of all kinds of readers.
fn audience() -> (Server, Vec<Reader>) {
    let server = Server::start();
    server.run(&["group", "add", "open", "--readable-by", "world"]);
    server.run(&["group", "add", "closed", "--readable-by", "members"]);
    let mut readers = vec![Reader {
        userid: "",
        is_member: false,
        moderates: false,
        client: server.anonymous(),
    }];
    for (userid, role) in [
        (OTHER, ""),
        (MEMBER, "member"),
        (MODERATOR, "moderator"),
        (ADMIN, "admin"),
        (OWNER, "owner"),
        (AUTHOR, "member"),
        (MUTED, "member"),
    ] {
        let token = server.user(userid);
        for group in ["__world__", "open", "closed"]
            .iter()
            .filter(|_| !role.is_empty())
        {
            server.run(&["group", "member", "add", group, userid, "--role", role]);
        }
        readers.push(Reader {
            userid,
            is_member: !role.is_empty(),
            moderates: !role.is_empty() && role != "member",
            client: server.logged_in(&token),
        });
    }
    server.run(&["user", "mute", MUTED]);
    for reader in &mut readers {
        reader.client.subscribe("/uri", PAGE);
    }
    (server, readers)
}

/// The notifications that came, when all of them must have.
fn heard(client: &mut Client) -> Vec<Value> {
    let read = |received| match received {
        Received::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    };
    client.drain().into_iter().map(read).collect()
}

// CVE-2025-55070
#[test]
fn every_event_reaches_who_may_hear_of_it_and_shows_what_they_may_see() {
    let (server, mut readers) = audience();
    let events = events();
    assert_eq!(events.len(), 4 * 2 * 3 * 3);
    for (number, event) in events.into_iter().enumerate() {
        let id = format!("A{number}");
        let published = to_publish(event, &id);
        let expected = readers.iter().filter(|reader| may_hear(event, reader));
        let answer = json!({"accepted": 1, "matched": expected.count()});
        assert_eq!(
            server.publish(&published.to_string()),
            (202, answer),
            "{event:?}"
        );

        for reader in &mut readers {
            let what = format!("{event:?} for {:?}", reader.userid);
            let heard = heard(&mut reader.client);
            if !may_hear(event, reader) {
                assert_eq!(heard, [] as [Value; 0], "{what}");
                continue;
            }
            assert_eq!(heard.len(), 1, "{what}");
            assert_eq!(heard[0]["type"], "annotation-notification");
            assert_eq!(heard[0]["options"], json!({"action": event.action}));
            let payload = &heard[0]["payload"];
            if event.action == "delete" {
                assert_eq!(payload, &json!([{ "id": id }]), "{what}");
                continue;
            }
            assert_eq!(payload.as_array().map(Vec::len), Some(1), "{what}");
            assert_eq!(payload[0]["id"], json!(id), "{what}");
            assert_eq!(payload[0]["user"], event.author, "{what}");
            let expected = shown(event, reader);
            for (key, value) in expected.as_object().unwrap() {
                let found = payload[0].get(key).unwrap_or(&Value::Null);
                assert_eq!(found, value, "{what}: {key}");
            }
        }
    }
}

#[test]
fn a_moderation_status_hides_and_only_approval_does_not() {
    let (server, mut readers) = audience();
    for (status, hidden) in [
        (json!(null), false),
        (json!("APPROVED"), false),
        (json!("PENDING"), true),
        (json!("DENIED"), true),
        (json!("SPAM"), true),
        (json!("whatever comes"), true),
    ] {
        let event = Event {
            place: Place::OpenGroup,
            hidden,
            author: AUTHOR,
            action: "create",
        };
        let mut published = to_publish(event, "A");
        published["annotation"]["hidden"] = json!(null);
        published["annotation"]["moderation_status"] = status.clone();
        server.publish(&published.to_string());
        for reader in &mut readers {
            let count = usize::from(may_hear(event, reader));
            let heard = heard(&mut reader.client);
            assert_eq!(heard.len(), count, "{status} for {:?}", reader.userid);
        }
    }
}

/// Groups that are not there have no members, and a group's name on an annotation alone opens
/// nothing.
#[test]
fn what_names_no_known_reader_reaches_nobody() {
    let (server, mut readers) = audience();
    for (group, read) in [
        ("nowhere", "group:nowhere"),
        ("closed", "group:nowhere"),
        ("__world__", "group:nowhere"),
        ("closed", "acct:nobody@example.org"),
    ] {
        let published = json!({
            "topic": "annotation", "action": "create",
            "annotation": {"id": "A", "user": AUTHOR, "uri": PAGE, "group": group,
                           "permissions": {"read": [read]}},
        });
        let (status, answer) = server.publish(&published.to_string());
        assert_eq!((status, &answer["matched"]), (202, &json!(0)), "{read}");
        for reader in &mut readers {
            assert_eq!(heard(&mut reader.client), [] as [Value; 0], "{read}");
        }
    }
}

/// A closed group stays closed when the annotation says that the world may read it.
#[test]
fn the_groups_own_word_counts() {
    let (server, mut readers) = audience();
    let published = json!({
        "topic": "annotation", "action": "create",
        "annotation": {"id": "A", "user": AUTHOR, "uri": PAGE, "group": "closed",
                       "permissions": {"read": ["group:__world__"]}},
    });
    server.publish(&published.to_string());
    for reader in &mut readers {
        let count = usize::from(reader.is_member);
        assert_eq!(heard(&mut reader.client).len(), count, "{}", reader.userid);
    }
}

const PAGE: &str = "https://example.org/matrix";
const OTHER: &str = "acct:other@example.org";
const MEMBER: &str = "acct:member@example.org";
const MODERATOR: &str = "acct:moderator@example.org";
const ADMIN: &str = "acct:admin@example.org";
/// Moderates, and annotates too.
const OWNER: &str = "acct:owner@example.org";
const AUTHOR: &str = "acct:author@example.org";
const MUTED: &str = "acct:muted@example.org";
