//! The Real Time API: messages of clients, replies, and the delivery of events.
//!
//! Owns: the protocol's messages, filters and their index, and the identities of connections. Must
//! not know: sockets, TLS, SQL, or the sources of events. Its interface to the engine is [`Cx`], and
//! its interface to backends is [`crate::model`].
//!
//! [`Realtime`] is one type in several files. The files, in reading order:
//!
//! | file | purpose |
//! |---|---|
//! | `mod` | the type, its settings, and the callbacks of the engine |
//! | `request` | handshakes, credentials, `/_status` |
//! | `stream_request`, `event_stream` | requests for event streams, and their first and last blocks |
//! | `description` | the descriptions of the server for programs |
//! | `authentication` | the lifetime of a token, from the handshake to its end |
//! | `session` | the state in a connection's own slot |
//! | `dispatch` | the effect of a client's message |
//! | `encoding`, `json`, `message`, `filter` | decoding and parsing of messages |
//! | `reply` | serialization of replies |
//! | `event_queue` | events that wait for delivery, in bounded steps |
//! | `delivery` | from an event to its receivers |
//! | `rules` | evaluation of a plan's rules for a receiver |
//! | `index`, `digest` | the inverted index of filters |
//! | `interest` | the events in the history that concern a connection |
//! | `principals`, `deadlines` | the identities of connections, and their expiry |
//! | `group_table`, `buckets`, `slab`, `vacant` | the tables below the index and the principals |
//! | `history` | the newest event on each annotation, and cursors |
//! | `resume`, `recognition` | the position from which a connection resumes |
//! | `receipt` | replays that have been sent, but perhaps not received |
//! | `replay` | sends the events after a position, and reconciles changed memberships |
//! | `outgoing` | the forms of a message |
//! | `live` | the open connections of recognized clients |
//! | `clients`, `remembered` | the clients that are remembered after they have disconnected |
//! | `client_log` | the format of the log from which they are restored |
//! | `steps` | work in proportion to the number of connections |
//! | `cost` | the cost of messages |
//! | `counters`, `tracer` | counters, and log lines about single connections |
//! | `watch`, `debug` | recorded outcomes of events, and debug messages |
//! | `explain` | explanations for operators |
//! | `invariants` | invariants between any two calls |
//!
//! Inbound messages: [`Realtime::on_client_message`] decodes (`encoding`) and parses (`message`) a
//! text, `dispatch` applies it (`filter` and `index` for a filter), and `reply` writes the reply,
//! which goes to [`ConnCx::reply`](h_realtime_engine::ConnCx::reply).
//!
//! Outbound events: the server pushes a backend's plans into an [`EventQueue`].
//! [`Realtime::deliver_queued`] takes as many as a turn allows. For each, `delivery` collects the
//! candidates from `index` or `principals`, evaluates the `rules` for each, and passes the messages
//! with their receivers to [`Cx::fan_out`].

mod authentication;
mod buckets;
mod client_log;
mod clients;
mod cost;
mod counters;
mod deadlines;
mod debug;
mod delivery;
mod description;
mod digest;
mod dispatch;
mod encoding;
mod event_queue;
mod event_stream;
mod explain;
mod filter;
mod group_table;
mod history;
mod index;
mod interest;
mod invariants;
mod json;
mod live;
mod message;
mod outgoing;
mod principals;
mod receipt;
mod recognition;
#[cfg(test)]
mod recovery_model;
mod remembered;
mod replay;
mod reply;
mod request;
mod resume;
mod rules;
mod session;
mod slab;
mod sparse;
mod steps;
mod stream_request;
#[cfg(test)]
mod testing;
mod tracer;
mod vacant;
mod watch;

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::http::{Origin, Request};
use crate::model::{BackendEvent, BackendHandle, EndCause, InvalidToken, OnExpiry};
use crate::net::{ConnCx, ConnKey, Cx, Verdict};

pub use client_log::{
    Decoder as ClientLogDecoder, Loaded as LoadedClients, RECORD as CLIENT_RECORD_BYTES,
    encode as encode_client_log,
};
pub use clients::{ClientLog, Clients};
pub use counters::{
    ApiCounters, AuthCounters, DebugCounters, ErrorCounters, EventCounters, MessageCounters,
    RecoveryCounters, RejectedCounters, WithheldCounters,
};
pub use digest::Digest;
pub use event_queue::{Completion, EventQueue, TurnLimits};
pub use explain::FilterMatch;
pub use filter::{
    Actions, ClauseVerdict, Conditional, Filter, FilterError, FilterView, Ignored, Matcher,
    Mismatch, Pages, ViewedClause,
};
pub use history::{Cursor, ReplayCursor};
pub use remembered::Remembered;
pub use session::ApiSession;

