//! Delivers events to their receivers.

use std::rc::Rc;

use crate::model::{Candidates, Decision, DenyReason, EventKind, MonoMillis, Plan};
use crate::net::{ConnKey, Cx, Delivery, Frame};

use super::event_queue::Cost;
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
            .map(|plan| self.deliver_plan(cx, plan, received).sent)
            .collect()
    }

    pub(super) fn deliver_plan(
        &mut self,
        cx: &mut Cx<'_, ApiSession>,
        plan: &Plan,
        received: MonoMillis,
    ) -> Cost {
        self.counters.events.count(plan.kind);
        let mut receivers = std::mem::take(&mut self.receivers);
        let matches = self.collect(&plan.candidates, &mut receivers);

        let excluded = plan.exclude_client.as_deref();
        let excluded = excluded.map(|client| self.digester.client_id(client));
        let unix = self.expiry_limit(cx.now());
        let anonymous = decide(&plan.rules, None);
        let mut builder = DeliveryBuilder::new(plan);
        builder.delivery.since = Some(received.0);
        for &key in &receivers {
            let Some(session) = cx.session(key) else {
                continue;
            };
            self.counters.matched += 1;
            // h compares null with null, and thus withholds events without a client from
            // connections without one. Here only the named client is excluded.
            let is_traced = session.is_traced;
            if excluded.is_some() && session.client() == excluded {
                self.counters.withheld.own += 1;
                if is_traced {
                    let what = format_args!("{} matches: its own", plan.kind.as_str());
                    self.tracer.log(key, true, cx.now().mono, what);
                }
                continue;
            }
            let principal = self.principals.of(key);
            let decision = match principal {
                Some(_) if self.principals.is_silenced(key, unix) => {
                    Decision::Deny(DenyReason::Permission)
                }
                Some(_) => decide(&plan.rules, principal),
                None => anonymous,
            };
            if is_traced {
                let what = format_args!("{} matches: {decision:?}", plan.kind.as_str());
                self.tracer.log(key, true, cx.now().mono, what);
            }
            match decision {
                Decision::Deny(reason) => self.counters.withheld.count(reason),
                Decision::Send(variant) => {
                    if !builder.add(key, variant) {
                        self.counters.withheld.count(DenyReason::Permission);
                    }
                }
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
