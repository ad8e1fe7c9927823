//! The delivery contract: replays, their seam with live events, rights, and retractions.

use serde_json::Value;

use crate::model::{
    BackendEvent, Candidates, Cause, Condition, Decision, DenyReason, EventKind, Field,
    HistoryEvent, HistoryStart, MonoMillis, Plan, Rule, Stamp, Subject,
};
use crate::realtime::history::{Cursor, ReplayCursor};
use crate::realtime::testing::{Output, START, TestApi, rule, term};
use crate::realtime::{ApiSettings, HistorySettings};

/// A server with a history, and the number of its last event.
struct Server {
    api: TestApi,
    position: u64,
}

fn public() -> Vec<Rule> {
    vec![rule(vec![], Decision::Send(0))]
}

fn members(group: &str) -> Vec<Rule> {
    vec![rule(
        vec![Condition::Member(group.into())],
        Decision::Send(0),
    )]
}

fn unreadable() -> Vec<Rule> {
    vec![rule(vec![], Decision::Deny(DenyReason::Hidden))]
}

/// Parses a cursor outside a replay.
fn parsed(text: &Value) -> Cursor {
    let cursor = ReplayCursor::parse(text.as_str().unwrap()).unwrap();
    assert_eq!(cursor, cursor.cursor.into());
    cursor.cursor
}

fn notification(action: &str, id: &str) -> String {
    format!(
        r#"{{"type":"annotation-notification","options":{{"action":"{action}"}},"payload":[{{"id":"{id}"}}]}}"#
    )
}

impl Server {
    fn new() -> Self {
        Server::unready().ready()
    }

    fn unready() -> Self {
        let mut api = TestApi::new(ApiSettings::default());
        assert_eq!(
            api.backend_event(BackendEvent::History(HistoryEvent::Start(START))),
            []
        );
        Server { api, position: 0 }
    }

    fn ready(mut self) -> Self {
        assert_eq!(self.set_ready(), []);
        self
    }

    fn set_ready(&mut self) -> Vec<Output> {
        self.api
            .backend_event(BackendEvent::History(HistoryEvent::Ready))
    }

    fn plan(&mut self, kind: EventKind, id: &str, rules: Vec<Rule>) -> Plan {
        self.position += 1;
        Plan {
            kind,
            subject: Subject::Annotation(id.into()),
            stamp: Stamp {
                position: self.position,
                time: 1000 * self.position,
            },
            cause: Cause::Event,
            candidates: Candidates::Terms(vec![term(Field::Id, id), term(Field::Group, "page")]),
            exclude_client: None,
            rules,
            variants: vec![notification(kind.as_str(), id).into()],
        }
    }

    /// Delivers a plan, and returns its receivers with the action and the id that each is sent.
    fn deliver(&mut self, plan: Plan) -> Vec<(u32, String)> {
        let (_, outputs) = self.api.deliver(vec![plan]);
        let mut sent = Vec::new();
        for output in outputs {
            let Output::Deliver(to) = output else {
                panic!("{output:?}");
            };
            sent.extend(to);
        }
        short(sent)
    }

    fn event(&mut self, kind: EventKind, id: &str, rules: Vec<Rule>) -> Vec<(u32, String)> {
        let plan = self.plan(kind, id, rules);
        self.deliver(plan)
    }

    fn create(&mut self, id: &str) -> Vec<(u32, String)> {
        self.event(EventKind::Create, id, public())
    }

    /// Sends a plan because of changed rights.
    fn change_rights(&mut self, id: &str, rules: Vec<Rule>) -> Vec<(u32, String)> {
        let plan = Plan {
            cause: Cause::RightsChange,
            ..self.plan(EventKind::Create, id, rules)
        };
        self.deliver(plan)
    }

    /// Sets a filter for the page with `since`, and returns the reply.
    fn since(&mut self, index: u32, since: &str) -> Value {
        let text = format!(
            r#"{{"type":"filter","id":3,"since":"{since}","filter":{{"match_policy":"include_any","clauses":[{{"field":"/group","value":"page"}}],"actions":{{}}}}}}"#
        );
        let outputs = self.api.text(index, &text);
        let [Output::Reply(reply)] = &outputs[..] else {
            panic!("{outputs:?}");
        };
        serde_json::from_str(reply).unwrap()
    }