/// Parts that benchmarks measure separately.
#[doc(hidden)]
pub mod parts {
    pub use super::client_log::{
        Damage, HEADER as CLIENT_LOG_HEADER, Record, decode as decode_client_log,
        start as start_client_log,
    };
    pub use super::digest::Digester;
    pub use super::filter::parse as parse_filter;
    pub use super::index::Index;
}

use digest::Digester;
use history::History;
use index::Index;
use principals::Principals;
use replay::{Reconciles, Replays};
use request::{Credentials, Route};
use resume::Resumption;
use session::Observation;
use steps::Steps;
use tracer::Tracer;
use watch::Watches;

/// The configurable behavior of the API.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// The allowed origins of web pages. If empty, all origins are allowed.
    pub origins: Vec<Origin>,
    /// The treatment of an invalid token.
    pub invalid_token: InvalidToken,
    /// The maximum size of a message in bytes, which the engine enforces.
    pub max_message: usize,
    /// The maximum number of values in one connection's filter.
    pub max_terms: usize,
    /// The memory limit of the filters of all connections, in bytes. Small filters may exceed it.
    pub filters_total: usize,
    /// The treatment of an open connection after the end of its token.
    pub on_expiry: OnExpiry,
    /// The period in milliseconds over which closes are spread if many tokens end together, so that
    /// clients do not reconnect at once. 0 closes immediately.
    pub expiry_spread: u64,
    /// The interval in milliseconds at which the backend checks the tokens of connections for
    /// changes. `None` if the backend reports all changes by itself.
    pub sweep_period: Option<u64>,
    /// The limits of the history.
    pub history: HistorySettings,
}

/// The limits of the history, from which clients resume after an interruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistorySettings {
    /// The maximum memory of the history, in bytes. 0 disables it.
    pub memory: usize,
    /// The maximum age of an event in the history, in milliseconds.
    pub window: u64,
    /// The maximum number of clients that are remembered after their connections have closed.
    pub clients: usize,
    /// The longest time for which an open connection may have received nothing, in milliseconds:
    /// until a ping is answered or the connection is closed.
    pub silence: u64,
}

impl Default for HistorySettings {
    fn default() -> Self {
        HistorySettings {
            memory: 16 << 20,
            window: 7 * 24 * 3600 * 1000,
            clients: 65_536,
            silence: 358_500,
        }
    }
}

/// The Real Time API on top of an engine. Its methods are those of a
/// [`Handler`](crate::net::Handler), except those for other listeners.
pub struct Realtime {
    backend: Box<dyn BackendHandle>,
    settings: ApiSettings,
    digester: Rc<Digester>,
    index: Index,
    principals: Principals,
    pending_opens: BTreeMap<ConnKey, PendingOpen>,
    clients: Clients,
    history: History,
    replays: Replays,
    reconciles: Reconciles,
    resumption: Resumption,
    /// Buffers reused between calls: the text of a reply, and the receivers, the conditional filters,
    /// and the terms of an event.
    reply: String,
    receivers: Vec<ConnKey>,
    found: Vec<u32>,
    terms: Vec<Digest>,
    steps: Steps,
    /// The time of the last sweep, in monotonic milliseconds.
    last_sweep: u64,
    tracer: Tracer,
    /// The number of random reconnection times so far.
    retries: u64,
    stream_mark: event_stream::StreamMark,
    watches: Watches,
    counters: ApiCounters,
}

/// A connection with a known identity, before its WebSocket or event stream opens.
struct PendingOpen {
    /// Monotonic milliseconds.
    since: u64,
    /// The cause for which it must be closed as soon as it opens.
    end_cause: Option<EndCause>,
}

