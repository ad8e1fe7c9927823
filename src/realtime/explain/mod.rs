//! Explanations for operators: whether a connection is notified of an event, and the reason.
//!
//! Owns: the evaluation of a supposed or an open connection, and its presentation as JSON. Nothing is
//! sent, and nothing changes except that the outcomes of later events are recorded for the open
//! connections in an explanation. The answers contain annotations regardless of their readers, so
//! only the holder of the publish key may get them. Must not know: keys, or requests over HTTP.
//!
//! | file | purpose |
//! |---|---|
//! | `mod` | the answer, and its decisive reason |
//! | `access` | the rules of a plan, in words |
//! | `filter` | the clauses of a filter that is given as JSON, and the values that match |
//! | `open_filter` | the relation of an event to the filter of an open connection |
//! | `connections` | open connections, and the outcomes of recent events |

mod access;
mod connections;
mod filter;
mod open_filter;

use std::rc::Rc;

use serde_json::{Value, json};

use crate::model::{
    Candidates, Decision, DenyReason, ExplainRequest, ExplainedConnection, ExplainedEvent,
    Findings, Plan, Subject, Term,
};
use crate::net::Cx;

use self::access::{Access, variant_json};
use super::digest::Digest;
use super::filter::{FilterError, FilterView, Mismatch, max_clauses};
use super::principals::Principal;
use super::watch::{beginning, subject_of};
use super::{ApiSession, Realtime};

pub(super) use filter::interpretation;
pub use open_filter::FilterMatch;

/// The reason that decides whether a connection is notified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Notified,
    InvalidFilter,
    NoFilter,
    UnknownAnnotation,
    UnknownUser,
    Filter,
    Action,
    OtherUser,
    OwnEvent,
    TokenEnded,
    Denied(DenyReason),
}

/// The filter of a connection.
enum FilterState<'a> {
    Unset,
    Invalid(FilterError),
    /// The filter of a supposed connection, with its JSON text.
    Given(&'a str, FilterView),
    /// The filter of an open connection, and its relation to the event. `None` if there is no event,
    /// or the filter matches nothing.
    Open(Option<FilterMatch>),
}

/// The connection in question.
struct Receiver<'a> {
    principal: Option<&'a Principal>,
    is_unknown_user: bool,
    is_silenced: bool,
    filter: FilterState<'a>,
    /// The digest of its client id.
    client: Option<Digest>,
}

/// The event in question.
struct Event {
    plan: Rc<Plan>,
    /// The client that caused it.
    client: Option<Box<str>>,
    /// The source of the annotation's data.
    source: &'static str,
}

impl Reason {
    fn as_str(self) -> &'static str {
        match self {
            Reason::Notified => "notified",
            Reason::InvalidFilter => "invalid_filter",
            Reason::NoFilter => "no_filter",
            Reason::UnknownAnnotation => "unknown_annotation",
            Reason::UnknownUser => "unknown_user",
            Reason::Filter => "filter",
            Reason::Action => "action",
            Reason::OtherUser => "other_user",
            Reason::OwnEvent => "own_event",
            Reason::TokenEnded => "token_ended",
            Reason::Denied(reason) => reason.as_str(),
        }
    }

    fn text(self, access: Option<&Access>) -> String {
        let text = match self {
            Reason::Notified => "notified",
            Reason::InvalidFilter => "not notified: the server rejects the filter",
            Reason::NoFilter => "not notified: the connection has not set a filter",
            Reason::UnknownAnnotation => {
                "not known: neither the backend nor the history of this server has the annotation"
            }
            Reason::UnknownUser => {
                "not notified: there is no such user, so that no token of the user is valid"
            }
            Reason::Filter => "not notified: the filter does not match the annotation",
            Reason::Action => "not notified: the filter does not select this action",
            Reason::OtherUser => "not notified: the event is for the clients of another user",
            Reason::OwnEvent => {
                "not notified: the event was caused by this client id, and clients are not \
                 notified of their own events"
            }
            Reason::TokenEnded => "not notified: the token of the connection has ended",
            Reason::Denied(_) => "not notified",
        };
        match (self, access) {
            (Reason::Notified | Reason::Denied(_), Some(access)) => {
                format!("{text}: {}", access.text)
            }
            _ => text.to_owned(),
        }
    }
}

