//! The Real Time API: messages of clients, replies, and the delivery of events.
//!
//! Owns: the protocol's messages, filters and their index, and the identities of connections. Must
//! not know: sockets, TLS, SQL, or the sources of events. Its interface to the engine is [`Cx`],
//! and to backends [`crate::model`].
//!
//! | file | purpose |
//! |---|---|
//! | `request` | handshakes, credentials, `/_status` |
//! | `message`, `filter`, `reply` | parsing and serialization of the protocol's JSON |
//! | `dispatch` | handling of messages |
//! | `work` | the cost of messages |
//! | `deliver` | from an event to its receivers |
//! | `event_queue` | events that wait for delivery, in bounded steps |
//! | `index`, `term` | the inverted index of filters |
//! | `credentials` | the life of a token, from the handshake to its end |
//! | `principals`, `expiry`, `audience` | identities, their expiry, and their permissions |
//! | `trace` | log lines about single connections |
//! | `invariants` | invariants between any two calls |

mod audience;
mod counters;
mod credentials;
mod deliver;
mod dispatch;
mod encoding;
mod event_queue;
mod expiry;
mod filter;
mod index;
mod invariants;
mod json;
mod message;
mod principals;
mod reply;
mod request;
mod session;
mod slab;
mod term;
#[cfg(test)]
mod testing;
mod trace;
mod work;

use std::collections::BTreeMap;
use std::rc::Rc;

use crate::http::{Origin, Request};
use crate::model::{BackendEvent, BackendHandle, EndCause, InvalidToken, OnExpiry};
use crate::net::{ConnKey, Cx, Verdict};

pub use counters::{
    ApiCounters, AuthCounters, ErrorCounters, EventCounters, MessageCounters, RejectedCounters,
    WithheldCounters,
};
pub use event_queue::{Completion, EventQueue, TurnLimits};
pub use session::ApiSession;

/// Parts that benchmarks measure separately.
#[doc(hidden)]
pub mod parts {
    pub use super::filter::{FilterError, parse as parse_filter};
    pub use super::index::Index;
    pub use super::term::{Digest, Digester};
}

use index::Index;
use principals::Principals;
use request::{Credentials, Wanted};
use term::Digester;
use trace::Trace;

/// The configurable behavior of the API.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// The allowed origins of web pages. If empty, all origins are allowed.
    pub origins: Vec<Origin>,
    /// The treatment of an invalid token.
    pub invalid_token: InvalidToken,
    /// The maximum number of values in one connection's filter.
    pub max_terms: usize,
    /// The memory limit of the filters of all connections, in bytes. Small filters may exceed it.
    pub filters_total: usize,
    /// The treatment of an open connection whose token has ended.
    pub on_expiry: OnExpiry,
    /// The period in milliseconds over which closes are spread if many tokens end together, so that
    /// clients do not reconnect at once. 0 closes immediately.
    pub expiry_spread: u64,
    /// The interval in milliseconds at which the backend checks the tokens of connections for
    /// changes. `None` if the backend reports all changes by itself.
    pub sweep_period: Option<u64>,
}

/// The Real Time API on top of an engine. Its methods are those of a
/// [`Handler`](crate::net::Handler), except those for other listeners.
pub struct Realtime {
    backend: Box<dyn BackendHandle>,
    settings: ApiSettings,
    digester: Rc<Digester>,
    index: Index,
    principals: Principals,
    arrivals: BTreeMap<ConnKey, Arrival>,
    /// Buffers reused between calls: the text of a reply, and the receivers of an event.
    reply: String,
    receivers: Vec<ConnKey>,
    /// The time of the last sweep, in monotonic milliseconds.
    swept: u64,
    trace: Trace,
    counters: ApiCounters,
}

/// A connection with a known identity whose WebSocket is about to open.
struct Arrival {
    /// Monotonic milliseconds.
    since: u64,
    /// The cause for which it must be closed as soon as it opens.
    ended: Option<EndCause>,
}

impl Realtime {
    /// Creates the API. `seed` should be random, which keeps clients from constructing filter
    /// values that collide.
    pub fn new(backend: Box<dyn BackendHandle>, settings: ApiSettings, seed: [u64; 4]) -> Self {
        let digester = Rc::new(Digester::new(seed));
        Realtime {
            backend,
            settings,
            index: Index::default(),
            principals: Principals::new(Rc::clone(&digester)),
            digester,
            arrivals: BTreeMap::new(),
            reply: String::new(),
            receivers: Vec::new(),
            swept: 0,
            trace: Trace::default(),
            counters: ApiCounters::default(),
        }
    }

