//! Authorization: every kind of annotation, event, and reader over real sockets, compared with an
//! oracle written from the documented rules.

use serde_json::{Value, json};

use crate::support::{Client, Received, Server};

/// The visibility of an annotation.
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
    /// Empty for an anonymous reader.
    userid: &'static str,
    is_member: bool,
    moderates: bool,
    client: Client,
}

/// The rules. Readers: of a private annotation, its author; of a group's, its members, and everyone
/// if the group is world-readable. Hidden: only the author and the moderators. By a muted author:
/// only the author.
fn may_read(event: Event, reader: &Reader) -> bool {
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

/// Returns the expected values of the members that depend on the reader.
fn shown(event: Event, reader: &Reader) -> Value {
    let moderates = reader.moderates && event.place != Place::Private;
    let actions: &[&str] = if moderates { &["moderate"] } else { &[] };
    json!({
        "actions": actions,
        "moderation": moderates.then_some(json!({"flagCount": 3})),
        // The author never sees that the annotation is hidden.
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
        // h writes the same for a world-readable group as for the public one.
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

/// Starts a server with users and groups, and connects all kinds of readers.
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

/// Returns the notifications received up to a fence.
fn received(client: &mut Client) -> Vec<Value> {
    let read = |received| match received {
        Received::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    };
    client.drain().into_iter().map(read).collect()
}

// CVE-2025-55070
#[test]
fn events_reach_exactly_the_permitted_readers() {
    let (server, mut readers) = audience();
    let events = events();
    assert_eq!(events.len(), 4 * 2 * 3 * 3);
    for (number, event) in events.into_iter().enumerate() {
        let id = format!("A{number}");
        let published = to_publish(event, &id);
        let expected = readers.iter().filter(|reader| may_read(event, reader));
        let answer = json!({"accepted": 1, "matched": expected.count()});
        assert_eq!(
            server.publish(&published.to_string()),
            (202, answer),
            "{event:?}"
        );

        for reader in &mut readers {
            let what = format!("{event:?} for {:?}", reader.userid);
            let received = received(&mut reader.client);
            if !may_read(event, reader) {
                assert_eq!(received, [] as [Value; 0], "{what}");
                continue;
            }
            assert_eq!(received.len(), 1, "{what}");
            assert_eq!(received[0]["type"], "annotation-notification");
            assert_eq!(received[0]["options"], json!({"action": event.action}));
            let payload = &received[0]["payload"];
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
fn any_moderation_status_but_approved_hides() {
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
        // A new annotation each time: a hidden one would be retracted from its readers.
        let mut published = to_publish(event, &format!("A-{status}"));
        published["annotation"]["hidden"] = json!(null);
        published["annotation"]["moderation_status"] = status.clone();
        server.publish(&published.to_string());
        for reader in &mut readers {
            let count = usize::from(may_read(event, reader));
            let received = received(&mut reader.client);
            assert_eq!(received.len(), count, "{status} for {:?}", reader.userid);
        }
    }
}

/// An unknown group has no members, and the name of a group in an annotation alone grants nothing.
#[test]
fn unknown_readers_grant_no_access() {
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
            assert_eq!(received(&mut reader.client), [] as [Value; 0], "{read}");
        }
    }
}

/// A closed group stays closed even if an annotation permits everyone to read.
#[test]
fn readability_is_decided_by_the_group() {
    let (server, mut readers) = audience();
    let published = json!({
        "topic": "annotation", "action": "create",
        "annotation": {"id": "A", "user": AUTHOR, "uri": PAGE, "group": "closed",
                       "permissions": {"read": ["group:__world__"]}},
    });
    server.publish(&published.to_string());
    for reader in &mut readers {
        let count = usize::from(reader.is_member);
        assert_eq!(
            received(&mut reader.client).len(),
            count,
            "{}",
            reader.userid
        );
    }
}

const PAGE: &str = "https://example.org/matrix";
const OTHER: &str = "acct:other@example.org";
const MEMBER: &str = "acct:member@example.org";
const MODERATOR: &str = "acct:moderator@example.org";
const ADMIN: &str = "acct:admin@example.org";
/// Moderates and annotates.
const OWNER: &str = "acct:owner@example.org";
const AUTHOR: &str = "acct:author@example.org";
const MUTED: &str = "acct:muted@example.org";
