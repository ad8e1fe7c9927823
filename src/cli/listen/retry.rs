//! Reconnection delays: the backoff, and its adjustments by the server. Must not know a clock or a
//! random source: time and randomness are arguments.

use std::time::Duration;

use jiff::fmt::rfc2822::DateTimeParser;

use crate::backoff::Backoff;
use crate::model::UnixMillis;

/// Parses a `Retry-After` field: seconds, or a date (RFC 9110 section 10.2.3). Returns at most an
/// hour. `None` if the value is neither.
pub(in crate::cli) fn retry_after(value: &str, now: UnixMillis) -> Option<Duration> {
    let wait = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = DateTimeParser::new().parse_timestamp(value.trim()).ok()?;
            let date = u64::try_from(date.as_millisecond()).ok()?;
            Duration::from_millis(date.saturating_sub(now))
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// The delays between connections.
pub(super) struct Retry(Backoff);

impl Retry {
    pub(super) fn new() -> Self {
        Retry(Backoff::new(MIN_DELAY, MAX_DELAY))
    }

    /// Returns the delay after a connection that `lasted` this long and ended with a close code, or
    /// that failed (zero) and may be retried `after` some time.
    pub(super) fn next(
        &mut self,
        lasted: Duration,
        code: Option<u16>,
        after: Option<Duration>,
        random: u64,
    ) -> Duration {
        if code == Some(SERVICE_RESTART) {
            // An orderly close, and the server spreads its closes: the backoff starts over.
            *self = Retry::new();
        }
        let delay = self.0.next(lasted, random);
        let least = match code {
            Some(TRY_AGAIN_LATER) => OVERLOADED,
            _ => after.unwrap_or_default(),
        };
        if least <= delay {
            return delay;
        }
        // Every client received the same delay.
        let spread = u64::try_from((least / 4).as_millis()).unwrap_or(u64::MAX);
        least + Duration::from_millis(random % (spread + 1000))
    }
}

/// The first delay is between one and two seconds, the last about a minute.
const MIN_DELAY: Duration = Duration::from_secs(1);
const MAX_DELAY: Duration = Duration::from_secs(60);
/// The minimum delay after the close code "try again later".
const OVERLOADED: Duration = Duration::from_secs(10);
/// The maximum delay that a server can request.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// Close codes from the IANA registry.
const SERVICE_RESTART: u16 = 1012;
const TRY_AGAIN_LATER: u16 = 1013;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        // Sun, 06 Nov 1994 08:49:37 GMT
        let now = 784_111_777_000;
        let seconds = Duration::from_secs;
        for (value, wait) in [
            ("0", Some(seconds(0))),
            ("120", Some(seconds(120))),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(seconds(60))),
            ("Sun, 06 Nov 1994 08:00:00 GMT", Some(seconds(0))),
            ("99999999999", Some(seconds(3600))),
            ("99999999999999999999999", None),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now), wait, "{value}");
        }
    }

    #[test]
    fn close_codes_and_retry_after_change_the_delay() {
        let seconds = Duration::from_secs;
        let mut retry = Retry::new();
        for _ in 0..10 {
            retry.next(Duration::ZERO, None, None, 0);
        }
        // A restarting server is available again soon.
        assert_eq!(retry.next(seconds(5), Some(1012), None, 0), seconds(1));
        assert_eq!(retry.next(Duration::ZERO, None, None, 0), seconds(2));
        assert_eq!(retry.next(Duration::ZERO, Some(1013), None, 0), seconds(10));
        assert_eq!(retry.next(Duration::ZERO, Some(1013), None, 0), seconds(10));
        let after = Some(seconds(600));
        assert_eq!(retry.next(Duration::ZERO, None, after, 0), seconds(600));
        let most = retry.next(Duration::ZERO, None, after, u64::MAX);
        assert!(most > seconds(600) && most < seconds(752), "{most:?}");
        // A requested delay that is shorter than the backoff has no effect.
        let after = Some(seconds(1));
        assert_eq!(retry.next(Duration::ZERO, None, after, 0), seconds(30));
    }
}