impl Realtime {
    /// Creates the API. `seed` should be random, which keeps clients from constructing filter
    /// values that collide.
    pub fn new(backend: Box<dyn BackendHandle>, settings: ApiSettings, seed: [u64; 4]) -> Self {
        let digester = Rc::new(Digester::new(seed));
        Realtime {
            backend,
            clients: Clients::new(settings.history.clients, seed),
            history: History::new(settings.history),
            replays: Replays::default(),
            reconciles: Reconciles::default(),
            resumption: Resumption::default(),
            settings,
            index: Index::default(),
            principals: Principals::new(Rc::clone(&digester)),
            digester,
            pending_opens: BTreeMap::new(),
            reply: String::new(),
            receivers: Vec::new(),
            found: Vec::new(),
            terms: Vec::new(),
            steps: Steps::default(),
            last_sweep: 0,
            tracer: Tracer::default(),
            retries: 0,
            stream_mark: event_stream::StreamMark::default(),
            watches: Watches::default(),
            counters: ApiCounters::default(),
        }
    }

    /// Handles a request: a handshake, an event stream, `/_status`, or an unknown path.
    pub fn on_request(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        request: &Request<'_>,
    ) -> Verdict<ApiSession> {
        let (upgrade, credentials) = match request::route(request, cx.now().unix) {
            Route::Response(response) => {
                self.counters.rejected.count(response.status.0);
                return Verdict::Respond(response);
            }
            Route::EventStream => return self.on_stream_request(cx, key, request),
            Route::Description => return Verdict::Respond(self.description(request)),
            Route::WebSocket(upgrade, credentials) => (upgrade, credentials),
        };
        if !request::is_origin_allowed(request, &self.settings.origins) {
            self.counters.rejected.origin += 1;
            return Verdict::Respond(request::forbidden_origin());
        }
        if request::requests_tracing(request) {
            self.tracer.request(key, cx.now().mono);
        }
        match credentials {
            Credentials::Anonymous => {
                self.counters.auth.anonymous += 1;
                Verdict::Upgrade(upgrade, ApiSession::default())
            }
            Credentials::Invalid => {
                self.counters.auth.unknown += 1;
                match self.settings.invalid_token {
                    InvalidToken::Anonymous => Verdict::Upgrade(upgrade, ApiSession::default()),
                    InvalidToken::Reject => {
                        self.counters.rejected.token += 1;
                        Verdict::Respond(request::unauthorized())
                    }
                }
            }
            Credentials::Token(token) => {
                cx.charge(cost::LOGIN);
                self.authenticate(key, upgrade, token.into_owned())
            }
        }
    }

    /// Called when a WebSocket has opened.
    pub fn on_open(&mut self, cx: &mut ConnCx<'_, ApiSession>) {
        self.opened(cx);
    }

    /// Records that a connection has opened. Returns whether it stays open.
    fn opened(&mut self, cx: &mut ConnCx<'_, ApiSession>) -> bool {
        let key = cx.key();
        let is_traced = self.tracer.open(key);
        if let Some(session) = cx.session(key) {
            session.observation = match is_traced {
                true => Observation::Traced,
                false => Observation::None,
            };
        }
        if self.tracer.is_on() {
            self.trace_open(cx, key, is_traced);
        }
        self.watches.record_open(key, cx.now().unix);
        if is_traced {
            self.watch_traced(cx, key);
        }
        let ended = self
            .pending_opens
            .remove(&key)
            .and_then(|pending| pending.end_cause);
        if let Some(cause) = ended {
            self.close_connection(cx, key, cause);
        }
        ended.is_none()
    }

    /// Called when a WebSocket or event stream has closed.
    pub fn on_close(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey, session: ApiSession) {
        if let Some(info) = cx.close_info().filter(|_| self.tracer.is_on()) {
            let line = format_args!("closed code={} by={}", info.code, info.cause);
            let is_traced = session.is_traced();
            self.tracer.log(key, is_traced, cx.now().mono, line);
        }
        if session.is_traced() {
            self.tracer.close();
        }
        if session.is_observed() {
            self.watches.remove(key);
        }
        self.remember(cx, key, &session);
        self.replays.remove(key);
        self.reconciles.remove(key);
        self.index.remove(key);
        self.principals.log_out(key);
    }

