//! Times: formatting, validation, and PostgreSQL's representation.

use std::time::Duration;

use jiff::civil::{DateTime, date};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::model::UnixMillis;

/// Microseconds since the beginning of the year 2000, as PostgreSQL sends a `timestamp without time
/// zone`. h fills it with UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PgTime(pub i64);

impl PgTime {
    /// Formats the time as h does. Returns `None` for a time that h cannot format either: an
    /// infinite one, or one before the year 1.
    pub(super) fn to_text(self) -> Option<String> {
        let since = SignedDuration::from_micros(self.0);
        let time: DateTime = date(2000, 1, 1).at(0, 0, 0, 0).checked_add(since).ok()?;
        (time.year() > 0).then(|| in_h_form(time))
    }

    /// Converts a time from milliseconds since 1970.
    pub(super) fn from_unix(time: UnixMillis) -> PgTime {
        let micros = i64::try_from(time).unwrap_or(i64::MAX).saturating_mul(1000);
        PgTime(micros.saturating_sub(EPOCH))
    }

    /// Returns the time `earlier` before this one.
    pub(super) fn before(self, earlier: Duration) -> PgTime {
        let micros = i64::try_from(earlier.as_micros()).unwrap_or(i64::MAX);
        PgTime(self.0.saturating_sub(micros))
    }

    /// Converts the time to whole milliseconds since 1970. Earlier times become 0, and `infinity`
    /// becomes `None`.
    pub(super) fn to_unix(self) -> Option<UnixMillis> {
        if self.0 == i64::MAX {
            return None;
        }
        let micros = self.0.saturating_add(EPOCH);
        Some(UnixMillis::try_from(micros.div_euclid(1000)).unwrap_or(0))
    }
}

/// Formats a time as h does in annotations.
pub(super) fn format_as_h(time: UnixMillis) -> String {
    in_h_form(utc(time))
}

/// Formats a time with six decimals and `+00:00`, and without padding the year to four digits.
fn in_h_form(time: DateTime) -> String {
    let year = time.year();
    format!("{year}-{}", time.strftime("%m-%dT%H:%M:%S%.6f+00:00"))
}

/// Formats a time for humans, to the second.
pub fn format_human(time: UnixMillis) -> String {
    utc(time).strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Formats a time for programs as in RFC 3339, to the millisecond.
pub fn format_rfc3339(time: UnixMillis) -> String {
    utc(time).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Returns whether `text` is a date, time, and offset that JavaScript can parse too: the official
/// client fails to render an annotation with a time that it cannot parse.
///
/// jiff checks the ranges. The form is checked here, since jiff accepts other forms as well.
pub(super) fn is_date_time(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some((head, tail)) = bytes.split_at_checked(HEAD.len()) else {
        return false;
    };
    let (fraction, offset) = match tail.strip_prefix(b".") {
        Some(rest) => {
            let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
            let (fraction, offset) = rest.split_at(digits);
            (Some(fraction), offset)
        }
        None => (None, tail),
    };
    has_form(head, HEAD)
        && !head.ends_with(b":60") // a leap second, which JavaScript does not support
        && fraction.is_none_or(|digits| (1..=9).contains(&digits.len()))
        && is_offset(offset)
        && text.parse::<Timestamp>().is_ok()
}

fn is_offset(text: &[u8]) -> bool {
    match text.split_first() {
        Some((b'Z', rest)) => rest.is_empty(),
        Some((b'+' | b'-', rest)) => has_form(rest, b"00:00") && rest < b"24".as_slice(),
        _ => false,
    }
}

/// Returns whether `text` has a digit wherever `form` has `0`, and equal bytes elsewhere.
fn has_form(text: &[u8], form: &[u8]) -> bool {
    text.len() == form.len()
        && text.iter().zip(form).all(|(byte, form)| match form {
            b'0' => byte.is_ascii_digit(),
            other => byte == other,
        })
}

/// Times beyond jiff's range, which ends in the year 9999, become the last time in range.
fn utc(time: UnixMillis) -> DateTime {
    let timestamp = i64::try_from(time)
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .unwrap_or(Timestamp::MAX);
    TimeZone::UTC.to_datetime(timestamp)
}

/// 2000-01-01 in microseconds since 1970-01-01.
const EPOCH: i64 = 946_684_800_000_000;
const HEAD: &[u8] = b"0000-00-00T00:00:00";

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const DATES: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/vectors/dates.json"
    ));

    fn time(text: &str) -> PgTime {
        let time: DateTime = text.parse().unwrap();
        let since = time.duration_since(date(2000, 1, 1).at(0, 0, 0, 0));
        PgTime(since.as_micros().try_into().unwrap())
    }

    #[test]
    fn times_have_hs_form() {
        for (time, text) in [
            (0, "1970-01-01T00:00:00.000000+00:00"),
            (1_704_164_645_678, "2024-01-02T03:04:05.678000+00:00"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999000+00:00"),
        ] {
            assert_eq!(format_as_h(time), text);
            assert!(is_date_time(text));
        }
        assert!(format_as_h(UnixMillis::MAX).starts_with("9999-12-30T"));
        assert_eq!(format_human(1_704_164_645_678), "2024-01-02 03:04:05 UTC");
        assert_eq!(
            format_rfc3339(1_704_164_645_678),
            "2024-01-02T03:04:05.678Z"
        );
    }

    #[test]
    fn times_must_be_valid_in_javascript() {
        for good in [
            "2024-01-01T00:00:00+00:00",
            "2024-01-01T00:00:00Z",
            "2024-01-01T00:00:00.1Z",
            "2024-02-29T23:59:59.678901-23:59",
        ] {
            assert!(is_date_time(good), "{good}");
        }
        for bad in [
            "",
            "yesterday",
            "2024-01-01",
            "2024-01-01T00:00:00",
            "2024-01-01 00:00:00Z",
            "2024-01-01T00:00:00z",
            "2024-01-01T00:00:00.Z",
            "2024-01-01T00:00:00.1234567890Z",
            "2024-01-01T00:00:00,5Z",
            "2024-01-01T00:00:00+24:00",
            "2024-01-01T00:00:00+0000",
            "2024-01-01T00:00:00+00:00[UTC]",
            "2024-12-31T23:59:60Z",
            "2024-01-01T24:00:00Z",
            "2023-02-29T00:00:00Z",
            "2024-01-01T00:00:00\u{e9}",
        ] {
            assert!(!is_date_time(bad), "{bad:?}");
        }
    }

    #[test]
    fn writes_times_as_h_does() {
        let vectors: Vec<Value> = serde_json::from_str(DATES).unwrap();
        assert_eq!(vectors.len(), 6);
        for vector in vectors {
            let text = time(vector["in"].as_str().unwrap()).to_text();
            assert_eq!(text.as_deref(), vector["ok"].as_str(), "{vector}");
        }
        for no_time in [i64::MIN, i64::MAX, time("0000-12-31T23:59:59.999999").0] {
            assert_eq!(PgTime(no_time).to_text(), None);
        }
    }

    #[test]
    fn expiry_is_never_rounded_up() {
        assert_eq!(PgTime(0).to_unix(), Some(946_684_800_000));
        assert_eq!(PgTime(999).to_unix(), Some(946_684_800_000));
        assert_eq!(PgTime(-1).to_unix(), Some(946_684_799_999));
        assert_eq!(time("1969-12-31T00:00:00").to_unix(), Some(0));
        assert_eq!(PgTime(i64::MIN).to_unix(), Some(0));
        assert_eq!(PgTime(i64::MAX).to_unix(), None);
        assert!(PgTime(i64::MAX - 1).to_unix().is_some());
    }
}
