//! `forward` sends nothing that the user of its token may not read at the moment of sending.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::sync::mpsc::channel;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::forward::publish;
use crate::support::{
    Hook, HookReply, PATIENCE, PROGRAM, Program, Server, Subscribed, eventually, http, subscribed,
};

/// A server with a group, a member of it, a command that forwards the group's annotations as that
/// member, and a receiver that is down.
struct World {
    server: Server,
    folder: TempDir,
    receiver: SocketAddr,
    program: Program,
    metrics: SocketAddr,
}

const MEMBER: &str = "acct:member@example.org";
const SECRET: &str = "the-secret-text";

impl World {
    fn start() -> World {
        let server = Server::start();
        let folder = TempDir::new().unwrap();
        let token = server.user(MEMBER);
        server.run(&["group", "add", "g"]);
        server.run(&["group", "member", "add", "g", MEMBER]);
        fs::write(folder.path().join("token"), token).unwrap();
        // The port is free again, and nothing listens there.
        let receiver = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let program = World::forward(&server, &folder, receiver);
        let line = program.wait_for_error_line("metrics: http://");
        let metrics = line.trim_start_matches("metrics: http://");
        let metrics = metrics.trim_end_matches("/metrics").parse().unwrap();
        program.wait_for_error_line("connected as");
        World {
            server,
            folder,
            receiver,
            program,
            metrics,
        }
    }

    fn forward(server: &Server, folder: &TempDir, receiver: SocketAddr) -> Program {
        let mut command = Command::new(PROGRAM);
        let path = |name: &str| folder.path().join(name);
        command
            .args([
                "forward",
                &server.listeners[0],
                "--group",
                "g",
                "--retry-delay",
                "200ms",
            ])
            .args(["--url", &format!("http://{receiver}/hook")])
            .arg("--state")
            .arg(path("state"))
            .arg("--token-file")
            .arg(path("token"));
        command.args(["--metrics", "127.0.0.1:0"]);
        Program::start(&mut command)
    }

    /// Waits until the command has received the retraction of the pending annotation.
    fn wait_for_retraction(&self) {
        let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
        eventually(PATIENCE, || {
            let (_, _, text) = http(self.metrics, request);
            text.contains("\nh_realtime_forward_replaced_total 1\n")
                .then_some(())
        });
    }

    /// Publishes an annotation with a secret text in the group.
    fn publish_secret(&self) {
        publish(&self.server, "create", annotation("A", SECRET));
        self.program.wait_for_error_line("request failed");
    }

    /// Starts the receiver. Returns the type of the next request for the annotation; no request has
    /// the secret text.
    fn outcome(&self) -> String {
        let hook = Hook::at(self.receiver, |_, _| HookReply::Status(204, ""));
        publish(&self.server, "create", annotation("last", "public"));
        let mut found = None;
        loop {
            let request = hook.next();
            assert!(!request.body.contains(SECRET), "{}", request.body);
            match request.id_and_type() {
                (id, kind) if id == "A" => found = Some(kind),
                (id, _) if id == "last" && found.is_some() => return found.unwrap(),
                _ => {}
            }
            if let Some(kind) = &found {
                return kind.clone();
            }
        }
    }
}

fn annotation(id: &str, text: &str) -> Value {
    json!({"id": id, "text": text, "group": "g", "permissions": {"read": ["group:g"]}})
}

/// Returns the annotation with members replaced.
fn with(more: Value) -> Value {
    let mut annotation = annotation("A", SECRET);
    for (key, value) in more.as_object().unwrap() {
        annotation[key] = value.clone();
    }
    annotation
}

#[test]
fn text_that_became_unreadable_before_it_was_sent_is_not_sent() {
    let private = with(json!({"permissions": {"read": ["acct:author@example.org"]}}));
    let hidden = with(json!({"hidden": true}));
    let moved = with(json!({"group": "other", "permissions": {"read": ["group:other"]}}));
    for (action, more) in [
        ("update", private),
        ("update", hidden),
        ("update", moved),
        ("delete", annotation("A", SECRET)),
    ] {
        let world = World::start();
        world.publish_secret();
        publish(&world.server, action, more.clone());
        world.wait_for_retraction();
        assert_eq!(world.outcome(), "annotation.deleted", "{action} {more}");
    }
}

#[test]
fn text_by_an_author_muted_before_it_was_sent_is_not_sent() {
    let world = World::start();
    world.server.user("acct:author@example.org");
    world.publish_secret();
    world
        .server
        .run(&["user", "mute", "acct:author@example.org"]);
    world.wait_for_retraction();
    assert_eq!(world.outcome(), "annotation.deleted");
}

