//! Times of the database: `timestamp without time zone`, which h fills with UTC.

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};

use crate::model::UnixMillis;

/// Microseconds since the beginning of the year 2000, as PostgreSQL sends them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PgTime(pub i64);

impl PgTime {
    /// Formats the time as h does: always with six decimals and `+00:00`, and without padding the
    /// year to four digits. Returns `None` for a time that h cannot format either: an infinite one,
    /// or one before the year 1.
    pub fn to_text(self) -> Option<String> {
        let since = SignedDuration::from_micros(self.0);
        let time: DateTime = date(2000, 1, 1).at(0, 0, 0, 0).checked_add(since).ok()?;
        (time.year() > 0).then(|| {
            let year = time.year();
            format!("{year}-{}", time.strftime("%m-%dT%H:%M:%S%.6f+00:00"))
        })
    }

    /// Converts the time to whole milliseconds since 1970. Earlier times become 0, and `infinity`
    /// becomes `None`.
    pub fn to_unix(self) -> Option<UnixMillis> {
        if self.0 == i64::MAX {
            return None;
        }
        let micros = self.0.saturating_add(EPOCH);
        Some(UnixMillis::try_from(micros.div_euclid(1000)).unwrap_or(0))
    }
}

/// 2000-01-01 in microseconds since 1970-01-01.
const EPOCH: i64 = 946_684_800_000_000;

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
