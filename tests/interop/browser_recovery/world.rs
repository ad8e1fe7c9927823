//! A server with annotations on a page, changes of them, and the correct result.

use std::collections::BTreeMap;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::link::{Direction, Link, PassedFrame};
use super::service::Service;
use super::sidebar::Sidebar;
use crate::support::{PATIENCE, Server, eventually};

/// A server, the link to it, and the site with the client.
pub struct World {
    pub server: Server,
    pub link: Link,
    pub service: Service,
    /// The number of fences so far.
    fences: u32,
}

/// A notification that a browser has received.
#[derive(Debug)]
pub struct Notification {
    pub connection: usize,
    pub action: String,
    pub id: String,
    /// The text of the annotation. `None` for a deletion.
    pub text: Option<String>,
}

impl World {
    /// Starts a server with this configuration.
    pub fn start(config: &str) -> World {
        let server = Server::configured(config);
        let link = Link::start(server.address());
        let service = Service::start(link.address);
        for user in [BOB, CAROL, DAVE] {
            server.run(&["user", "add", user]);
        }
        server.run(&["user", "mute", DAVE]);
        server.run(&["group", "add", CLUB]);
        World {
            server,
            link,
            service,
            fences: 0,
        }
    }

    /// Stops the server as a service manager does.
    pub fn stop(&mut self) {
        self.server.signal(Signal::TERM);
        assert_eq!(self.server.wait().1, Some(0));
    }

