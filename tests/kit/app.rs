//! The model handler: executes the commands in messages, and records the messages that each client
//! must therefore receive.

use std::cell::{RefCell, RefMut};
use std::collections::HashMap;
use std::rc::Rc;

use h_realtime_engine::http::{Block, EventStream, Request, Response, check_upgrade};
use h_realtime_engine::ws::CloseCode;
use h_realtime_engine::{
    ConnCx, ConnKey, Cx, Delivery, Frame, Handler, Message, Overdue, Refusal, RequestCx, Verdict,
};

use crate::rng::Rng;

/// The application.
pub struct App {
    log: Log,
    rng: Rng,
}

/// The application's records, shared with the simulation.
#[derive(Clone, Default)]
pub struct Log(Rc<RefCell<Record>>);

#[derive(Default)]
pub struct Record {
    pub lives: HashMap<ConnKey, Life>,
    /// Open connections, in the order in which they opened.
    pub open: Vec<ConnKey>,
    /// Deferred requests, answered or not; whether each is a handshake.
    pub deferred: Vec<(ConnKey, bool)>,
    /// Requests being processed, which must therefore not be refused.
    pub begun: Vec<ConnKey>,
    /// Violations of the order of callbacks.
    pub breaches: Vec<String>,
    pub deliveries: u64,
    pub ticks: u64,
    /// Whether queues may grow so long that even closing connections are shed.
    pub may_shed: bool,
}

/// One WebSocket or event stream, from `on_open` to `on_close`.
#[derive(Default)]
pub struct Life {
    pub is_stream: bool,
    /// The request of an event stream.
    pub request: String,
    pub is_over: bool,
    /// The last sign of life, once it is over.
    pub last_received: Option<u64>,
    /// Messages received from the client.
    pub inbox: Vec<Payload>,
    /// Replies, and messages sent to this client alone.
    pub replies: Vec<Payload>,
    /// Messages sent to several clients, which are an independent stream.
    pub deliveries: Vec<Payload>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    Text(String),
    Binary(Vec<u8>),
}

/// Contains the key of its own connection to detect mixed-up sessions.
#[derive(Default)]
pub struct Session {
    key: Option<ConnKey>,
}

/// Commands from other threads. Numbers select among the existing connections.
#[derive(Clone, Debug)]
pub enum Command {
    /// Completes or refuses a deferred handshake, or answers another deferred request.
    Answer {
        pick: usize,
        accept: bool,
    },
    /// The same for one connection, whether or not the application considers it deferred.
    AnswerTo {
        key: ConnKey,
        accept: bool,
    },
    /// Sends one message to about `percent` of the open connections.
    FanOut {
        percent: u32,
        size: usize,
    },
    /// Sends one message to these connections.
    FanOutTo {
        keys: Vec<ConnKey>,
        size: usize,
    },
    /// Sends a message to one connection.
    Send {
        pick: usize,
        size: usize,
    },
    SendTo {
        key: ConnKey,
        text: String,
    },
    Close {
        pick: usize,
        code: u16,
    },
    CloseOne {
        key: ConnKey,
        code: u16,
    },
    /// Has no effect except for a turn.
    Noop,
}

impl App {
    pub fn new(log: Log, rng: Rng) -> Self {
        App { log, rng }
    }

    pub fn log(&self) -> &Log {
        &self.log
    }

    fn answer(&mut self, cx: &mut Cx<'_, Session>, key: ConnKey, accept: bool) {
        let mut log = self.log.get();
        let at = log.deferred.iter().position(|(waiting, _)| *waiting == key);
        let is_handshake = at.is_none_or(|at| log.deferred.swap_remove(at).1);
        match (is_handshake, accept) {
            (true, true) => cx.accept(key),
            (true, false) => cx.respond(key, Response::new(403, "text/plain", &b"no"[..])),
            (false, _) => cx.respond(key, Response::new(200, "text/plain", &b"late"[..])),
        }
    }

    fn send(&mut self, cx: &mut Cx<'_, Session>, key: ConnKey, text: &str) {
        if let Some(life) = self.log.get().open_life(key) {
            let text = format!("send {} {text}", life.replies.len());
            // A frame of the other transport is dropped.
            let (message, block) = (Frame::text(&text), block(&text));
            let frames = match life.is_stream {
                true => [message, block],
                false => [block, message],
            };
            frames.into_iter().for_each(|frame| cx.send(key, frame));
            life.replies.push(Payload::Text(text));
        }
    }

    fn fan_out(&mut self, cx: &mut Cx<'_, Session>, keys: &[ConnKey], size: usize) {
        let mut log = self.log.get();
        log.deliveries += 1;
        let number = log.deliveries;
        let variants = [0, 1].map(|variant| format!("event {number} {variant} {}", pad(size)));
        let mut to = Vec::new();
        for &key in keys {
            // One variant per receiver, since the order of two is unspecified.
            let variant = (key.to_u64().wrapping_add(number) % 2) as usize;
            let life = log.open_life(key);
            let is_stream = u8::from(life.as_ref().is_some_and(|life| life.is_stream));
            to.push((key, variant as u8 + 2 * is_stream));
            if let Some(life) = life {
                if number.is_multiple_of(8) {
                    // A frame of the other transport, which is dropped.
                    to.push((key, variant as u8 + 2 * (1 - is_stream)));
                }
                life.deliveries
                    .push(Payload::Text(variants[variant].clone()));
            }
        }
        // In any order: the engine sorts.
        self.rng.shuffle(&mut to);
        let messages = variants.iter().map(|text| Frame::text(text));
        let blocks = variants.iter().map(|text| block(text));
        let frames = messages.chain(blocks).collect();
        let since = Some(cx.now().mono);
        cx.fan_out(Delivery { frames, to, since });
    }

