//! Handles the messages of clients.
//!
//! Owns: the effect of each type of message, its reply, and the counters of rejections. Must not
//! know: the syntax of messages, filters, and replies.

use crate::net::{ConnCx, ConnKey, Cx, Message};
use crate::ws::CloseCode;

use super::filter::{self, Filter, FilterError, FilterView};
use super::message::{self, MAX_ID_LEN, MessageKind, ParseError};
use super::reply::{self, Rejection};
use super::resume::{ResumePoint, Since, SinceError};
use super::session::SessionFlag;
use super::{ApiSession, Realtime, cost, encoding, json};

impl Realtime {
    /// Handles a message. Text and binary messages are treated alike.
    pub fn on_client_message(&mut self, cx: &mut ConnCx<'_, ApiSession>, message: Message<'_>) {
        let key = cx.key();
        self.record_now(cx, key);
        let decoded;
        let text = match message {
            Message::Text(text) => Some(encoding::strip_bom(text)),
            Message::Binary(bytes) => {
                decoded = encoding::decode(bytes);
                decoded.as_deref()
            }
        };
        let parsed = match text {
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
            MessageKind::Filter { filter, since, ack } => {
                self.counters.messages.filter += 1;
                let request = FilterRequest {
                    since: since.filter(|since| *since != "null"),
                    ack,
                    id: message.id,
                };
                self.set_filter(cx, key, filter, request)
            }
            MessageKind::Unknown { type_ } => {
                self.counters.messages.unknown += 1;
                Err(Rejection::InvalidType(type_))
            }
        };
        if let Err(rejection) = &outcome {
            self.count_rejection(*rejection);
        }
        if self.tracer.is_on() {
            let rejection = outcome.as_ref().err().copied();
            let rejected = rejection.map(Rejection::as_str);
            self.trace_message(cx, key, Some(message.kind.as_str()), rejected);
            self.debug_message(cx, key, &message.kind, rejection);
        }
        let Some(id) = message.id else {
            self.counters.without_id += 1;
            return;
        };
        self.reply.clear();
        match outcome {
            Ok(None) => return,
            Ok(Some(Reply::Pong)) => reply::pong(&mut self.reply, id),
            Ok(Some(Reply::Filter(point, interpretation))) => {
                let mut text = std::mem::take(&mut self.reply);
                self.write_filter_reply(&mut text, point, &interpretation, id);
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
        let is_traced = cx.session(key).is_some_and(|session| session.is_traced());
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

    /// Sets the filter of an event stream. Returns the position from which it resumes, if it is known
    /// now.
    pub(super) fn set_stream_filter(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        filter: Option<&str>,
        since: Option<&str>,
    ) -> Result<Option<ResumePoint>, Rejection<'static>> {
        let request = FilterRequest {
            since,
            ack: false,
            id: None,
        };
        match self.set_filter(cx, key, filter, request)? {
            Some(Reply::Filter(point, _)) => Ok(point),
            _ => Ok(None),
        }
    }

    fn set_filter(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        filter: Option<&str>,
        request: FilterRequest<'_>,
    ) -> Result<Option<Reply>, Rejection<'static>> {
        let filter = filter.ok_or(Rejection::MissingFilter)?;
        let mut view = request.view();
        let filter = self.parse_filter(cx, key, filter, view.as_mut())?;
        let resume = self.parse_since(cx, request.since);
        let resume = resume.map_err(Rejection::InvalidCursor)?;
        self.index.set(key, &filter);
        let mut is_first = true;
        if let Some(session) = cx.session(key) {
            is_first = !session.has(SessionFlag::Filter);
            session.set(SessionFlag::Filter, true);
        }
        let interpretation = view.map(|view| reply::interpretation(&view));
        let interpretation = interpretation.unwrap_or_default();
        cx.charge(cost::ECHO_BYTE * interpretation.len() as u64);
        let reply = match resume {
            None => {
                self.note_other_filter(key);
                let is_requested = request.ack;
                is_requested.then_some(Reply::Filter(None, interpretation))
            }
            Some(resume) => {
                let reply_later = (request.id, &*interpretation, is_first);
                let point = self.resume_since(cx, key, resume, reply_later);
                point.map(|point| Reply::Filter(Some(point), interpretation))
            }
        };
        self.recognize(cx, key);
        Ok(reply)
    }

    /// Parses a filter, and checks that there is room for it as the filter of a connection.
    pub(super) fn parse_filter(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        filter: &str,
        view: Option<&mut FilterView>,
    ) -> Result<Filter, Rejection<'static>> {
        let limit = self.settings.max_terms;
        let mut spent = 0;
        let parsed = filter::parse(filter, limit, &self.digester, view, &mut spent);
        cx.charge(spent);
        let filter = parsed.map_err(|error| match error {
            FilterError::Malformed => Rejection::InvalidFilter,
            FilterError::Pattern(error) => Rejection::InvalidPattern(error),
            FilterError::TooManyValues => Rejection::TooManyTerms { limit },
            FilterError::TooManyClauses => Rejection::TooManyClauses {
                limit: filter::max_clauses(limit),
            },
        })?;
        let total = self.settings.filters_total;
        if !filter.is_small(SMALL_FILTER) && !self.index.has_room(key, &filter, total) {
            return Err(Rejection::FiltersFull {
                at_most: SMALL_FILTER,
            });
        }
        Ok(filter)
    }