    /// Stops the server, and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.server = self.server.successor();
    }

    /// Adds a user with a token, and returns the token.
    pub fn user(&self, userid: &str) -> String {
        let token = self.server.user(userid);
        self.service.add_user(userid, &token);
        token
    }

    /// Returns a public annotation by Bob that quotes a word of the page.
    pub fn annotation(&self, word: &str, version: u32) -> Value {
        self.annotation_by(BOB, word, version)
    }

    /// Returns a public annotation by a user that quotes a word of the page.
    pub fn annotation_by(&self, user: &str, word: &str, version: u32) -> Value {
        let page = self.service.page();
        let time = |minute| format!("2026-01-02T03:{minute:02}:05.678901+00:00");
        json!({
            "id": word, "user": user, "uri": page,
            "created": time(1), "updated": time(version),
            "group": "__world__", "text": format!("{word} v{version}"), "tags": [],
            "permissions": {
                "read": ["group:__world__"],
                "admin": [user], "update": [user], "delete": [user],
            },
            "target": [{
                "source": page,
                "selector": [{"type": "TextQuoteSelector", "exact": word}],
            }],
            "document": {}, "links": {}, "mentions": [], "actions": [],
            "user_info": {"display_name": null}, "flagged": false, "hidden": false,
        })
    }

    pub fn publish(&self, action: &str, annotation: &Value) {
        self.publish_by(None, action, annotation);
    }

    /// Publishes an event that a client has caused.
    pub fn publish_by(&self, client: Option<&str>, action: &str, annotation: &Value) {
        let event = json!({
            "topic": "annotation", "action": action, "annotation_id": annotation["id"],
            "src_client_id": client, "annotation": annotation,
        });
        let (status, reply) = self.server.publish(&event.to_string());
        assert_eq!(status, 202, "{reply}");
    }

    /// Publishes the last edit by a client, once the service has it.
    pub fn publish_edit(&self) {
        let edit = eventually(PATIENCE, || self.service.take_edits().pop());
        self.publish_by(Some(&edit.client_id), "update", &edit.annotation);
    }

    /// Adds a user to the group.
    pub fn join(&self, userid: &str) {
        self.server.run(&["group", "member", "add", CLUB, userid]);
        self.service.set_groups(userid, &[CLUB]);
    }

    /// Removes a user from the group.
    pub fn leave(&self, userid: &str) {
        self.server
            .run(&["group", "member", "remove", CLUB, userid]);
        self.service.set_groups(userid, &[]);
    }

    /// Publishes the event by which h announces that a user has left a group.
    pub fn publish_leave(&self, userid: &str) {
        let event = json!({
            "topic": "user", "type": "group-leave", "userid": userid,
            "session_model": {
                "userid": userid, "authority": "example.org", "groups": [], "features": {},
                "preferences": {},
            },
        });
        let (status, reply) = self.server.publish(&event.to_string());
        assert_eq!(status, 202, "{reply}");
    }

    /// Publishes the annotations that a page shows at first, and others that it must not show.
    pub fn publish_first(&self) {
        let mut first = ["alpha", "bravo", "charlie", "delta", "echo", "golf"]
            .map(|word| self.annotation(word, 1))
            .to_vec();
        first.push(self.annotation_by(CAROL, "foxtrot", 1));
        for annotation in &first {
            self.publish("create", annotation);
        }
        self.service.set_annotations(&first);
        self.publish("create", &hidden(self.annotation("lima", 1)));
        self.publish("create", &self.annotation_by(DAVE, "mike", 1));
    }

    /// Changes some annotations of [`World::publish_first`].
    pub fn change(&self) {
        for word in ["hotel", "india", "juliett", "kilo"] {
            self.publish("create", &self.annotation(word, 1));
        }
        self.publish("update", &self.annotation("alpha", 2));
        self.publish("update", &hidden(self.annotation("charlie", 2)));
        self.publish("update", &private(self.annotation("delta", 2)));
    }

    /// Changes others.
    pub fn change_more(&self) {
        self.publish("update", &self.annotation("india", 2));
        self.publish("delete", &self.annotation("juliett", 1));
        self.publish("update", &private(self.annotation("kilo", 2)));
        self.publish("delete", &self.annotation("bravo", 1));
        self.publish("update", &in_club(self.annotation("echo", 2)));
        self.server.run(&["user", "mute", CAROL]);
        self.publish("update", &self.annotation("lima", 2));
        self.server.run(&["user", "unmute", DAVE]);
    }

    /// Waits until a browser has set its filter on the connection with this number, or on a later one.
    pub fn wait_for_connection(&self, number: usize) {
        let has_filter = |frame: &PassedFrame| {
            let message = frame.json().unwrap_or_default();
            frame.connection >= number
                && frame.direction == Direction::ToServer
                && message["filter"].is_object()
        };
        eventually(2 * PATIENCE, || {
            self.link.frames().iter().any(has_filter).then_some(())
        });
    }

    /// Publishes another version of an annotation, and waits until a browser has been sent it on the
    /// connection with this number, or on a later one. Returns its text.
    pub fn send_fence(&mut self, connection: usize) -> String {
        self.wait_for_connection(connection);
        self.fences += 1;
        let annotation = self.annotation(FENCE, self.fences);
        self.publish("update", &annotation);
        let text = annotation["text"].as_str();
        let is_fence =
            |one: &Notification| one.text.as_deref() == text && one.connection >= connection;
        eventually(4 * PATIENCE, || {
            self.notifications().iter().any(is_fence).then_some(())
        });
        text.unwrap_or_default().to_owned()
    }

    /// The same, and applies it and everything that was published before in the sidebar.
    pub fn fence(&mut self, sidebar: &Sidebar, connection: usize) {
        let text = self.send_fence(connection);
        sidebar.apply_until(&text);
    }

    /// Returns the text of the last fence.
    pub fn fence_text(&self) -> String {
        format!("{FENCE} v{}", self.fences)
    }

    /// Returns all notifications that browsers have received.
    pub fn notifications(&self) -> Vec<Notification> {
        let mut notifications = Vec::new();
        for frame in self.link.frames() {
            let message = frame.json().unwrap_or_default();
            if message["type"] != "annotation-notification" {
                continue;
            }
            let action = message["options"]["action"].as_str().unwrap();
            for entry in message["payload"].as_array().unwrap() {
                let text = entry["text"].as_str().map(str::to_owned);
                assert_eq!(text.is_none(), action == "delete", "{message}");
                assert!(action != "delete" || entry.as_object().unwrap().len() == 1);
                notifications.push(Notification {
                    connection: frame.connection,
                    action: action.to_owned(),
                    id: entry["id"].as_str().unwrap().to_owned(),
                    text,
                });
            }
        }
        notifications
    }

    /// Returns the notifications that were sent on a connection and later ones.
    pub fn sent_since(&self, connection: usize) -> Vec<String> {
        let sent = self.notifications().into_iter();
        let sent = sent.filter(|one| one.connection >= connection);
        sent.map(|one| format!("{} {}", one.action, one.text.unwrap_or(one.id)))
            .collect()
    }

    /// Asserts that a sidebar with all changes is right once its updates have been applied.
    pub fn assert_result(&self, sidebar: &Sidebar) {
        let fence = self.fence_text();
        let mut texts = RESULT.to_vec();
        texts.push(&fence);
        sidebar.shows(&texts);
        let words = texts.iter().map(|text| text.split(' ').next().unwrap());
        sidebar.highlights(&words.collect::<Vec<_>>());
        assert_eq!(sidebar.errors(), [""; 0]);
        assert_eq!(self.service.requests("/page"), 1, "no reload");
        assert_eq!(self.service.requests("/api/search"), 1);
    }

    /// Asserts that a connection that replays all changes was sent each annotation once, in a state
    /// that is readable now. Annotations that have not changed may be repeated.
    pub fn assert_replay(&self, connection: usize) {
        let mut sent = BTreeMap::new();
        for one in self.notifications() {
            if one.connection == connection && one.id != FENCE {
                let before = sent.insert(one.id.clone(), one.text);
                assert_eq!(before, None, "{} twice", one.id);
            }
        }
        for word in ["bravo", "charlie", "delta", "echo", "foxtrot"] {
            assert_eq!(sent.remove(word), Some(None), "{word}");
        }
        // Created and removed during the interruption.
        for word in ["juliett", "kilo"] {
            assert!(matches!(sent.remove(word), None | Some(None)), "{word}");
        }
        let unchanged = sent.remove("golf").flatten();
        assert!(matches!(unchanged.as_deref(), None | Some("golf v1")));
        let texts: Vec<_> = sent.into_values().map(Option::unwrap).collect();
        let changed = RESULT.into_iter().filter(|text| *text != "golf v1");
        assert_eq!(texts, changed.collect::<Vec<_>>());
    }
}

