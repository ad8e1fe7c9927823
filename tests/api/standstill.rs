//! A server process that is suspended for longer than a deadline.

use std::thread::sleep;
use std::time::Duration;

use h_realtime_engine::ws::OpCode;
use rustix::process::Signal;

use crate::support::{Client, PATIENCE, Received, Server, connect, eventually};

/// More than the server reads in one turn.
const CLIENTS: usize = 700;

fn open(server: &Server) -> f64 {
    server.metric("h_realtime_connections{state=\"open\"}")
}

#[test]
fn clients_that_answered_during_a_standstill_are_not_cut() {
    let server =
        Server::configured("[timeouts]\nping = \"1s\"\npong = \"3s\"\nhandshake = \"3s\"\n");
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| server.anonymous()).collect();
    let mut late = Client::raw(connect(server.address()));
    let silent = server.anonymous();
    for client in &mut clients {
        // Early connections may have received several by then.
        while !matches!(client.receive(), Received::Ping(_)) {}
        client.send_frame(true, OpCode::Pong, b"");
    }
    for client in &mut clients {
        while !matches!(client.receive(), Received::Ping(_)) {}
    }
    server.signal(Signal::STOP);
    for client in &mut clients {
        client.send_frame(true, OpCode::Pong, b"");
    }
    late.request_websocket("/ws", "");
    sleep(Duration::from_secs(4));
    server.signal(Signal::CONT);
    let answer = late.answer(false).expect("a handshake response");
    assert_eq!(answer.status(), 101);
    // Only the silent client is cut.
    let timeouts = || server.metric("h_realtime_disconnects_total{reason=\"timeout\"}");
    eventually(PATIENCE, || (timeouts() >= 1.0).then_some(()));
    assert_eq!((timeouts(), open(&server)), (1.0, CLIENTS as f64 + 1.0));
    drop(silent);
}
