//! The end of credentials: the validity of a connection's token, and the time at which a connection
//! with an ended token is closed.
//!
//! Owns: the status of each login. Credentials that have ended stay so even if the clocks are set
//! afterwards: nothing here makes an ended login valid again.
//!
//! A token expires at a wall-clock time, and the wall clock may be set. The token therefore ends
//! when the wall clock says so, or when the remaining time at login has passed by the monotonic
//! clock, whichever comes first.

use crate::model::{EndCause, UnixMillis};
use crate::net::{ConnKey, Now};

use super::super::deadlines::{Deadlines, WallClock};
use super::{Login, NEVER, Principals};

/// The deadlines of logins. Unless the wall clock is set, both clocks reach the expiry of a token
/// at the same time, and one queue suffices.
#[derive(Default)]
pub(super) struct TokenDeadlines {
    /// The expiry of tokens by the monotonic clock.
    expiries: Deadlines,
    /// The expiry by the wall clock, for the logins that existed when it was last set forward.
    expiries_by_wall: Deadlines,
    wall: WallClock,
    /// The times at which connections with ended credentials are closed, by the monotonic clock.
    closes: Deadlines,
    /// The number of valid logins that expire.
    pub expiring: usize,
}

/// The validity of a login's credentials.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenStatus {
    Valid,
    Ended(EndCause, CloseStage),
}

/// Progress of closing a connection after its credentials have ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum CloseStage {
    /// It stays open.
    Open,
    /// It receives events until it is closed.
    Served,
    /// It receives nothing more, and is due to be closed or being closed.
    Silenced,
}

/// The treatment of a connection after its credentials have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndAction {
    /// It stays open.
    Keep,
    /// It is closed.
    Close {
        /// The time of the close, in monotonic milliseconds.
        at: u64,
        /// Whether it receives events until then.
        is_served: bool,
    },
}

impl TokenDeadlines {
    /// Records a login, which may expire.
    pub(super) fn log_in(&mut self, key: ConnKey, expires: UnixMillis, now: Now) {
        self.wall.record(now);
        if expires != NEVER {
            let left = expires.saturating_sub(now.unix);
            self.expiries.push(now.mono.saturating_add(left), key);
            self.expiring += 1;
        }
    }
}

impl Login {
    /// Returns whether the login is valid and will expire.
    pub(super) fn expires_by_itself(&self) -> bool {
        self.status == TokenStatus::Valid && self.expires != NEVER
    }
}

impl Principals {
    /// Returns whether a connection must not receive events because its credentials have ended. A
    /// login that has expired by the wall-clock time `unix` counts as ended; 0 disables this check.
    pub(crate) fn is_silenced(&self, key: ConnKey, unix: UnixMillis) -> bool {
        self.login(key).is_some_and(|login| match login.status {
            TokenStatus::Valid => login.expires <= unix,
            TokenStatus::Ended(_, stage) => stage == CloseStage::Silenced,
        })
    }

    /// Ends the logins whose tokens have expired by now.
    pub(crate) fn expire(&mut self, now: Now, end_action: impl Fn(ConnKey) -> EndAction) {
        if self.deadlines.wall.has_stepped_forward(now) {
            let expiring = self
                .table
                .members()
                .filter(|login| login.expires_by_itself());
            let expiries = expiring.map(|login| (login.expires, login.key));
            self.deadlines.expiries_by_wall = expiries.collect();
        }
        while let Some(key) = self.deadlines.expiries.pop_due(now.mono) {
            self.expire_one(key, &end_action);
        }
        while let Some(key) = self.deadlines.expiries_by_wall.pop_due(now.unix) {
            self.expire_one(key, &end_action);
        }
    }

    fn expire_one(&mut self, key: ConnKey, end_action: impl Fn(ConnKey) -> EndAction) {
        // The login may have ended for another reason, or be gone.
        if self.login(key).is_some_and(Login::expires_by_itself) {
            self.end(key, EndCause::Expired, end_action(key));
        }
    }

