//! Test helpers shared by this module.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use crate::http::{EventStream, Head, Response, parse_head};
use crate::model::{
    AuthReply, BackendEvent, BackendHandle, BackendRequest, Busy, Condition, Decision, EpochScope,
    Field, HistoryStart, Identity, Membership, MonoMillis, Plan, RequestId, Role, Rule, Secret,
    Term, TokenId,
};
use crate::net::testing::{Effect, Recorder};
use crate::net::{ConnCx, ConnKey, Cx, LastActivity, Message, Now, Sessions, Verdict};

use super::{ApiSession, ApiSettings, Realtime};

/// The start of an empty history.
pub(super) const START: HistoryStart = HistoryStart {
    epoch: 7,
    scope: EpochScope::Stored,
    floor: 0,
    floor_time: 0,
    head: 0,
};

/// A small generator (xorshift), so that a failing seed can be reproduced.
pub(super) struct Random(pub u64);

impl Random {
    pub(super) fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        // The low bits of small seeds are poor at first.
        (self.0 >> 11) % end
    }
}

pub(super) fn key(index: u32) -> ConnKey {
    ConnKey::new(index, 1)
}

pub(super) fn identity(userid: &str, token: u64, groups: &[(&str, Role)]) -> Identity {
    let membership = |&(group, role): &(&str, Role)| Membership {
        group: group.into(),
        role,
    };
    Identity {
        userid: userid.into(),
        memberships: groups.iter().map(membership).collect(),
        token: TokenId(token),
        expires: None,
    }
}

pub(super) fn rule(when: Vec<Condition>, then: Decision) -> Rule {
    Rule { when, then }
}

pub(super) fn term(field: Field, value: &str) -> Term {
    Term {
        field,
        value: value.into(),
    }
}

/// The remainder of a valid handshake after the target, without further fields and the empty line.
pub(super) const HANDSHAKE: &[u8] =
    b" HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

/// The API with a simulated engine and backend.
pub(super) struct TestApi {
    pub realtime: Realtime,
    pub now: Now,
    pub backend: FakeBackend,
    sessions: SessionMap,
    recorder: Recorder,
    /// The connections muted so far.
    pub muted: Vec<u32>,
}

/// The effects of a call, in order, starting with replies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    Reply(String),
    Deliver(Vec<(u32, String)>),
    Close(u32, u16, String),
    Accept(u32),
    Respond(u32, u16, Option<String>),
}

/// A backend that records requests: ids and tokens.
#[derive(Clone, Default)]
pub(super) struct FakeBackend {
    pub requests: Rc<RefCell<Vec<(u64, String)>>>,
    sweeps: Rc<RefCell<Vec<Vec<TokenId>>>>,
    pub busy: Rc<RefCell<bool>>,
}

impl BackendHandle for FakeBackend {
    fn send(&self, request: BackendRequest) -> Result<(), Busy> {
        if *self.busy.borrow() {
            return Err(Busy);
        }
        match request {
            BackendRequest::Authenticate {
                request_id: RequestId(request_id),
                token: Secret(token),
            } => self.requests.borrow_mut().push((request_id, token)),
            BackendRequest::Sweep { tokens } => self.sweeps.borrow_mut().push(tokens),
            BackendRequest::Publish { .. }
            | BackendRequest::QueueEvent { .. }
            | BackendRequest::LookUp { .. } => {}
        }
        Ok(())
    }
}

impl FakeBackend {
    /// Returns the sweeps requested since the last call.
    pub(super) fn take_sweeps(&self) -> Vec<Vec<TokenId>> {
        self.sweeps.take()
    }
}

#[derive(Default)]
struct SessionMap {
    sessions: HashMap<ConnKey, ApiSession>,
    /// The time of each connection's last sign of life, if it is not 0.
    last_received: HashMap<ConnKey, u64>,
    /// The connections whose output has not been sent.
    blocked: HashSet<ConnKey>,
    /// The deferred requests for event streams.
    streams: HashMap<ConnKey, (EventStream, ApiSession)>,
}

impl Sessions<ApiSession> for SessionMap {
    fn session(&mut self, key: ConnKey) -> Option<&mut ApiSession> {
        self.sessions.get_mut(&key)
    }

    fn buffered(&mut self, key: ConnKey) -> usize {
        usize::from(self.blocked.contains(&key))
    }

    fn awaits_event_stream(&mut self, key: ConnKey) -> bool {
        self.streams.contains_key(&key)
    }

    fn next_open(&mut self, slot: u32) -> Option<ConnKey> {
        let keys = self.sessions.keys().copied();
        keys.filter(|key| key.slot() >= slot).min()
    }

    fn last_activity(&mut self, key: ConnKey) -> Option<LastActivity> {
        self.sessions.get(&key)?;
        let at = self.last_received.get(&key).copied().unwrap_or_default();
        Some(LastActivity { at, is_ping: false })
    }
}