    fn pick_open(&self, pick: usize) -> Option<ConnKey> {
        let log = self.log.get();
        log.open.get(pick % log.open.len().max(1)).copied()
    }

    fn sample_open(&mut self, percent: u32) -> Vec<ConnKey> {
        let mut keys = self.log.get().open.clone();
        keys.retain(|_| self.rng.chance(percent));
        keys
    }

    /// Executes the command in the first word of a message.
    fn execute(&mut self, cx: &mut ConnCx<'_, Session>, key: ConnKey, text: &str) {
        let size = text.len();
        match text.split(' ').next().unwrap_or_default() {
            "echo" => self.reply(cx, key, text),
            // As expensive as parsing tens of kilobytes.
            "costly" => cx.charge(100_000),
            "twice" => {
                self.reply(cx, key, text);
                self.reply(cx, key, "again");
            }
            "self" => self.send(cx, key, text),
            "mixed" => {
                self.send(cx, key, "short");
                self.reply(cx, key, text);
                self.send(cx, key, &pad(400));
                self.send(cx, key, &pad(300));
                self.reply(cx, key, "again");
                self.send(cx, key, "short");
            }
            "bye" => {
                self.reply(cx, key, "bye");
                cx.close(key, CloseCode(4001), "bye");
            }
            "late" => {
                cx.close(key, CloseCode(4001), "bye");
                cx.send(key, Frame::text("too late"));
            }
            "all" => {
                let keys = self.sample_open(70);
                self.fan_out(cx, &keys, size);
            }
            "kill" => {
                let pick = self.rng.below(usize::MAX);
                if let Some(other) = self.pick_open(pick) {
                    cx.close(other, CloseCode(4002), "killed");
                }
            }
            "let" => {
                let waiting = self.log.get().deferred.last().copied();
                if let Some((other, _)) = waiting {
                    self.answer(cx, other, true);
                }
            }
            _ => {}
        }
    }

    fn reply(&mut self, cx: &mut ConnCx<'_, Session>, key: ConnKey, text: &str) {
        if let Some(life) = self.log.get().open_life(key) {
            let text = format!("reply {} {text}", life.replies.len());
            cx.reply(Message::Text(&text));
            life.replies.push(Payload::Text(text));
        }
    }
}

/// Returns an event of an event stream.
fn block(text: &str) -> Rc<Frame> {
    Frame::block(&Block {
        data: Some(text),
        ..Block::default()
    })
}

/// Returns `size` letters.
pub fn pad(size: usize) -> String {
    "x".repeat(size)
}

impl Log {
    pub fn get(&self) -> RefMut<'_, Record> {
        self.0.borrow_mut()
    }
}

impl Record {
    pub fn open_life(&mut self, key: ConnKey) -> Option<&mut Life> {
        self.lives.get_mut(&key).filter(|life| !life.is_over)
    }

    fn breach(&mut self, key: ConnKey, message: &str) {
        self.breaches.push(format!("{key:?}: {message}"));
    }
}

impl Handler for App {
    type Session = Session;
    type Command = Command;

    fn on_request(
        &mut self,
        cx: &mut RequestCx<'_, Session>,
        request: &Request<'_>,
    ) -> Verdict<Session> {
        let key = cx.key();
        if self.log.get().lives.contains_key(&key) {
            self.log
                .get()
                .breach(key, "on_request for an open WebSocket");
        }
        if cx.session(key).is_some() {
            self.log.get().breach(key, "has a session before on_open");
        }
        let text = |status, body: String| {
            Verdict::Respond(Response::new(status, "text/plain", body.into_bytes()))
        };
        match (request.path, check_upgrade(request)) {
            ("/ws", Ok(upgrade)) => Verdict::Upgrade(upgrade, Session::default()),
            ("/later", Ok(upgrade)) => {
                self.log.get().deferred.push((key, true));
                Verdict::DeferUpgrade(upgrade, Session::default())
            }
            ("/stream", _) => Verdict::Stream(EventStream::new("at once"), Session::default()),
            ("/stream-later", _) => {
                self.log.get().deferred.push((key, true));
                Verdict::DeferStream(EventStream::new(pad(300)), Session::default())
            }
            ("/slow", _) => {
                self.log.get().deferred.push((key, false));
                Verdict::Defer
            }
            ("/body", _) => match request.body {
                None => Verdict::ReadBody { limit: BODY_LIMIT },
                Some(body) => text(200, body.len().to_string()),
            },
            ("/big", _) => text(200, pad(20_000)),
            ("/ok", _) => text(200, "ok".to_owned()),
            ("/key", _) => {
                cx.mark_authenticated(key);
                text(200, "ok".to_owned())
            }
            ("/ws" | "/later", Err(refused)) => text(400, refused.0.to_owned()),
            _ => text(404, String::new()),
        }
    }

