//! The alarm: wakes the poller at a time.
//!
//! Owns: when the poller must return although no socket is ready. A timeout of the poll itself would
//! make the kernel start and cancel a timer for every message of a client; a timer descriptor is set
//! once for many polls.

use std::io;
use std::time::Duration;

use mio::{Registry, Token};

#[cfg(target_os = "linux")]
pub(crate) use with_descriptor::Alarm;
#[cfg(not(target_os = "linux"))]
pub(crate) use with_timeout::Alarm;

#[cfg(target_os = "linux")]
mod with_descriptor {
    use std::os::fd::{AsRawFd, OwnedFd};

    use mio::Interest;
    use mio::unix::SourceFd;
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
        timerfd_settime,
    };

    use super::{Duration, Registry, Token, io};

    /// A timer descriptor, and the time for which it is set.
    pub(crate) struct Alarm {
        timer: OwnedFd,
        /// On the clock of [`Now::mono`](crate::Now::mono).
        set_for: Option<u64>,
    }

    impl Alarm {
        pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
            let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
            let timer = timerfd_create(TimerfdClockId::Monotonic, flags)?;
            // Edge-triggered like all sources: each expiry is one event, and need not be read.
            registry.register(&mut SourceFd(&timer.as_raw_fd()), token, Interest::READABLE)?;
            Ok(Alarm {
                timer,
                set_for: None,
            })
        }

        /// Makes the poller return `wait` from now on, unless it is to return earlier anyway. `began`
        /// is when the turn began, and `clock` reads the same clock. Returns the timeout of the poll:
        /// none, if the alarm ends it.
        pub(crate) fn set(
            &mut self,
            began: u64,
            wait: Duration,
            clock: impl Fn() -> u64,
        ) -> Option<Duration> {
            let millis = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            if millis == 0 {
                return Some(wait);
            }
            let at = began.saturating_add(millis);
            // An earlier time only causes a turn without work, which sets the alarm again.
            let is_set = self
                .set_for
                .is_some_and(|set_for| set_for > began && set_for <= at);
            match is_set || self.start(clock().saturating_add(millis), wait).is_ok() {
                true => None,
                false => Some(wait),
            }
        }

        #[cfg(test)]
        pub(crate) fn set_for(&self) -> Option<u64> {
            self.set_for
        }

        /// Sets the alarm, which expires at `at`.
        fn start(&mut self, at: u64, wait: Duration) -> io::Result<()> {
            let value = Timespec::try_from(wait).map_err(|_| io::ErrorKind::InvalidInput)?;
            let spec = Itimerspec {
                it_interval: Timespec::default(),
                it_value: value,
            };
            timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &spec)?;
            self.set_for = Some(at);
            Ok(())
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod with_timeout {
    use super::{Duration, Registry, Token, io};

    /// The timeout of the poll, on systems without timer descriptors.
    pub(crate) struct Alarm;

    impl Alarm {
        pub(crate) fn new(_: &Registry, _: Token) -> io::Result<Self> {
            Ok(Alarm)
        }

        pub(crate) fn set(
            &mut self,
            _: u64,
            wait: Duration,
            _: impl Fn() -> u64,
        ) -> Option<Duration> {
            Some(wait)
        }
    }
}
