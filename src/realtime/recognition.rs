//! The recognition of clients that do not use cursors, by their client id and user.
//!
//! Owns: when a client counts as connected, and the position up to which it has certainly received
//! everything. Must not know: the storage of remembered clients, or how missed events are sent.

use crate::model::UnixMillis;
use crate::net::{ConnKey, Cx};

use super::digest::Digest;
use super::history::Cursor;
use super::resume::Waiting;
use super::session::SessionFlag;
use super::{ApiSession, Realtime, cost};

impl Realtime {
    /// Sets the client id of a connection.
    pub(super) fn set_client(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        client: Option<Digest>,
    ) {
        let Some(session) = cx.session(key) else {
            return;
        };
        if session.client() == client {
            return self.recognize(cx, key);
        }
        let was_registered = session.has(SessionFlag::Registered);
        self.forget_connection(cx, key);
        if let Some(session) = cx.session(key) {
            session.set_client(client);
            // Only the first client of a connection is recognized: one connection must not fill the
            // table of clients.
            session.set(SessionFlag::Registered, was_registered);
        }
        self.recognize(cx, key);
    }

    /// Ends the recognition of an open connection's client, which counts as disconnected from now on.
    pub(super) fn forget_connection(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey) {
        self.record_now(cx, key);
        let Some(session) = cx.session(key) else {
            return;
        };
        let was_connected = session.has(SessionFlag::Connected);
        let client = session.client().filter(|_| was_connected);
        session.set(SessionFlag::Registered, false);
        session.set(SessionFlag::Connected, false);
        self.resumption.live.remove(key);
        self.resumption.receipts.remove(key);
        if let Some(client) = client {
            let last = cx.last_received(key).unwrap_or_default();
            let received = self.received(key, last);
            self.clients.close(self.client_key(key, client), received);
        }
    }

    /// Called when an event has been withheld from a connection. If its credentials have ended, the
    /// client gets the event when it reconnects with others.
    pub(super) fn withheld(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        limit: UnixMillis,
    ) {
        if self.principals.is_silenced(key, limit) {
            self.forget_connection(cx, key);
        }
    }

    /// Recognizes the client of a connection once both its client id and its filter have been set,
    /// and sends it the events that it has missed since its last connection.
    pub(super) fn recognize(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey) {
        let Some(session) = cx.session(key) else {
            return;
        };
        let Some(client) = session
            .client()
            .filter(|_| session.has(SessionFlag::Filter))
        else {
            return;
        };
        // Clients with cursors need not be recognized.
        if session.has(SessionFlag::Registered) || session.has(SessionFlag::Cursors) {
            return;
        }
        session.set(SessionFlag::Registered, true);
        // The server may not have noticed yet that the client's last connection is dead.
        let received = self.received_on_another(cx, key, client);
        self.resumption.live.insert(key, client);
        let client = self.client_key(key, client);
        if let Some(received) = received {
            self.clients.close(client, received);
        }
        match self.clients.position(client) {
            Some(received) if self.history.is_ready() => {
                self.resume_client(cx, key, received, true)
            }
            Some(received) => self.wait_for_history(cx, key, Waiting::Client(received)),
            None if self.history.is_ready() => {
                let received = self.history.cursor(self.history.head());
                self.record_connected(cx, key, received);
            }
            // Recorded when the history is ready.
            None => {}
        }
    }

    /// Returns the position up to which a client has certainly received everything on another open
    /// connection. That connection counts as disconnected from now on.
    fn received_on_another(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        client: Digest,
    ) -> Option<Cursor> {
        let candidates = self.resumption.live.candidates(client);
        cx.charge(cost::LIVE_CLIENT * (1 + candidates.len() as u64));
        for slot in candidates {
            let Some(other) = self.index.in_slot(slot).filter(|other| *other != key) else {
                continue;
            };
            let user = |key| self.principals.of(key).map(|user| user.userid());
            if user(other) != user(key) {
                continue;
            }
            self.record_now(cx, other);
            let is_received =
                !self.resumption.receipts.contains(other) && self.replays.position(other).is_none();
            let Some(session) = cx.session(other) else {
                // It is closing, and has not been remembered yet.
                let last = cx.now().mono.saturating_sub(self.silence());
                return is_received.then(|| self.received(other, last));
            };
            if session.client() != Some(client) {
                continue;
            }
            let was_connected = session.has(SessionFlag::Connected);
            session.set(SessionFlag::Connected, false);
            session.set(SessionFlag::Registered, false);
            self.resumption.receipts.remove(other);
            self.resumption.live.remove(other);
            if was_connected {
                let last = cx.last_received(other).unwrap_or_default();
                return Some(self.received(other, last));
            }
        }
        None
    }

