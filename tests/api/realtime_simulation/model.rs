//! The model: identities and filters, and the simplest way to find the receivers of an event, which
//! is to check every connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use h_realtime::model::{
    AuthReply, BackendEvent, Candidates, Condition, Decision, DenyReason, Identity, Membership,
    Plan, Term, TokenId, UnixMillis,
};
use h_realtime::realtime::ApiSession;
use h_realtime::realtime::WithheldCounters;
use h_realtime_engine::{ConnKey, Message, Now, Verdict};

use crate::sim::Payload;

use super::client_messages::{ClientMessage, Meaning};
use super::plans::in_json;

#[derive(Default)]
pub struct Model {
    /// The credentials of each client, by its number.
    pub credentials: Vec<Credentials>,
    pub lives: BTreeMap<ConnKey, Connection>,
    /// The last known memberships of each user, connected or not.
    pub memberships: BTreeMap<Box<str>, Vec<Membership>>,
    pub expected: ExpectedCounters,
    /// Whether an invalid token is refused.
    pub rejects: bool,
    pub breaches: Vec<String>,
}

/// The expected counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ExpectedCounters {
    pub matched: u64,
    pub sent: u64,
    pub withheld: WithheldCounters,
    pub credentials_ended: u64,
    pub replies: u64,
}

/// One connection.
#[derive(Debug, Default)]
pub struct Connection {
    pub credentials: Credentials,
    pub state: State,
    /// Its identity, once the backend has replied.
    pub login: Option<Login>,
    pub filter: BTreeSet<Term>,
    pub client: Option<String>,
    /// Messages that it has sent and the server has not received yet.
    pub sent_messages: VecDeque<ClientMessage>,
    /// Messages that it must still receive, in two streams that are each in order.
    pub replies: VecDeque<String>,
    pub events: VecDeque<String>,
    /// The status with which the API refused the handshake.
    pub refused: Option<u16>,
    /// The code with which the API closed it.
    pub closed: Option<u16>,
}

/// The identity that a client requests.
#[derive(Clone, Debug, Default)]
pub enum Credentials {
    #[default]
    Anonymous,
    /// By an empty token.
    EmptyToken,
    Token,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Begun,
    /// The backend has been asked.
    Pending,
    /// The backend has replied.
    Answered,
    Open,
    Over,
}

#[derive(Clone, Debug)]
pub struct Login {
    pub userid: Box<str>,
    token: TokenId,
    expires: Option<UnixMillis>,
    /// The expiry of the token as computed at login, on the monotonic clock.
    lasts_until: Option<u64>,
    /// Expiry is permanent, even if the wall clock is set back.
    has_expired: bool,
}

/// The outcome of an event for one connection.
enum Fate {
    NotFor,
    Own,
    Withheld(DenyReason),
    Sent(String),
}

impl Model {
    /// Returns the open connections.
    pub fn open(&self) -> impl Iterator<Item = (&ConnKey, &Connection)> {
        let lives = self.lives.iter();
        lives.filter(|(_, life)| life.state == State::Open)
    }

    pub fn breach(&mut self, key: ConnKey, problem: impl Into<String>) {
        let problem = problem.into();
        self.breaches.push(format!("{key:?}: {problem}"));
    }

    pub fn requested(&mut self, key: ConnKey, verdict: &Verdict<ApiSession>, is_busy: bool) {
        let rejects = self.rejects;
        let life = self.lives.entry(key).or_default();
        let status = match verdict {
            Verdict::Respond(response) => Some(response.status.0),
            _ => None,
        };
        let is_right = match (&life.credentials, verdict) {
            (Credentials::Anonymous, Verdict::Upgrade(..)) => true,
            (Credentials::EmptyToken, Verdict::Upgrade(..)) => !rejects,
            (Credentials::EmptyToken, _) => rejects && status == Some(401),
            (Credentials::Token, Verdict::DeferUpgrade(..)) => {
                life.state = State::Pending;
                !is_busy
            }
            (Credentials::Token, _) => is_busy && status == Some(503),
            _ => false,
        };
        life.refused = status;
        if !is_right {
            self.breach(key, "received another response");
        }
    }

