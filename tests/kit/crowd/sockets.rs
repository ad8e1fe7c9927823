//! Simulated sockets that own no memory: a number, which refers to tables that are allocated before
//! the first connection.
//!
//! All memory allocated afterwards therefore belongs to the server. A socket has the size of a real
//! one: a descriptor and its type.

use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice};
use std::ops::Range;

use h_realtime_engine::Socket;

use crate::environment::Descriptive;

/// The server's end of a connection.
pub struct NumberedSocket {
    number: u32,
    /// Takes the place of the socket's type.
    _kind: u32,
}

/// The clients' ends of all connections, and what the server has sent since the last
/// [`take_output`].
#[derive(Default)]
struct Clients {
    /// By number: the bytes in `text` that the server has not read.
    input: Vec<Range<u32>>,
    has_finished: Vec<bool>,
    /// The input of the clients that send in this turn.
    text: Vec<u8>,
    output: Output,
}

/// What the server has sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Output {
    /// The number of writes.
    pub writes: usize,
    pub bytes: usize,
}

thread_local! {
    static CLIENTS: RefCell<Clients> = RefCell::default();
    static PINGED: RefCell<Vec<u32>> = RefCell::default();
}

impl NumberedSocket {
    /// Connects a client. Its number may have belonged to a client that has left.
    pub fn new(number: u32) -> Self {
        CLIENTS.with_borrow_mut(|clients| clients.has_finished[number as usize] = false);
        let _kind = 0;
        NumberedSocket { number, _kind }
    }
}

/// Allocates the tables for this many connections.
pub fn reserve(connections: usize) {
    CLIENTS.with_borrow_mut(|clients| {
        clients.input = vec![0..0; connections];
        clients.has_finished = vec![false; connections];
        clients.text = Vec::with_capacity(TEXT);
    });
    PINGED.with_borrow_mut(|pinged| *pinged = Vec::with_capacity(connections));
}

/// A client sends bytes. Its earlier bytes must have been read.
pub fn send(number: u32, bytes: &[u8]) {
    send_stored(number, store(bytes));
}

/// Stores bytes that clients send until the next [`clear_input`].
pub fn store(bytes: &[u8]) -> Range<u32> {
    CLIENTS.with_borrow_mut(|clients| {
        let start = clients.text.len();
        clients.text.extend_from_slice(bytes);
        assert!(clients.text.capacity() == TEXT, "too much input in a turn");
        start as u32..clients.text.len() as u32
    })
}

/// A client sends stored bytes. Its earlier bytes must have been read.
pub fn send_stored(number: u32, bytes: Range<u32>) {
    CLIENTS.with_borrow_mut(|clients| clients.input[number as usize] = bytes);
}

/// Releases the input of a turn, which the server has read.
pub fn clear_input() {
    CLIENTS.with_borrow_mut(|clients| clients.text.clear());
}

/// A client ends its direction.
pub fn finish(number: u32) {
    CLIENTS.with_borrow_mut(|clients| clients.has_finished[number as usize] = true);
}

/// Returns what the server has sent since the last call.
pub fn take_output() -> Output {
    CLIENTS.with_borrow_mut(|clients| std::mem::take(&mut clients.output))
}

/// Appends the clients that have been sent a ping since the last call.
pub fn take_pinged(out: &mut Vec<u32>) {
    PINGED.with_borrow_mut(|pinged| out.append(pinged));
}

impl Socket for NumberedSocket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        CLIENTS.with_borrow_mut(|clients| {
            let number = self.number as usize;
            let rest = &mut clients.input[number];
            if rest.start == rest.end {
                return match clients.has_finished[number] {
                    true => Ok(0),
                    false => Err(ErrorKind::WouldBlock.into()),
                };
            }
            let length = rest.len().min(buf.len());
            let from = rest.start as usize;
            rest.start += length as u32;
            buf[..length].copy_from_slice(&clients.text[from..from + length]);
            Ok(length)
        })
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let length = slices.iter().map(|slice| slice.len()).sum();
        let first = slices.first().and_then(|slice| slice.first());
        if first == Some(&PING) {
            PINGED.with_borrow_mut(|pinged| pinged.push(self.number));
        }
        CLIENTS.with_borrow_mut(|clients| {
            clients.output.writes += 1;
            clients.output.bytes += length;
        });
        Ok(length)
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn abort_on_drop(&mut self) {}
}

impl Descriptive for NumberedSocket {}

/// The first byte of a ping.
const PING: u8 = 0x89;
/// The most bytes that clients send in one turn.
const TEXT: usize = 1 << 20;
