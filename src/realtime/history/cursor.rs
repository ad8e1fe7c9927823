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

/// A cursor of a message in a replay.
///
/// A replay sends the newest state of each subject in the order of the positions of these states.
/// After a part of it, a client knows nothing of a change whose subject has changed again at a later
/// position. A client that resumes there is therefore sent what it had been sent if the replay had
/// not been interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayCursor {
    /// The position up to which the client has received the newest states. The time is that of the
    /// beginning of the replay, since another process does not know its positions.
    pub cursor: Cursor,
    /// The position at which the replay began; that of the cursor outside a replay.
    pub from: u64,
}

impl Cursor {
    /// Returns the text: 36 characters of the URL-safe base64 alphabet.
    pub fn encode(self) -> String {
        ReplayCursor::from(self).encode()
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

impl From<Cursor> for ReplayCursor {
    fn from(cursor: Cursor) -> Self {
        ReplayCursor {
            cursor,
            from: cursor.position,
        }
    }
}

impl ReplayCursor {
    /// Returns the text: characters of the URL-safe base64 alphabet, 47 in a replay and 36 outside.
    pub fn encode(self) -> String {
        let ReplayCursor { cursor, from } = self;
        let is_within = from < cursor.position;
        let version = if is_within { WITHIN_REPLAY } else { PLAIN };
        let mut bytes = Vec::with_capacity(LEN_WITHIN_REPLAY);
        bytes.push(version);
        for number in [cursor.epoch, cursor.position, cursor.time] {
            bytes.extend(number.to_be_bytes());
        }
        if is_within {
            bytes.extend(from.to_be_bytes());
        }
        bytes.extend(checksum(&bytes).to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Parses the text of a cursor. Returns `None` for any text that [`encode`](Self::encode) does
    /// not return.
    pub fn parse(text: &str) -> Option<ReplayCursor> {
        // Longer texts are not worth decoding.
        if text.len() > MAX_TEXT {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (numbers, check) = bytes.split_last_chunk()?;
        if u16::from_be_bytes(*check) != checksum(numbers) {
            return None;
        }
        let (version, numbers) = numbers.split_first()?;
        let (numbers, rest) = numbers.as_chunks();
        let numbers: Vec<u64> = numbers.iter().copied().map(u64::from_be_bytes).collect();
        let (epoch, position, time, from) = match (*version, &*numbers, rest) {
            (PLAIN, &[epoch, position, time], []) => (epoch, position, time, position),
            (WITHIN_REPLAY, &[epoch, position, time, from], []) if from < position => {
                (epoch, position, time, from)
            }
            _ => return None,
        };
        let cursor = Cursor {
            epoch,
            position,
            time,
        };
        Some(ReplayCursor { cursor, from })
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

/// The versions of the encoding, which precede the numbers and their checksum.
const PLAIN: u8 = 1;
const WITHIN_REPLAY: u8 = 2;
const LEN_WITHIN_REPLAY: usize = 1 + 4 * 8 + 2;
const MAX_TEXT: usize = LEN_WITHIN_REPLAY.div_ceil(3) * 4;

#[cfg(test)]
mod tests {
    use super::*;

    const CURSOR: Cursor = Cursor {
        epoch: 0x0123_4567_89ab_cdef,
        position: 42,
        time: 1_800_000_000_000,
    };
    const IN_REPLAY: ReplayCursor = ReplayCursor {
        cursor: CURSOR,
        from: 7,
    };
    const STORED_IN_REPLAY: &str = "AgEjRWeJq83vAAAAAAAAACoAAAGjGFxQAAAAAAAAAAAHeyE";

    // D12
    #[test]
    fn cursor_survives_encoding() {
        let max = Cursor {
            epoch: u64::MAX,
            position: u64::MAX,
            time: u64::MAX,
        };
        for cursor in [CURSOR, max] {
            let text = cursor.encode();
            assert_eq!(text.len(), 36);
            assert_eq!(ReplayCursor::parse(&text), Some(cursor.into()), "{text}");
            for from in [0, cursor.position - 1] {
                let cursor = ReplayCursor { cursor, from };
                let text = cursor.encode();
                assert_eq!(text.len(), 47);
                assert_eq!(ReplayCursor::parse(&text), Some(cursor), "{text}");
            }
        }
        // Stored cursors must remain valid.
        assert_eq!(CURSOR.encode(), "AQEjRWeJq83vAAAAAAAAACoAAAGjGFxQABd6");
        assert_eq!(IN_REPLAY.encode(), STORED_IN_REPLAY);
    }

    #[test]
    fn replay_that_begins_at_its_position_has_a_plain_cursor() {
        for from in [CURSOR.position, CURSOR.position + 1] {
            let cursor = ReplayCursor {
                cursor: CURSOR,
                from,
            };
            assert_eq!(cursor.encode(), CURSOR.encode());
        }
    }

    // D12
    #[test]
    fn mistyped_cursor_is_refused() {
        for text in [CURSOR.encode(), IN_REPLAY.encode()] {
            for at in 0..text.len() {
                for other in ["A", "b", "_", "=", "é"] {
                    let mut changed = text.clone();
                    changed.replace_range(at..=at, other);
                    assert!(
                        changed == text || ReplayCursor::parse(&changed).is_none(),
                        "{changed}"
                    );
                }
                assert_eq!(ReplayCursor::parse(&text[..at]), None);
            }
            assert_eq!(ReplayCursor::parse(&format!("{text}A")), None);
            assert_eq!(ReplayCursor::parse(&format!(" {text}")), None);
        }
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
