//! A simulated connection: the server's socket, the buffers of the kernels, and the peer's side.
//!
//! Readiness is that of mio on Linux, which `tests/engine/edge_contract.rs` compares with real sockets: an
//! edge is raised when bytes, a FIN, or a RST arrive, and when there is room again after a partial
//! write; its content is the state at the time it is collected.

use std::cell::{RefCell, RefMut};
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;
use std::time::Duration;

use h_realtime_engine::{Readiness, Socket};

use crate::environment::{Descriptive, Descriptor};
use crate::rng::Rng;

/// The server's side, owned by the engine.
pub struct SimSocket(Wire, Option<Descriptor>);

/// Both sides of one connection, shared by the simulation and the engine's socket.
#[derive(Clone)]
pub struct Wire(Rc<RefCell<State>>);

/// The buffers of the kernels, and the state of the connection.
pub struct State {
    /// Sent by the peer, not yet arrived.
    flight: Vec<u8>,
    fin: Fin,
    /// Arrived, not yet read by the server.
    received: Vec<u8>,
    /// Written by the server, not yet read by the peer.
    sending: Vec<u8>,
    /// Total bytes written by the server, each write rounded up to a tenth of a kibibyte.
    pub written: usize,
    /// A write was partial: an edge will announce room.
    is_full: bool,
    reset: Reset,
    /// The server has read the end of the peer's stream.
    has_read_end: bool,
    /// The server has closed its direction.
    pub is_shut: bool,
    /// The server has dropped its socket.
    pub is_closed: bool,
    /// The server has requested a reset on drop.
    pub is_aborted: bool,
    /// The peer was sent a reset: its unread input is lost.
    pub peer_was_reset: bool,
    /// The peer is gone without a FIN: nothing is acknowledged anymore.
    pub has_vanished: bool,
    /// How long output may remain unacknowledged, in milliseconds.
    pub user_timeout: Option<u64>,
    /// Since when output has been unacknowledged.
    unacknowledged_since: Option<u64>,
    /// An edge that has not been collected.
    has_edge: bool,
    pub limits: Limits,
    pub faults: Faults,
    pub calls: Calls,
    rng: Rng,
}

/// Sizes of the kernel's buffers, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub receive: usize,
    pub send: usize,
}

/// How often calls fail or do less than requested, in percent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub interrupted: u32,
    /// `WouldBlock` in spite of bytes or room; an edge follows.
    pub would_block: u32,
    /// Fewer bytes read than available, as if the rest arrived right after the call; an edge
    /// follows.
    pub short_read: u32,
    /// Fewer bytes written than there is room for; an edge follows.
    pub short_write: u32,
    /// The connection breaks, per ten thousand calls.
    pub broken: u32,
    /// Writes return 0 bytes.
    pub zero_writes: bool,
}

/// System calls that the server made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    pub reads: usize,
    pub writes: usize,
}

/// The end of the stream as the peer sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Open,
    /// All output was read, and no more follows.
    Eof,
    Reset,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fin {
    No,
    InFlight,
    Arrived,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reset {
    No,
    /// The next call fails, once.
    Arrived,
    Told,
}

/// The minimum that a Linux TCP socket on loopback holds.
pub const ROOMY: Limits = Limits {
    receive: 1 << 20,
    send: 1 << 20,
};

impl Wire {
    pub fn new(limits: Limits, rng: Rng) -> Self {
        Wire(Rc::new(RefCell::new(State {
            flight: Vec::new(),
            fin: Fin::No,
            received: Vec::new(),
            sending: Vec::new(),
            written: 0,
            is_full: false,
            reset: Reset::No,
            has_read_end: false,
            is_shut: false,
            is_closed: false,
            is_aborted: false,
            peer_was_reset: false,
            has_vanished: false,
            user_timeout: None,
            unacknowledged_since: None,
            has_edge: false,
            limits,
            faults: Faults::default(),
            calls: Calls::default(),
            rng,
        })))
    }

    pub fn socket(&self) -> SimSocket {
        SimSocket(self.clone(), None)
    }

    pub fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }
}