impl Realtime {
    /// Returns the answer to a request for an explanation, as JSON, with the facts that a backend has
    /// looked up. Outcomes for the open connections in it are recorded from now on.
    pub fn explain(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        request: &ExplainRequest,
        findings: Findings,
    ) -> String {
        self.expire(cx.now());
        let lookup = request.lookup.as_ref();
        let requested = lookup.and_then(|lookup| lookup.event.as_ref());
        let event = requested.map(|requested| self.explained_event(requested, findings.plan));
        let answer = match &request.connection {
            ExplainedConnection::Open { client } => self.explain_open(cx, client, event),
            ExplainedConnection::Supposed { filter, client } => {
                let requested = lookup.and_then(|lookup| lookup.user.as_deref());
                let user = findings.user.map(|user| (user.userid, user.memberships));
                let user =
                    user.map(|(userid, memberships)| Principal::supposed(userid, memberships));
                let receiver = Receiver {
                    is_unknown_user: requested.is_some() && user.is_none(),
                    principal: user.as_ref(),
                    is_silenced: false,
                    filter: self.filter_state(filter.as_deref()),
                    client: client
                        .as_ref()
                        .map(|client| self.digester.client_id(client)),
                };
                let event = event.flatten();
                let mut answer = self.verdict(&receiver, event.as_ref());
                answer["user"] = self.user_json(requested, receiver.principal);
                answer
            }
        };
        answer.to_string()
    }

    fn filter_state<'a>(&self, filter: Option<&'a str>) -> FilterState<'a> {
        let Some(text) = filter else {
            return FilterState::Unset;
        };
        match FilterView::parse(text, self.settings.max_terms) {
            Ok(view) => FilterState::Given(text, view),
            Err(error) => FilterState::Invalid(error),
        }
    }

    /// Returns the event in question: by the backend's plan, and otherwise by the history.
    fn explained_event(&self, requested: &ExplainedEvent, plan: Option<Plan>) -> Option<Event> {
        let known = match requested {
            ExplainedEvent::Annotation { id, .. } => {
                let subject = self.subject_digest(&Subject::Annotation(id.clone()));
                self.history.of_subject(subject)
            }
            ExplainedEvent::Published(_) => None,
        };
        let source = match requested {
            ExplainedEvent::Annotation { .. } => "backend",
            ExplainedEvent::Published(_) => "request",
        };
        let client = known.and_then(|entry| entry.client()).map(Into::into);
        match (plan, known) {
            (Some(plan), _) => Some(Event {
                client: plan.exclude_client.clone().or(client),
                plan: Rc::new(plan),
                source,
            }),
            (None, Some(entry)) => Some(Event {
                plan: Rc::clone(&entry.plan),
                client,
                source: "history",
            }),
            (None, None) => None,
        }
    }

    /// Returns whether a connection is notified of an event, and all reasons for and against it.
    fn verdict(&self, receiver: &Receiver<'_>, event: Option<&Event>) -> Value {
        let access = event.map(|event| Access::new(&event.plan, receiver.principal));
        let reason = match (event, &access) {
            (Some(event), Some(access)) => self.reason(receiver, event, access),
            _ => Reason::UnknownAnnotation,
        };
        let mut answer = json!({
            "would_notify": reason == Reason::Notified,
            "reason": reason.as_str(),
            "summary": reason.text(access.as_ref()),
            "filter": self.filter_json(&receiver.filter, event),
        });
        let (Some(event), Some(access)) = (event, access) else {
            return answer;
        };
        let plan = &event.plan;
        answer["event"] = json!({
            "action": plan.kind.as_str(),
            "subject": beginning(subject_of(plan)),
            "source": event.source,
            "terms": filter::terms_json(terms_of(plan)),
        });
        let (is_allowed, variant) = match access.decision {
            Decision::Send(variant) => (true, variant_json(plan, variant, receiver.principal)),
            Decision::Deny(_) => (false, Value::Null),
        };
        answer["access"] = json!({
            "allowed": is_allowed,
            "text": access.text,
            "rules": access.rules,
        });
        answer["own_event"] = json!({
            "source_client_id": event.client.as_deref().map(beginning),
            "is_own": self.is_own(receiver, event),
        });
        answer["variant"] = variant;
        answer
    }

    /// Returns the decisive reason. The order is that in which a connection is excluded.
    fn reason(&self, receiver: &Receiver<'_>, event: &Event, access: &Access) -> Reason {
        let mismatch = match &event.plan.candidates {
            Candidates::User(userid) => {
                let user = receiver.principal.map(Principal::userid);
                (user != Some(&**userid)).then_some(Reason::OtherUser)
            }
            Candidates::Terms(_) => filter_mismatch(&receiver.filter, &event.plan),
        };
        match mismatch {
            _ if receiver.is_unknown_user => Reason::UnknownUser,
            Some(reason @ (Reason::InvalidFilter | Reason::NoFilter)) => reason,
            _ if receiver.is_silenced => Reason::TokenEnded,
            Some(reason) => reason,
            None if self.is_own(receiver, event) => Reason::OwnEvent,
            None => match access.decision {
                Decision::Send(_) => Reason::Notified,
                Decision::Deny(reason) => Reason::Denied(reason),
            },
        }
    }

    fn is_own(&self, receiver: &Receiver<'_>, event: &Event) -> bool {
        let client = event.client.as_deref();
        let client = client.map(|client| self.digester.client_id(client));
        client.is_some() && client == receiver.client
    }

    fn filter_json(&self, filter: &FilterState<'_>, event: Option<&Event>) -> Value {
        let limit = self.settings.max_terms;
        match filter {
            FilterState::Unset => json!({"is_set": false}),
            FilterState::Invalid(error) => json!({
                "is_set": true,
                "is_valid": false,
                "error": error_text(*error, limit),
            }),
            FilterState::Given(text, view) => {
                let mut json = json!({"is_set": true, "is_valid": true});
                if let Some(event) = event {
                    let mismatch = view.mismatch(&event.plan);
                    json["matches"] = mismatch.is_none().into();
                    json["mismatch"] = mismatch.map(Mismatch::as_str).into();
                    json["clauses"] = filter::clause_results(text, view, limit, &event.plan);
                }
                json
            }
            FilterState::Open(relation) => {
                let mut json = json!({"is_set": true, "is_valid": true});
                if event.is_some() {
                    let relation = relation.as_ref();
                    let is_match = relation.is_some_and(|relation| relation.is_match);
                    json["matches"] = is_match.into();
                    json["matching_terms"] =
                        filter::terms_json(relation.map_or(&[], |relation| &relation.terms));
                    json["is_excluded"] = relation.is_some_and(|one| one.is_excluded).into();
                    json["has_action"] = relation.is_some_and(|one| one.has_action).into();
                }
                json
            }
        }
    }

    /// Returns the user of a supposed connection.
    fn user_json(&self, requested: Option<&str>, user: Option<&Principal>) -> Value {
        let Some(requested) = requested else {
            return json!({"userid": null, "is_known": true, "memberships": []});
        };
        let Some(user) = user else {
            return json!({"userid": requested, "is_known": false, "memberships": []});
        };
        json!({
            "userid": user.userid(),
            "is_known": true,
            "memberships": connections::memberships_json(user),
            "open_connections": self.principals.connections_of(user.userid()).len(),
        })
    }
}

