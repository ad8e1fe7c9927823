//! A client that reads continuously but slowly, with more output queued before a ping than it reads
//! within the pong timeout.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::{Duration, Instant};

use h_realtime_engine::ws::OpCode;
use serde_json::json;
use socket2::{Domain, Socket, Type};

use crate::support::{Client, PATIENCE, Received, Server, event, eventually};

/// The client's side of a link of about six kilobytes per second.
struct Slow(TcpStream);

impl Slow {
    /// Connects with a small receive buffer, so that output stays in the server's kernel.
    fn connect(server: &Server) -> Slow {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.set_recv_buffer_size(8 * 1024).unwrap();
        socket.connect(&server.address().into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Slow(stream)
    }
}

impl Read for Slow {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = buf.len().min(600);
        let count = self.0.read(&mut buf[..most])?;
        if count > 300 {
            sleep(Duration::from_millis(100));
        }
        Ok(count)
    }
}

impl Write for Slow {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.0.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[test]
fn slow_reader_stays_connected_and_dead_client_times_out() {
    let server = Server::configured("[timeouts]\nping = \"500ms\"\npong = \"1s\"\n");
    let timeouts = || server.metric("h_realtime_disconnects_total{reason=\"timeout\"}");
    let mut slow = Client::over(Slow::connect(&server), "/ws", "");
    slow.subscribe("/group", "__world__");
    // A client without any traffic.
    let dead = server.anonymous();
    let started = Instant::now();
    let text = "x".repeat(1000);
    for _ in 0..COUNT {
        let event = event("create", json!({ "text": text }));
        assert_eq!(server.publish(&event.to_string()).0, 202);
    }
    let (mut events, mut pings) = (0, 0);
    while pings < 3 {
        match slow.receive() {
            Received::Text(_) => events += 1,
            Received::Ping(payload) => {
                pings += 1;
                slow.send_frame(true, OpCode::Pong, &payload);
            }
            other => panic!("{other:?} after {events} events, {:?}", started.elapsed()),
        }
    }
    assert_eq!(events, COUNT);
    assert!(
        started.elapsed() > Duration::from_secs(5),
        "the client was not slow"
    );
    eventually(PATIENCE, || (timeouts() >= 1.0).then_some(()));
    assert_eq!(timeouts(), 1.0);
    drop(dead);
}

const COUNT: usize = 30;
