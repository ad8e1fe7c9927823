//! The HTTP date format.

/// Formats a time in milliseconds since the Unix epoch as an RFC 9110 §5.6.7 date, such as `Sun, 06
/// Nov 1994 08:49:37 GMT`. Times after the year 9999 are clamped to its last second.
pub fn http_date(unix_ms: u64) -> String {
    let seconds = (unix_ms / 1000).min(LAST_SECOND);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    // The epoch was a Thursday.
    let weekday = pick(b"SunMonTueWedThuFriSat", (days + 4) % 7);
    let month = pick(b"JanFebMarAprMayJunJulAugSepOctNovDec", month);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Converts days since the epoch to a Gregorian year, a month counted from 0, and a day counted
/// from 1.
fn civil(days: u64) -> (u64, u64, u64) {
    let mut year = 1970 + days / 366;
    while days_before(year + 1) <= days {
        year += 1;
    }
    let mut day = days - days_before(year);
    let is_leap = days_before(year + 1) - days_before(year) == 366;
    for (month, length) in (0..).zip(LENGTHS) {
        let length = length + u64::from(month == 1 && is_leap);
        if day < length {
            return (year, month, day + 1);
        }
        day -= length;
    }
    (year, 11, 31)
}

/// Returns the number of days from the epoch to January 1 of a year.
fn days_before(year: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969)
}

/// Returns the entry with this index in a table of three-letter names.
fn pick(names: &'static [u8], number: u64) -> &'static str {
    let at = usize::try_from(number).unwrap_or(0) * 3;
    let name = names.get(at..at + 3).unwrap_or_default();
    std::str::from_utf8(name).unwrap_or_default()
}

/// Days of each month; February without its leap day.
const LENGTHS: [u64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
/// The last second of the year 9999.
const LAST_SECOND: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, want) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
            (951_868_799, "Tue, 29 Feb 2000 23:59:59 GMT"),
            (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (1_735_689_600, "Wed, 01 Jan 2025 00:00:00 GMT"),
            (4_107_542_399, "Sun, 28 Feb 2100 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
            (LAST_SECOND, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (u64::MAX / 1000, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(
                http_date(seconds * 1000 + 999.min(u64::MAX - seconds * 1000)),
                want
            );
        }
    }
}