/// Returns the terms of the annotation in a plan.
fn terms_of(plan: &Plan) -> &[Term] {
    match &plan.candidates {
        Candidates::Terms(terms) => terms,
        Candidates::User(_) => &[],
    }
}

/// Returns the reason for which a filter does not select an event on an annotation.
fn filter_mismatch(filter: &FilterState<'_>, plan: &Plan) -> Option<Reason> {
    match filter {
        FilterState::Unset => Some(Reason::NoFilter),
        FilterState::Invalid(_) => Some(Reason::InvalidFilter),
        FilterState::Given(_, view) => match view.mismatch(plan)? {
            Mismatch::Action => Some(Reason::Action),
            _ => Some(Reason::Filter),
        },
        FilterState::Open(Some(relation)) if relation.is_match => None,
        FilterState::Open(Some(relation)) if relation.lacks_only_action => Some(Reason::Action),
        FilterState::Open(_) => Some(Reason::Filter),
    }
}

fn error_text(error: FilterError, limit: usize) -> String {
    match error {
        FilterError::Malformed => "failed to parse filter".to_owned(),
        FilterError::Pattern(error) => format!("a wildcard pattern is invalid: {error}"),
        FilterError::TooManyValues => format!("filter has more than {limit} values"),
        FilterError::TooManyClauses => {
            format!("filter has more than {} clauses", max_clauses(limit))
        }
    }
}

#[cfg(test)]
mod tests;
