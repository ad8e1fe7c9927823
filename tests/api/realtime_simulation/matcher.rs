//! The model: who is who and who asked for what, and the plainest way to find who must hear of
//! an event: to go through everybody.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use h_realtime::model::{
    AuthReply, BackendEvent, Candidates, Condition, Decision, DenyReason, Identity, Membership,
    Plan, Term, TokenId, UnixMillis,
};
use h_realtime::realtime::ApiSession;
use h_realtime::realtime::WithheldCounters;
use h_realtime_engine::{ConnKey, Message, Now, Verdict};

use crate::sim::Said;

use super::plans::in_json;
use super::says::{Meaning, Say};

#[derive(Default)]
pub struct Model {
    pub lives: BTreeMap<ConnKey, Life>,
    /// What was last said of each user, whether they were there or not.
    pub memberships: BTreeMap<Box<str>, Vec<Membership>>,
    pub tally: Tally,
    /// Whether a token that is nobody's is refused.
    pub rejects: bool,
    pub breaches: Vec<String>,
}

/// What must have been counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub matched: u64,
    pub sent: u64,
    pub withheld: WithheldCounters,
    pub credentials_ended: u64,
    pub replies: u64,
}

/// One connection.
#[derive(Debug, Default)]
pub struct Life {
    pub wants: Wants,
    pub state: State,
    /// Who it is, as soon as the back end has said so.
    pub login: Option<Login>,
    pub filter: BTreeSet<Term>,
    pub client: Option<String>,
    /// What it has said, and the server not heard.
    pub said: VecDeque<Say>,
    /// What it must hear, and has not, in two streams that are each in order.
    pub replies: VecDeque<String>,
    pub events: VecDeque<String>,
    /// How the API refused the handshake.
    pub refused: Option<u16>,
    /// How the API closed it.
    pub closed: Option<u16>,
}

/// Who a client says that it is.
#[derive(Clone, Debug, Default)]
pub enum Wants {
    #[default]
    Anonymous,
    /// By an empty token.
    Nobody,
    Token,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    #[default]
    Begun,
    /// The back end was asked.
    Asked,
    /// The back end has answered.
    Answered,
    Open,
    Over,
}

#[derive(Clone, Debug)]
pub struct Login {
    pub userid: Box<str>,
    token: TokenId,
    expires: Option<UnixMillis>,
    /// When the token has lasted for as long as it was to at the login, by the monotonic clock.
    lasts_until: Option<u64>,
    /// It stays so, also if the wall clock is set back.
    has_expired: bool,
}

/// What becomes of an event for one connection.
enum Fate {
    NotFor,
    Own,
    Withheld(DenyReason),
    Sent(String),
}

impl Model {
    /// The connections that are open.
    pub fn open(&self) -> impl Iterator<Item = (&ConnKey, &Life)> {
        let lives = self.lives.iter();
        lives.filter(|(_, life)| life.state == State::Open)
    }

    pub fn breach(&mut self, key: ConnKey, what: impl Into<String>) {
        let what = what.into();
        self.breaches.push(format!("{key:?}: {what}"));
    }

    pub fn requested(&mut self, key: ConnKey, verdict: &Verdict<ApiSession>, is_busy: bool) {
        let rejects = self.rejects;
        let life = self.lives.entry(key).or_default();
        let status = match verdict {
            Verdict::Respond(response) => Some(response.status.0),
            _ => None,
        };
        let is_right = match (&life.wants, verdict) {
            (Wants::Anonymous, Verdict::Upgrade(..)) => true,
            (Wants::Nobody, Verdict::Upgrade(..)) => !rejects,
            (Wants::Nobody, _) => rejects && status == Some(401),
            (Wants::Token, Verdict::DeferUpgrade(..)) => {
                life.state = State::Asked;
                !is_busy
            }
            (Wants::Token, _) => is_busy && status == Some(503),
            _ => false,
        };
        life.refused = status;
        if !is_right {
            self.breach(key, "was answered something else");
        }
    }

    pub fn opened(&mut self, key: ConnKey) {
        let life = self.lives.entry(key).or_default();
        let is_right = match (&life.wants, life.state) {
            (Wants::Token, state) => state == State::Answered && life.refused.is_none(),
            (_, state) => state == State::Begun && life.refused.is_none(),
        };
        life.state = State::Open;
        if !is_right {
            self.breach(key, "was let in");
        }
    }

    pub fn closed(&mut self, key: ConnKey) {
        let life = self.lives.entry(key).or_default();
        let was_open = std::mem::replace(&mut life.state, State::Over) == State::Open;
        if !was_open {
            self.breach(key, "closed without being open");
        }
    }

    /// The API hears a message.
    pub fn heard(&mut self, key: ConnKey, message: Message<'_>) {
        let life = self.lives.entry(key).or_default();
        let say = life.said.pop_front();
        let is_same = match (say.as_ref().map(|say| &say.message), message) {
            (Some(Said::Text(said)), Message::Text(text)) => said == text,
            (Some(Said::Binary(said)), Message::Binary(data)) => said == data,
            _ => false,
        };
        let Some(say) = say.filter(|_| is_same && life.state == State::Open) else {
            return self.breach(key, "heard what was not said, or of one that is not open");
        };
        let replies = life.replies.len();
        life.answer(say);
        self.tally.replies += (life.replies.len() - replies) as u64;
    }

    pub fn told(&mut self, key: Option<ConnKey>, tell: &BackendEvent, now: Now) {
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
            | BackendEvent::QueueEvents { .. }
            | BackendEvent::Health { .. } => {}
        }
    }

    fn authenticated(&mut self, key: ConnKey, reply: &AuthReply, now: Now) {
        let life = self.lives.entry(key).or_default();
        if life.state == State::Open {
            // Who somebody is has been said before, and once is enough.
            return;
        }
        let is_first = life.state == State::Asked;
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

    /// Those whose tokens have expired are closed.
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
                self.tally.credentials_ended += 1;
            }
        }
    }

    /// An event happens; says how many must hear of it.
    pub fn deliver(&mut self, plan: &Plan, now: Now) -> usize {
        self.expire(now);
        let mut count = 0;
        for life in self.lives.values_mut() {
            let memberships = life.login.as_ref();
            let memberships = memberships.and_then(|login| self.memberships.get(&login.userid));
            let fate = life.fate(plan, memberships.map_or(&[], Vec::as_slice));
            self.tally.matched += u64::from(!matches!(fate, Fate::NotFor));
            let withheld = &mut self.tally.withheld;
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
        self.tally.sent += count as u64;
        count
    }
}

impl Life {
    fn answer(&mut self, say: Say) {
        let answer = match say.meaning {
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
        if let Some(id) = say.id {
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