/// The peer's side, and the network between.
impl State {
    pub fn peer_send(&mut self, bytes: &[u8]) {
        if self.fin == Fin::No && self.reset == Reset::No {
            self.flight.extend_from_slice(bytes);
        }
    }

    /// The peer closes its sending direction.
    pub fn peer_finish(&mut self) {
        if self.fin == Fin::No {
            self.fin = Fin::InFlight;
        }
    }

    /// The peer resets the connection; the RST arrives at once.
    pub fn peer_reset(&mut self) {
        self.flight.clear();
        self.sending.clear();
        self.peer_was_reset = true;
        if self.reset == Reset::No {
            self.reset = Reset::Arrived;
            self.has_edge = true;
        }
    }

    /// Delivers at most `max` bytes, and the FIN after the last. Returns whether anything arrived.
    pub fn deliver(&mut self, max: usize) -> bool {
        if self.reset != Reset::No {
            return false;
        }
        let room = self.limits.receive.saturating_sub(self.received.len());
        let count = max.min(self.flight.len()).min(room);
        if self.is_closed {
            // The socket is closed: the kernel responds with a reset.
            let anything = max > 0 && !self.flight.is_empty();
            self.flight.clear();
            if anything {
                self.reset_peer();
            }
            return anything;
        }
        self.received
            .append(&mut take_front(&mut self.flight, count));
        let fin = self.flight.is_empty() && self.fin == Fin::InFlight;
        if fin {
            self.fin = Fin::Arrived;
        }
        self.has_edge |= count > 0 || fin;
        count > 0 || fin
    }

    /// Reads at most `max` bytes of the server's output.
    pub fn peer_take(&mut self, max: usize) -> Vec<u8> {
        let count = max.min(self.sending.len());
        let bytes = take_front(&mut self.sending, count);
        if self.is_full && self.has_room() && !self.is_closed {
            self.is_full = false;
            self.has_edge = true;
        }
        bytes
    }

    pub fn peer_end(&self) -> End {
        if self.peer_was_reset {
            End::Reset
        } else if (self.is_shut || self.is_closed) && self.sending.is_empty() {
            End::Eof
        } else {
            End::Open
        }
    }

    /// Returns whether nothing is in flight in either direction.
    pub fn is_quiet(&self) -> bool {
        self.flight.is_empty()
            && self.received.is_empty()
            && self.sending.is_empty()
            && self.fin != Fin::InFlight
    }

    /// Returns the bytes sent by the peer and not yet read by the server.
    pub fn unread(&self) -> usize {
        self.flight.len() + self.received.len()
    }

    /// Returns the bytes written by the server and not yet read by the peer.
    pub fn unread_output(&self) -> usize {
        self.sending.len()
    }

    fn reset_peer(&mut self) {
        self.peer_was_reset = true;
        self.sending.clear();
    }
}

/// The poller's view of the server's side.
impl State {
    /// Registers the socket: the first edge reports its current state.
    pub fn register(&mut self) {
        self.has_edge = true;
    }

    pub fn has_edge(&self) -> bool {
        self.has_edge && !self.is_closed
    }

    /// Collects the edge, if there is one and it still reports anything.
    pub fn take_edge(&mut self) -> Option<Readiness> {
        let says = Readiness {
            readable: self.is_readable(),
            writable: self.has_room() || self.is_shut || self.reset != Reset::No,
            read_closed: self.fin == Fin::Arrived || self.reset != Reset::No,
        };
        let is_new = std::mem::take(&mut self.has_edge);
        (is_new && says != Readiness::default()).then_some(says)
    }

    /// Returns whether there are bytes, an end, or an error to read.
    pub fn is_readable(&self) -> bool {
        !self.received.is_empty() || self.fin == Fin::Arrived || self.reset != Reset::No
    }

    /// The same, unless the server has already read the end or error.
    pub fn is_unread(&self) -> bool {
        self.is_readable() && !self.has_read_end
    }

    /// Linux reports room only when a third of the buffer is free.
    pub fn has_room(&self) -> bool {
        let room = self.limits.send.saturating_sub(self.sending.len());
        room > 0 && 2 * room >= self.sending.len()
    }

    /// Breaks the connection, as a fault of the simulation.
    pub fn break_now(&mut self) {
        self.peer_reset();
    }