    /// Parses `since`, and looks it up if the history is ready.
    fn parse_since(
        &self,
        cx: &mut Cx<'_, ApiSession>,
        since: Option<&str>,
    ) -> Result<Option<(Since, Option<ResumePoint>)>, SinceError> {
        let since = since.map(Since::parse);
        since.map(|since| self.look_up_since(cx, since)).transpose()
    }

    /// Looks up `since`, if the history is ready.
    pub(super) fn look_up_since(
        &self,
        cx: &mut Cx<'_, ApiSession>,
        since: Result<Since, SinceError>,
    ) -> Result<(Since, Option<ResumePoint>), SinceError> {
        cx.charge(cost::RESUME);
        let since = since?;
        let now = cx.now().unix;
        let point = match self.history.is_ready() && !self.may_become_known(since, now) {
            true => Some(self.resume_point(since, now)?),
            false => None,
        };
        Ok((since, point))
    }

    pub(super) fn count_rejection(&mut self, rejection: Rejection<'_>) {
        let errors = &mut self.counters.errors;
        *match rejection {
            Rejection::InvalidType(_) => &mut errors.invalid_type,
            Rejection::MissingValue | Rejection::InvalidValue | Rejection::MissingFilter => {
                &mut errors.invalid_data
            }
            Rejection::InvalidFilter | Rejection::InvalidPattern(_) => &mut errors.invalid_filter,
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
enum Reply {
    Pong,
    WhoYouAre,
    /// With the position of a connection that resumes, and the interpretation of the filter.
    Filter(Option<ResumePoint>, String),
}

/// The members of a `filter` message that concern its reply.
#[derive(Clone, Copy)]
struct FilterRequest<'a> {
    since: Option<&'a str>,
    ack: bool,
    id: Option<&'a str>,
}

impl FilterRequest<'_> {
    /// Returns a view to be filled, if the reply needs one.
    fn view(self) -> Option<FilterView> {
        let has_reply = self.id.is_some() && (self.ack || self.since.is_some());
        has_reply.then(|| FilterView::bounded(reply::MAX_INTERPRETATION))
    }
}

/// The number of terms up to which filters are accepted even if `limits.filters_total` is reached,
/// so that large filters of some clients never lock out others.
const SMALL_FILTER: usize = 16;

/// The capacity of the reply buffer that is kept. Replies are short, except those with a long
/// userid.
const REPLY_BUFFER: usize = 1024;

#[cfg(test)]
mod tests;