    pub fn opened(&mut self, key: ConnKey) {
        let life = self.lives.entry(key).or_default();
        let is_right = match (&life.credentials, life.state) {
            (Credentials::Token, state) => state == State::Answered && life.refused.is_none(),
            (_, state) => state == State::Begun && life.refused.is_none(),
        };
        life.state = State::Open;
        if !is_right {
            self.breach(key, "was accepted");
        }
    }

    pub fn closed(&mut self, key: ConnKey) {
        let life = self.lives.entry(key).or_default();
        let was_open = std::mem::replace(&mut life.state, State::Over) == State::Open;
        if !was_open {
            self.breach(key, "closed without having been open");
        }
    }

    /// The API receives a message.
    pub fn on_message(&mut self, key: ConnKey, message: Message<'_>) {
        let life = self.lives.entry(key).or_default();
        let sent = life.sent_messages.pop_front();
        let is_same = match (sent.as_ref().map(|sent| &sent.payload), message) {
            (Some(Payload::Text(payload)), Message::Text(text)) => payload == text,
            (Some(Payload::Binary(payload)), Message::Binary(data)) => payload == data,
            _ => false,
        };
        let Some(sent) = sent.filter(|_| is_same && life.state == State::Open) else {
            return self.breach(
                key,
                "received an unsent message, or one on a connection that is not open",
            );
        };
        let replies = life.replies.len();
        life.answer(sent);
        self.expected.replies += (life.replies.len() - replies) as u64;
    }

    pub fn on_reply(&mut self, key: Option<ConnKey>, tell: &BackendEvent, now: Now) {
        match tell {
            BackendEvent::Authenticated { reply, .. } => {
                if let Some(key) = key {
                    self.authenticated(key, reply, now);
                }
            }
            BackendEvent::Memberships {
                userid,
                memberships,
            } => {
                let memberships = memberships.clone();
                self.memberships.insert(userid.clone(), memberships);
            }
            BackendEvent::TokenEnded { token, .. } => self.end(|login| login.token == *token),
            BackendEvent::UserDeleted { userid } => self.end(|login| login.userid == *userid),
            BackendEvent::Published { .. }
            | BackendEvent::Found { .. }
            | BackendEvent::QueueEvents { .. }
            | BackendEvent::Replanned { .. }
            | BackendEvent::History(_)
            | BackendEvent::Health { .. } => {}
        }
    }

    fn authenticated(&mut self, key: ConnKey, reply: &AuthReply, now: Now) {
        let life = self.lives.entry(key).or_default();
        if life.state == State::Open {
            // The identity is already known, and the first reply decides.
            return;
        }
        let is_first = life.state == State::Pending;
        if let AuthReply::Known(identity) = reply {
            let memberships = identity.memberships.clone();
            self.memberships
                .insert(identity.userid.clone(), memberships);
        }
        if !is_first {
            return;
        }
        life.state = State::Answered;
        match reply {
            AuthReply::Known(identity) => life.login = Some(Login::new(identity, now)),
            AuthReply::Unknown => life.refused = self.rejects.then_some(401),
            AuthReply::Unavailable => life.refused = Some(503),
        }
    }

    /// Connections with expired tokens are closed.
    pub fn ticked(&mut self, now: Now) {
        self.expire(now);
        self.end(|_| false);
    }

    fn expire(&mut self, now: Now) {
        for life in self.lives.values_mut() {
            if let Some(login) = &mut life.login {
                login.has_expired |= login.expires.is_some_and(|end| end <= now.unix)
                    || login.lasts_until.is_some_and(|end| end <= now.mono);
            }
        }
    }

    /// Closes connections with ended credentials, including known expired ones.
    fn end(&mut self, has_ended: impl Fn(&Login) -> bool) {
        let has_ended = |login: &Login| login.has_expired || has_ended(login);
        for life in self.lives.values_mut() {
            if life.state == State::Open && life.login.as_ref().is_some_and(has_ended) {
                life.closed = Some(3000);
                self.expected.credentials_ended += 1;
            }
        }
    }