    /// Ends a connection's credentials. If it is due to be closed already, that time stays. An
    /// expired login may still be revoked, and is then no longer served.
    pub(crate) fn end(&mut self, key: ConnKey, cause: EndCause, end_action: EndAction) {
        let login = self.table.member_mut(self.by_conn.get(key));
        let Some(login) = login.filter(|login| login.key == key) else {
            return;
        };
        self.deadlines.expiring -= usize::from(login.expires_by_itself());
        let (first, stage) = match login.status {
            TokenStatus::Valid => (cause, CloseStage::Open),
            TokenStatus::Ended(first, stage) => (first, stage),
        };
        let cause = if first == EndCause::Expired {
            cause
        } else {
            first
        };
        let stage = match (stage, end_action) {
            (stage, EndAction::Keep) => stage,
            (CloseStage::Open, EndAction::Close { at, is_served }) => {
                self.deadlines.closes.push(at, key);
                if is_served {
                    CloseStage::Served
                } else {
                    CloseStage::Silenced
                }
            }
            (
                CloseStage::Served,
                EndAction::Close {
                    is_served: true, ..
                },
            ) => CloseStage::Served,
            (CloseStage::Served | CloseStage::Silenced, EndAction::Close { .. }) => {
                CloseStage::Silenced
            }
        };
        login.status = TokenStatus::Ended(cause, stage);
    }

    /// Returns a connection that is due to be closed because its credentials have ended, and the
    /// cause. Each is returned once, and keeps its identity until it is logged out.
    pub(crate) fn next_to_close(&mut self, now: Now) -> Option<(ConnKey, EndCause)> {
        while let Some(key) = self.deadlines.closes.pop_due(now.mono) {
            if let Some(login) = self.login_mut(key)
                && let TokenStatus::Ended(cause, CloseStage::Served | CloseStage::Silenced) =
                    login.status
            {
                login.status = TokenStatus::Ended(cause, CloseStage::Silenced);
                return Some((key, cause));
            }
        }
        None
    }

    /// Returns the connections that stay open although their credentials have ended.
    pub(crate) fn kept_open(&self) -> Vec<(ConnKey, EndCause)> {
        let kept = self.table.members().filter_map(|login| match login.status {
            TokenStatus::Ended(cause, CloseStage::Open) => Some((login.key, cause)),
            _ => None,
        });
        kept.collect()
    }

    /// Drops the deadlines of closed connections if there are many.
    pub(super) fn shrink_deadlines(&mut self) {
        let (expiring, closing) = (
            2 * self.deadlines.expiring + SLACK,
            2 * self.table.len() + SLACK,
        );
        let TokenDeadlines {
            expiries,
            expiries_by_wall,
            closes,
            ..
        } = &self.deadlines;
        if expiries.len() <= expiring
            && expiries_by_wall.len() <= expiring
            && closes.len() <= closing
        {
            return;
        }
        let mut ends = std::mem::take(&mut self.deadlines);
        let expires = |key| self.login(key).is_some_and(Login::expires_by_itself);
        for expiries in [&mut ends.expiries, &mut ends.expiries_by_wall] {
            if expiries.len() > expiring {
                expiries.retain(expires);
            }
        }
        if ends.closes.len() > closing {
            ends.closes.retain(|key| self.login(key).is_some());
        }
        self.deadlines = ends;
    }

