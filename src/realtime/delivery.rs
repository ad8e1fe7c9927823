//! Delivers events to their receivers.
//!
//! Owns: the evaluation of a plan for each candidate connection, and the effects of a change of
//! rights on connections that could read the annotation before. Must not know: the source of events,
//! or the authorization policy that made the plan.

use std::rc::Rc;

use crate::model::{
    Candidates, Cause, Decision, DenyReason, EventKind, MonoMillis, Plan, Rule, Subject, UnixMillis,
};
use crate::net::{ConnKey, Cx};

use super::digest::Digest;
use super::event_queue::{Completion, Cost, EventQueue};
use super::filter::{Effort, Pages};
use super::outgoing::{DeliveryBuilder, Encoding, Form};
use super::rules::decide;
use super::session::SessionFlag;
use super::watch::Outcome;
use super::{ApiSession, Realtime};

impl Realtime {
    /// Passes the messages of events, which arrived at `received`, to the engine. Returns the
    /// number of receivers of each event. All events are delivered at once, regardless of their
    /// number; [`Realtime::deliver_queued`] bounds the work.
    pub fn deliver(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        plans: impl IntoIterator<Item = Plan>,
        received: MonoMillis,
    ) -> Vec<usize> {
        self.expire(cx.now());
        let plans = plans.into_iter();
        plans
            .map(|plan| self.deliver_plan(cx, &Rc::new(plan), received).sent)
            .collect()
    }

    /// Delivers as many events of a queue as the limits of a turn allow. The receivers of an event
    /// are determined when it is delivered, by the identities, memberships, and filters at that
    /// time, and not when it was pushed. Calls `on_complete` for each event and each batch. Returns
    /// whether events remain.
    pub fn deliver_queued<T>(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        queue: &mut EventQueue<T>,
        on_complete: impl FnMut(&mut Cx<'_, ApiSession>, Completion<'_, T>),
    ) -> bool {
        queue.run_turn(
            cx,
            |cx| cx.backlog(),
            |cx, plan, received| {
                self.expire(cx.now());
                self.deliver_plan(cx, plan, received)
            },
            on_complete,
        )
    }

    fn deliver_plan(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        plan: &Rc<Plan>,
        received: MonoMillis,
    ) -> Cost {
        if plan.cause == Cause::Event {
            self.counters.events.count(plan.kind);
        }
        let mut terms = std::mem::take(&mut self.terms);
        self.digest_terms(&plan.candidates, &mut terms);
        let subject = self.subject_digest(&plan.subject);
        let mut receivers = std::mem::take(&mut self.receivers);
        let former = self.former_state(plan, subject, &terms);
        let mut matches = terms.len() + self.collect(plan, &terms, &mut receivers);
        let mut suppressed = Vec::new();
        if self.index.conditional_count() > 0 {
            let pages = Pages::Of(&plan.candidates);
            matches +=
                self.collect_conditional(plan, (&terms, pages), &mut receivers, &mut suppressed);
        }

        let mut evaluation = self.evaluation(cx, plan);
        evaluation.suppressed = &suppressed;
        let cursor = self
            .history
            .cursor(plan.stamp.position.max(self.history.head()));
        let mut builder = DeliveryBuilder::new(plan, cursor.into(), Some(received.0));
        match &former {
            None if plan.cause == Cause::Event => {
                for &key in &receivers {
                    self.deliver_to(cx, key, &evaluation, &mut builder);
                }
            }
            // A change of rights only concerns current and former readers.
            None => {}
            Some(former) => {
                matches +=
                    self.deliver_transition(cx, former, &receivers, &evaluation, &mut builder);
            }
        }
        let sent = builder.len();
        if sent > 0 {
            self.counters.sent += sent as u64;
            cx.fan_out(builder.finish());
        }
        self.history.append(plan, subject, &terms, cx.now().mono);

        receivers.clear();
        receivers.shrink_to(RECEIVERS_BUFFER);
        self.receivers = receivers;
        terms.clear();
        self.terms = terms;
        Cost { sent, matches }
    }