    fn replay(&mut self) -> Vec<(u32, String)> {
        short(self.api.replay())
    }

    fn open_with_filter(&mut self, index: u32) {
        self.api.open(index);
        self.api.filter(index, "/group", &["page"]);
    }

    fn open_client(&mut self, index: u32, client: &str) {
        self.api.open(index);
        self.set_client(index, client);
        self.api.filter(index, "/group", &["page"]);
    }

    fn set_client(&mut self, index: u32, client: &str) {
        let text = format!(r#"{{"messageType":"client_id","value":"{client}"}}"#);
        assert_eq!(self.api.text(index, &text), []);
    }
}

/// Returns the filter for the page with `since`.
fn page_since(since: &str) -> String {
    format!(
        r#"{{"type":"filter","id":3,"since":"{since}","filter":{{"match_policy":"include_any","clauses":[{{"field":"/group","value":"page"}}],"actions":{{}}}}}}"#
    )
}

/// Returns the action and the id of each notification, and other messages as they are.
fn short(messages: Vec<(u32, String)>) -> Vec<(u32, String)> {
    let short = |text: String| {
        let message: Value = serde_json::from_str(&text).unwrap();
        match message["options"]["action"].as_str() {
            Some(action) => {
                format!("{action} {}", message["payload"][0]["id"].as_str().unwrap())
            }
            None => text,
        }
    };
    let messages = messages.into_iter();
    messages.map(|(to, text)| (to, short(text))).collect()
}

fn sent(to: u32, texts: &[&str]) -> Vec<(u32, String)> {
    texts.iter().map(|text| (to, (*text).to_owned())).collect()
}

fn cursor(position: u64) -> String {
    let cursor = Cursor {
        epoch: START.epoch,
        position,
        time: 0,
    };
    cursor.encode()
}

// D12
#[test]
fn replay_sends_the_newest_state_of_each_annotation_after_the_cursor() {
    let mut server = Server::new();
    for id in ["a", "b", "c", "d"] {
        server.create(id);
    }
    server.event(EventKind::Update, "a", public());
    server.event(EventKind::Delete, "c", public());
    server.api.open(0);
    let reply = server.since(0, &cursor(1));
    assert_eq!(reply["type"], "filter");
    assert_eq!(
        (&reply["ok"], &reply["recovered"]),
        (&true.into(), &true.into())
    );
    let resumed = parsed(&reply["cursor"]);
    assert_eq!(resumed.position, 1, "nothing has been sent yet");
    let expected = ["create b", "create d", "update a", "delete c"];
    assert_eq!(server.replay(), sent(0, &expected));
    assert_eq!(server.replay(), []);
}

// D12
#[test]
fn replay_ends_before_the_first_live_event() {
    let mut server = Server::new();
    for id in ["a", "b"] {
        server.create(id);
    }
    server.api.open(0);
    server.since(0, &cursor(0));
    // Delivered between the filter and the replay: the replay sends it.
    assert_eq!(server.create("c"), []);
    assert_eq!(server.event(EventKind::Update, "a", public()), []);
    let expected = ["create b", "create c", "update a"];
    assert_eq!(server.replay(), sent(0, &expected));
    assert_eq!(server.create("d"), sent(0, &["create d"]));
    assert_eq!(server.replay(), []);
}

// D12
#[test]
fn long_replay_is_sent_in_steps_without_gaps() {
    let mut server = Server::new();
    for number in 0..1000 {
        server.create(&number.to_string());
    }
    server.api.open(0);
    server.since(0, &cursor(0));
    let (has_more, _) = server.api.call(|realtime, cx| realtime.replay_queued(cx));
    assert!(has_more);
    server.create("live");
    let rest = server.replay();
    assert_eq!(rest.last(), Some(&(0, "create live".to_owned())));
    assert_eq!(rest.len(), 1001 - 64);
    assert_eq!(rest[0].1, "create 64");
}

// D12
#[test]
fn every_event_carries_a_cursor_from_which_the_client_can_resume() {
    let mut server = Server::new();
    server.create("a");
    server.api.open(0);
    server.since(0, "now");
    assert_eq!(server.replay(), []);
    let plan = server.plan(EventKind::Create, "b", public());
    let (_, outputs) = server.api.deliver(vec![plan]);
    let [Output::Deliver(to)] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    let message: Value = serde_json::from_str(&to[0].1).unwrap();
    let last = message.as_object().unwrap().keys().next_back().unwrap();
    assert_eq!(last, "cursor");
    server.create("c");
    server.api.open(1);
    server.since(1, message["cursor"].as_str().unwrap());
    assert_eq!(server.replay(), sent(1, &["create c"]));
}

// D12
#[test]
fn gap_is_reported_with_the_oldest_cursor() {
    let mut server = Server::new();
    server.api.open(0);
    let other_epoch = Cursor {
        epoch: 8,
        position: 0,
        time: 0,
    };
    server.create("a");
    let reply = server.since(0, &other_epoch.encode());
    assert_eq!(reply["recovered"], false);
    let oldest = parsed(&reply["oldest"]);
    assert_eq!(oldest.position, 0);
    assert_eq!(server.replay(), []);
    assert_eq!(server.create("b"), sent(0, &["create b"]));
    // The oldest cursor works.
    let oldest = reply["oldest"].as_str().unwrap().to_owned();
    server.api.open(1);
    assert_eq!(server.since(1, &oldest)["recovered"], true);
    assert_eq!(server.replay(), sent(1, &["create a", "create b"]));
}

// D12
#[test]
fn invalid_cursor_leaves_the_filter_in_force() {
    let mut server = Server::new();
    server.open_with_filter(0);
    for since in ["", "yesterday", "2999-01-01T00:00:00Z"] {
        let text = format!(
            r#"{{"type":"filter","id":3,"since":"{since}","filter":{{"match_policy":"include_any","clauses":[],"actions":{{}}}}}}"#
        );
        let outputs = server.api.text(0, &text);
        let [Output::Reply(reply)] = &outputs[..] else {
            panic!("{outputs:?}");
        };
        let reply: Value = serde_json::from_str(reply).unwrap();
        assert_eq!(reply["error"]["type"], "invalid_cursor", "{since}");
        assert_eq!(reply["reply_to"], 3);
    }
    assert_eq!(server.create("a"), sent(0, &["create a"]));
}

#[test]
fn time_resumes_with_the_events_from_then_on() {
    let mut server = Server::new();
    server.api.now.unix = 10_000;
    for id in ["a", "b", "c"] {
        server.create(id);
    }
    server.api.open(0);
    assert_eq!(server.since(0, "1970-01-01T00:00:02Z")["recovered"], true);
    assert_eq!(server.replay(), sent(0, &["create b", "create c"]));
}

#[test]
fn clients_wait_until_the_history_is_ready() {
    let mut server = Server::unready();
    server.api.open(0);
    let text = format!(
        r#"{{"type":"filter","id":3,"since":"{}","filter":{{"match_policy":"include_any","clauses":[{{"field":"/group","value":"page"}}],"actions":{{}}}}}}"#,
        cursor(0)
    );
    assert_eq!(server.api.text(0, &text), []);
    let plan = server.plan(EventKind::Create, "a", public());
    let restored = crate::model::RestoredPlan {
        event_position: plan.stamp.position,
        plan,
        past: Vec::new(),
    };
    let restored = HistoryEvent::Restored(vec![restored]);
    assert_eq!(
        server.api.backend_event(BackendEvent::History(restored)),
        []
    );
    assert_eq!(server.replay(), []);
    let replies = server.set_ready();
    let [Output::Deliver(to)] = &replies[..] else {
        panic!("{replies:?}");
    };
    assert!(to[0].1.contains(r#""recovered": true"#), "{to:?}");
    assert_eq!(server.replay(), sent(0, &["create a"]));
}

// D12
#[test]
fn connection_is_sent_a_cursor_mark_after_a_replay_of_nothing() {
    let mut server = Server::new();
    for id in ["a", "b"] {
        let plan = Plan {
            candidates: Candidates::Terms(vec![term(Field::Group, "elsewhere")]),
            ..server.plan(EventKind::Create, id, public())
        };
        server.deliver(plan);
    }
    server.api.open(0);
    server.since(0, &cursor(1));
    assert_eq!(server.replay(), []);
    let mut now = server.api.now;
    now.mono += 30_000;
    let marks = format!("{:?}", server.api.tick(now));
    assert!(marks.contains("cursor"), "{marks}");
    now.mono += 30_000;
    assert_eq!(server.api.tick(now), []);
    // The client has returned to an earlier position.
    server.since(0, &cursor(1));
    assert_eq!(server.replay(), []);
    now.mono += 30_000;
    let marks = format!("{:?}", server.api.tick(now));
    assert!(marks.contains("cursor"), "{marks}");
}

// D12
#[test]
fn quiet_connection_is_sent_cursor_marks_when_the_position_has_moved() {
    let mut server = Server::new();
    server.api.open(0);
    server.since(0, "now");
    server.replay();
    let tick = |server: &mut Server, mono| {
        let mut now = server.api.now;
        now.mono = mono;
        server.api.tick(now)
    };
    assert_eq!(tick(&mut server, 30_000), [], "nothing has happened");
    // Matches no filter.
    let plan = Plan {
        candidates: Candidates::Terms(vec![term(Field::Group, "elsewhere")]),
        ..server.plan(EventKind::Create, "a", public())
    };
    assert_eq!(server.deliver(plan), []);
    assert_eq!(tick(&mut server, 59_000), []);
    let marks = tick(&mut server, 60_000);
    let [Output::Deliver(to)] = &marks[..] else {
        panic!("{marks:?}");
    };
    let mark: Value = serde_json::from_str(&to[0].1).unwrap();
    assert_eq!(mark["type"], "cursor");
    let position = parsed(&mark["cursor"]).position;
    assert_eq!(position, 1);
    assert_eq!(tick(&mut server, 90_000), []);
    // Withheld events move the position, too.
    server.event(EventKind::Create, "b", unreadable());
    assert_eq!(tick(&mut server, 120_000).len(), 1);
}

// D12
#[test]
fn replay_waits_until_its_output_has_been_sent() {
    let mut server = Server::new();
    server.api.realtime.replays.set_max_entries(1);
    for id in ["a", "b"] {
        server.create(id);
    }
    server.api.open(0);
    server.since(0, &cursor(0));
    let (_, outputs) = server.api.call(|realtime, cx| realtime.replay_queued(cx));
    assert_eq!(outputs.len(), 1);
    server.api.set_blocked(0, true);
    assert_eq!(server.replay(), []);
    assert_eq!(server.api.set_blocked(0, false), []);
    assert_eq!(server.replay(), sent(0, &["create b"]));
}

// D12
#[test]
fn connection_in_a_replay_gets_no_cursor_marks() {
    let mut server = Server::new();
    server.api.realtime.replays.set_max_entries(1);
    for id in ["a", "b"] {
        server.create(id);
    }
    server.api.open(0);
    server.since(0, &cursor(0));
    server.api.call(|realtime, cx| realtime.replay_queued(cx));
    server.api.set_blocked(0, true);
    server.create("c");
    for mono in [30_000, 60_000, 90_000] {
        let mut now = server.api.now;
        now.mono = mono;
        assert_eq!(server.api.tick(now), []);
    }
}

// D12
#[test]
fn replay_that_evictions_overtake_ends_the_connection() {
    let mut server = Server::new();
    server.create("a");
    server.api.open(0);
    server.since(0, &cursor(0));
    server.api.realtime.history.set_limits(HistorySettings {
        memory: 2000,
        ..HistorySettings::default()
    });
    for id in ["b", "c", "d"] {
        assert_eq!(server.create(id), []);
    }
    let (_, outputs) = server.api.call(|realtime, cx| realtime.replay_queued(cx));
    let overrun = Output::Close(0, 1013, "history overrun".to_owned());
    assert_eq!(outputs, [overrun]);
    assert_eq!(server.api.realtime.counters().recovery.overruns, 1);
}

#[test]
fn events_without_a_history_are_delivered_without_resumption() {
    let mut api = TestApi::new(ApiSettings::default());
    api.open(0);
    api.filter(0, "/group", &["page"]);
    let mut server = Server { api, position: 0 };
    let mut plan = server.plan(EventKind::Create, "a", public());
    plan.stamp = Stamp::default();
    let (counts, _) = server
        .api
        .call(|realtime, cx| realtime.deliver(cx, [plan], MonoMillis::default()));
    assert_eq!(counts, [1]);
}

mod ahead;
mod clients;
mod counters;
mod filters;
mod forged;
mod reconciles;
mod rights;
mod turns;