    fn on_open(&mut self, cx: &mut ConnCx<'_, Session>) {
        let key = cx.key();
        let greets = self.rng.chance(30);
        let mut log = self.log.get();
        if log.lives.insert(key, Life::default()).is_some() {
            log.breach(key, "opened twice");
        }
        log.open.push(key);
        match cx.session(key) {
            Some(session) => session.key = Some(key),
            None => log.breach(key, "has no session in on_open"),
        }
        drop(log);
        if greets {
            self.reply(cx, key, "hello");
        }
    }

    fn wants_event_stream(&self, request: &Request<'_>) -> bool {
        request.path.starts_with("/stream")
    }

    fn on_refusal(&mut self, refusal: Refusal, is_event_stream: bool) -> Response {
        let status = if is_event_stream {
            200
        } else {
            refusal.status()
        };
        Response::new(status, "text/plain", &b"refused"[..])
    }

    fn on_open_stream(&mut self, cx: &mut ConnCx<'_, Session>, request: &str) {
        self.on_open(cx);
        // An event stream gets no replies.
        cx.reply(Message::Text("reply"));
        let key = cx.key();
        let mut log = self.log.get();
        if let Some(life) = log.open_life(key) {
            life.is_stream = true;
            life.request = request.to_owned();
            life.replies.clear();
        }
        drop(log);
        self.send(cx, key, "hello");
    }

    fn last_blocks(&mut self, code: u16, _: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let code = code.to_string();
        Block {
            event: Some("close"),
            data: Some(&code),
            ..Block::default()
        }
        .encode(&mut out);
        out
    }

    fn on_message(&mut self, cx: &mut ConnCx<'_, Session>, message: Message<'_>) {
        let key = cx.key();
        if cx
            .session(key)
            .is_none_or(|session| session.key != Some(key))
        {
            self.log
                .get()
                .breach(key, "has another connection's session in on_message");
        }
        let payload = match message {
            Message::Text(text) => Payload::Text(text.to_owned()),
            Message::Binary(data) => Payload::Binary(data.to_vec()),
        };
        match self.log.get().open_life(key) {
            Some(life) => life.inbox.push(payload),
            None => {
                return self
                    .log
                    .get()
                    .breach(key, "on_message without an open WebSocket");
            }
        }
        match message {
            Message::Text(text) => self.execute(cx, key, text),
            Message::Binary(data) => {
                cx.reply(message);
                if let Some(life) = self.log.get().open_life(key) {
                    life.replies.push(Payload::Binary(data.to_vec()));
                }
            }
        }
    }

    fn on_close(&mut self, cx: &mut Cx<'_, Session>, key: ConnKey, session: Session) {
        let mut log = self.log.get();
        match log.open_life(key) {
            Some(life) => {
                life.is_over = true;
                life.last_received = cx.close_info().map(|info| info.last_received);
            }
            None => log.breach(key, "on_close without an open WebSocket"),
        }
        log.open.retain(|open| *open != key);
        if session.key != Some(key) {
            log.breach(key, "on_close received another connection's session");
        }
        if cx.session(key).is_some() {
            log.breach(key, "still has a session in on_close");
        }
        drop(log);
        if self.rng.chance(20) {
            let keys = self.sample_open(20);
            self.fan_out(cx, &keys, 20);
        }
    }

    fn on_overdue(&mut self, key: ConnKey) -> Overdue {
        match self.log.get().begun.contains(&key) {
            true => Overdue::Wait,
            false => Overdue::Refuse,
        }
    }

    fn on_command(&mut self, cx: &mut Cx<'_, Session>, command: Command) {
        match command {
            Command::Answer { pick, accept } => {
                let waiting = self.log.get().deferred.clone();
                if let Some((key, _)) = waiting.get(pick % waiting.len().max(1)) {
                    self.answer(cx, *key, accept);
                }
            }
            Command::AnswerTo { key, accept } => self.answer(cx, key, accept),
            Command::FanOut { percent, size } => {
                let keys = self.sample_open(percent);
                self.fan_out(cx, &keys, size);
            }
            Command::FanOutTo { keys, size } => self.fan_out(cx, &keys, size),
            Command::Send { pick, size } => {
                if let Some(key) = self.pick_open(pick) {
                    self.send(cx, key, &pad(size));
                }
            }
            Command::SendTo { key, text } => self.send(cx, key, &text),
            Command::Close { pick, code } => {
                if let Some(key) = self.pick_open(pick) {
                    cx.close(key, CloseCode(code), "expected");
                }
            }
            Command::CloseOne { key, code } => cx.close(key, CloseCode(code), "expected"),
            Command::Noop => {}
        }
    }

    fn on_tick(&mut self, _: &mut Cx<'_, Session>) {
        self.log.get().ticks += 1;
    }
}

/// The longest body that is read.
pub const BODY_LIMIT: usize = 3000;