    /// Breaks the connection if output has been unacknowledged for too long. The kernel
    /// acknowledges output that a client does not read.
    pub fn expire(&mut self, now: u64) {
        if !self.has_vanished || self.sending.is_empty() {
            self.unacknowledged_since = None;
            return;
        }
        let since = *self.unacknowledged_since.get_or_insert(now);
        if self
            .user_timeout
            .is_some_and(|timeout| now >= since + timeout)
        {
            self.break_now();
        }
    }

    fn fault(&mut self) -> io::Result<()> {
        let Faults {
            interrupted,
            would_block,
            broken,
            ..
        } = self.faults;
        if broken > 0 && self.rng.below(10_000) < broken as usize {
            self.break_now();
        }
        if self.rng.chance(interrupted) {
            return Err(ErrorKind::Interrupted.into());
        }
        if self.rng.chance(would_block) {
            self.has_edge = true;
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.calls.reads += 1;
        self.fault()?;
        let mut count = buf.len().min(self.received.len());
        if count > 0 {
            // With edge triggering, a short read means that the buffer is empty: any bytes left
            // must have arrived since, and raise an edge.
            if self.rng.chance(self.faults.short_read) {
                count = 1 + self.rng.below(count);
                self.has_edge |= count < self.received.len();
            }
            buf[..count].copy_from_slice(&take_front(&mut self.received, count));
            return Ok(count);
        }
        match self.reset {
            Reset::Arrived => {
                self.reset = Reset::Told;
                Err(ErrorKind::ConnectionReset.into())
            }
            Reset::No if self.fin != Fin::Arrived => Err(ErrorKind::WouldBlock.into()),
            Reset::No | Reset::Told => {
                self.has_read_end = true;
                Ok(0)
            }
        }
    }

    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.calls.writes += 1;
        if let Err(error) = self.fault() {
            self.is_full |= error.kind() == ErrorKind::WouldBlock;
            return Err(error);
        }
        match self.reset {
            Reset::Arrived => {
                self.reset = Reset::Told;
                return Err(ErrorKind::ConnectionReset.into());
            }
            Reset::Told => return Err(ErrorKind::BrokenPipe.into()),
            Reset::No if self.is_shut => return Err(ErrorKind::BrokenPipe.into()),
            Reset::No if self.faults.zero_writes => return Ok(0),
            Reset::No => {}
        }
        let offered: usize = slices.iter().map(|slice| slice.len()).sum();
        let mut count = self
            .limits
            .send
            .saturating_sub(self.sending.len())
            .min(offered);
        if count > 0 && self.rng.chance(self.faults.short_write) {
            count = 1 + self.rng.below(count);
        }
        self.written += count.next_multiple_of(103);
        let mut left = count;
        for slice in slices {
            let taken = left.min(slice.len());
            self.sending.extend_from_slice(&slice[..taken]);
            left -= taken;
        }
        if count < offered {
            self.is_full = !self.has_room();
            self.has_edge |= self.has_room();
        }
        match count {
            0 if offered > 0 => Err(ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }
}

/// Removes bytes from the front.
fn take_front(bytes: &mut Vec<u8>, count: usize) -> Vec<u8> {
    let rest = bytes.split_off(count);
    std::mem::replace(bytes, rest)
}

impl Socket for SimSocket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.state().read(buf)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.state().write(slices)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        let mut state = self.0.state();
        if state.reset != Reset::No {
            return Err(ErrorKind::NotConnected.into());
        }
        state.is_shut = true;
        state.has_edge |= state.fin == Fin::Arrived;
        Ok(())
    }

    fn abort_on_drop(&mut self) {
        self.0.state().is_aborted = true;
    }

    fn set_user_timeout(&mut self, timeout: Duration) {
        self.0.state().user_timeout = Some(timeout.as_millis() as u64);
    }
}

impl Descriptive for SimSocket {
    fn hold(&mut self, descriptor: Descriptor) {
        self.1 = Some(descriptor);
    }
}

/// Closing a socket with unread input resets the connection, and the peer may lose unread output.
impl Drop for SimSocket {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.is_closed = true;
        if state.is_aborted || !state.received.is_empty() {
            state.reset_peer();
        }
    }
}
