//! Buffers of the reactor, shared by all connections.

use crate::engine::timer::Tick;

/// Working memory for reading and TLS. It holds no data of a connection when the next one is
/// served.
pub struct Scratch {
    /// Plaintext just read; [`Fill::bytes`](crate::Fill::bytes) is its length.
    pub input: Box<[u8]>,
    /// A buffer for frames being encoded for one connection.
    pub(crate) own: Vec<u8>,
    /// Maximum plaintext of a TLS record. One record per connection with a full socket is buffered,
    /// so that shorter records reduce memory use.
    #[cfg(feature = "tls")]
    pub(crate) longest_record: usize,
    /// The time of the turn.
    pub(crate) now: Tick,
    /// Buffers of the TLS code.
    #[cfg(feature = "tls")]
    pub(crate) cipher: Cipher,
}

/// The encryption buffers. They take no memory until TLS is used.
#[derive(Default)]
#[cfg(feature = "tls")]
pub(crate) struct Cipher {
    /// Received records, decrypted in place.
    pub incoming: Vec<u8>,
    /// Plaintext of several frames, combined into one record.
    pub gathered: Vec<u8>,
    /// Records to be sent.
    pub outgoing: Vec<u8>,
}

impl Scratch {
    /// Creates buffers for reads of at most `read_size` bytes, but no less than 32 KiB, so that any
    /// TLS record fits.
    pub fn new(read_size: usize) -> Self {
        Scratch {
            input: vec![0; read_size.max(MIN_READ_SIZE)].into_boxed_slice(),
            own: Vec::new(),
            now: 0,
            #[cfg(feature = "tls")]
            longest_record: MAX_RECORD,
            #[cfg(feature = "tls")]
            cipher: Cipher::default(),
        }
    }

    /// Shortens TLS records when buffered records use much memory: `waiting` bytes of `limit`.
    pub(crate) fn limit_records(&mut self, waiting: u64, limit: u64) {
        #[cfg(feature = "tls")]
        {
            self.longest_record = match waiting {
                _ if waiting > limit / 2 => MAX_RECORD / 16,
                _ if waiting > limit / 4 => MAX_RECORD / 4,
                _ => MAX_RECORD,
            };
        }
        #[cfg(not(feature = "tls"))]
        let _ = (waiting, limit);
    }
}

/// Maximum plaintext of a record (RFC 8446 §5.1: "The length MUST NOT exceed 2^14 bytes").
#[cfg(feature = "tls")]
pub(crate) const MAX_RECORD: usize = 16 * 1024;
/// Twice the plaintext of a record.
const MIN_READ_SIZE: usize = 32 * 1024;

#[cfg(all(test, feature = "tls"))]
mod tests {
    use super::*;

    #[test]
    fn records_become_shorter_as_their_memory_reaches_its_limit() {
        let mut scratch = Scratch::new(0);
        assert_eq!(scratch.input.len(), MIN_READ_SIZE);
        for (waiting, longest) in [
            (26, MAX_RECORD / 4),
            (50, MAX_RECORD / 4),
            (51, MAX_RECORD / 16),
            (25, MAX_RECORD),
            (0, MAX_RECORD),
        ] {
            scratch.limit_records(waiting, 100);
            assert_eq!(scratch.longest_record, longest, "{waiting}");
        }
    }
}
