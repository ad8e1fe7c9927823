//! Buffers that belong to the reactor, not to a connection.

use super::timer::Tick;

/// What reading and TLS need while they work, shared by all connections. Nothing of one
/// connection stays here when the next is served.
pub struct Scratch {
    /// Plaintext that has just been read; [`Fill::bytes`](super::Fill::bytes) says how much.
    pub input: Box<[u8]>,
    /// What is being encoded for one connection.
    pub(super) own: Vec<u8>,
    /// The most plaintext that goes into a TLS record. Of each connection whose socket is full one
    /// record waits, so that shorter ones take less memory.
    #[cfg(feature = "tls")]
    pub(super) longest_record: usize,
    /// The time of the turn.
    pub(super) now: Tick,
    /// What TLS needs besides.
    #[cfg(feature = "tls")]
    pub(super) cipher: Cipher,
}

/// The buffers of encryption. Without a TLS connection they take no memory.
#[derive(Default)]
#[cfg(feature = "tls")]
pub(super) struct Cipher {
    /// Records as they came, decrypted in place.
    pub incoming: Vec<u8>,
    /// Plaintext of several frames, put together for one record.
    pub gathered: Vec<u8>,
    /// Records on their way out.
    pub outgoing: Vec<u8>,
}

impl Scratch {
    /// Buffers that read at most `read_size` bytes at once, but no less than 32 KiB, so that a
    /// TLS record is never longer.
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

    /// Has TLS records be shorter the more memory is taken by records that wait: `waiting` bytes,
    /// of `limit`.
    pub(super) fn limit_records(&mut self, waiting: u64, limit: u64) {
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

/// The most plaintext in a record (RFC 8446 §5.1: "The length MUST NOT exceed 2^14 bytes").
#[cfg(feature = "tls")]
pub(super) const MAX_RECORD: usize = 16 * 1024;
/// Twice what a record carries.
const MIN_READ_SIZE: usize = 32 * 1024;
