//! A TLS connection over a socket.
//!
//! Owns: the session's keys, and two kinds of buffers: the start of an incomplete record, and
//! records that the kernel has not accepted. Everything else is in the reactor's buffers, so that
//! an idle connection costs little more than its keys.

use std::io::{self, IoSlice};
use std::mem;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncryptError, UnbufferedStatus};

use super::TlsConfig;
use super::records::{Error, MAX_RECORD, Pass, Traffic, append, next_record, take_alert};
use crate::engine::scratch::{Cipher, Scratch};
use crate::engine::timer::Tick;
use crate::io::socket::{Fill, Socket};
use crate::io::transport::{read_once, write_once};
use crate::ledger::{Ledger, recount};

/// The server side of a TLS connection. To be boxed: the session state takes about 1 KiB.
pub struct TlsLink<S> {
    socket: S,
    session: UnbufferedServerConnection,
    /// Received but unprocessed input: an incomplete record, after an incomplete handshake message.
    /// The session stores positions in it, so it must be passed these very bytes in every call,
    /// including calls that only write.
    pub(super) partial: Option<Box<[u8]>>,
    /// Records that the kernel has not accepted. Never empty.
    pub(super) out: Option<Box<[u8]>>,
    receiving: Receiving,
    sending: Sending,
    /// Bytes of `out` counted in the ledger.
    counted: usize,
    /// When the socket last accepted a part of `out`, or when `out` was created.
    progressed: Tick,
    /// Whether there has been progress since the last call of `count`.
    has_progressed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    Open,
    /// The peer has sent close_notify.
    Ended,
    /// The peer violated TLS. The session must not be used any more.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Open,
    /// No more data will be sent; the socket is shut down when the kernel has accepted `out`.
    Closing,
    Ended,
}

impl<S: Socket> TlsLink<S> {
    /// Creates a connection before its handshake. Does no I/O.
    ///
    /// # Errors
    /// If the TLS library cannot create a session, for instance for lack of random numbers.
    pub fn new(socket: S, config: &TlsConfig) -> io::Result<Self> {
        let session = UnbufferedServerConnection::new(Arc::clone(&config.server))
            .map_err(io::Error::other)?;
        Ok(TlsLink {
            socket,
            session,
            partial: None,
            out: None,
            receiving: Receiving::Open,
            sending: Sending::Open,
            counted: 0,
            progressed: 0,
            has_progressed: false,
        })
    }

    /// Reads once from the socket, at most `limit` bytes. The plaintext of all complete records is
    /// then at the start of the scratch input. Output of the session, such as handshake messages,
    /// tickets, and alerts, is sent or buffered ([`has_output`](Self::has_output)).
    ///
    /// [`Fill::is_emptied`] is set only together with plaintext, or if the socket would block.
    /// Otherwise the caller could not distinguish the latter from a read without plaintext, and
    /// would miss an end of the stream after it.
    ///
    /// # Errors
    /// Errors of the socket. `InvalidData` if the peer violated TLS or sent an alert. Our own alert
    /// has been queued then, and later input is discarded.
    pub fn fill(&mut self, scratch: &mut Scratch, limit: usize) -> io::Result<Fill> {
        let Scratch { input, cipher, .. } = scratch;
        if cipher.incoming.len() < input.len() {
            cipher.incoming.resize(input.len(), 0);
        }
        let Cipher {
            incoming, outgoing, ..
        } = cipher;
        let kept = self.partial.as_deref().map_or(0, <[u8]>::len);
        // Plaintext is never longer than its record, so all of it fits the input.
        let Some(space) = incoming.get_mut(kept..input.len().min(kept.saturating_add(limit)))
        else {
            return Err(io::Error::other("a read buffer smaller than a TLS record"));
        };
        debug_assert!(!space.is_empty());
        let read = read_once(&mut self.socket, space)?;
        if read.bytes == 0 {
            return Ok(read);
        }
        if self.receiving != Receiving::Open {
            return Ok(Fill {
                bytes: 0,
                received: read.received,
                is_emptied: false,
                eof: self.receiving == Receiving::Ended,
            });
        }
        if let Some(partial) = self.partial.take() {
            incoming[..kept].copy_from_slice(&partial);
        }
        let bytes = self.receive(&mut incoming[..kept + read.bytes], input, outgoing)?;
        Ok(Fill {
            bytes,
            received: read.received,
            is_emptied: read.is_emptied && bytes > 0,
            eof: self.receiving == Receiving::Ended,
        })
    }

