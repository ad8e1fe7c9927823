//! The life of a token, from the handshake to its end.
//!
//! Owns: the effect of a backend's answer on a connection, and closing connections because their
//! token or user has ended. Must not know: the users of tokens; `principals` does.

use crate::http::Upgrade;
use crate::model::{
    AuthReply, BackendRequest, Busy, EndCause, InvalidToken, OnExpiry, RequestId, Secret,
    UnixMillis,
};
use crate::net::{ConnKey, Cx, Now, Verdict};
use crate::ws::CloseCode;

use super::digest::Digester;
use super::event_stream::{UNAVAILABLE, readable};
use super::principals::EndAction;
use super::{ApiSession, ApiSettings, PendingOpen, Realtime, request};

impl Realtime {
    pub(super) fn authenticate(
        &mut self,
        key: ConnKey,
        upgrade: Upgrade,
        token: String,
    ) -> Verdict<ApiSession> {
        let request = BackendRequest::Authenticate {
            request_id: RequestId(key.to_u64()),
            token: Secret(token),
        };
        match self.backend.send(request) {
            Ok(()) => Verdict::DeferUpgrade(upgrade, ApiSession::default()),
            Err(Busy) => {
                self.counters.auth.unavailable += 1;
                Verdict::Respond(request::unavailable())
            }
        }
    }

    pub(super) fn on_authenticated(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        request_id: RequestId,
        reply: AuthReply,
    ) {
        let Some(key) = ConnKey::from_u64(request_id.0) else {
            return;
        };
        // A second answer to the same request would change the identity of an open connection.
        if cx.session(key).is_some() {
            return;
        }
        match reply {
            // Register the identity at once: changes of the user and the token before `on_open`
            // must not be lost.
            AuthReply::Known(identity) => {
                self.counters.auth.known += 1;
                self.principals.log_in(key, identity, cx.now());
                // The identity has the newest memberships.
                self.queue_reconciles(cx);
                let since = cx.now().mono;
                self.pending_opens.insert(
                    key,
                    PendingOpen {
                        since,
                        end_cause: None,
                    },
                );
                cx.accept(key);
            }
            AuthReply::Unknown => {
                self.counters.auth.unknown += 1;
                // Browsers reconnect event streams by themselves: a client whose token has ended
                // must not become anonymous without notice.
                let is_stream = cx.awaits_event_stream(key);
                match self.settings.invalid_token {
                    InvalidToken::Anonymous if !is_stream => cx.accept(key),
                    _ => {
                        self.counters.rejected.token += 1;
                        let response = request::unauthorized();
                        let response = match is_stream {
                            true => readable(response, "*".to_owned()),
                            false => response,
                        };
                        cx.respond(key, response);
                    }
                }
            }
            AuthReply::Unavailable => {
                self.counters.auth.unavailable += 1;
                let response = match cx.awaits_event_stream(key) {
                    true => self.retry_later(UNAVAILABLE),
                    false => request::unavailable(),
                };
                cx.respond(key, response);
            }
        }
    }

    /// Ends the credentials of these connections for a reason other than time.
    pub(super) fn end_tokens(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        keys: Vec<ConnKey>,
        cause: EndCause,
    ) {
        for key in keys {
            let end_action = end_action(&self.settings, &self.digester, cx.now(), cause, key);
            self.principals.end(key, cause, end_action);
            // Queued events may no longer be read either.
            if matches!(
                end_action,
                EndAction::Close {
                    is_served: false,
                    ..
                }
            ) && cause != EndCause::Expired
            {
                cx.mute(key);
            }
        }
        self.close_due(cx);
    }

    /// Ends the credentials that have expired by now.
    #[inline]
    pub(super) fn expire(&mut self, now: Now) {
        let (settings, digester) = (&self.settings, &self.digester);
        let end_action = |key| end_action(settings, digester, now, EndCause::Expired, key);
        self.principals.expire(now, end_action);
    }

    /// Returns the current wall-clock time if tokens that have expired by it must not be served,
    /// and otherwise 0. A token may have expired by the wall clock before [`Realtime::expire`]
    /// detects it.
    pub(super) fn expiry_limit(&self, now: Now) -> UnixMillis {
        match (self.settings.on_expiry, self.settings.expiry_spread) {
            (OnExpiry::Close, 0) => now.unix,
            _ => 0,
        }
    }

    /// Closes the connections with ended credentials that are due.
    pub(super) fn close_due(&mut self, cx: &mut Cx<'_, ApiSession>) {
        while let Some((key, cause)) = self.principals.next_to_close(cx.now()) {
            self.close_or_defer(cx, key, cause);
        }
    }

    /// Applies new settings. Connections stay open and keep their filters. If connections with
    /// ended credentials were kept and no longer are, they are closed, spread over time. A
    /// connection that is due to be closed still is, even if such connections are kept from now on:
    /// it may have missed events already.
    pub fn reconfigure(&mut self, cx: &mut Cx<'_, ApiSession>, settings: ApiSettings) {
        self.clients.set_limit(settings.history.clients);
        self.settings = settings;
        self.history.set_limits(self.settings.history);
        if self.settings.on_expiry == OnExpiry::Close {
            for (key, cause) in self.principals.kept_open() {
                let end_action = end_action(&self.settings, &self.digester, cx.now(), cause, key);
                self.principals.end(key, cause, end_action);
            }
            self.close_due(cx);
        }
        if self.continue_steps(cx) {
            cx.request_turn();
        }
    }

    /// Closes a connection with ended credentials, at once or when it opens. It keeps its identity
    /// until then, so that it never counts as anonymous.
    fn close_or_defer(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey, cause: EndCause) {
        match self.pending_opens.get_mut(&key) {
            Some(pending) => pending.end_cause = Some(cause),
            None => self.close_connection(cx, key, cause),
        }
    }

    pub(super) fn close_connection(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        cause: EndCause,
    ) {
        self.counters.credentials_ended += 1;
        self.debug_end(cx, key, cause);
        // The official client does not reconnect after 1000 or 1001.
        cx.close(key, CREDENTIALS_ENDED, cause.as_str());
    }
}

/// Decides on the treatment of a connection with ended credentials. Expiry is not a loss of trust:
/// if the close is delayed, the connection is served until then.
fn end_action(
    settings: &ApiSettings,
    digester: &Digester,
    now: Now,
    cause: EndCause,
    key: ConnKey,
) -> EndAction {
    if settings.on_expiry == OnExpiry::Keep {
        return EndAction::Keep;
    }
    let delay = match settings.expiry_spread {
        0 => 0,
        spread => 1 + digester.pseudorandom(key.to_u64()) % spread,
    };
    EndAction::Close {
        at: now.mono.saturating_add(delay),
        is_served: cause == EndCause::Expired && delay > 0,
    }
}

/// The close code for credentials that are no longer valid. RFC 6455 §7.4.2 reserves 3000–3999 for
/// frameworks and applications.
const CREDENTIALS_ENDED: CloseCode = CloseCode(3000);
