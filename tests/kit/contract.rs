//! The table of readiness events in each situation on which the engine is built, checked with a
//! simulated connection and with a real one.

use std::io;

use h_realtime_engine::{Readiness, Socket};

use crate::rng::Rng;
use crate::socket::{Limits, SimSocket, Wire};

/// A connection whose server side is registered once for both directions.
pub trait Pair {
    /// Returns events until there are no more.
    fn events(&mut self) -> Vec<Readiness>;
    /// Reads on the server side.
    fn read(&mut self, size: usize) -> io::Result<usize>;
    /// Writes on the server side; returns how many of `size` bytes were accepted.
    fn write(&mut self, size: usize) -> io::Result<usize>;
    fn shut(&mut self);
    fn peer_send(&mut self, size: usize);
    fn peer_read(&mut self, size: usize);
    fn peer_finish(&mut self);
}

const R: u8 = 1;
const W: u8 = 2;
const CLOSED: u8 = 4;

/// Checks every row of the table.
pub fn check(pair: &mut impl Pair) {
    expect(pair, "registered", &[W]);
    pair.write(2).unwrap();
    expect(pair, "a small write", &[]);
    pair.peer_read(2);
    expect(pair, "the peer has read it", &[]);

    pair.peer_send(5);
    expect(pair, "bytes have come", &[R | W]);
    assert_eq!(pair.read(100).unwrap(), 5);
    expect(pair, "a short read", &[]);
    pair.peer_send(5);
    expect(
        pair,
        "bytes after a short read, which was enough to re-arm",
        &[R | W],
    );
    assert_eq!(pair.read(2).unwrap(), 2);
    expect(pair, "part of the bytes read: no further edge comes", &[]);
    pair.peer_send(1);
    expect(
        pair,
        "one more byte: a stall hides until the peer goes quiet",
        &[R | W],
    );
    assert_eq!(pair.read(100).unwrap(), 4);

    let mut written = 0;
    let error = loop {
        match pair.write(10_000) {
            Ok(count) => written += count,
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    expect(pair, "no room", &[]);
    pair.peer_send(1);
    expect(pair, "a byte while there is no room", &[R]);
    assert_eq!(pair.read(100).unwrap(), 1);
    pair.peer_read(written / 40);
    expect(pair, "the peer has read a little", &[]);
    pair.peer_read(written - written / 40);
    expect(pair, "the peer has read it all", &[W]);

    pair.peer_send(5);
    pair.peer_finish();
    expect(pair, "bytes and the end in one", &[R | W | CLOSED]);
    assert_eq!(pair.read(100).unwrap(), 5);
    expect(
        pair,
        "a short read before the end: nothing tells of the end again",
        &[],
    );
    assert_eq!(pair.read(100).unwrap(), 0);
    expect(pair, "the end was read", &[]);
    pair.shut();
    expect(pair, "both have ended", &[R | W | CLOSED]);
}

fn expect(pair: &mut impl Pair, situation: &str, want: &[u8]) {
    let bits = |event: &Readiness| {
        let readable = if event.readable { R } else { 0 };
        let writable = if event.writable { W } else { 0 };
        readable | writable | if event.read_closed { CLOSED } else { 0 }
    };
    let got: Vec<u8> = pair.events().iter().map(bits).collect();
    assert_eq!(got, want, "{situation}");
}

/// The simulated connection.
pub struct SimPair {
    wire: Wire,
    socket: SimSocket,
}

impl Default for SimPair {
    fn default() -> Self {
        let wire = Wire::new(
            Limits {
                receive: 1 << 16,
                send: 1 << 16,
            },
            Rng::new(1),
        );
        wire.state().register();
        let socket = wire.socket();
        SimPair { wire, socket }
    }
}

impl Pair for SimPair {
    fn events(&mut self) -> Vec<Readiness> {
        self.wire.state().deliver(usize::MAX);
        self.wire.state().take_edge().into_iter().collect()
    }

    fn read(&mut self, size: usize) -> io::Result<usize> {
        self.socket.read(&mut vec![0; size])
    }

    fn write(&mut self, size: usize) -> io::Result<usize> {
        self.socket
            .write_vectored(&[io::IoSlice::new(&vec![0; size])])
    }

    fn shut(&mut self) {
        self.socket.shutdown_write().unwrap();
    }

    fn peer_send(&mut self, size: usize) {
        self.wire.state().peer_send(&vec![0; size]);
    }

    fn peer_read(&mut self, size: usize) {
        assert_eq!(self.wire.state().peer_take(size).len(), size);
    }

    fn peer_finish(&mut self) {
        self.wire.state().peer_finish();
    }
}