    /// Adds a candidate to a delivery, if it may read the event.
    #[inline(always)]
    fn deliver_to(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        evaluation: &Evaluation<'_>,
        builder: &mut DeliveryBuilder<'_>,
    ) {
        if evaluation.is_suppressed(key) {
            return self.observe_suppressed(cx, key, evaluation);
        }
        let Some((decision, encoding)) = self.evaluate(cx, key, evaluation) else {
            return;
        };
        let denied = match decision {
            Decision::Send(variant)
                if !encoding.has_cursor() && builder.add_plain(key, variant) =>
            {
                None
            }
            Decision::Send(variant)
                if encoding.has_cursor() && builder.add(key, Form::Variant(variant), encoding) =>
            {
                note_cursor(cx, key);
                None
            }
            Decision::Send(_) => Some(DenyReason::Permission),
            Decision::Deny(reason) => Some(reason),
        };
        if let Some(reason) = denied {
            self.counters.withheld.count(reason);
        }
    }

    /// Delivers a plan that replaces a state with other receivers. A connection that could read the
    /// former state and may not read the new one is sent a deletion. Returns the number of
    /// connections examined in addition to `receivers`.
    fn deliver_transition(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        former: &FormerState,
        receivers: &[ConnKey],
        evaluation: &Evaluation<'_>,
        builder: &mut DeliveryBuilder<'_>,
    ) -> usize {
        let mut readers = Vec::new();
        for term in &*former.terms {
            self.index.collect(*term, &mut readers);
        }
        let plan = evaluation.plan;
        let mut suppressed = Vec::new();
        if self.index.conditional_count() > 0 {
            let state = (&*former.terms, Pages::Of(&former.plan.candidates));
            self.collect_conditional(plan, state, &mut readers, &mut suppressed);
        }
        readers.sort_unstable();
        readers.dedup();
        let is_event = plan.cause == Cause::Event;
        for &key in receivers {
            let could_read = readers.binary_search(&key).is_ok()
                && self.may_read(key, &former.plan.rules, evaluation);
            // An event is sent to all that may read it, a change of rights only to those that could
            // not before.
            if self.may_read(key, &evaluation.plan.rules, evaluation) {
                if is_event || !could_read {
                    self.deliver_to(cx, key, evaluation, builder);
                }
            } else if could_read {
                self.retract(cx, key, evaluation, builder);
            } else if is_event {
                self.deliver_to(cx, key, evaluation, builder);
            }
        }
        // Connections with filters that match only the former state.
        for &key in &readers {
            // The action of a deletion may be suppressed, that of a retraction may not.
            let is_suppressed = suppressed.binary_search(&key).is_ok();
            let is_deleted = plan.kind == EventKind::Delete && !is_suppressed;
            let is_gone = is_deleted || !self.may_read(key, &plan.rules, evaluation);
            if is_gone
                && receivers.binary_search(&key).is_err()
                && self.may_read(key, &former.plan.rules, evaluation)
            {
                self.retract(cx, key, evaluation, builder);
            }
        }
        readers.len()
    }

    /// Sends the deletion of an annotation to a connection that could read it. The client that caused
    /// the event knows its effect.
    fn retract(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        evaluation: &Evaluation<'_>,
        builder: &mut DeliveryBuilder<'_>,
    ) {
        if let Some((_, encoding)) = self.evaluate(cx, key, evaluation)
            && builder.add(key, Form::Retraction, encoding)
        {
            self.counters.recovery.retractions += 1;
            self.record_form(key, evaluation.plan, Form::Retraction, cx.now().unix);
            if encoding.has_cursor() {
                note_cursor(cx, key);
            }
        }
    }

    /// Returns whether a connection may read a state with these rules now.
    fn may_read(&self, key: ConnKey, rules: &[Rule], evaluation: &Evaluation<'_>) -> bool {
        let is_silenced = || self.principals.is_silenced(key, evaluation.expiry_limit);
        let decision = match self.principals.of(key) {
            Some(_) if is_silenced() => return false,
            principal => decide(rules, principal),
        };
        matches!(decision, Decision::Send(_))
    }

