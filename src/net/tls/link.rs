//! One TLS connection over a socket.
//!
//! Owns: the session's keys, and whatever must wait: the start of a record that has not come
//! whole, and records that the kernel did not take. All else is in the reactor's buffers, so
//! that an idle connection costs little more than its keys.

use std::io::{self, IoSlice};
use std::mem;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncryptError, UnbufferedStatus};

use super::TlsConfig;
use super::records::{Error, MAX_RECORD, Pass, Traffic, append, next_record, take_alert};
use crate::net::held::{Held, recount};
use crate::net::scratch::{Cipher, Scratch};
use crate::net::socket::{Fill, Socket};
use crate::net::timer::Tick;
use crate::net::transport::{read_once, write_once};

/// A TLS connection, the server's side. To be boxed: the session's state is about 1 KiB.
pub struct TlsLink<S> {
    socket: S,
    session: UnbufferedServerConnection,
    /// Received, and not yet done with: a record that is not whole, behind a handshake message
    /// that is not. The session remembers positions in it, so it must be given these very
    /// bytes whenever it is asked for anything, also when it is to write.
    pub(super) partial: Option<Box<[u8]>>,
    /// Records that the kernel did not take. Never empty.
    pub(super) out: Option<Box<[u8]>>,
    receiving: Receiving,
    sending: Sending,
    /// Bytes of `out` that the ledger has.
    counted: usize,
    /// When the socket last took some of `out`, or when it was begun.
    progressed: Tick,
    /// That has happened again since `count` was last called.
    has_progressed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    Open,
    /// The peer said close_notify.
    Ended,
    /// The peer broke TLS. The session must not be used any more.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sending {
    Open,
    /// Nothing more will be said; the socket is shut when `out` is with the kernel.
    Ending,
    Ended,
}

impl<S: Socket> TlsLink<S> {
    /// A connection whose handshake has yet to begin. Reads and writes nothing.
    ///
    /// # Errors
    /// When the TLS library cannot make a session, for instance for want of random numbers.
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