    /// Checks that every login that expires has a deadline, for tests and simulations only.
    pub(super) fn verify_deadlines(&self) -> Result<(), String> {
        let live = self.table.members();
        let expiring = live.filter(|login| login.expires_by_itself()).count();
        let noted = (self.deadlines.expiring, self.deadlines.expiries.len());
        if expiring != noted.0 || noted.1 < expiring {
            return Err(format!("{expiring} logins expire, and noted are {noted:?}"));
        }
        let closing = self
            .table
            .members()
            .filter(|login| matches!(login.status, TokenStatus::Ended(_, CloseStage::Served)));
        let closing = closing.count();
        if closing > self.deadlines.closes.len() {
            return Err(format!(
                "{closing} logins are to be closed, and fewer will be"
            ));
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn deadline_count(&self) -> usize {
        let TokenDeadlines {
            expiries,
            expiries_by_wall,
            closes,
            ..
        } = &self.deadlines;
        expiries.len() + expiries_by_wall.len() + closes.len()
    }
}

/// The number of stale entries below which a cleanup is never worthwhile.
const SLACK: usize = 64;

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::model::Identity;
    use crate::realtime::digest::Digester;
    use crate::realtime::testing::{Random, identity, key};

    const SPREAD: u64 = 1000;

    fn principals() -> Principals {
        Principals::new(Rc::new(Digester::new([1, 2, 3, 4])))
    }

    fn expiring(expires: u64) -> Identity {
        Identity {
            expires: Some(expires),
            ..identity("acct:a@x", 1, &[])
        }
    }

    fn now(millis: u64) -> Now {
        Now {
            mono: millis,
            unix: millis,
        }
    }

    fn close_at(at: u64) -> EndAction {
        EndAction::Close {
            at,
            is_served: false,
        }
    }

    /// Returns the connections to be closed by `now`, without a delay.
    fn ended(principals: &mut Principals, now: Now) -> Vec<u32> {
        principals.expire(now, |_| close_at(now.mono));
        let next = || principals.next_to_close(now).map(|(key, _)| key.slot());
        std::iter::from_fn(next).collect()
    }

    #[test]
    fn tokens_expire_in_order_and_deadlines_of_closed_connections_are_dropped() {
        let mut principals = principals();
        principals.log_in(key(0), expiring(300), now(0));
        principals.log_in(key(1), expiring(100), now(0));
        principals.log_in(key(2), identity("acct:a@x", 1, &[]), now(0));
        principals.log_in(key(3), expiring(100), now(0));
        principals.log_out(key(3));
        assert_eq!(ended(&mut principals, now(99)), [0; 0]);
        assert_eq!(ended(&mut principals, now(100)), [1]);
        assert_eq!(ended(&mut principals, now(299)), [0; 0]);
        for n in 10..10_000 {
            principals.log_in(key(n), expiring(1000), now(299));
            if n % 2 == 0 {
                principals.end(key(n), EndCause::Revoked, close_at(5000));
            }
            principals.log_out(key(n));
            principals.shrink(&mut usize::MAX.clone());
            assert!(principals.deadline_count() <= 200);
        }
        assert_eq!(ended(&mut principals, now(300)), [0]);
        assert_eq!(ended(&mut principals, now(u64::MAX / 2)), [0; 0]);
        assert_eq!(principals.verify().map(|keys| keys.len()), Ok(3));
    }

    /// W19: random steps of the wall clock, compared with a model.
    #[test]
    fn login_ends_by_either_clock_and_stays_ended() {
        for seed in 1..200 {
            let mut random = Random(seed);
            let mut principals = principals();
            // For each connection: the expiry by both clocks, and whether it has ended.
            let mut model: Vec<(Now, bool)> = Vec::new();
            let mut clock = Now {
                mono: 0,
                unix: 1 << 30,
            };
            for _ in 0..200 {
                clock.mono += 500;
                let step = match random.below(8) {
                    0 => random.below(200) * 1000,
                    _ => 0,
                };
                clock.unix = match random.below(2) {
                    0 => clock.unix + 500 + step,
                    _ => clock.unix + 500 - step,
                };
                if random.below(4) == 0 {
                    let left = 1 + random.below(60_000);
                    let end = Now {
                        mono: clock.mono + left,
                        unix: clock.unix + left,
                    };
                    principals.log_in(key(model.len() as u32), expiring(end.unix), clock);
                    model.push((end, false));
                }
                let mut expected = Vec::new();
                for (number, (end, has_ended)) in model.iter_mut().enumerate() {
                    let ends = end.mono <= clock.mono || end.unix <= clock.unix;
                    if ends && !*has_ended {
                        *has_ended = true;
                        expected.push(number as u32);
                    }
                }
                let mut ended = ended(&mut principals, clock);
                ended.sort_unstable();
                assert_eq!(ended, expected, "seed {seed}");
                principals.shrink(&mut usize::MAX.clone());
                assert_eq!(principals.verify().map(|keys| keys.len()), Ok(model.len()));
            }
        }
    }

    #[test]
    fn first_cause_other_than_expiry_is_the_reason() {
        let closing = EndAction::Close {
            at: SPREAD,
            is_served: true,
        };
        for (first, then, reason) in [
            (EndCause::Expired, EndCause::Revoked, EndCause::Revoked),
            (EndCause::Revoked, EndCause::Expired, EndCause::Revoked),
            (EndCause::Revoked, EndCause::UserDeleted, EndCause::Revoked),
        ] {
            let mut principals = principals();
            principals.log_in(key(0), identity("acct:a@x", 1, &[]), now(0));
            principals.end(key(0), first, closing);
            assert!(!principals.is_silenced(key(0), 0));
            principals.end(key(0), then, close_at(0));
            assert!(principals.is_silenced(key(0), 0));
            assert_eq!(principals.next_to_close(now(SPREAD - 1)), None);
            assert_eq!(
                principals.next_to_close(now(SPREAD)),
                Some((key(0), reason))
            );
            assert_eq!(principals.next_to_close(now(SPREAD)), None);
        }
    }
}
