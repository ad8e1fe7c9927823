//! Formatting and validation of times.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::model::UnixMillis;

/// Formats a time as h does in annotations: always with six decimals and `+00:00`.
pub(super) fn h_time(time: UnixMillis) -> String {
    utc(time)
        .strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00")
        .to_string()
}

/// Formats a time for humans, to the second.
pub fn for_people(time: UnixMillis) -> String {
    utc(time).strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Formats a time for programs as in RFC 3339, to the millisecond.
pub fn for_programs(time: UnixMillis) -> String {
    utc(time).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// Returns whether `text` is a date, time, and offset that JavaScript can parse too: the official
/// client fails to render an annotation with a time that it cannot parse.
///
/// jiff checks the ranges. The form is checked here, since jiff accepts other forms as well.
pub(super) fn is_time(text: &str) -> bool {
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

const HEAD: &[u8] = b"0000-00-00T00:00:00";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_hs_form() {
        for (time, text) in [
            (0, "1970-01-01T00:00:00.000000+00:00"),
            (1_704_164_645_678, "2024-01-02T03:04:05.678000+00:00"),
            (4_102_444_799_999, "2099-12-31T23:59:59.999000+00:00"),
        ] {
            assert_eq!(h_time(time), text);
            assert!(is_time(text));
        }
        assert!(h_time(UnixMillis::MAX).starts_with("9999-12-30T"));
        assert_eq!(for_people(1_704_164_645_678), "2024-01-02 03:04:05 UTC");
        assert_eq!(for_programs(1_704_164_645_678), "2024-01-02T03:04:05.678Z");
    }

    #[test]
    fn times_must_be_valid_in_javascript() {
        for good in [
            "2024-01-01T00:00:00+00:00",
            "2024-01-01T00:00:00Z",
            "2024-01-01T00:00:00.1Z",
            "2024-02-29T23:59:59.678901-23:59",
        ] {
            assert!(is_time(good), "{good}");
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
            assert!(!is_time(bad), "{bad:?}");
        }
    }
}
