//! Handles the messages of clients.

use crate::net::{ConnKey, Cx, Message};
use crate::ws::CloseCode;

use super::filter::{self, FilterError};
use super::message::{self, Kind, MAX_ID, Unreadable};
use super::reply::{self, Problem};
use super::{ApiSession, Realtime, encoding, json, work};

impl Realtime {
    /// Handles a message. Text and binary messages are treated alike.
    pub fn on_client_message(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        message: Message<'_>,
    ) {
        let parsed = match message {
            Message::Text(text) => Some(encoding::without_mark(text).into()),
            Message::Binary(bytes) => encoding::decode(bytes),
        };
        let parsed = match &parsed {
            Some(text) => {
                cx.charge(work::MESSAGE_BYTE * text.len() as u64);
                message::parse(text)
            }
            None => Err(Unreadable::NotJson),
        };
        match parsed {
            Ok(message) => self.dispatch(cx, key, message),
            // h only logs an exception.
            Err(Unreadable::NotAnObject) => {
                self.counters.errors.not_object += 1;
                self.trace_message(cx, key, "no object", None);
            }
            Err(Unreadable::LongId) => {
                let problem = Problem::LongId { limit: MAX_ID };
                self.count(problem);
                self.trace_message(cx, key, "too long an id", Some(problem));
                self.reply.clear();
                reply::error(&mut self.reply, problem, "null");
                cx.reply(Message::Text(&self.reply));
            }
            // h closes with 1000, after which the official client does not reconnect, and continues
            // to serve the connection.
            Err(Unreadable::NotJson) => {
                self.counters.errors.not_json += 1;
                self.trace_message(cx, key, "not JSON", None);
                cx.close(key, CloseCode::INVALID_DATA, "invalid message format");
            }
        }
    }

    fn dispatch(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        message: message::Message<'_>,
    ) {
        let outcome = match message.kind {
            Kind::Ping => {
                self.counters.messages.ping += 1;
                Ok(Some(Answer::Pong))
            }
            Kind::Whoami => {
                self.counters.messages.whoami += 1;
                Ok(Some(Answer::WhoYouAre))
            }
            Kind::ClientId { value } => {
                self.counters.messages.client_id += 1;
                self.set_client_id(cx, key, value).map(|()| None)
            }
            Kind::Filter { filter } => {
                self.counters.messages.filter += 1;
                self.set_filter(cx, key, filter).map(|()| None)
            }
            Kind::Unknown { type_ } => {
                self.counters.messages.unknown += 1;
                Err(Problem::InvalidType(type_))
            }
        };
        if let Err(problem) = outcome {
            self.count(problem);
        }
        self.trace_message(cx, key, message.kind.as_str(), outcome.err());
        let Some(id) = message.id else {
            self.counters.without_id += 1;
            return;
        };
        self.reply.clear();
        match outcome {
            Ok(None) => return,
            Ok(Some(Answer::Pong)) => reply::pong(&mut self.reply, id),
            Ok(Some(Answer::WhoYouAre)) => {
                cx.charge(work::LOOKUP);
                let userid = self.principals.of(key).map(|principal| principal.userid());
                reply::whoyouare(&mut self.reply, userid, id);
            }
            // h fails on these types, which are not hashable, and does not reply.
            Err(Problem::InvalidType(type_)) if json::is_container(type_) => return,
            Err(problem) => reply::error(&mut self.reply, problem, id),
        }
        cx.reply(Message::Text(&self.reply));
        self.reply.shrink_to(REPLY_BUFFER);
    }

    /// Logs a received message if tracing is on.
    fn trace_message(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        kind: &str,
        problem: Option<Problem<'_>>,
    ) {
        if !self.trace.is_on() {
            return;
        }
        let is_watched = cx.session(key).is_some_and(|session| session.is_watched);
        let outcome = match problem {
            None => "",
            Some(Problem::InvalidType(_)) => ", refused: no such type",
            Some(Problem::MissingValue | Problem::MissingFilter) => ", refused: incomplete",
            Some(Problem::InvalidValue) => ", refused: no client id",
            Some(Problem::InvalidFilter) => ", refused: no filter",
            Some(Problem::TooManyTerms { .. } | Problem::TooManyClauses { .. }) => {
                ", refused: too many terms"
            }
            Some(Problem::FiltersFull { .. }) => ", refused: no memory for filters",
            Some(Problem::LongId { .. }) => ", refused: its id is too long",
        };
        let what = format_args!("says: {kind}{outcome}");
        self.trace.say(key, is_watched, cx.now().mono, what);
    }

    fn set_client_id(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        value: Option<&str>,
    ) -> Result<(), Problem<'static>> {
        let value = value.ok_or(Problem::MissingValue)?;
        let client = if value == "null" {
            None
        } else {
            let id = json::string(value).ok_or(Problem::InvalidValue)?;
            Some(self.digester.client_id(&id))
        };
        if let Some(session) = cx.session(key) {
            session.set_client(client);
        }
        Ok(())
    }

    fn set_filter(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        filter: Option<&str>,
    ) -> Result<(), Problem<'static>> {
        let filter = filter.ok_or(Problem::MissingFilter)?;
        let limit = self.settings.max_terms;
        let mut spent = 0;
        let parsed = filter::parse(filter, limit, &self.digester, &mut spent);
        cx.charge(spent);
        let terms = parsed.map_err(|error| match error {
            FilterError::Malformed => Problem::InvalidFilter,
            FilterError::TooMany => Problem::TooManyTerms { limit },
            FilterError::TooManyClauses => Problem::TooManyClauses {
                limit: filter::most_clauses(limit),
            },
        })?;
        if terms.len() > SMALL_FILTER
            && !self
                .index
                .has_room(key, &terms, self.settings.filters_total)
        {
            return Err(Problem::FiltersFull {
                at_most: SMALL_FILTER,
            });
        }
        self.index.replace(key, &terms);
        Ok(())
    }

    fn count(&mut self, problem: Problem<'_>) {
        let errors = &mut self.counters.errors;
        *match problem {
            Problem::InvalidType(_) => &mut errors.invalid_type,
            Problem::MissingValue | Problem::InvalidValue | Problem::MissingFilter => {
                &mut errors.invalid_data
            }
            Problem::InvalidFilter => &mut errors.invalid_filter,
            Problem::TooManyTerms { .. } | Problem::TooManyClauses { .. } => {
                &mut errors.too_many_terms
            }
            Problem::FiltersFull { .. } => &mut errors.filters_full,
            Problem::LongId { .. } => &mut errors.long_id,
        } += 1;
    }
}

/// The reply to a valid message, if it has one.
#[derive(Clone, Copy)]
enum Answer {
    Pong,
    WhoYouAre,
}

/// The number of terms up to which filters are accepted even if `limits.filters_total` is reached,
/// so that large filters of some clients never lock out others.
const SMALL_FILTER: usize = 16;

/// The capacity of the reply buffer that is kept. Replies are short, except those with a long
/// userid.
const REPLY_BUFFER: usize = 1024;

#[cfg(test)]
mod tests;
