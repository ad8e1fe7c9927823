//! Handles the messages of clients.
//!
//! Owns: the effect of each type of message, its reply, and the counters of rejections. Must not
//! know: the syntax of messages, filters, and replies.

use crate::net::{ConnCx, ConnKey, Cx, Message};
use crate::ws::CloseCode;

use super::filter::{self, FilterError};
use super::message::{self, MAX_ID_LEN, MessageKind, ParseError};
use super::reply::{self, Rejection};
use super::resume::{ResumePoint, Since, SinceError};
use super::session::SessionFlag;
use super::{ApiSession, Realtime, cost, encoding, json};

impl Realtime {
    /// Handles a message. Text and binary messages are treated alike.
    pub fn on_client_message(&mut self, cx: &mut ConnCx<'_, ApiSession>, message: Message<'_>) {
        let key = cx.key();
        let parsed = match message {
            Message::Text(text) => Some(encoding::strip_bom(text).into()),
            Message::Binary(bytes) => encoding::decode(bytes),
        };
        let parsed = match &parsed {
            Some(text) => {
                cx.charge(cost::MESSAGE_BYTE * text.len() as u64);
                message::parse(text)
            }
            None => Err(ParseError::NotJson),
        };
        match parsed {
            Ok(message) => self.dispatch(cx, message),
            // h only logs an exception.
            Err(ParseError::NotAnObject) => {
                self.counters.errors.not_object += 1;
                self.trace_message(cx, key, None, Some("not_object"));
            }
            Err(ParseError::LongId) => {
                let rejection = Rejection::LongId { limit: MAX_ID_LEN };
                self.count_rejection(rejection);
                self.trace_message(cx, key, None, Some(rejection.as_str()));
                self.reply.clear();
                reply::error(&mut self.reply, rejection, "null");
                cx.reply(Message::Text(&self.reply));
            }
            // h closes with 1000, after which the official client does not reconnect, and continues
            // to serve the connection.
            Err(ParseError::NotJson) => {
                self.counters.errors.not_json += 1;
                self.trace_message(cx, key, None, Some("not_json"));
                cx.close(key, CloseCode::INVALID_DATA, "invalid message format");
            }
        }
    }

    fn dispatch(&mut self, cx: &mut ConnCx<'_, ApiSession>, message: message::ClientMessage<'_>) {
        let key = cx.key();
        let outcome = match message.kind {
            MessageKind::Ping => {
                self.counters.messages.ping += 1;
                Ok(Some(Reply::Pong))
            }
            MessageKind::Whoami => {
                self.counters.messages.whoami += 1;
                Ok(Some(Reply::WhoYouAre))
            }
            MessageKind::ClientId { value } => {
                self.counters.messages.client_id += 1;
                self.set_client_id(cx, key, value).map(|()| None)
            }
            MessageKind::Filter { filter, since } => {
                self.counters.messages.filter += 1;
                let reply = self.set_filter(cx, key, filter, (since, message.id));
                reply.map(|point| point.map(Reply::Filter))
            }
            MessageKind::Unknown { type_ } => {
                self.counters.messages.unknown += 1;
                Err(Rejection::InvalidType(type_))
            }
        };
        if let Err(rejection) = outcome {
            self.count_rejection(rejection);
        }
        let rejected = outcome.err().map(Rejection::as_str);
        self.trace_message(cx, key, Some(message.kind.as_str()), rejected);
        let Some(id) = message.id else {
            self.counters.without_id += 1;
            return;
        };
        self.reply.clear();
        match outcome {
            Ok(None) => return,
            Ok(Some(Reply::Pong)) => reply::pong(&mut self.reply, id),
            Ok(Some(Reply::Filter(point))) => {
                let mut text = std::mem::take(&mut self.reply);
                self.write_resumed(&mut text, point, id);
                self.reply = text;
            }
            Ok(Some(Reply::WhoYouAre)) => {
                cx.charge(cost::LOOKUP);
                let userid = self.principals.of(key).map(|principal| principal.userid());
                reply::whoyouare(&mut self.reply, userid, id);
            }
            // h fails on these types, which are not hashable, and does not reply.
            Err(Rejection::InvalidType(type_)) if json::is_container(type_) => return,
            Err(rejection) => reply::error(&mut self.reply, rejection, id),
        }
        cx.reply(Message::Text(&self.reply));
        self.reply.shrink_to(REPLY_BUFFER);
    }

