//! Processes records for a session, with the caller's buffers and without I/O.

use std::io::{self, IoSlice};

use rustls::server::{ServerConnectionData, UnbufferedServerConnection};
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
    WriteTraffic,
};

/// A session that is ready to write.
pub(super) type Traffic<'a> = WriteTraffic<'a, ServerConnectionData>;

/// The progress of one pass over received records.
#[derive(Default)]
pub(super) struct Pass {
    /// Bytes of records processed.
    pub done: usize,
    /// Bytes of plaintext.
    pub plain: usize,
    /// The peer has sent close_notify.
    pub has_ended: bool,
}

impl Pass {
    /// Processes all complete records.
    ///
    /// The loop terminates: in every state of the session, an iteration either consumes something
    /// that the session does not produce again (the plaintext of a record, a record to be sent, the
    /// notice that it was sent or that the peer closed), or returns.
    pub(super) fn run(
        &mut self,
        session: &mut UnbufferedServerConnection,
        received: &mut [u8],
        plain: &mut [u8],
        outgoing: &mut Vec<u8>,
    ) -> Result<(), Error> {
        loop {
            let rest = received.get_mut(self.done..).unwrap_or_default();
            let (left, plain_before) = (rest.len(), self.plain);
            let UnbufferedStatus { discard, state } = session.process_tls_records(rest);
            // Also after a failure: discarded bytes must not be processed again.
            debug_assert!(discard <= left);
            self.done += discard;
            match state? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record?;
                        self.done += record.discard;
                        self.keep(record.payload, plain)?;
                    }
                    debug_assert!(self.plain - plain_before <= left);
                }
                ConnectionState::EncodeTlsData(mut record) => {
                    append(outgoing, |room| record.encode(room))?;
                }
                // The record is in our buffer, which is all that the session needs to know.
                ConnectionState::TransmitTlsData(sent) => sent.done(),
                ConnectionState::PeerClosed => self.has_ended = true,
                ConnectionState::BlockedHandshake
                | ConnectionState::WriteTraffic(_)
                | ConnectionState::Closed => return Ok(()),
                // 0-RTT, and states added by later versions of the library.
                _ => return Err(Error::Ours("an unexpected state of the TLS session")),
            }
        }
    }

    fn keep(&mut self, payload: &[u8], plain: &mut [u8]) -> Result<(), Error> {
        let end = self.plain + payload.len();
        let Some(room) = plain.get_mut(self.plain..end) else {
            debug_assert!(false, "plaintext is shorter than its records");
            return Err(Error::Ours("plaintext longer than its records"));
        };
        room.copy_from_slice(payload);
        self.plain = end;
        Ok(())
    }
}

/// Takes the alert from a failed session.
///
/// The session returns pending records before it processes input. It must not process input again,
/// because it does not support a second failure. Therefore, it is called only while it has records,
/// with the same bytes that its positions refer to.
pub(super) fn take_alert(
    session: &mut UnbufferedServerConnection,
    rest: &mut [u8],
    outgoing: &mut Vec<u8>,
) {
    while session.wants_write() {
        let Ok(ConnectionState::EncodeTlsData(mut record)) =
            session.process_tls_records(rest).state
        else {
            return;
        };
        if append(outgoing, |room| record.encode(room)).is_err() {
            return;
        }
    }
}

/// Appends the output of `encode`, which fails without side effects and reports the required size
/// if the buffer is too small. The first call passes an empty buffer.
pub(super) fn append<E: Shortage>(
    outgoing: &mut Vec<u8>,
    mut encode: impl FnMut(&mut [u8]) -> Result<usize, E>,
) -> Result<(), Error> {
    let start = outgoing.len();
    loop {
        let room = outgoing.len() - start;
        match encode(&mut outgoing[start..]).map_err(|error| error.required()) {
            Ok(latencies) => {
                debug_assert!(latencies <= room);
                outgoing.truncate(start + latencies);
                return Ok(());
            }
            Err(Some(required)) if required > room => outgoing.resize(start + required, 0),
            Err(_) => return Err(Error::Ours("the TLS session's keys are used up")),
        }
    }
}

/// An error of the library that may mean that the buffer is too small.
pub(super) trait Shortage {
    /// Returns the required size; `None` for any other failure.
    fn required(self) -> Option<usize>;
}

impl Shortage for EncodeError {
    fn required(self) -> Option<usize> {
        match self {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => {
                Some(required_size)
            }
            EncodeError::AlreadyEncoded => None,
        }
    }
}

impl Shortage for EncryptError {
    fn required(self) -> Option<usize> {
        match self {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => {
                Some(required_size)
            }
            EncryptError::EncryptExhausted => None,
        }
    }
}

/// Returns the plaintext of the record that starts `skip` bytes into the slices. It is copied only
/// if it spans several slices, and empty at their end.
pub(super) fn next_record<'a>(
    slices: &'a [IoSlice<'_>],
    mut skip: usize,
    gathered: &'a mut Vec<u8>,
    longest: usize,
) -> &'a [u8] {
    let mut parts = slices
        .iter()
        .filter_map(|slice| {
            let start = skip.min(slice.len());
            skip -= start;
            Some(&slice[start..]).filter(|part| !part.is_empty())
        })
        .peekable();
    let first = parts.next().unwrap_or_default();
    if first.len() >= longest || parts.peek().is_none() {
        return &first[..first.len().min(longest)];
    }
    gathered.clear();
    gathered.extend_from_slice(first);
    for part in parts {
        let room = longest - gathered.len();
        gathered.extend_from_slice(&part[..part.len().min(room)]);
    }
    gathered
}

/// Why records could not be processed.
pub(super) enum Error {
    /// The peer violated TLS, or sent an alert.
    Peer(Box<dyn std::error::Error + Send + Sync>),
    /// An internal error.
    Ours(&'static str),
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        Error::Peer(error.into())
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Peer(error) => io::Error::new(io::ErrorKind::InvalidData, error),
            Error::Ours(what) => io::Error::other(what),
        }
    }
}

/// Maximum plaintext of a record (RFC 8446 §5.1: "The length MUST NOT exceed 2^14 bytes").
pub(super) const MAX_RECORD: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_record_continues_at_any_place_in_the_slices() {
        let parts: [&[u8]; 4] = [b"abcd", b"", b"efgh", b"ij"];
        let slices = parts.map(IoSlice::new);
        let whole = b"abcdefghij";
        for skip in 0..=whole.len() + 1 {
            for longest in 1..=whole.len() + 1 {
                let mut gathered = Vec::new();
                let record = next_record(&slices, skip, &mut gathered, longest);
                let rest = whole.get(skip..).unwrap_or_default();
                assert_eq!(record, &rest[..rest.len().min(longest)], "{skip} {longest}");
            }
        }
    }
}
