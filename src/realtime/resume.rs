//! Resumption: determines the position from which a connection is sent the events that it missed.
//!
//! Owns: cursors in filters, the recognition of clients that do not use cursors by their client id
//! and user, and cursor marks. Must not know: how missed events are sent.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::rc::Rc;

use crate::model::{HistoryEvent, RestoredPlan, UnixMillis};
use crate::net::{ConnKey, Cx, Delivery, Frame};
use crate::ws::CloseCode;

use super::event_stream::mark_block;
use super::filter::Pages;
use super::history::{Cursor, Lookup, Past, ReplayCursor};
use super::live::LiveClients;
use super::receipt::PendingReceipts;
use super::replay::ReplayStart;
use super::session::SessionFlag;
use super::{ApiSession, Realtime, cost, reply};

/// The connections that wait for the history, the clients that can be recognized, and the connections
/// that get cursor marks.
#[derive(Default)]
pub(super) struct Resumption {
    /// The connections that resume as soon as the history is ready.
    pub(super) waiting: HashMap<ConnKey, Waiting>,
    /// The open connections of recognized clients.
    pub(super) live: LiveClients,
    /// The connections that use cursors, by the time at which a mark is due.
    marks: VecDeque<Mark>,
    /// The waiting connections with a cursor that is ahead of a ready history, and until when, in
    /// monotonic milliseconds.
    ahead: BTreeMap<ConnKey, u64>,
    /// When the last position of all connected clients was recorded, in monotonic milliseconds.
    pub(super) last_alive: u64,
    pub(super) receipts: PendingReceipts,
    held: HeldTexts,
}

/// A connection that waits for the history.
pub(super) enum Waiting {
    /// It has set a filter with this `since`, and the reply needs this `id` and the interpretation of
    /// the filter.
    Cursor {
        since: Since,
        id: Option<Box<str>>,
        interpretation: HeldText,
        /// Whether the connection has set no other filter, before or after.
        is_only: bool,
    },
    /// It was recognized.
    Client(Cursor),
}

/// The position from which a connection resumes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ResumePoint {
    /// The position.
    pub start: ReplayStart,
    /// Whether the history contains all events since.
    pub recovered: bool,
}

/// A connection that uses cursors.
struct Mark {
    /// When the next mark is due, in monotonic milliseconds.
    due: u64,
    key: ConnKey,
    /// The position of the last mark.
    position: u64,
}

impl Resumption {
    /// Returns the number of connections that wait for the history.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns whether a connection waits for the history with its first filter.
    pub(super) fn has_been_sent_nothing(&self, key: ConnKey) -> bool {
        match self.waiting.get(&key) {
            Some(Waiting::Cursor { is_only, .. }) => *is_only,
            Some(Waiting::Client(_)) => true,
            None => false,
        }
    }
}

impl Realtime {
    /// Handles a message about the history.
    pub(super) fn on_history(&mut self, cx: &mut Cx<'_, ApiSession>, event: HistoryEvent) {
        match event {
            HistoryEvent::Start(start) => {
                // The clients reconnect, and are told that their positions are unknown.
                for key in self.replays.connections() {
                    cx.close(key, CloseCode::TRY_AGAIN_LATER, "history overrun");
                }
                self.reconciles.clear();
                self.finish_recording(cx);
                self.history.begin(start);
            }
            HistoryEvent::Restored(plans) => plans.into_iter().for_each(|plan| self.restore(plan)),
            HistoryEvent::Ready => {
                self.history.set_ready();
                let waiting = std::mem::take(&mut self.resumption.waiting);
                for (key, waiting) in waiting {
                    match self.is_ahead(&waiting, cx.now().unix) {
                        true => self.wait_for_history(cx, key, waiting),
                        false => self.resume_waiting(cx, key, waiting),
                    }
                }
                self.begin_recording(cx);
            }
            HistoryEvent::Watermark(time) => self.history.set_watermark(time),
        }
    }