    /// Logs a received message if tracing is on: its type, if it is known, and the reason for its
    /// rejection.
    fn trace_message(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        kind: Option<&str>,
        rejected: Option<&str>,
    ) {
        if !self.tracer.is_on() {
            return;
        }
        let is_traced = cx.session(key).is_some_and(|session| session.is_traced);
        let now = cx.now().mono;
        let (kind, prefix) = kind.map_or(("", ""), |kind| (kind, " type="));
        let mut log = |line| self.tracer.log(key, is_traced, now, line);
        match rejected {
            None => log(format_args!("message{prefix}{kind}")),
            Some(reason) => log(format_args!("message{prefix}{kind} rejected={reason}")),
        }
    }

    fn set_client_id(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        value: Option<&str>,
    ) -> Result<(), Rejection<'static>> {
        let value = value.ok_or(Rejection::MissingValue)?;
        let client = if value == "null" {
            None
        } else {
            let id = json::string(value).ok_or(Rejection::InvalidValue)?;
            Some(self.digester.client_id(&id))
        };
        self.set_client(cx, key, client);
        Ok(())
    }

    fn set_filter(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        filter: Option<&str>,
        (since, id): (Option<&str>, Option<&str>),
    ) -> Result<Option<ResumePoint>, Rejection<'static>> {
        let filter = filter.ok_or(Rejection::MissingFilter)?;
        let limit = self.settings.max_terms;
        let mut spent = 0;
        let parsed = filter::parse(filter, limit, &self.digester, &mut spent);
        cx.charge(spent);
        let terms = parsed.map_err(|error| match error {
            FilterError::Malformed => Rejection::InvalidFilter,
            FilterError::TooManyValues => Rejection::TooManyTerms { limit },
            FilterError::TooManyClauses => Rejection::TooManyClauses {
                limit: filter::max_clauses(limit),
            },
        })?;
        if terms.len() > SMALL_FILTER
            && !self
                .index
                .has_room(key, &terms, self.settings.filters_total)
        {
            return Err(Rejection::FiltersFull {
                at_most: SMALL_FILTER,
            });
        }
        let resume = self.parse_since(cx, since);
        let resume = resume.map_err(Rejection::InvalidCursor)?;
        self.index.replace(key, &terms);
        if let Some(session) = cx.session(key) {
            session.set(SessionFlag::Filter, true);
        }
        let point = match resume {
            Some(resume) => self.resume_since(cx, key, resume, id),
            None => None,
        };
        self.recognize(cx, key);
        Ok(point)
    }

    /// Parses `since`, and looks it up if the history is ready.
    fn parse_since(
        &self,
        cx: &mut Cx<'_, ApiSession>,
        since: Option<&str>,
    ) -> Result<Option<(Since, Option<ResumePoint>)>, SinceError> {
        let Some(since) = since.filter(|since| *since != "null") else {
            return Ok(None);
        };
        cx.charge(cost::RESUME);
        let since = Since::parse(since)?;
        let now = cx.now().unix;
        let point = match self.history.is_ready() && !self.may_become_known(since, now) {
            true => Some(self.resume_point(since, now)?),
            false => None,
        };
        Ok(Some((since, point)))
    }

    pub(super) fn count_rejection(&mut self, rejection: Rejection<'_>) {
        let errors = &mut self.counters.errors;
        *match rejection {
            Rejection::InvalidType(_) => &mut errors.invalid_type,
            Rejection::MissingValue | Rejection::InvalidValue | Rejection::MissingFilter => {
                &mut errors.invalid_data
            }
            Rejection::InvalidFilter => &mut errors.invalid_filter,
            Rejection::TooManyTerms { .. } | Rejection::TooManyClauses { .. } => {
                &mut errors.too_many_terms
            }
            Rejection::FiltersFull { .. } => &mut errors.filters_full,
            Rejection::InvalidCursor(_) => &mut errors.invalid_cursor,
            Rejection::LongId { .. } => &mut errors.long_id,
        } += 1;
    }
}

/// The reply to a valid message, if it has one.
#[derive(Clone, Copy)]
enum Reply {
    Pong,
    WhoYouAre,
    Filter(ResumePoint),
}

/// The number of terms up to which filters are accepted even if `limits.filters_total` is reached,
/// so that large filters of some clients never lock out others.
const SMALL_FILTER: usize = 16;

/// The capacity of the reply buffer that is kept. Replies are short, except those with a long
/// userid.
const REPLY_BUFFER: usize = 1024;

#[cfg(test)]
mod tests;
