//! Delivers events to their receivers.
//!
//! Owns: the evaluation of a plan for each candidate connection, and the frames of its messages.
//! Must not know: the source of events, or the authorization policy that made the plan.

use std::rc::Rc;

use crate::model::{Candidates, Decision, DenyReason, EventKind, MonoMillis, Plan, UnixMillis};
use crate::net::{ConnKey, Cx, Delivery, Frame};

use super::digest::Digest;
use super::event_queue::{Completion, Cost, EventQueue};
use super::rules::decide;
use super::{ApiSession, Realtime};

impl Realtime {
    /// Passes the messages of events, which arrived at `received`, to the engine. Returns the
    /// number of receivers of each event. All events are delivered at once, regardless of their
    /// number; [`Realtime::deliver_queued`] bounds the work.
    pub fn deliver(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        plans: &[Plan],
        received: MonoMillis,
    ) -> Vec<usize> {
        self.expire(cx.now());
        plans
            .iter()
            .map(|plan| self.deliver_plan(cx, &Rc::new(plan.clone()), received).sent)
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
        self.counters.events.count(plan.kind);
        let mut receivers = std::mem::take(&mut self.receivers);
        let matches = self.collect(&plan.candidates, &mut receivers);
        let excluded = plan.exclude_client.as_deref();
        let evaluation = Evaluation {
            plan,
            excluded: excluded.map(|client| self.digester.client_id(client)),
            anonymous: decide(&plan.rules, None),
            expiry_limit: self.expiry_limit(cx.now()),
        };
        let mut builder = DeliveryBuilder::new(plan);
        builder.delivery.since = Some(received.0);
        for &key in &receivers {
            let Some(decision) = self.evaluate(cx, key, &evaluation) else {
                continue;
            };
            let denied = match decision {
                Decision::Send(variant) if builder.add(key, variant) => None,
                Decision::Send(_) => Some(DenyReason::Permission),
                Decision::Deny(reason) => Some(reason),
            };
            if let Some(reason) = denied {
                self.counters.withheld.count(reason);
            }
        }
        receivers.clear();
        receivers.shrink_to(RECEIVERS_BUFFER);
        self.receivers = receivers;

        let sent = builder.delivery.to.len();
        if sent > 0 {
            self.counters.sent += sent as u64;
            cx.fan_out(builder.delivery);
        }
        Cost { sent, matches }
    }

    /// Returns the decision on a candidate. `None` if the connection is closed, or its client caused
    /// the event.
    #[inline]
    fn evaluate(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        key: ConnKey,
        evaluation: &Evaluation<'_>,
    ) -> Option<Decision> {
        let session = cx.session(key)?;
        self.counters.matched += 1;
        let is_traced = session.is_traced;
        let kind = evaluation.plan.kind;
        // h compares null with null, and thus withholds events without a client from connections
        // without one. Here only the named client is excluded.
        if evaluation.excluded.is_some() && session.client() == evaluation.excluded {
            self.counters.withheld.own += 1;
            if is_traced {
                self.trace_decision(cx, key, kind, Err("own_event"));
            }
            return None;
        }
        let principal = self.principals.of(key);
        let decision = match principal {
            Some(_) if self.principals.is_silenced(key, evaluation.expiry_limit) => {
                Decision::Deny(DenyReason::Permission)
            }
            Some(_) => decide(&evaluation.plan.rules, principal),
            None => evaluation.anonymous,
        };
        if is_traced {
            let outcome = match decision {
                Decision::Send(variant) => Ok(variant),
                Decision::Deny(reason) => Err(reason.as_str()),
            };
            self.trace_decision(cx, key, kind, outcome);
        }
        Some(decision)
    }

    /// Logs the decision on a traced connection: the variant to send, or the reason for sending
    /// none.
    #[cold]
    fn trace_decision(
        &mut self,
        cx: &Cx<'_, ApiSession>,
        key: ConnKey,
        kind: EventKind,
        outcome: Result<usize, &str>,
    ) {
        let (now, kind) = (cx.now().mono, kind.as_str());
        let mut log = |line| self.tracer.log(key, true, now, line);
        match outcome {
            Ok(variant) => log(format_args!(
                "event kind={kind} decision=send variant={variant}"
            )),
            Err(reason) => log(format_args!(
                "event kind={kind} decision=deny reason={reason}"
            )),
        }
    }

    /// Collects the candidate connections without duplicates, in arena order, so that their slots
    /// are visited sequentially. Returns the number of terms and connections examined.
    fn collect(&self, candidates: &Candidates, receivers: &mut Vec<ConnKey>) -> usize {
        let terms = match candidates {
            Candidates::Terms(terms) => terms.len(),
            Candidates::User(_) => 1,
        };
        match candidates {
            Candidates::Terms(terms) => {
                for term in terms {
                    let digest = self.digester.term(term.field, &term.value);
                    self.index.collect(digest, receivers);
                }
            }
            Candidates::User(userid) => receivers.extend(self.principals.connections_of(userid)),
        }
        let matches = terms + receivers.len();
        receivers.sort_unstable();
        receivers.dedup();
        matches
    }
}

/// A plan, with the results that are the same for all receivers.
struct Evaluation<'a> {
    plan: &'a Plan,
    /// The digest of the client that caused the event.
    excluded: Option<Digest>,
    /// The decision on anonymous receivers.
    anonymous: Decision,
    /// The limit for [`Principals::is_silenced`](super::principals::Principals::is_silenced).
    expiry_limit: UnixMillis,
}

/// A delivery under construction. Each variant is encoded when its first receiver is added.
struct DeliveryBuilder<'a> {
    plan: &'a Plan,
    /// The index of each variant's frame.
    frames: Vec<Option<u8>>,
    delivery: Delivery,
}

impl<'a> DeliveryBuilder<'a> {
    fn new(plan: &'a Plan) -> Self {
        DeliveryBuilder {
            plan,
            frames: vec![None; plan.variants.len()],
            delivery: Delivery::default(),
        }
    }

    /// Adds a receiver. Returns false if the plan has no such variant. In that case nothing is sent
    /// rather than a wrong message.
    fn add(&mut self, key: ConnKey, variant: usize) -> bool {
        let Some(frame) = self.frame(variant) else {
            return false;
        };
        self.delivery.to.push((key, frame));
        true
    }

    fn frame(&mut self, variant: usize) -> Option<u8> {
        let known = self.frames.get_mut(variant)?;
        if known.is_none() {
            let text = self.plan.variants.get(variant)?;
            *known = Some(u8::try_from(self.delivery.frames.len()).ok()?);
            let frame: Rc<Frame> = match self.plan.kind {
                // Not compressed: the message contains private data of the user, which its
                // compressed length could leak (CRIME, BREACH). Annotations are the same for all
                // their readers.
                EventKind::SessionChange => Frame::uncompressed(text),
                EventKind::Create | EventKind::Update | EventKind::Delete => Frame::text(text),
            };
            self.delivery.frames.push(frame);
        }
        *known
    }
}

/// The capacity of the receivers buffer that is kept between events.
const RECEIVERS_BUFFER: usize = 16_384;

#[cfg(test)]
mod tests;