    fn restore(&mut self, restored: RestoredPlan) {
        let mut terms = Vec::new();
        let past = restored.past.into_iter().map(|past| {
            self.digest_terms(&past.candidates, &mut terms);
            Past {
                until: past.until,
                terms: terms.as_slice().into(),
                pages: Pages::Of(&past.candidates).to_list(),
                rules: past.rules.into(),
            }
        });
        let past = past.collect();
        self.digest_terms(&restored.plan.candidates, &mut terms);
        let subject = self.subject_digest(&restored.plan.subject);
        let plan = Rc::new(restored.plan);
        self.history
            .restore(&plan, subject, terms, restored.event_position, past);
    }

    /// Returns the position at which a client resumes.
    ///
    /// # Errors
    /// [`SinceError::Future`]
    pub(super) fn resume_point(
        &self,
        since: Since,
        now: UnixMillis,
    ) -> Result<ResumePoint, SinceError> {
        // Events at the time itself are included.
        let before = |time: UnixMillis| time.saturating_sub(1);
        let found = match since {
            Since::Now => Lookup::Found(self.history.head()),
            Since::Cursor(ReplayCursor { cursor, .. }) => self.history.look_up(cursor, now),
            Since::Time(time) => self.history.look_up_time(before(time), now),
        };
        let position = match found {
            Lookup::Found(position) => position,
            Lookup::Gap => return Ok(self.gap_point()),
            Lookup::Future => return Err(SinceError::Future),
        };
        let mut start = ReplayStart::at(self.history.cursor(position));
        match since {
            Since::Now => {}
            Since::Cursor(ReplayCursor { cursor, from }) => {
                // A newer state may have replaced the one at which the client's time was known.
                start.time = start.time.min(cursor.time);
                if self.history.has_issued(cursor) {
                    start.from = from.min(position);
                }
            }
            Since::Time(time) => start.time = start.time.min(before(time)),
        }
        Ok(ResumePoint {
            start,
            recovered: true,
        })
    }

    /// Returns the newest position, for a client whose own is not in the history anymore.
    fn gap_point(&self) -> ResumePoint {
        ResumePoint {
            start: ReplayStart::at(self.history.cursor(self.history.head())),
            recovered: false,
        }
    }

    /// Lets a connection with a new filter resume, now or as soon as the history is ready.
    /// Returns the position for the reply, if it is known now.
    pub(super) fn resume_since(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        (since, point): (Since, Option<ResumePoint>),
        (id, interpretation, is_first): (Option<&str>, &str, bool),
    ) -> Option<ResumePoint> {
        let session = cx.session(key)?;
        let is_new = !session.has(SessionFlag::Cursors);
        session.set(SessionFlag::Cursors, true);
        if is_new {
            self.forget_connection(cx, key);
        }
        // If nothing matches, the replay ends without a newer position.
        let position = point.map_or(0, |point| point.start.position);
        // The heartbeats of event streams are their marks.
        if !is_event_stream(cx, key) {
            self.set_mark(cx, key, position, is_new);
        }
        match point {
            Some(point) => {
                self.resumption.waiting.remove(&key);
                self.counters.recovery.count_resume(point.recovered);
                self.start_replay(cx, key, point.start);
            }
            None => {
                let waiting = Waiting::Cursor {
                    since,
                    id: id.map(Into::into),
                    interpretation: self.resumption.held.hold(interpretation),
                    is_only: is_first,
                };
                self.wait_for_history(cx, key, waiting);
            }
        }
        point
    }

    /// Lets a mark follow if the history is ahead of a position, to which a connection has returned.
    fn set_mark(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey, position: u64, is_new: bool) {
        let marks = &mut self.resumption.marks;
        if is_new {
            let due = cx.now().mono + MARK_PERIOD;
            return marks.push_back(Mark { due, key, position });
        }
        cx.charge(cost::LISTED_MARK * marks.len() as u64);
        if let Some(mark) = marks.iter_mut().find(|mark| mark.key == key) {
            mark.position = position;
        }
    }

    /// Notes that a connection which waits with a cursor has set another filter, without one.
    pub(super) fn note_other_filter(&mut self, key: ConnKey) {
        if let Some(Waiting::Cursor { is_only, .. }) = self.resumption.waiting.get_mut(&key) {
            *is_only = false;
        }
    }

