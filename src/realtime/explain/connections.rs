//! The part of an explanation about open connections: their state, and the outcomes of recent events.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::model::{Cause, Decision, UnixMillis};
use crate::net::{ConnKey, Cx};

use super::{Event, FilterState, Receiver};
use crate::realtime::history::Entry;
use crate::realtime::principals::Principal;
use crate::realtime::rules::decide;
use crate::realtime::session::{Observation, SessionFlag};
use crate::realtime::watch::{MAX_OUTCOMES, Outcome, beginning, subject_of};
use crate::realtime::{ApiSession, Realtime};

/// An event in an answer.
struct EventLine {
    at: UnixMillis,
    position: u64,
    json: Value,
}

impl Realtime {
    /// Explains the open connections with a client id, with the verdict on an event if one was
    /// requested.
    pub(super) fn explain_open(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        client: &str,
        event: Option<Option<Event>>,
    ) -> Value {
        let wanted = Some(self.digester.client_id(client));
        let (mut connections, mut count, mut slot) = (Vec::new(), 0, 0);
        while let Some(key) = cx.next_open(slot) {
            let session = cx.session(key);
            if session.is_some_and(|session| session.client() == wanted) {
                count += 1;
                if connections.len() < MAX_CONNECTIONS {
                    connections.push(self.connection_json(cx, key, event.as_ref()));
                }
            }
            let Some(next) = key.slot().checked_add(1) else {
                break;
            };
            slot = next;
        }
        let is_notified = connections.iter().any(|one| one["would_notify"] == true);
        let mut answer = json!({
            "open_connections": count,
            "summary": match count {
                0 => "no open connection of this server has set this client id",
                _ => "open connections with this client id",
            },
        });
        if event.is_some() {
            answer["would_notify"] = is_notified.into();
        }
        answer["connections"] = connections.into();
        answer
    }

    fn connection_json(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        event: Option<&Option<Event>>,
    ) -> Value {
        let now = cx.now();
        let Some(session) = cx.session(key) else {
            return Value::Null;
        };
        let was_observed = session.is_observed();
        if !was_observed {
            session.observation = Observation::Watched;
        }
        let client = session.client();
        let has = |flag| session.has(flag);
        let (has_filter, has_cursors, is_replaying) = (
            has(SessionFlag::Filter),
            has(SessionFlag::Cursors),
            has(SessionFlag::Replaying),
        );
        let is_traced = session.is_traced();
        let transport = match has(SessionFlag::EventStream) {
            true => "sse",
            false => "websocket",
        };
        self.watches.insert(key, false, now.unix);
        let principal = self.principals.of(key);
        let is_silenced = self.principals.is_silenced(key, self.expiry_limit(now));
        let plan = event
            .and_then(|event| event.as_ref())
            .map(|event| &event.plan);
        let relation = plan.and_then(|plan| self.explain_filter(key, plan));
        let receiver = Receiver {
            principal,
            is_unknown_user: false,
            is_silenced,
            client,
            filter: match has_filter {
                true => FilterState::Open(relation),
                false => FilterState::Unset,
            },
        };
        let matcher = self.index.conditional_of(key);
        let mut json = json!({
            "connection": format!("{key:?}"),
            "userid": principal.map(Principal::userid),
            "memberships": principal.map_or(Value::Null, memberships_json),
            "opened_at": self.watches.opened_at(key),
            "last_received_at": cx.last_received(key).map(|at| {
                now.unix.saturating_sub(now.mono.saturating_sub(at))
            }),
            "transport": transport,
            "has_filter": has_filter,
            "filter_values": matcher.map_or_else(|| self.index.terms_of(key).len(), |it| it.len()),
            "filter_is_conditional": matcher.is_some(),
            "uses_cursors": has_cursors,
            "is_replaying": is_replaying,
            "waits_for_history": self.resumption.waiting.contains_key(&key),
            "debug": is_traced,
            "token_ended": is_silenced,
            "queued_bytes": cx.buffered(key),
        });
        if let Some(event) = event {
            let verdict = self.verdict(&receiver, event.as_ref());
            json["would_notify"] = verdict["would_notify"].clone();
            json["verdict"] = verdict;
        }
        json["recorded_since"] = self.watches.get(key).map(|watch| watch.since).into();
        json["events"] = self.events_json(key, &receiver);
        json
    }