    /// Called periodically. Expires tokens, closes connections that are due, and releases memory.
    pub fn on_tick(&mut self, cx: &mut Cx<'_, ApiSession>) {
        let now = cx.now();
        self.expire(now);
        self.close_due(cx);
        // Remove identities of connections that closed before they opened.
        let principals = &mut self.principals;
        self.pending_opens.retain(|&key, pending| {
            let stays = now.mono.saturating_sub(pending.since) < PENDING_OPEN_LIFETIME;
            if !stays {
                principals.log_out(key);
            }
            stays
        });
        self.begin_steps(cx);
        self.resumption.live.trim();
        self.history.on_tick(now.unix, now.mono);
        self.check_ahead(cx);
        self.send_marks(cx);
        self.check_receipts(cx);
        self.record_alive(now.mono);
        self.flush_clients(cx);
        self.tracer.on_tick(now.mono);
    }

    /// Called when the queued output of a connection has been sent.
    pub fn on_drain(&mut self, cx: &mut ConnCx<'_, ApiSession>) {
        self.replays.wake(cx.key());
        self.reconciles.wake(cx.key());
        cx.request_turn();
    }

    /// Handles a message from a backend. Ignores events ([`BackendEvent::Published`], [`BackendEvent::QueueEvents`]),
    /// which belong in an [`EventQueue`], and [`BackendEvent::Health`], which is for others.
    pub fn on_backend_event(&mut self, cx: &mut Cx<'_, ApiSession>, event: BackendEvent) {
        match event {
            BackendEvent::Authenticated { request_id, reply } => {
                self.on_authenticated(cx, request_id, reply)
            }
            BackendEvent::Memberships {
                userid,
                memberships,
            } => {
                self.principals.set_memberships(&userid, memberships);
                self.queue_reconciles(cx);
                cx.request_turn();
            }
            BackendEvent::History(event) => self.on_history(cx, event),
            BackendEvent::TokenEnded { token, cause } => {
                let keys = self.principals.connections_with(token);
                self.end_tokens(cx, keys, cause);
            }
            BackendEvent::UserDeleted { userid } => {
                let keys = self.principals.connections_of(&userid);
                self.end_tokens(cx, keys, EndCause::UserDeleted);
            }
            BackendEvent::Published { .. }
            | BackendEvent::QueueEvents { .. }
            | BackendEvent::Found { .. }
            | BackendEvent::Replanned { .. }
            | BackendEvent::Health { .. } => {}
        }
    }

    /// Records that all changes up to this time by the backend's clock have been delivered.
    pub fn set_watermark(&mut self, time: crate::model::UnixMillis) {
        self.history.set_watermark(time);
    }

    /// Returns the counters and current values.
    pub fn counters(&self) -> ApiCounters {
        ApiCounters {
            subscriptions: self.index.subscriptions() as u64,
            terms: self.index.terms() as u64,
            conditional_filters: self.index.conditional_count() as u64,
            logins: self.principals.logins() as u64,
            principals: self.principals.users() as u64,
            index_bytes: self.index.bytes() as u64,
            filter_bytes: self.index.footprint() as u64,
            remembered_clients: self.clients.len() as u64,
            remembered_bytes: self.clients.bytes() as u64,
            suppressed_lines: self.tracer.suppressed(),
            watched: self.watches.len() as u64,
            recovery: RecoveryCounters {
                replays: (self.replays.len() + self.resumption.waiting()) as u64,
                entries: self.history.len() as u64,
                bytes: self.history.bytes() as u64,
                oldest: self.history.oldest_time().unwrap_or_default(),
                ..self.counters.recovery
            },
            ..self.counters
        }
    }
}

impl Realtime {
    /// Logs the opening of a connection.
    fn trace_open(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey, is_traced: bool) {
        let principal = self.principals.of(key);
        let user = principal.map_or("anonymous", |principal| principal.userid());
        let now = cx.now().mono;
        let mut log = |line| self.tracer.log(key, is_traced, now, line);
        match cx.peer(key) {
            Some(peer) => log(format_args!("opened peer={peer} user={user}")),
            None => log(format_args!("opened peer=unix user={user}")),
        }
    }
}

impl Default for ApiSettings {
    fn default() -> Self {
        ApiSettings {
            origins: Vec::new(),
            invalid_token: InvalidToken::default(),
            max_message: 64 << 10,
            max_terms: 200,
            filters_total: 64 << 20,
            on_expiry: OnExpiry::default(),
            expiry_spread: 0,
            sweep_period: None,
            history: HistorySettings::default(),
        }
    }
}

/// How long an identity is kept until its connection opens, in milliseconds. The engine opens it
/// directly after the answer or never, so any value is long enough.
const PENDING_OPEN_LIFETIME: u64 = 10_000;

#[cfg(test)]
mod tests;
