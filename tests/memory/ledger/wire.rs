//! A connection whose buffers never grow, so that all memory allocated in a call of the engine
//! belongs to the engine.

use std::cell::{RefCell, RefMut};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::rc::Rc;

use h_realtime_engine::{Readiness, Socket};

use crate::sim::environment::Descriptive;

/// Both sides of a connection.
#[derive(Clone)]
pub struct Wire(Rc<RefCell<State>>);

pub struct State {
    /// Sent by the client, not yet read by the server.
    to_server: VecDeque<u8>,
    /// Written by the server, not yet read by the client.
    to_client: VecDeque<u8>,
    /// Size of the kernels' buffers from the server to the client.
    send_buffer: usize,
    /// A write was partial: the next room raises an edge.
    is_full: bool,
    has_edge: bool,
    has_finished: bool,
    /// The server has dropped its socket.
    pub is_closed: bool,
}

impl Wire {
    pub fn new(send_buffer: usize) -> Self {
        Wire(Rc::new(RefCell::new(State {
            to_server: VecDeque::with_capacity(RECEIVE_BUFFER),
            to_client: VecDeque::with_capacity(send_buffer),
            send_buffer,
            is_full: false,
            has_edge: true,
            has_finished: false,
            is_closed: false,
        })))
    }

    pub fn state(&self) -> RefMut<'_, State> {
        self.0.borrow_mut()
    }
}

impl State {
    /// Sends a prefix of the bytes as far as there is room; returns its length.
    pub fn send(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(RECEIVE_BUFFER - self.to_server.len());
        self.to_server.extend(&bytes[..count]);
        self.has_edge |= count > 0;
        count
    }

    /// Reads everything available to the client.
    pub fn receive(&mut self) -> Vec<u8> {
        self.has_edge |= std::mem::take(&mut self.is_full);
        self.to_client.drain(..).collect()
    }

    /// Closes the client's direction.
    pub fn finish(&mut self) {
        self.has_finished = true;
        self.has_edge = true;
    }

    /// Returns the edge that a poller would report.
    pub fn take_edge(&mut self) -> Option<Readiness> {
        std::mem::take(&mut self.has_edge).then_some(Readiness {
            readable: self.has_finished || !self.to_server.is_empty(),
            writable: self.to_client.len() < self.send_buffer,
            read_closed: self.has_finished,
        })
    }
}

/// The server's side, which records that it was dropped.
pub struct ServerEnd(pub Wire);

impl Socket for ServerEnd {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut state = self.0.state();
        match state.to_server.is_empty() && !state.has_finished {
            true => Err(ErrorKind::WouldBlock.into()),
            false => state.to_server.read(buf),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.0.state();
        let room = state.send_buffer - state.to_client.len();
        let bytes = slices.iter().flat_map(|slice| slice.iter()).take(room);
        let before = state.to_client.len();
        state.to_client.extend(bytes);
        let count = state.to_client.len() - before;
        state.is_full = count == room;
        match count {
            0 => Err(ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Descriptive for ServerEnd {}

impl Drop for ServerEnd {
    fn drop(&mut self) {
        self.0.state().is_closed = true;
    }
}

/// Size of the kernels' buffers from the client to the server.
const RECEIVE_BUFFER: usize = 128 * 1024;