    /// Returns the newest events that concern a connection, the newest one first: the recorded
    /// outcomes, and the events of the history that match its filter or user, evaluated now.
    fn events_json(&self, key: ConnKey, receiver: &Receiver<'_>) -> Value {
        let interest = self.interest_of(key);
        let mut lines = self.recorded_lines(key);
        let recorded: HashSet<u64> = lines.iter().map(|line| line.position).collect();
        let opened_at = self.watches.opened_at(key);
        let mut found = 0;
        for (position, at, entry) in self.history.newest().take(MAX_EXAMINED) {
            if found >= MAX_OUTCOMES {
                break;
            }
            if recorded.contains(&position) || !interest.matches(entry.state()) {
                continue;
            }
            found += 1;
            lines.push(self.evaluated_line((position, at, entry), receiver, opened_at));
        }
        lines.sort_by_key(|line| std::cmp::Reverse((line.at, line.position)));
        lines.truncate(MAX_OUTCOMES);
        lines.into_iter().map(|line| line.json).collect()
    }

    fn recorded_lines(&self, key: ConnKey) -> Vec<EventLine> {
        let watch = self.watches.get(key).into_iter();
        let outcomes = watch.flat_map(|watch| &watch.outcomes);
        outcomes
            .map(|one| EventLine {
                at: one.at,
                position: one.position,
                json: json!({
                    "at": one.at,
                    "action": one.kind.as_str(),
                    "subject": one.subject,
                    "outcome": one.outcome.as_str(),
                    "reason": reason_of(one.outcome),
                    "basis": "recorded",
                }),
            })
            .collect()
    }

    fn evaluated_line(
        &self,
        (position, at, entry): (u64, UnixMillis, &Entry),
        receiver: &Receiver<'_>,
        opened_at: Option<UnixMillis>,
    ) -> EventLine {
        let plan = &entry.plan;
        let client = entry.client().map(|client| self.digester.client_id(client));
        let is_own = plan.cause == Cause::Event && client.is_some() && client == receiver.client;
        let (outcome, reason) = match decide(&plan.rules, receiver.principal) {
            _ if receiver.is_silenced => ("withheld", Some("token_ended")),
            _ if is_own => (Outcome::Own.as_str(), None),
            Decision::Send(_) => ("readable", None),
            Decision::Deny(reason) => ("withheld", Some(reason.as_str())),
        };
        EventLine {
            at,
            position,
            json: json!({
                "at": at,
                "action": plan.kind.as_str(),
                "subject": beginning(subject_of(plan)),
                "outcome": outcome,
                "reason": reason,
                "basis": "evaluated",
                "before_connection": opened_at.is_some_and(|opened_at| at < opened_at),
            }),
        }
    }
}

fn reason_of(outcome: Outcome) -> Option<&'static str> {
    match outcome {
        Outcome::Denied(reason) => Some(reason.as_str()),
        _ => None,
    }
}

/// Returns the memberships of a user, at most [`MAX_MEMBERSHIPS`].
pub(super) fn memberships_json(user: &Principal) -> Value {
    let memberships = user.memberships().iter().take(MAX_MEMBERSHIPS);
    memberships
        .map(|one| json!({"group": beginning(&one.group), "role": one.role.as_str()}))
        .collect()
}

/// The number of connections that an answer describes.
const MAX_CONNECTIONS: usize = 16;
/// The number of memberships that an answer lists.
const MAX_MEMBERSHIPS: usize = 200;
/// The number of events of the history that are examined for a connection.
const MAX_EXAMINED: usize = 4096;