    /// Returns the state that a plan replaces, if its receivers may differ.
    fn former_state(&self, plan: &Plan, subject: Digest, terms: &[Digest]) -> Option<FormerState> {
        let is_kept = plan.stamp.position > self.history.head();
        let entry = self.history.of_subject(subject).filter(|_| is_kept)?;
        let differs = entry.plan.rules != plan.rules || *entry.terms != *terms;
        let is_annotation = matches!(plan.subject, Subject::Annotation(_));
        (differs && is_annotation).then(|| FormerState {
            plan: Rc::clone(&entry.plan),
            terms: Rc::clone(&entry.terms),
        })
    }

    /// Returns the parts of a plan's evaluation that are the same for all receivers.
    pub(super) fn evaluation<'a>(&self, cx: &Cx<'_, ApiSession>, plan: &'a Plan) -> Evaluation<'a> {
        let excluded = plan.exclude_client.as_deref();
        let excluded = excluded.filter(|_| plan.cause == Cause::Event);
        Evaluation {
            plan,
            excluded: excluded.map(|client| self.digester.client_id(client)),
            is_kept: plan.stamp.position > self.history.head(),
            anonymous: decide(&plan.rules, None),
            expiry_limit: self.expiry_limit(cx.now()),
            suppressed: &[],
        }
    }

    /// Returns the decision on a candidate, and the encoding of its messages. `None` if the
    /// connection is closed, its client caused the event, or a replay will send the event.
    #[inline(always)]
    fn evaluate(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        evaluation: &Evaluation<'_>,
    ) -> Option<(Decision, Encoding)> {
        let session = cx.session(key)?;
        let (is_observed, encoding) = match session.is_ordinary() {
            true => (false, Encoding::Plain),
            false if session.has(SessionFlag::Replaying) && evaluation.is_kept => {
                if session.is_observed() {
                    self.observe(cx, key, evaluation, Outcome::Deferred);
                }
                return None;
            }
            false => (session.is_observed(), session.encoding()),
        };
        self.counters.matched += 1;
        // h compares null with null, and thus withholds events without a client from connections
        // without one. Here only the named client is excluded.
        if evaluation.excluded.is_some() && session.client() == evaluation.excluded {
            self.counters.withheld.own += 1;
            if is_observed {
                self.observe(cx, key, evaluation, Outcome::Own);
            }
            return None;
        }
        let decision = self.decision(key, evaluation);
        if decision == Decision::Deny(DenyReason::Permission) {
            self.withheld(cx, key, evaluation.expiry_limit);
        }
        if is_observed {
            self.observe(cx, key, evaluation, Outcome::from(decision));
        }
        Some((decision, encoding))
    }

    /// Returns the decision of a plan's rules on a connection, given its identity now.
    #[inline(always)]
    pub(super) fn decision(&self, key: ConnKey, evaluation: &Evaluation<'_>) -> Decision {
        match self.principals.of(key) {
            Some(_) if self.principals.is_silenced(key, evaluation.expiry_limit) => {
                Decision::Deny(DenyReason::Permission)
            }
            Some(principal) => decide(&evaluation.plan.rules, Some(principal)),
            None => evaluation.anonymous,
        }
    }

    /// Collects the candidate connections without duplicates, in arena order, so that their slots
    /// are visited sequentially. Returns the number of connections examined.
    fn collect(&self, plan: &Plan, terms: &[Digest], receivers: &mut Vec<ConnKey>) -> usize {
        match &plan.candidates {
            Candidates::Terms(_) => {
                for term in terms {
                    self.index.collect(*term, receivers);
                }
            }
            Candidates::User(userid) => receivers.extend(self.principals.connections_of(userid)),
        }
        let matches = receivers.len();
        receivers.sort_unstable();
        receivers.dedup();
        matches
    }