    /// Decrypts received input, buffers an incomplete rest, and sends the session's output. Returns
    /// the length of the plaintext.
    fn receive(
        &mut self,
        received: &mut [u8],
        plain: &mut [u8],
        outgoing: &mut Vec<u8>,
    ) -> io::Result<usize> {
        outgoing.clear();
        let mut pass = Pass::default();
        let result = pass.run(&mut self.session, received, plain, outgoing);
        let rest = received.get_mut(pass.done..).unwrap_or_default();
        let is_too_long = !pass.has_ended && rest.len() > MAX_PARTIAL;
        let result = result.and_then(|()| match is_too_long {
            true => Err(Error::Peer(
                "a record or handshake message that is too long".into(),
            )),
            false => Ok(()),
        });
        if let Err(error) = result {
            self.receiving = Receiving::Failed;
            take_alert(&mut self.session, rest, outgoing);
            // The cause of the alert matters more to the caller than a failure to send it.
            let _ = self.emit(outgoing);
            return Err(error.into());
        }
        if pass.has_ended {
            self.receiving = Receiving::Ended;
        } else if !rest.is_empty() {
            self.partial = Some(Box::from(&*rest));
        }
        self.emit(outgoing)?;
        Ok(pass.plain)
    }

    /// Encrypts and sends a prefix of the concatenated slices, and returns its length. Short slices
    /// share a record. Encrypted data that the socket does not accept is sent by a later
    /// [`flush`](Self::flush).
    ///
    /// The prefix is shorter than the input if the socket would block, in which case
    /// [`has_output`](Self::has_output) returns true, or if the input exceeds 64 KiB.
    ///
    /// # Errors
    /// Errors of the socket; `BrokenPipe` after [`shutdown_write`](Self::shutdown_write), or after
    /// the peer violated TLS.
    pub fn send(&mut self, slices: &[IoSlice<'_>], scratch: &mut Scratch) -> io::Result<usize> {
        // The library would encrypt even after a close_notify.
        if self.sending != Sending::Open || self.receiving == Receiving::Failed {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if !self.flush()? || self.is_handshaking() {
            return Ok(0);
        }
        let longest = scratch.longest_record;
        let Cipher {
            gathered, outgoing, ..
        } = &mut scratch.cipher;
        let mut taken = 0;
        // One record at a time: at most one record is buffered for a peer that does not read.
        while self.out.is_none() && taken < MAX_SEND {
            let plain = next_record(slices, taken, gathered, longest);
            if plain.is_empty() {
                break;
            }
            outgoing.clear();
            self.encode(outgoing, |traffic, room| traffic.encrypt(plain, room))?;
            taken += plain.len();
            self.emit(outgoing)?;
        }
        debug_assert!(
            self.out.is_some()
                || taken >= MAX_SEND
                || taken == slices.iter().map(|slice| slice.len()).sum::<usize>()
        );
        Ok(taken)
    }

    /// Sends buffered records. Returns false if the socket would block before all were sent.
    ///
    /// # Errors
    /// Errors of the socket.
    pub fn flush(&mut self) -> io::Result<bool> {
        if let Some(out) = &self.out {
            let sent = write_all(&mut self.socket, out)?;
            if sent > 0 {
                self.out = rest_of(out, sent);
                self.has_progressed = true;
            }
        }
        if self.out.is_some() {
            return Ok(false);
        }
        if self.sending == Sending::Closing {
            self.sending = Sending::Ended;
            self.socket.shutdown_write()?;
        }
        Ok(true)
    }

    /// Queues a close_notify, and shuts down the write side of the socket once buffered records
    /// have been sent: immediately, in a later [`flush`](Self::flush), or immediately as well if
    /// sending fails. Further calls have no effect.
    ///
    /// # Errors
    /// Errors of the socket's `shutdown_write`.
    pub fn shutdown_write(&mut self, scratch: &mut Scratch) -> io::Result<()> {
        if self.sending != Sending::Open {
            return Ok(());
        }
        let sent = self.send_close_notify(&mut scratch.cipher.outgoing);
        self.sending = Sending::Closing;
        if sent.and_then(|()| self.flush()).is_ok() {
            return Ok(());
        }
        self.out = None;
        match mem::replace(&mut self.sending, Sending::Ended) {
            Sending::Ended => Ok(()),
            _ => self.socket.shutdown_write(),
        }
    }

    fn send_close_notify(&mut self, outgoing: &mut Vec<u8>) -> io::Result<()> {
        // During the handshake, there are no keys for a close_notify yet, and the peer does not
        // expect one.
        if self.receiving == Receiving::Failed || self.is_handshaking() {
            return Ok(());
        }
        outgoing.clear();
        self.encode(outgoing, |traffic, room| traffic.queue_close_notify(room))?;
        self.emit(outgoing)
    }

    /// Makes the session encrypt records, which requires that it has no other output pending.
    fn encode(
        &mut self,
        outgoing: &mut Vec<u8>,
        mut write: impl FnMut(&mut Traffic<'_>, &mut [u8]) -> Result<usize, EncryptError>,
    ) -> io::Result<()> {
        debug_assert!(!self.session.wants_write());
        let partial = self.partial.as_deref_mut().unwrap_or_default();
        let UnbufferedStatus { discard, state } = self.session.process_tls_records(partial);
        debug_assert_eq!(discard, 0, "fill has done all there was to do");
        let Ok(ConnectionState::WriteTraffic(mut traffic)) = state else {
            debug_assert!(false, "fill has done all there was to do");
            return Err(io::Error::other("the TLS session is not ready to write"));
        };
        append(outgoing, |room| write(&mut traffic, room)).map_err(io::Error::from)
    }

    /// Sends records, after those already buffered.
    pub(super) fn emit(&mut self, records: &[u8]) -> io::Result<()> {
        // Nothing may follow a close_notify, not even a response to later input.
        if records.is_empty() || self.sending != Sending::Open {
            return Ok(());
        }
        if self.flush()? {
            let sent = write_all(&mut self.socket, records)?;
            self.out = rest_of(records, sent);
            self.has_progressed = true;
        } else {
            let mut out = self.out.take().unwrap_or_default().into_vec();
            out.extend_from_slice(records);
            self.out = Some(out.into_boxed_slice());
        }
        Ok(())
    }

    /// Returns the number of buffered record bytes.
    pub fn records(&self) -> usize {
        self.out.as_deref().map_or(0, <[u8]>::len)
    }

    /// Updates the ledger with the buffered records, and records the time of progress.
    pub fn count(&mut self, ledger: &mut Ledger, now: Tick) {
        if mem::take(&mut self.has_progressed) {
            self.progressed = now;
        }
        let records = self.records();
        recount(&mut ledger.records, &mut self.counted, records);
    }

    /// Returns whether records are buffered of which the socket has accepted nothing for longer
    /// than `longest`.
    pub fn stalls(&self, now: Tick, longest: Tick) -> bool {
        self.out.is_some() && now.saturating_sub(self.progressed) > longest
    }

    /// Removes the buffered records from the ledger, before the connection is freed.
    pub fn release(&mut self, ledger: &mut Ledger) {
        recount(&mut ledger.records, &mut self.counted, 0);
    }

    /// Returns the number of bytes of an incomplete record.
    pub fn buffered(&self) -> usize {
        self.partial.as_deref().map_or(0, <[u8]>::len)
    }
}

impl<S> TlsLink<S> {
    /// Returns whether the handshake is incomplete.
    pub fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Returns whether records are buffered.
    pub fn has_output(&self) -> bool {
        debug_assert!(self.out.as_deref().is_none_or(|out| !out.is_empty()));
        self.out.is_some()
    }

    /// Returns the underlying socket.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// See [`socket`](Self::socket).
    pub fn socket_mut(&mut self) -> &mut S {
        &mut self.socket
    }
}

/// Writes until the socket would block. Returns the number of bytes written.
fn write_all(socket: &mut impl Socket, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while let Some(rest) = bytes.get(sent..).filter(|rest| !rest.is_empty()) {
        match write_once(socket, &[IoSlice::new(rest)])? {
            0 => break,
            count => sent += count,
        }
    }
    Ok(sent)
}

fn rest_of(bytes: &[u8], sent: usize) -> Option<Box<[u8]>> {
    let rest = bytes.get(sent..).unwrap_or_default();
    (!rest.is_empty()).then(|| Box::from(rest))
}

/// Maximum incomplete input: the longest record (RFC 8446 §5.2: "The length MUST NOT exceed 2^14 +
/// 256 bytes"), its header, and a margin. A ClientHello, the only long handshake message of a
/// client, is far shorter.
const MAX_PARTIAL: usize = 16 * 1024 + 325;

/// Plaintext accepted per call, so that no connection delays the others for long.
const MAX_SEND: usize = 4 * MAX_RECORD;
