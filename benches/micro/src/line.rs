//! A connection without a kernel: little more than a copy of what is read.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;

use h_realtime_engine::Socket;

/// Both ends of a connection: the engine's socket, and what its peer does.
#[derive(Clone)]
pub struct Line(Rc<Ends>);

struct Ends {
    number: usize,
    /// Said by the peer, and not read by the engine.
    coming: Cell<&'static [u8]>,
    has_finished: Cell<bool>,
    tally: Rc<Tally>,
}

/// What the engine has done to all lines together.
#[derive(Default)]
pub struct Tally {
    /// Calls that read, which are `recv` on a real socket.
    pub reads: Cell<u64>,
    /// Calls that write, which are `sendmsg`.
    pub writes: Cell<u64>,
    /// Bytes that peers were sent.
    pub bytes: Cell<u64>,
    /// The numbers of the lines that were written to, since this was last emptied.
    pub written: RefCell<Vec<usize>>,
}

impl Line {
    pub fn new(number: usize, tally: Rc<Tally>) -> Self {
        Line(Rc::new(Ends {
            number,
            coming: Cell::new(&[]),
            has_finished: Cell::new(false),
            tally,
        }))
    }

    /// The peer says something; what it said before has been read.
    pub fn say(&self, bytes: &'static [u8]) {
        let before = self.0.coming.replace(bytes);
        assert!(before.is_empty(), "{} bytes were not read", before.len());
    }

    /// The peer ends its direction.
    pub fn finish(&self) {
        self.0.has_finished.set(true);
    }
}

impl Socket for Line {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        count(&self.0.tally.reads, 1);
        let coming = self.0.coming.get();
        if coming.is_empty() && !self.0.has_finished.get() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let length = coming.len().min(buf.len());
        buf[..length].copy_from_slice(&coming[..length]);
        self.0.coming.set(&coming[length..]);
        Ok(length)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let tally = &self.0.tally;
        let length = slices.iter().map(|slice| slice.len()).sum();
        count(&tally.writes, 1);
        count(&tally.bytes, length as u64);
        tally.written.borrow_mut().push(self.0.number);
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