    /// Handles a request: a handshake, `/_status`, or an unknown path.
    pub fn on_request(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        request: &Request<'_>,
    ) -> Verdict {
        let (upgrade, credentials) = match request::read(request, cx.now().unix) {
            Wanted::Answer(response) => {
                self.counters.rejected.count(response.status.0);
                return Verdict::Respond(response);
            }
            Wanted::Socket(upgrade, credentials) => (upgrade, credentials),
        };
        if !request::may_connect(request, &self.settings.origins) {
            self.counters.rejected.origin += 1;
            return Verdict::Respond(request::forbidden_origin());
        }
        if request::wants_to_be_watched(request) {
            self.trace.ask(key, cx.now().mono);
        }
        match credentials {
            Credentials::Anonymous => {
                self.counters.auth.anonymous += 1;
                Verdict::Upgrade(upgrade)
            }
            Credentials::Nobodys => {
                self.counters.auth.unknown += 1;
                match self.settings.invalid_token {
                    InvalidToken::Anonymous => Verdict::Upgrade(upgrade),
                    InvalidToken::Reject => {
                        self.counters.rejected.token += 1;
                        Verdict::Respond(request::unauthorized())
                    }
                }
            }
            Credentials::Token(token) => {
                cx.charge(work::LOGIN);
                self.authenticate(key, upgrade, token.into_owned())
            }
        }
    }

    /// Called when a WebSocket has opened.
    pub fn on_open(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey) {
        let is_watched = self.trace.open(key);
        if let Some(session) = cx.session(key) {
            session.is_watched = is_watched;
        }
        if self.trace.is_on() {
            self.trace_open(cx, key, is_watched);
        }
        let ended = self.arrivals.remove(&key).and_then(|arrival| arrival.ended);
        if let Some(cause) = ended {
            self.close_ended(cx, key, cause);
        }
    }

    /// Called when a WebSocket has closed.
    pub fn on_close(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey, session: ApiSession) {
        if let Some(ending) = cx.close_info().filter(|_| self.trace.is_on()) {
            let what = format_args!("closed with {}, by {}", ending.code, ending.reason);
            self.trace.say(key, session.is_watched, cx.now().mono, what);
        }
        if session.is_watched {
            self.trace.close();
        }
        self.index.remove(key);
        self.principals.log_out(key);
    }

    /// Called periodically. Expires tokens, closes connections that are due, and releases memory.
    pub fn on_tick(&mut self, cx: &mut Cx<'_, ApiSession>) {
        let now = cx.now();
        self.expire(now);
        self.close_due(cx);
        self.sweep(now.mono);
        // Remove identities whose connections closed before they opened.
        let principals = &mut self.principals;
        self.arrivals.retain(|&key, arrival| {
            let stays = now.mono.saturating_sub(arrival.since) < ARRIVAL_LIFE;
            if !stays {
                principals.log_out(key);
            }
            stays
        });
        self.index.tidy();
        self.principals.tidy();
        self.trace.tidy(now.mono);
    }

    /// Handles a message from a backend. Ignores events ([`BackendEvent::Published`], [`BackendEvent::QueueEvents`]),
    /// which belong in an [`EventQueue`], and [`BackendEvent::Health`], which is for others.
    pub fn on_backend_event(&mut self, cx: &mut Cx<'_, ApiSession>, tell: BackendEvent) {
        match tell {
            BackendEvent::Authenticated { request_id, reply } => {
                self.on_authenticated(cx, request_id, reply)
            }
            BackendEvent::Memberships {
                userid,
                memberships,
            } => self.principals.set_memberships(&userid, memberships),
            BackendEvent::TokenEnded { token, cause } => {
                let keys = self.principals.connections_with(token);
                self.end_all(cx, keys, cause);
            }
            BackendEvent::UserDeleted { userid } => {
                let keys = self.principals.connections_of(&userid);
                self.end_all(cx, keys, EndCause::UserDeleted);
            }
            BackendEvent::Published { .. }
            | BackendEvent::QueueEvents { .. }
            | BackendEvent::Health { .. } => {}
        }
    }

    /// Returns the counters and current values.
    pub fn counters(&self) -> ApiCounters {
        ApiCounters {
            subscriptions: self.index.subscriptions() as u64,
            terms: self.index.terms() as u64,
            logins: self.principals.logins() as u64,
            principals: self.principals.users() as u64,
            index_bytes: self.index.bytes() as u64,
            filter_bytes: self.index.footprint() as u64,
            suppressed_lines: self.trace.left_out(),
            ..self.counters
        }
    }
}

impl Realtime {
    fn trace_open(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey, is_watched: bool) {
        let principal = self.principals.of(key);
        let user = principal.map_or("anonymous", |principal| principal.userid());
        let now = cx.now().mono;
        match cx.peer(key) {
            Some(peer) => {
                let what = format_args!("open, from {peer}, {user}");
                self.trace.say(key, is_watched, now, what);
            }
            None => {
                let what = format_args!("open, from a unix socket, {user}");
                self.trace.say(key, is_watched, now, what);
            }
        }
    }
}

impl Default for ApiSettings {
    fn default() -> Self {
        ApiSettings {
            origins: Vec::new(),
            invalid_token: InvalidToken::default(),
            max_terms: 200,
            filters_total: 64 << 20,
            on_expiry: OnExpiry::default(),
            expiry_spread: 0,
            sweep_period: None,
        }
    }
}

/// How long an identity is kept until its connection opens, in milliseconds. The engine opens it
/// directly after the answer or never, so any value is long enough.
const ARRIVAL_LIFE: u64 = 10_000;

#[cfg(test)]
mod tests;