    pub(super) fn wait_for_history(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        waiting: Waiting,
    ) {
        if let Some(session) = cx.session(key) {
            session.set(SessionFlag::Replaying, true);
            self.resumption.waiting.insert(key, waiting);
            if self.history.is_ready() {
                let until = cx.now().mono + AHEAD_TIMEOUT;
                self.resumption.ahead.insert(key, until);
            }
        }
    }

    /// Lets connections resume: with cursors that are no longer ahead of the history, or after the
    /// timeout.
    pub(super) fn check_ahead(&mut self, cx: &mut Cx<'_, ApiSession>) {
        if self.resumption.ahead.is_empty() || !self.history.is_ready() {
            return;
        }
        let now = cx.now();
        for (key, until) in std::mem::take(&mut self.resumption.ahead) {
            let Some(waiting) = self.resumption.waiting.get(&key) else {
                continue;
            };
            if self.is_ahead(waiting, now.unix) && now.mono < until {
                self.resumption.ahead.insert(key, until);
            } else if let Some(waiting) = self.resumption.waiting.remove(&key) {
                self.resume_waiting(cx, key, waiting);
            }
        }
    }

    fn is_ahead(&self, waiting: &Waiting, now: UnixMillis) -> bool {
        match waiting {
            Waiting::Client(received) => self.history.may_become_known(*received, now),
            Waiting::Cursor { since, .. } => self.may_become_known(*since, now),
        }
    }

    /// Returns whether `since` may be the cursor of an event that this server has not read yet.
    pub(super) fn may_become_known(&self, since: Since, now: UnixMillis) -> bool {
        matches!(since, Since::Cursor(since) if self.history.may_become_known(since.cursor, now))
    }

    fn resume_waiting(&mut self, cx: &mut Cx<'_, ApiSession>, key: ConnKey, waiting: Waiting) {
        let (since, id, interpretation, is_only) = match waiting {
            Waiting::Client(received) => return self.resume_client(cx, key, received, false),
            Waiting::Cursor {
                since,
                id,
                interpretation,
                is_only,
            } => (since, id, interpretation, is_only),
        };
        let mut text = String::new();
        let found = match self.resume_point(since, cx.now().unix) {
            // Its response has begun, so an error would come too late: a browser would repeat the
            // request forever.
            Err(SinceError::Future) if is_event_stream(cx, key) => Ok(self.gap_point()),
            found => found,
        };
        match found {
            Ok(point) => {
                self.counters.recovery.count_resume(point.recovered);
                if is_event_stream(cx, key) {
                    send_frame(cx, key, self.position_blocks(point, None));
                } else if let Some(id) = &id {
                    self.write_filter_reply(&mut text, Some(point), interpretation.text(), id);
                }
                send(cx, key, &text);
                self.start_replay(cx, key, point.start);
            }
            Err(_) => {
                let rejection = reply::Rejection::InvalidCursor(SinceError::Future);
                self.count_rejection(rejection);
                self.index.remove(key);
                if let Some(session) = cx.session(key) {
                    session.set(SessionFlag::Replaying, false);
                }
                if let Some(id) = &id {
                    reply::error(&mut text, rejection, id);
                }
                send(cx, key, &text);
                // Without a reply, or with another filter before or after, the client would take a
                // filter to be in force.
                if id.is_none() || !is_only {
                    cx.close(key, CloseCode::POLICY, "invalid cursor");
                }
            }
        }
    }

    /// Writes the reply to a filter, with the position of a connection that resumes.
    pub(super) fn write_filter_reply(
        &self,
        out: &mut String,
        point: Option<ResumePoint>,
        interpretation: &str,
        id: &str,
    ) {
        let cursor = point.map(|point| self.point_cursor(point).encode());
        let has_gap = point.is_some_and(|point| !point.recovered);
        let oldest = has_gap.then(|| self.history.oldest_cursor().encode());
        let reply = reply::FilterReply {
            interpretation,
            cursor: cursor.as_deref(),
            oldest: oldest.as_deref(),
        };
        reply::filter(out, &reply, id);
    }

    /// Returns the cursor of the position from which a connection resumes.
    pub(super) fn point_cursor(&self, point: ResumePoint) -> ReplayCursor {
        let start = point.start;
        start.cursor(self.history.cursor(start.position))
    }