    /// Records that the client of a connection has received all events up to a position, and is sent
    /// all later ones, if it can be recognized when it reconnects.
    pub(super) fn record_connected(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        received: Cursor,
    ) {
        let Some(session) = cx.session(key) else {
            return;
        };
        let is_new = session.has(SessionFlag::Registered) && !session.has(SessionFlag::Connected);
        let Some(client) = session.client().filter(|_| is_new) else {
            return;
        };
        session.set(SessionFlag::Connected, true);
        self.clients.connect(self.client_key(key, client), received);
        cx.request_turn();
    }

    /// Remembers the client of a connection that has closed. If it was in the midst of a replay, the
    /// position at which that began is still known.
    pub(super) fn remember(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        session: &ApiSession,
    ) {
        let unrecorded = self.unrecorded(key).filter(|_| {
            let is_behind = self.resumption.receipts.contains(key);
            let is_current = !is_behind && !session.has(SessionFlag::Replaying);
            is_current && session.has(SessionFlag::Registered)
        });
        self.resumption.waiting.remove(&key);
        self.resumption.receipts.remove(key);
        self.resumption.live.remove(key);
        let is_connected = session.has(SessionFlag::Connected);
        let is_recorded = is_connected || unrecorded.is_some();
        if let Some(client) = session.client().filter(|_| is_recorded) {
            if let Some(received) = unrecorded.filter(|_| !is_connected) {
                self.clients.connect(self.client_key(key, client), received);
            }
            let last = cx.close_info().map_or(0, |info| info.last_received);
            let received = self.received(key, last);
            self.clients.close(self.client_key(key, client), received);
            cx.request_turn();
        }
    }

    /// Returns the position up to which a client has certainly received everything on a connection,
    /// given the time of its last sign of life.
    pub(super) fn received(&self, key: ConnKey, last: u64) -> Cursor {
        let known = self.history.cursor_at(last.saturating_sub(IN_FLIGHT));
        let replayed = self.replays.position(key);
        match replayed.filter(|replayed| *replayed < known.position) {
            Some(replayed) => self.history.cursor(replayed),
            None => known,
        }
    }

    /// Writes the records about clients of this turn.
    pub(super) fn flush_clients(&mut self, cx: &mut Cx<'_, ApiSession>) {
        if !self.clients.needs_flush() {
            return;
        }
        let since = cx.now().mono.saturating_sub(self.silence());
        let received = self.history.cursor_at(since);
        let (index, principals, digester) = (&self.index, &self.principals, &self.digester);
        let is_unfinished = self.clients.flush(index.end(), |slot| {
            let key = index.in_slot(slot)?;
            let session = cx.session(key)?;
            let is_connected = session.has(SessionFlag::Connected);
            let client = session.client().filter(|_| is_connected)?;
            let user = principals.of(key);
            let user = user.map(|user| digester.userid(user.userid()));
            Some((Digest::of_client(client, user), received))
        });
        if is_unfinished {
            cx.request_turn();
        }
    }

    /// Records a position up to which all connected clients have received everything.
    pub(super) fn record_alive(&mut self, now: u64) {
        if now.saturating_sub(self.resumption.last_alive) >= ALIVE_PERIOD {
            self.resumption.last_alive = now;
            let received = self.history.cursor_at(now.saturating_sub(self.silence()));
            self.clients.alive(received);
        }
    }

    /// Returns the time for which an open connection may have received nothing, in milliseconds.
    fn silence(&self) -> u64 {
        self.settings.history.silence.saturating_add(IN_FLIGHT)
    }

    fn client_key(&self, key: ConnKey, client: Digest) -> Digest {
        let user = self.principals.of(key);
        let user = user.map(|user| self.digester.userid(user.userid()));
        Digest::of_client(client, user)
    }
}

/// How long before a client's last sign of life a message may have been sent and not arrived, in
/// milliseconds. A client acknowledges what it has received with everything that it sends, so this
/// covers the way to the client and retransmissions.
pub(super) const IN_FLIGHT: u64 = 20_000;
/// The interval at which a position that all connected clients have received is recorded, in
/// milliseconds.
const ALIVE_PERIOD: u64 = 5_000;