    /// Reads once from the socket, at most `limit` bytes; the plaintext of all records that are whole now is at the
    /// start of the scratch input. What the session has to say to it, be it the handshake, a
    /// ticket or an alert, is sent at once, or kept ([`has_output`](Self::has_output)).
    ///
    /// [`Fill::drained`] is said only along with plaintext, or when the socket would block:
    /// else it could not be told from the latter that bytes did come, and an end behind them
    /// would be overlooked.
    ///
    /// # Errors
    /// Those of the socket. `InvalidData` when the peer broke TLS or gave an alert; our own
    /// alert is on its way then, and whatever comes after is read and dropped.
    pub fn fill(&mut self, scratch: &mut Scratch, limit: usize) -> io::Result<Fill> {
        let Scratch { input, cipher, .. } = scratch;
        if cipher.incoming.len() < input.len() {
            cipher.incoming.resize(input.len(), 0);
        }
        let Cipher {
            incoming, outgoing, ..
        } = cipher;
        let kept = self.partial.as_deref().map_or(0, <[u8]>::len);
        // No record's plaintext is longer than the record, so all of it will fit the input.
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
                drained: false,
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
            drained: read.drained && bytes > 0,
            eof: self.receiving == Receiving::Ended,
        })
    }

    /// Decrypts what has been received, keeps what is incomplete, and sends what follows from
    /// it. Returns the length of the plaintext.
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
            // Why the peer gets no alert is of less use to the caller than why it was to.
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

    /// Encrypts a prefix of the slices taken together, several in one record where they are
    /// short, and says how long it was. What is taken is sent, if need be by a later
    /// [`flush`](Self::flush).
    ///
    /// Less than all is taken when the socket would block, which
    /// [`has_output`](Self::has_output) tells then, and of more than 64 KiB also otherwise.
    ///
    /// # Errors
    /// Those of the socket; `BrokenPipe` after [`shutdown_write`](Self::shutdown_write) or
    /// after the peer broke TLS.
    pub fn send(&mut self, slices: &[IoSlice<'_>], scratch: &mut Scratch) -> io::Result<usize> {
        // The library would encrypt behind a close_notify as well.
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
        // One record at a time: a peer that does not read costs us no more than one.
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

    /// Sends what is kept; false while some of it is left because the socket would block.
    ///
    /// # Errors
    /// Those of the socket.
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
        if self.sending == Sending::Ending {
            self.sending = Sending::Ended;
            self.socket.shutdown_write()?;
        }
        Ok(true)
    }

    /// Says close_notify and ends our direction of the socket, as soon as what is kept has been
    /// sent: now, in a later [`flush`](Self::flush), or now after all if it cannot be sent.
    /// Does nothing the second time.
    ///
    /// # Errors
    /// Those of the socket's `shutdown_write`.
    pub fn shutdown_write(&mut self, scratch: &mut Scratch) -> io::Result<()> {
        if self.sending != Sending::Open {
            return Ok(());
        }
        let said = self.say_close(&mut scratch.cipher.outgoing);
        self.sending = Sending::Ending;
        if said.and_then(|()| self.flush()).is_ok() {
            return Ok(());
        }
        self.out = None;
        match mem::replace(&mut self.sending, Sending::Ended) {
            Sending::Ended => Ok(()),
            _ => self.socket.shutdown_write(),
        }
    }

    fn say_close(&mut self, outgoing: &mut Vec<u8>) -> io::Result<()> {
        // Before its end there are no keys to say it with, and nobody took us for a server yet.
        if self.receiving == Receiving::Failed || self.is_handshaking() {
            return Ok(());
        }
        outgoing.clear();
        self.encode(outgoing, |traffic, room| traffic.queue_close_notify(room))?;
        self.emit(outgoing)
    }

    /// Has the session write records, which it does only when it has nothing else to do.
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

    /// Sends records, behind those that wait already.
    pub(super) fn emit(&mut self, records: &[u8]) -> io::Result<()> {
        // Nothing goes behind a close_notify, not even an answer to what still comes.
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

    /// Bytes of records that wait for the socket to take them.
    pub fn records(&self) -> usize {
        self.out.as_deref().map_or(0, <[u8]>::len)
    }

    /// Has the ledger agree with the records that wait, and notes the time of progress.
    pub fn count(&mut self, held: &mut Held, now: Tick) {
        if mem::take(&mut self.has_progressed) {
            self.progressed = now;
        }
        let records = self.records();
        recount(&mut held.records, &mut self.counted, records);
    }

    /// Whether records wait of which the socket has taken nothing for longer than this.
    pub fn stalls(&self, now: Tick, longest: Tick) -> bool {
        self.out.is_some() && now.saturating_sub(self.progressed) > longest
    }

    /// Takes the records that wait off the ledger: the connection is being freed.
    pub fn release(&mut self, held: &mut Held) {
        recount(&mut held.records, &mut self.counted, 0);
    }

    /// Bytes of a record that is not whole.
    pub fn held(&self) -> usize {
        self.partial.as_deref().map_or(0, <[u8]>::len)
    }
}

impl<S> TlsLink<S> {
    /// Whether the handshake is not complete yet.
    pub fn is_handshaking(&self) -> bool {
        self.session.is_handshaking()
    }

    /// Whether records wait for the socket to take them.
    pub fn has_output(&self) -> bool {
        debug_assert!(self.out.as_deref().is_none_or(|out| !out.is_empty()));
        self.out.is_some()
    }

    /// The socket below, for what has nothing to do with TLS.
    pub fn socket(&self) -> &S {
        &self.socket
    }

    /// See [`socket`](Self::socket).
    pub fn socket_mut(&mut self) -> &mut S {
        &mut self.socket
    }
}

/// Writes until the socket would block; returns how much it took.
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

/// What may be kept of input that is not whole: the longest record (RFC 8446 §5.2: "The length
/// MUST NOT exceed 2^14 + 256 bytes") and its header, and a little more. A ClientHello, the
/// one handshake message of a client that is long, is far below.
const MAX_PARTIAL: usize = 16 * 1024 + 325;

/// Plaintext that one call takes, so that no connection holds up the others for long.
const MAX_SEND: usize = 4 * MAX_RECORD;
