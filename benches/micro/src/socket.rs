//! A connection without a kernel: little more than a copy of the bytes read.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;

use h_realtime_engine::Socket;

/// Both ends of a connection: the engine's socket, and its peer.
#[derive(Clone)]
pub struct SimSocket(Rc<Ends>);

struct Ends {
    number: usize,
    /// Sent by the peer, and not yet read by the engine.
    input: Cell<&'static [u8]>,
    has_finished: Cell<bool>,
    counters: Rc<IoCounters>,
}

/// Counters of the engine's I/O on all sockets together.
#[derive(Default)]
pub struct IoCounters {
    /// Read calls, which are `recv` on a real socket.
    pub reads: Cell<u64>,
    /// Write calls, which are `sendmsg`.
    pub writes: Cell<u64>,
    /// Bytes sent to peers.
    pub bytes: Cell<u64>,
    /// The numbers of the sockets written to since this was last cleared.
    pub written: RefCell<Vec<usize>>,
}

impl SimSocket {
    pub fn new(number: usize, counters: Rc<IoCounters>) -> Self {
        SimSocket(Rc::new(Ends {
            number,
            input: Cell::new(&[]),
            has_finished: Cell::new(false),
            counters,
        }))
    }

    /// The peer sends bytes. Its earlier bytes must have been read.
    pub fn send(&self, bytes: &'static [u8]) {
        let before = self.0.input.replace(bytes);
        assert!(before.is_empty(), "{} bytes were not read", before.len());
    }

    /// The peer closes its direction.
    pub fn finish(&self) {
        self.0.has_finished.set(true);
    }
}

impl Socket for SimSocket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        count(&self.0.counters.reads, 1);
        let input = self.0.input.get();
        if input.is_empty() && !self.0.has_finished.get() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let length = input.len().min(buf.len());
        buf[..length].copy_from_slice(&input[..length]);
        self.0.input.set(&input[length..]);
        Ok(length)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let counters = &self.0.counters;
        let length = slices.iter().map(|slice| slice.len()).sum();
        count(&counters.writes, 1);
        count(&counters.bytes, length as u64);
        counters.written.borrow_mut().push(self.0.number);
        Ok(length)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn abort_on_drop(&mut self) {}
}

fn count(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}
