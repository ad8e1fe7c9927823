//! All sequences of events, explored on a model of the engine.

use std::collections::BTreeSet;

use super::*;

/// A connection in an exploration: its phase, and what was done to it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Explored {
    kind: Kind,
    opened: u8,
    ended: u8,
    close_frames: u8,
    freed: u8,
    is_armed: bool,
    is_flush_due: bool,
    shut_downs: u8,
}

impl Explored {
    fn new(kind: Kind) -> Self {
        Explored {
            kind,
            opened: 0,
            ended: 0,
            close_frames: 0,
            freed: 0,
            is_armed: true,
            is_flush_due: false,
            shut_downs: 0,
        }
    }

    /// Applies an event, performs the actions on the model, and checks the invariants.
    fn after(mut self, on: On) -> Self {
        let before = self;
        let mut phase = build(self.kind);
        let step = phase.apply(event(on));
        self.kind = kind_of(&phase);
        // The timer has expired. That of an open connection belongs to its keep-alive.
        if matches!(on, On::Deadline | On::SilentDeadline) {
            self.is_armed = before.kind == Kind::Open;
        }
        self.is_flush_due &= on != On::Flushed;
        self.opened += u8::from(before.kind != Kind::Open && self.kind == Kind::Open);
        self.ended += u8::from(matches!(step.left, Left::Session(..)));
        for action in step.actions {
            self.perform(*action);
        }
        self.check(before, on, step.actions);
        self
    }

    fn perform(&mut self, action: Action) {
        match action {
            SendClose => self.close_frames += 1,
            Arm(_) | ArmSooner(_) => self.is_armed = true,
            StartLinger => self.is_flush_due = true,
            ShutDownWrite => self.shut_downs += 1,
            Free => self.freed += 1,
            // The engine continues with an event that ends the phase, or arms the timer.
            Refuse(_) | AskHandler(_) => self.is_armed = true,
            DropOutput | Read | Reset | CatchUp | Count(_) => {}
        }
    }

    fn check(&self, before: Explored, on: On, actions: &[Action]) {
        let what = format!("{on:?} in {before:?}: {actions:?}, then {self:?}");
        let is_dead = self.kind == Kind::Dead;
        // `on_close` is called exactly once for each `on_open`.
        assert!(self.opened <= 1, "{what}");
        assert_eq!(
            self.opened - self.ended,
            u8::from(self.kind == Kind::Open),
            "{what}"
        );
        // RFC 6455 §5.5.1: "The application MUST NOT send any more data frames after sending a
        // Close frame."
        assert!(self.close_frames <= self.ended, "{what}");
        assert!(on != On::PeerClosed || before.kind != Kind::Open || self.close_frames == 1);
        // A dead connection is freed once, and nothing happens to it afterwards.
        assert_eq!(self.freed, u8::from(is_dead), "{what}");
        assert!(before.kind != Kind::Dead || actions.is_empty(), "{what}");
        assert!(
            !actions.contains(&Free) || actions.last() == Some(&Free),
            "{what}"
        );
        assert!(!actions.contains(&Reset) || is_dead, "{what}");
        // Nothing waits without a deadline.
        assert!(self.is_armed || is_dead, "{what}");
        // The write side is shut down once, by a flush that is due until then.
        assert!(self.shut_downs <= 1, "{what}");
        let is_to_be_shut = matches!(self.kind, Kind::Linger { is_shut: false, .. });
        assert!(self.is_flush_due || !is_to_be_shut, "{what}");
        if let Kind::Linger { is_shut, .. } = self.kind {
            assert_eq!(is_shut, self.shut_downs == 1, "{what}");
        }
        // Phases have an order, and only requests follow one another.
        assert!(
            rank(self.kind) >= rank(before.kind) || self.kind == FRESH,
            "{what}"
        );
    }
}

fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::ProxyHeader => 0,
        Kind::Request { .. } => 1,
        Kind::Deferred { .. } => 2,
        Kind::Open => 3,
        Kind::Closing => 4,
        Kind::Linger { .. } => 5,
        Kind::Dead => 6,
    }
}

// K2, W11
/// Explores every state that any sequence of events can reach.
#[test]
fn invariants_hold_after_every_sequence_of_events() {
    let mut waiting = vec![Explored::new(Kind::ProxyHeader), Explored::new(FRESH)];
    let mut seen = BTreeSet::new();
    while let Some(state) = waiting.pop() {
        if !seen.insert(state) {
            continue;
        }
        let mut next = Vec::from(ALL.map(|on| state.after(on)));
        if let Kind::Request { has_answered, .. } = state.kind {
            // The engine keeps a partial request, and takes it out again.
            next.extend([Part::Nothing, Part::Head, Part::Body].map(|partial| {
                let kind = Kind::Request {
                    partial,
                    has_answered,
                };
                Explored { kind, ..state }
            }));
        }
        waiting.extend(next);
    }
    let reached: BTreeSet<Kind> = seen.iter().map(|state| state.kind).collect();
    assert_eq!(reached, kinds().into_iter().collect());
    assert!(
        seen.iter()
            .any(|state| state.kind == Kind::Dead && state.close_frames == 1)
    );
}
