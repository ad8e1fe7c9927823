//! Cursors: the text by which a client names a position in the history.
//!
//! Owns: the encoding. Clients must treat cursors as opaque. A cursor conveys no rights: the
//! messages of a replay depend on the connection's own rights at the time of sending.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// A position in a history.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The epoch of the history ([`HistoryStart::epoch`](crate::model::HistoryStart)).
    pub epoch: u64,
    /// The position: all events up to it precede the cursor.
    pub position: u64,
    /// A time by the backend's clock, in UNIX milliseconds: all events up to it precede the cursor.
    pub time: u64,
}

impl Cursor {
    /// Returns the text: 36 characters of the URL-safe base64 alphabet.
    pub fn encode(self) -> String {
        let mut bytes = [0; LEN];
        bytes[0] = VERSION;
        bytes[1..9].copy_from_slice(&self.epoch.to_be_bytes());
        bytes[9..17].copy_from_slice(&self.position.to_be_bytes());
        bytes[17..25].copy_from_slice(&self.time.to_be_bytes());
        let check = checksum(&bytes[..CHECKED]);
        bytes[CHECKED..].copy_from_slice(&check.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Parses the text of a cursor. Returns `None` for any text that [`Cursor::encode`] does not
    /// return.
    pub fn parse(text: &str) -> Option<Cursor> {
        if text.len() != TEXT_LEN {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let bytes: [u8; LEN] = bytes.try_into().ok()?;
        let number = |at: usize| -> Option<u64> {
            let bytes: [u8; 8] = bytes.get(at..at + 8)?.try_into().ok()?;
            Some(u64::from_be_bytes(bytes))
        };
        let check = u16::from_be_bytes([bytes[CHECKED], bytes[CHECKED + 1]]);
        if bytes[0] != VERSION || check != checksum(&bytes[..CHECKED]) {
            return None;
        }
        Some(Cursor {
            epoch: number(1)?,
            position: number(9)?,
            time: number(17)?,
        })
    }

    /// Returns whether this position follows the other one: by position in one epoch, and by time
    /// across epochs.
    pub fn is_later_than(&self, other: &Self) -> bool {
        match self.epoch == other.epoch {
            true => (self.position, self.time) > (other.position, other.time),
            false => self.time > other.time,
        }
    }

    /// Returns the later one of two positions.
    #[must_use]
    pub fn or_later(self, other: Self) -> Self {
        match other.is_later_than(&self) {
            true => other,
            false => self,
        }
    }
}

/// Returns a checksum that detects truncated and mistyped cursors: CRC-16 (CCITT).
fn checksum(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

/// The version of the encoding.
const VERSION: u8 = 1;
/// The number of bytes that the checksum protects.
const CHECKED: usize = 25;
const LEN: usize = CHECKED + 2;
const TEXT_LEN: usize = LEN / 3 * 4;

#[cfg(test)]
mod tests {
    use super::*;

    const CURSOR: Cursor = Cursor {
        epoch: 0x0123_4567_89ab_cdef,
        position: 42,
        time: 1_800_000_000_000,
    };

    #[test]
    fn cursor_survives_encoding() {
        let max = Cursor {
            epoch: u64::MAX,
            position: u64::MAX,
            time: u64::MAX,
        };
        for cursor in [CURSOR, max] {
            let text = cursor.encode();
            assert_eq!(text.len(), TEXT_LEN);
            assert_eq!(Cursor::parse(&text), Some(cursor), "{text}");
        }
        // Stored cursors must remain valid.
        assert_eq!(CURSOR.encode(), "AQEjRWeJq83vAAAAAAAAACoAAAGjGFxQABd6");
    }

    // D12
    #[test]
    fn mistyped_cursor_is_refused() {
        let text = CURSOR.encode();
        for at in 0..text.len() {
            for other in ["A", "b", "_", "=", "é"] {
                let mut changed = text.clone();
                changed.replace_range(at..=at, other);
                assert!(
                    changed == text || Cursor::parse(&changed).is_none(),
                    "{changed}"
                );
            }
            assert_eq!(Cursor::parse(&text[..at]), None);
        }
        assert_eq!(Cursor::parse(&format!("{text}A")), None);
        assert_eq!(Cursor::parse(&format!(" {text}")), None);
    }

    #[test]
    fn later_cursor_is_that_of_the_later_position_or_time() {
        let cursor = |epoch, position, time| Cursor {
            epoch,
            position,
            time,
        };
        let one = cursor(1, 5, 50);
        for (other, is_later) in [
            (one, false),
            (cursor(1, 5, 51), true),
            (cursor(1, 6, 49), true),
            (cursor(1, 4, 99), false),
            (cursor(2, 9, 50), false),
            (cursor(2, 1, 51), true),
        ] {
            assert_eq!(other.is_later_than(&one), is_later, "{other:?}");
            let later = if is_later { other } else { one };
            assert_eq!(one.or_later(other), later);
        }
    }
}