#[test]
fn text_of_a_group_that_the_user_left_before_it_was_sent_is_not_sent() {
    let world = World::start();
    world.publish_secret();
    world
        .server
        .run(&["group", "member", "remove", "g", MEMBER]);
    world.wait_for_retraction();
    let hook = Hook::at(world.receiver, |_, _| HookReply::Status(204, ""));
    let request = hook.next();
    let expected = ("A".to_owned(), "annotation.deleted".to_owned());
    assert_eq!(request.id_and_type(), expected, "{}", request.body);
}

#[test]
fn text_that_became_unreadable_while_the_stream_was_down_is_not_sent() {
    let mut world = World::start();
    world.publish_secret();
    let _ = world.server.child.kill();
    world.server.wait();
    // The receiver works again while the readability of the text is unknown.
    world.program.wait_for_error_line("reconnecting in");
    let hook = Hook::at(world.receiver, |_, _| HookReply::Status(204, ""));
    assert!(hook.next_within(Duration::from_secs(1)).is_err());
    drop(hook);
    eventually(PATIENCE, || TcpListener::bind(world.receiver).ok());
    world.server = world.server.successor();
    let private = with(json!({"permissions": {"read": ["acct:author@example.org"]}}));
    publish(&world.server, "update", private);
    // In the order of the stream, its retraction precedes the last event.
    let hook = Hook::at(world.receiver, |_, _| HookReply::Status(204, ""));
    publish(&world.server, "create", annotation("last", "public"));
    loop {
        let request = hook.next_within(3 * PATIENCE).unwrap();
        assert!(!request.body.contains(SECRET), "{}", request.body);
        if request.id_and_type().0 == "last" {
            return;
        }
    }
}

#[test]
fn revoked_token_ends_the_command_and_nothing_more_is_sent() {
    let mut world = World::start();
    world.publish_secret();
    let tokens = world.server.run(&["token", "list", MEMBER]);
    let id = tokens.split_whitespace().next().unwrap().to_owned();
    world.server.run(&["token", "revoke", &id]);
    world
        .program
        .wait_for_error_line("the token is no longer valid");
    assert_eq!(world.program.wait(), Some(77));
    let hook = Hook::at(world.receiver, |_, _| HookReply::Status(204, ""));
    assert!(hook.next_within(Duration::from_secs(1)).is_err());
    assert!(world.folder.path().join("state").exists());
}

#[test]
fn nothing_is_sent_while_the_server_is_silent() {
    let folder = TempDir::new().unwrap();
    let hook = Hook::start(|number, _| match number {
        // The next attempt is due when the last sign of life is too old.
        0 => HookReply::Status(503, "Retry-After: 7\r\n"),
        _ => HookReply::Status(204, ""),
    });
    let (proceed, silence) = channel::<()>();
    let (url, _) = subscribed(vec![move |socket: &mut Subscribed| {
        socket.accept("c0");
        let event = json!({"type": "annotation-notification", "options": {"action": "create"},
            "payload": [{"id": "A"}], "cursor": "c1"});
        socket.say(&event);
        // The ping of the client is not answered meanwhile.
        silence.recv().unwrap();
    }]);
    let _program = super::forward::forward(&url, &hook.url(), folder.path(), &[]);
    hook.next();
    assert!(hook.next_within(Duration::from_secs(9)).is_err());
    proceed.send(()).unwrap();
    assert_eq!(hook.next().id_and_type().0, "A");
}

/// Starts the command and a receiver that works. Returns both, after the annotation was received.
fn receiving(server: &Server, folder: &TempDir) -> (Hook, Program) {
    let hook = Hook::accepting();
    let address = hook.url();
    let address = address.trim_start_matches("http://");
    let address = address.trim_end_matches("/hook").parse().unwrap();
    let program = World::forward(server, folder, address);
    program.wait_for_error_line("connected as");
    (hook, program)
}

/// Returns the id of the next request, which has this type.
fn next_id(hook: &Hook, kind: &str) -> String {
    let request = hook.next();
    assert_eq!(request.id_and_type(), ("A".to_owned(), kind.to_owned()));
    request.field("webhook-id").to_owned()
}

#[test]
fn repeated_changes_of_a_membership_are_not_ignored_by_their_ids() {
    let World {
        server,
        folder,
        program,
        ..
    } = World::start();
    drop(program);
    let (hook, program) = receiving(&server, &folder);
    publish(&server, "create", annotation("A", SECRET));
    let mut ids = vec![next_id(&hook, "annotation.created")];
    for _ in 0..2 {
        server.run(&["group", "member", "remove", "g", MEMBER]);
        ids.push(next_id(&hook, "annotation.deleted"));
        server.run(&["group", "member", "add", "g", MEMBER]);
        ids.push(next_id(&hook, "annotation.created"));
    }
    // Nor after a restart of the command at the same position.
    drop((hook, program));
    let (hook, _program) = receiving(&server, &folder);
    server.run(&["group", "member", "remove", "g", MEMBER]);
    ids.push(next_id(&hook, "annotation.deleted"));
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "{ids:?}");
}