    pub(super) fn resume_client(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        received: Cursor,
        may_wait: bool,
    ) {
        if may_wait && self.history.may_become_known(received, cx.now().unix) {
            return self.wait_for_history(cx, key, Waiting::Client(received));
        }
        match self.history.look_up(received, cx.now().unix) {
            Lookup::Found(from) => {
                self.counters.recovery.count_resume(true);
                let start = ReplayStart::at(self.history.cursor(from));
                self.start_replay(cx, key, start);
            }
            Lookup::Gap | Lookup::Future => {
                self.counters.recovery.count_resume(false);
                let mut text = String::new();
                reply::gap(&mut text, &self.history.oldest_cursor().encode());
                send(cx, key, &text);
                self.start_replay(cx, key, self.gap_point().start);
            }
        }
    }

    /// Sends the newest cursor to connections that have been sent none for a while, if the position
    /// has moved.
    pub(super) fn send_marks(&mut self, cx: &mut Cx<'_, ApiSession>) {
        let (now, head) = (cx.now().mono, self.history.head());
        let limit = self.expiry_limit(cx.now());
        let mut receivers = Vec::new();
        while let Some(mark) = self.resumption.marks.pop_front() {
            if mark.due > now {
                self.resumption.marks.push_front(mark);
                break;
            }
            let Some(session) = cx.session(mark.key) else {
                continue;
            };
            if !session.has(SessionFlag::Cursors) {
                continue;
            }
            let mut position = mark.position;
            let is_quiet = !session.has(SessionFlag::Marked);
            session.set(SessionFlag::Marked, false);
            let is_current = !session.has(SessionFlag::Replaying)
                && !self.principals.is_silenced(mark.key, limit);
            if is_quiet && head > position && is_current {
                receivers.push(mark.key);
                position = head;
            }
            self.resumption.marks.push_back(Mark {
                due: now + MARK_PERIOD,
                key: mark.key,
                position,
            });
        }
        self.deliver_marks(cx, &receivers);
    }

    /// Sends the newest cursor to connections.
    pub(super) fn deliver_marks(&self, cx: &mut Cx<'_, ApiSession>, receivers: &[ConnKey]) {
        if receivers.is_empty() {
            return;
        }
        let cursor = self.history.cursor(self.history.head()).encode();
        let (streams, sockets): (Vec<ConnKey>, Vec<ConnKey>) =
            receivers.iter().partition(|key| is_event_stream(cx, **key));
        let mut deliver = |to: Vec<ConnKey>, encode: &dyn Fn() -> Rc<Frame>| {
            if !to.is_empty() {
                cx.fan_out(Delivery {
                    frames: vec![encode()],
                    to: to.into_iter().map(|key| (key, 0)).collect(),
                    ..Delivery::default()
                });
            }
        };
        deliver(sockets, &|| {
            let mut text = String::new();
            reply::mark(&mut text, &cursor);
            Frame::uncompressed(&text)
        });
        deliver(streams, &|| Frame::block(&mark_block(&cursor)));
    }
}

/// Sends a text to a connection, after everything that has been passed to the engine for it.
fn send(cx: &mut Cx<'_, ApiSession>, key: ConnKey, text: &str) {
    if text.is_empty() {
        return;
    }
    send_frame(cx, key, Frame::uncompressed(text));
}

/// Like `send`, for a frame.
pub(super) fn send_frame(cx: &mut Cx<'_, ApiSession>, key: ConnKey, frame: Rc<Frame>) {
    let mut delivery = Delivery::default();
    delivery.frames.push(frame);
    delivery.to.push((key, 0));
    cx.fan_out(delivery);
}

pub(super) fn is_event_stream(cx: &mut Cx<'_, ApiSession>, key: ConnKey) -> bool {
    let session = cx.session(key);
    session.is_some_and(|session| session.has(SessionFlag::EventStream))
}

/// How long a connection waits for the event of its cursor, in milliseconds. Servers that share a
/// history read each other's events every 200 ms.
const AHEAD_TIMEOUT: u64 = 2_000;
/// The minimum interval between cursor marks to a connection, in milliseconds.
const MARK_PERIOD: u64 = 30_000;

mod held_text;
mod since;
mod verify;

pub(super) use since::{Since, SinceError};

use held_text::{HeldText, HeldTexts};

#[cfg(test)]
mod tests;