/// Returns the annotation hidden by moderation.
pub fn hidden(mut annotation: Value) -> Value {
    annotation["hidden"] = json!(true);
    annotation["moderation_status"] = json!("DENIED");
    annotation
}

/// Returns the annotation readable for its author only.
pub fn private(mut annotation: Value) -> Value {
    annotation["permissions"]["read"] = json!([annotation["user"]]);
    annotation
}

/// Returns the annotation in a group for its members.
pub fn in_club(mut annotation: Value) -> Value {
    annotation["group"] = json!(CLUB);
    annotation["permissions"]["read"] = json!([format!("group:{CLUB}")]);
    annotation
}

/// The texts of [`World::publish_first`] that are visible.
pub const FIRST: [&str; 7] = [
    "alpha v1",
    "bravo v1",
    "charlie v1",
    "delta v1",
    "echo v1",
    "foxtrot v1",
    "golf v1",
];
/// The texts that are visible after all changes.
pub const RESULT: [&str; 6] = [
    "alpha v2", "golf v1", "hotel v1", "india v2", "lima v2", "mike v1",
];
/// The id of an annotation that is published last.
pub const FENCE: &str = "papa";

pub const BOB: &str = "acct:bob@example.org";
pub const CAROL: &str = "acct:carol@example.org";
pub const DAVE: &str = "acct:dave@example.org";
pub const CLUB: &str = "club";