impl TestApi {
    pub(super) fn new(settings: ApiSettings) -> Self {
        let backend = FakeBackend::default();
        TestApi {
            realtime: Realtime::new(Box::new(backend.clone()), settings, [1, 2, 3, 4]),
            now: Now::default(),
            backend,
            sessions: SessionMap::default(),
            recorder: Recorder::default(),
            muted: Vec::new(),
        }
    }

    /// Makes a call and returns its effects.
    pub(super) fn call<R>(
        &mut self,
        call: impl FnOnce(&mut Realtime, &mut Cx<'_, ApiSession>) -> R,
    ) -> (R, Vec<Output>) {
        let mut cx = self.recorder.cx(self.now, &mut self.sessions);
        let result = call(&mut self.realtime, &mut cx);
        (result, self.take_outputs())
    }

    /// Makes a call about an open connection, and returns its effects.
    pub(super) fn call_on(
        &mut self,
        index: u32,
        call: impl FnOnce(&mut Realtime, &mut ConnCx<'_, ApiSession>),
    ) -> Vec<Output> {
        let sessions = &mut self.sessions;
        let mut cx = self.recorder.conn_cx(self.now, sessions, key(index));
        call(&mut self.realtime, &mut cx);
        self.take_outputs()
    }

    fn take_outputs(&mut self) -> Vec<Output> {
        let mut outputs = Vec::new();
        let cork = self.recorder.take_replies();
        let mut rest = &cork[..];
        while !rest.is_empty() {
            let (text, after) = split_frame(rest);
            outputs.push(Output::Reply(text));
            rest = after;
        }
        for effect in self.recorder.take_effects() {
            match effect {
                Effect::Mute(key) => self.muted.push(key.slot()),
                other => outputs.push(to_output(other)),
            }
        }
        outputs
    }

    /// Returns the work charged since the last call.
    pub(super) fn take_work(&mut self) -> u64 {
        self.recorder.take_work()
    }

    /// Returns the verdict on a handshake with this target and these additional fields.
    pub(super) fn request(
        &mut self,
        index: u32,
        target: &str,
        fields: &str,
    ) -> (Verdict<ApiSession>, Vec<Output>) {
        let head = [
            b"GET ",
            target.as_bytes(),
            HANDSHAKE,
            fields.as_bytes(),
            b"\r\n",
        ]
        .concat();
        self.call(|realtime, cx| {
            let verdict = parse_head(&head, 8192, |request| {
                realtime.on_request(cx, key(index), request)
            });
            match verdict {
                Ok(Head::Complete(verdict)) => verdict,
                _ => panic!("no whole head"),
            }
        })
    }

    /// Opens a connection as the engine does.
    pub(super) fn open(&mut self, index: u32) -> Vec<Output> {
        self.sessions
            .sessions
            .insert(key(index), ApiSession::default());
        self.call_on(index, |realtime, cx| realtime.on_open(cx))
    }

    /// Requests an event stream, and opens it unless it is deferred. Returns the status of another
    /// response.
    pub(super) fn stream(
        &mut self,
        index: u32,
        query: &str,
        fields: &str,
    ) -> Result<Vec<Output>, Response> {
        let (verdict, outputs) = self.request(index, &format!("/sse?{query}"), fields);
        assert_eq!(outputs, []);
        match verdict {
            Verdict::Stream(stream, session) => {
                self.sessions.streams.insert(key(index), (stream, session));
                Ok(self.open_stream(index))
            }
            Verdict::DeferStream(stream, session) => {
                self.sessions.streams.insert(key(index), (stream, session));
                Ok(Vec::new())
            }
            Verdict::Respond(response) => Err(response),
            other => panic!("{other:?}"),
        }
    }

    /// Opens a requested event stream as the engine does.
    pub(super) fn open_stream(&mut self, index: u32) -> Vec<Output> {
        let (stream, session) = self
            .sessions
            .streams
            .remove(&key(index))
            .expect("a request");
        self.sessions.sessions.insert(key(index), session);
        let sessions = &mut self.sessions;
        let mut cx = self.recorder.stream_cx(self.now, sessions, key(index));
        self.realtime.on_open_stream(&mut cx, stream.request());
        self.take_outputs()
    }

    /// Opens a logged-in connection.
    pub(super) fn open_as(&mut self, index: u32, identity: Identity) {
        let accepted = self.authenticated(index, AuthReply::Known(identity));
        assert_eq!(accepted, [Output::Accept(index)]);
        assert_eq!(self.open(index), []);
    }

    /// Records the time of the last sign of life of a connection's client.
    pub(super) fn set_last_received(&mut self, index: u32, at: u64) {
        self.sessions.last_received.insert(key(index), at);
    }

    /// Returns the session of an open connection.
    pub(super) fn session(&self, index: u32) -> Option<&ApiSession> {
        self.sessions.sessions.get(&key(index))
    }

    /// Sets whether a connection has output that has not been sent.
    pub(super) fn set_blocked(&mut self, index: u32, is_blocked: bool) -> Vec<Output> {
        if is_blocked {
            self.sessions.blocked.insert(key(index));
            Vec::new()
        } else if self.sessions.blocked.remove(&key(index)) {
            self.call_on(index, |realtime, cx| realtime.on_drain(cx))
        } else {
            Vec::new()
        }
    }

    /// Closes a connection whose last sign of life was at `last_received`.
    pub(super) fn lose(&mut self, index: u32, last_received: u64) {
        self.recorder.set_lost(last_received);
        self.close(index);
    }

    /// Runs replays to their end, and returns the messages to each connection in order.
    pub(super) fn replay(&mut self) -> Vec<(u32, String)> {
        let mut messages = Vec::new();
        loop {
            let (has_more, outputs) = self.call(|realtime, cx| realtime.replay_queued(cx));
            for output in outputs {
                let Output::Deliver(to) = output else {
                    panic!("{output:?}");
                };
                messages.extend(to);
            }
            if !has_more {
                return messages;
            }
        }
    }

    pub(super) fn close(&mut self, index: u32) {
        self.sessions.blocked.remove(&key(index));
        let session = self
            .sessions
            .sessions
            .remove(&key(index))
            .expect("an open one");
        let (_, outputs) = self.call(|realtime, cx| realtime.on_close(cx, key(index), session));
        assert_eq!(outputs, []);
    }

    pub(super) fn authenticated(&mut self, index: u32, reply: AuthReply) -> Vec<Output> {
        let request_id = RequestId(key(index).to_u64());
        self.backend_event(BackendEvent::Authenticated { request_id, reply })
    }

    pub(super) fn backend_event(&mut self, event: BackendEvent) -> Vec<Output> {
        self.call(|realtime, cx| realtime.on_backend_event(cx, event))
            .1
    }

    pub(super) fn tick(&mut self, now: Now) -> Vec<Output> {
        self.now = now;
        self.call(|realtime, cx| realtime.on_tick(cx)).1
    }

    pub(super) fn message(&mut self, index: u32, message: Message<'_>) -> Vec<Output> {
        self.call_on(index, |realtime, cx| {
            realtime.on_client_message(cx, message)
        })
    }

    /// Returns the effects of a text message.
    pub(super) fn text(&mut self, index: u32, text: &str) -> Vec<Output> {
        self.message(index, Message::Text(text))
    }

    /// Sets a filter on values of a field.
    pub(super) fn filter(&mut self, index: u32, field: &str, values: &[&str]) {
        let values: Vec<_> = values.iter().map(|value| format!("{value:?}")).collect();
        let text = format!(
            r#"{{"filter":{{"match_policy":"include_any","clauses":[{{"field":{field:?},"value":[{}]}}],"actions":{{}}}},"id":1}}"#,
            values.join(",")
        );
        assert_eq!(self.text(index, &text), []);
    }

    pub(super) fn deliver(&mut self, plans: Vec<Plan>) -> (Vec<usize>, Vec<Output>) {
        self.call(|realtime, cx| realtime.deliver(cx, plans, MonoMillis::default()))
    }
}

fn to_output(effect: Effect) -> Output {
    match effect {
        Effect::Send(..) => panic!("nothing is sent to one connection alone"),
        Effect::FanOut(delivery) => {
            let receiver = |(key, frame): (ConnKey, u8)| {
                let frame = &delivery.frames[usize::from(frame)];
                (key.slot(), split_frame(frame.bytes()).0)
            };
            Output::Deliver(delivery.to.iter().copied().map(receiver).collect())
        }
        Effect::Close(key, code, reason) => Output::Close(key.slot(), code.0, reason.into()),
        Effect::Accept(key) => Output::Accept(key.slot()),
        Effect::Mute(_) => panic!("it is recorded elsewhere"),
        Effect::MarkAuthenticated(_) => panic!("authentication is for the admin listener alone"),
        Effect::Respond(key, response) => {
            let retry = response
                .fields
                .iter()
                .find(|field| field.0 == "Retry-After");
            let retry = retry.map(|field| field.1.to_string());
            Output::Respond(key.slot(), response.status.0, retry)
        }
        _ => panic!("unknown effect"),
    }
}

/// Splits the first server frame, or all blocks, off `bytes`, and returns its text and the rest.
fn split_frame(bytes: &[u8]) -> (String, &[u8]) {
    if bytes[0] < 0x80 {
        return (String::from_utf8(bytes.to_vec()).unwrap(), &[]);
    }
    assert_eq!(bytes[0], 0x81, "a text frame");
    let (len, header) = match bytes[1] {
        126 => (usize::from(u16::from_be_bytes([bytes[2], bytes[3]])), 4),
        127 => (
            u64::from_be_bytes(bytes[2..10].try_into().unwrap()) as usize,
            10,
        ),
        len => (usize::from(len), 2),
    };
    let (text, rest) = bytes[header..].split_at(len);
    (String::from_utf8(text.to_vec()).unwrap(), rest)
}