    /// Processes an event and returns the number of receivers.
    pub fn deliver(&mut self, plan: &Plan, now: Now) -> usize {
        self.expire(now);
        let mut count = 0;
        for life in self.lives.values_mut() {
            let memberships = life.login.as_ref();
            let memberships = memberships.and_then(|login| self.memberships.get(&login.userid));
            let fate = life.fate(plan, memberships.map_or(&[], Vec::as_slice));
            self.expected.matched += u64::from(!matches!(fate, Fate::NotFor));
            let withheld = &mut self.expected.withheld;
            match fate {
                Fate::NotFor => {}
                Fate::Own => withheld.own += 1,
                Fate::Withheld(DenyReason::Permission) => withheld.permission += 1,
                Fate::Withheld(DenyReason::Muted) => withheld.muted += 1,
                Fate::Withheld(DenyReason::Hidden) => withheld.hidden += 1,
                Fate::Withheld(DenyReason::Checkpoint) => withheld.checkpoint += 1,
                Fate::Sent(text) => {
                    life.events.push_back(text);
                    count += 1;
                }
            }
        }
        self.expected.sent += count as u64;
        count
    }
}

impl Connection {
    fn answer(&mut self, message: ClientMessage) {
        let answer = match message.meaning {
            Meaning::Ping => r#""type": "pong", "ok": true"#.to_owned(),
            Meaning::WhoAmI => {
                let userid = self.login.as_ref().map(|login| in_json(&login.userid));
                let userid = userid.unwrap_or("null".to_owned());
                format!(r#""type": "whoyouare", "userid": {userid}, "ok": true"#)
            }
            Meaning::Wrong(kind, description) => format!(
                r#""type": "error", "error": {{"type": "{kind}", "description": "{description}"}}, "ok": false"#
            ),
            Meaning::ClientId(client) => return self.client = client,
            Meaning::Filter(terms) => return self.filter = terms,
            Meaning::NotJson => return self.closed = Some(1007),
            Meaning::Nothing => return,
        };
        if let Some(id) = message.id {
            let reply = format!(r#"{{{answer}, "reply_to": {id}}}"#);
            self.replies.push_back(reply);
        }
    }

    fn fate(&self, plan: &Plan, memberships: &[Membership]) -> Fate {
        let login = self.login.as_ref();
        let is_for = match &plan.candidates {
            Candidates::Terms(terms) => terms.iter().any(|term| self.filter.contains(term)),
            Candidates::User(userid) => login.is_some_and(|login| login.userid == *userid),
        };
        if self.state != State::Open || !is_for {
            return Fate::NotFor;
        }
        if plan.exclude_client.is_some() && plan.exclude_client.as_deref() == self.client.as_deref()
        {
            return Fate::Own;
        }
        if login.is_some_and(|login| login.has_expired) {
            return Fate::Withheld(DenyReason::Permission);
        }
        let is_one = |who: &Condition| match who {
            Condition::User(userid) => login.is_some_and(|login| login.userid == *userid),
            Condition::Member(group) => memberships.iter().any(|one| one.group == *group),
            Condition::Moderator(group) => memberships
                .iter()
                .any(|one| one.group == *group && one.role.moderates()),
            Condition::OneOf(userids) => {
                login.is_some_and(|login| userids.iter().any(|one| *one == *login.userid))
            }
        };
        for rule in &plan.rules {
            if rule.when.iter().all(is_one) {
                return match rule.then {
                    Decision::Deny(reason) => Fate::Withheld(reason),
                    Decision::Send(variant) => match plan.variants.get(variant) {
                        Some(text) => Fate::Sent(text.to_string()),
                        None => Fate::Withheld(DenyReason::Permission),
                    },
                };
            }
        }
        Fate::Withheld(DenyReason::Permission)
    }
}

impl Login {
    fn new(identity: &Identity, now: Now) -> Self {
        let lasts_until = |end: UnixMillis| now.mono + end.saturating_sub(now.unix);
        Login {
            userid: identity.userid.clone(),
            token: identity.token,
            expires: identity.expires,
            lasts_until: identity.expires.map(lasts_until),
            has_expired: false,
        }
    }
}
