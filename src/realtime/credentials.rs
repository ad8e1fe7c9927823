//! What becomes of a token: at the handshake, and when it ends.
//!
//! Owns: what a back end's answer means for a connection, and when one is closed because its
//! token or its user has ended. Must not know who a token is for; `principals` does.

use crate::http::Upgrade;
use crate::model::{Ask, AuthReply, Busy, Identity, Secret, Ticket};
use crate::net::{ConnKey, Cx, Verdict};
use crate::ws::CloseCode;

use super::{Arrival, InvalidToken, OnExpiry, Realtime, Session, request};

impl Realtime {
    pub(super) fn authenticate(
        &mut self,
        key: ConnKey,
        upgrade: Upgrade,
        token: String,
    ) -> Verdict {
        let question = Ask::Authenticate {
            ticket: Ticket(key.to_u64()),
            token: Secret(token),
        };
        match self.asks.ask(question) {
            Ok(()) => Verdict::Defer(Some(upgrade)),
            Err(Busy) => {
                self.counters.auth.unavailable += 1;
                Verdict::Respond(request::unavailable())
            }
        }
    }

    pub(super) fn on_authenticated(
        &mut self,
        cx: &mut Cx<'_, Session>,
        ticket: Ticket,
        reply: AuthReply,
    ) {
        let Some(key) = ConnKey::from_u64(ticket.0) else {
            return;
        };
        // A second answer to one question would change who an open connection is.
        if cx.session(key).is_some() {
            return;
        }
        match reply {
            // From here on it hears what happens to its user and its token, so nothing that
            // comes before `on_open` is lost.
            AuthReply::Known(identity) => {
                self.counters.auth.known += 1;
                self.log_in(key, identity);
                let since = cx.now().mono;
                self.arrivals.insert(key, Arrival { since, ended: None });
                cx.accept(key);
            }
            AuthReply::Unknown => {
                self.counters.auth.unknown += 1;
                match self.settings.invalid_token {
                    InvalidToken::Anonymous => cx.accept(key),
                    InvalidToken::Reject => {
                        self.counters.refused.token += 1;
                        cx.respond(key, request::unauthorized());
                    }
                }
            }
            AuthReply::Unavailable => {
                self.counters.auth.unavailable += 1;
                cx.respond(key, request::unavailable());
            }
        }
    }

    fn log_in(&mut self, key: ConnKey, mut identity: Identity) {
        identity.expires = match self.settings.on_expiry {
            OnExpiry::Close => identity
                .expires
                .map(|at| at.saturating_add(self.delay(key))),
            OnExpiry::Keep => None,
        };
        self.principals.log_in(key, identity);
    }

    /// Asks the back end what has become of the tokens that are connected, if it is time to.
    pub(super) fn sweep(&mut self, now: u64) {
        let Some(period) = self.settings.sweep_period else {
            return;
        };
        if now.saturating_sub(self.swept) < period {
            return;
        }
        let tokens = self.principals.tokens();
        // Where there is no room for the question, the next tick asks it.
        if tokens.is_empty() || self.asks.ask(Ask::Sweep { tokens }).is_ok() {
            self.swept = now;
        }
    }

    /// Ends connections whose credentials have ended. From now on they hear nothing; when they
    /// are closed is spread.
    pub(super) fn end_all(
        &mut self,
        cx: &mut Cx<'_, Session>,
        keys: Vec<ConnKey>,
        reason: &'static str,
    ) {
        if self.settings.on_expiry == OnExpiry::Keep {
            return;
        }
        let now = cx.now().unix;
        for key in keys {
            match self.delay(key) {
                0 => self.end(cx, key, reason),
                delay => self.principals.end(key, now, now + delay),
            }
        }
    }

    /// How long after its credentials have ended a connection is closed, in milliseconds.
    fn delay(&self, key: ConnKey) -> u64 {
        match self.settings.expiry_spread {
            0 => 0,
            spread => 1 + self.digester.scatter(key.to_u64()) % spread,
        }
    }

    /// Ends a connection whose credentials have ended, at once or when it opens. It keeps its
    /// identity until it is closed: it must not pass for anonymous for a moment.
    pub(super) fn end(&mut self, cx: &mut Cx<'_, Session>, key: ConnKey, reason: &'static str) {
        match self.arrivals.get_mut(&key) {
            Some(arrival) => arrival.ended = Some(reason),
            None => self.close_ended(cx, key, reason),
        }
    }

    pub(super) fn close_ended(&mut self, cx: &mut Cx<'_, Session>, key: ConnKey, reason: &str) {
        self.counters.credentials_ended += 1;
        // Not 1000 or 1001, after which the official client never comes back.
        cx.close(key, CloseCode::CREDENTIALS_ENDED, reason);
    }
}
