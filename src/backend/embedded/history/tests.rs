//! The history as seen by the reactor: what a backend sends after a restart, a change of rights, or
//! damage to its file.

mod damage;
mod limits;
mod restart;
mod rights;
mod shared;

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use rusqlite::Connection;
use serde_json::{Value, json};

use super::*;
use crate::backend::embedded::{Embedded, ReadableBy, Store};
use crate::backend::{Backend as _, DataDir};
use crate::model::{
    AckGuard, BackendRequest, Cause, Decision, EventKind, MonoMillis, Plan, RequestId,
    RestoredPlan, Subject,
};

const JOE: &str = "acct:joe@example.org";
const ANN: &str = "acct:ann@example.org";
const NOW: UnixMillis = 1_704_164_645_678;

/// A data directory with the users Joe and Ann, and the group `g`.
struct Site {
    temp: tempfile::TempDir,
    options: HistoryOptions,
}

impl Site {
    fn new() -> Site {
        let temp = tempfile::tempdir().unwrap();
        let site = Site {
            temp,
            options: HistoryOptions::default(),
        };
        let store = site.users();
        store.add_user(JOE, Some("Joe"), 0).unwrap();
        store.add_user(ANN, None, 0).unwrap();
        store.add_group("g", ReadableBy::Members, 0).unwrap();
        site
    }

    fn data(&self) -> DataDir {
        DataDir::open(self.temp.path()).unwrap()
    }

    /// Opens the users' database as a command does.
    fn users(&self) -> Store {
        Store::open(&self.data().database()).unwrap()
    }

    fn path(&self) -> PathBuf {
        self.data().history()
    }

    /// Opens the history as another program does.
    fn file(&self) -> Connection {
        Connection::open(self.path()).unwrap()
    }

    fn server(&self) -> Server {
        self.server_at(NOW)
    }

    fn server_at(&self, now: UnixMillis) -> Server {
        let opened = Embedded::open(&self.data(), self.options, Arc::default(), now);
        Server(opened.unwrap())
    }

    /// Starts a server; returns its first messages about the history, too.
    fn started(&self) -> (Server, Restored) {
        let mut server = self.server();
        let messages = server.turn(Vec::new(), NOW);
        (server, Restored::of(messages))
    }
}

struct Server(Embedded);

impl Server {
    fn turn(&mut self, requests: Vec<BackendRequest>, now: UnixMillis) -> Vec<BackendEvent> {
        self.0.turn(requests, now)
    }

    /// Publishes a body in a turn of its own; returns all messages of the turn.
    fn try_publish(&mut self, body: &str, now: UnixMillis) -> Vec<BackendEvent> {
        self.turn(vec![publish(body)], now)
    }

    /// Publishes a body; returns its plans.
    fn publish(&mut self, body: &str) -> Vec<Plan> {
        self.publish_at(body, NOW)
    }

    fn publish_at(&mut self, body: &str, now: UnixMillis) -> Vec<Plan> {
        let messages = self.try_publish(body, now);
        let published = messages.into_iter().find_map(|message| match message {
            BackendEvent::Published { result, .. } => Some(result.unwrap()),
            _ => None,
        });
        published.expect("an answer")
    }

    /// Runs a turn without requests; returns the plans that no request is answered with.
    fn poll(&mut self) -> Vec<Plan> {
        plans(self.turn(Vec::new(), NOW))
    }
}

fn publish(body: &str) -> BackendRequest {
    BackendRequest::Publish {
        request_id: RequestId(1),
        body: body.into(),
        claim: crate::model::PublishClaim::default(),
    }
}

fn queue_event(body: &str) -> BackendRequest {
    BackendRequest::QueueEvent {
        body: body.into(),
        received: MonoMillis(7),
        ack: AckGuard::new(|| {}),
    }
}

/// Returns the plans of messages that are no answers.
fn plans(messages: Vec<BackendEvent>) -> Vec<Plan> {
    let plans = messages.into_iter().filter_map(|message| match message {
        BackendEvent::Replanned { plans } | BackendEvent::QueueEvents { plans, .. } => Some(plans),
        _ => None,
    });
    plans.flatten().collect()
}

/// The history as sent to the reactor.
#[derive(Debug)]
struct Restored {
    start: HistoryStart,
    plans: Vec<RestoredPlan>,
}

impl Restored {
    /// Takes it from the messages of a turn, which must contain it once and in order.
    fn of(messages: Vec<BackendEvent>) -> Restored {
        Restored::find(messages).expect("a start of the history")
    }

    fn find(messages: Vec<BackendEvent>) -> Option<Restored> {
        let mut found: Option<Restored> = None;
        let mut is_ready = false;
        for message in messages {
            match message {
                BackendEvent::History(HistoryEvent::Start(start)) => {
                    assert!(found.is_none(), "two starts");
                    let plans = Vec::new();
                    found = Some(Restored { start, plans });
                }
                BackendEvent::History(HistoryEvent::Restored(chunk)) => {
                    assert!(!is_ready && !chunk.is_empty() && chunk.len() <= 256);
                    found.as_mut().unwrap().plans.extend(chunk);
                }
                BackendEvent::History(HistoryEvent::Ready) => {
                    assert!(found.is_some() && !is_ready);
                    is_ready = true;
                }
                BackendEvent::Published { .. }
                | BackendEvent::Replanned { .. }
                | BackendEvent::QueueEvents { .. } => assert!(found.is_none() || is_ready),
                _ => {}
            }
        }
        if let Some(restored) = &found {
            assert!(is_ready);
            let positions: Vec<u64> = restored.positions();
            assert!(
                positions.is_sorted_by(|one, next| one < next),
                "{positions:?}"
            );
            assert!(positions.iter().all(|&at| at > restored.start.floor));
            assert!(positions.iter().all(|&at| at <= restored.start.head));
        }
        found
    }

    fn positions(&self) -> Vec<u64> {
        self.plans
            .iter()
            .map(|one| one.plan.stamp.position)
            .collect()
    }

    fn ids(&self) -> Vec<&str> {
        self.plans.iter().map(|one| id(&one.plan)).collect()
    }
}

fn id(plan: &Plan) -> &str {
    match &plan.subject {
        Subject::Annotation(name) | Subject::User(name) => name,
    }
}

/// An event on an annotation by Joe.
fn event(action: &str, id: &str, readers: &[&str], text: &str) -> String {
    let annotation = json!({
        "id": id, "user": JOE, "uri": "http://example.com/", "text": text,
        "permissions": {"read": readers},
    });
    json!({"topic": "annotation", "action": action, "annotation": annotation}).to_string()
}

fn create(id: &str) -> String {
    event("create", id, &["group:__world__"], "")
}

/// Returns whether all users may read a plan's annotation, and, if so, the text of its variant.
fn is_public(plan: &Plan) -> bool {
    let rules = plan.rules.iter();
    let open = rules.filter(|rule| rule.when.is_empty());
    open.into_iter()
        .any(|rule| matches!(rule.then, Decision::Send(_)))
}

fn action(plan: &Plan) -> String {
    let message: Value = serde_json::from_str(&plan.variants[0]).unwrap();
    message["options"]["action"].as_str().unwrap().to_owned()
}