    /// Collects the connections with conditional filters that match a state of a plan's subject. If
    /// the filter does not select the plan's action, the connection is in `suppressed` as well, which
    /// is sorted. Returns the work in units of a candidate.
    #[inline(never)]
    fn collect_conditional(
        &mut self,
        plan: &Plan,
        (terms, pages): (&[Digest], Pages<'_>),
        receivers: &mut Vec<ConnKey>,
        suppressed: &mut Vec<ConnKey>,
    ) -> usize {
        let mut found = std::mem::take(&mut self.found);
        for term in terms {
            self.index.collect_conditional(*term, &mut found);
        }
        let mut work = terms.len();
        if self.index.has_patterns() {
            pages.any(|page| {
                self.digester.prefixes(page, |_, prefix| {
                    work += 1;
                    self.index.collect_conditional(prefix, &mut found);
                });
                false
            });
        }
        found.sort_unstable();
        found.dedup();
        let (before, effort) = (receivers.len(), Effort::default());
        for &filter in &found {
            let Some((key, matcher)) = self.index.conditional(filter) else {
                continue;
            };
            work += matcher.len();
            if !matcher.matches(terms, pages, &effort) {
                self.counters.filter_mismatches += 1;
                continue;
            }
            receivers.push(key);
            if !matcher.actions().allow(plan) {
                suppressed.push(key);
            }
        }
        if receivers.len() > before {
            receivers.sort_unstable();
            suppressed.sort_unstable();
        }
        work += effort.spent() / STEPS_OF_CANDIDATE;
        found.clear();
        found.shrink_to(RECEIVERS_BUFFER);
        self.found = found;
        work
    }

    /// Writes the digests of a plan's terms to `out`, sorted and without duplicates.
    pub(super) fn digest_terms(&self, candidates: &Candidates, out: &mut Vec<Digest>) {
        out.clear();
        match candidates {
            Candidates::Terms(terms) => {
                let digest =
                    |term: &crate::model::Term| self.digester.term(term.field, &term.value);
                out.extend(terms.iter().map(digest));
                out.sort_unstable();
                out.dedup();
            }
            Candidates::User(userid) => out.push(self.digester.userid(userid)),
        }
    }

    /// Returns the digest of the object of a plan.
    pub(super) fn subject_digest(&self, subject: &Subject) -> Digest {
        match subject {
            Subject::Annotation(id) => self.digester.term(crate::model::Field::Id, id),
            Subject::User(userid) => self.digester.userid(userid),
        }
    }
}

/// A plan, with the results that are the same for all receivers.
pub(super) struct Evaluation<'a> {
    pub plan: &'a Plan,
    /// The digest of the client that caused the event.
    pub excluded: Option<Digest>,
    /// Whether the history gets the plan, so that replays send it.
    is_kept: bool,
    /// The decision on anonymous receivers.
    anonymous: Decision,
    /// The limit for [`Principals::is_silenced`](super::principals::Principals::is_silenced).
    pub expiry_limit: UnixMillis,
    /// The connections with filters that do not select the plan's action, sorted.
    suppressed: &'a [ConnKey],
}

impl Evaluation<'_> {
    #[inline(always)]
    fn is_suppressed(&self, key: ConnKey) -> bool {
        !self.suppressed.is_empty() && self.suppressed.binary_search(&key).is_ok()
    }
}

/// A state that a plan replaces.
struct FormerState {
    plan: Rc<Plan>,
    terms: Rc<[Digest]>,
}

/// Notes that a connection is sent a cursor.
fn note_cursor(cx: &mut Cx<'_, ApiSession>, key: ConnKey) {
    if let Some(session) = cx.session(key) {
        session.set(SessionFlag::Marked, true);
    }
}

/// The work of comparing patterns that counts as a candidate.
const STEPS_OF_CANDIDATE: usize = 64;
/// The capacity of the receivers buffer that is kept between events.
const RECEIVERS_BUFFER: usize = 16_384;

#[cfg(test)]
mod tests;
