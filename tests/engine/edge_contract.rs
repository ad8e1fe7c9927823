//! The readiness events of mio on Linux, which the simulated sockets imitate. A change of mio's
//! behavior would be detected here.

use crate::sim::contract::{SimPair, check};

#[test]
fn simulated_sockets_have_the_expected_edges() {
    check(&mut SimPair::default());
}

#[cfg(target_os = "linux")]
#[test]
fn real_sockets_have_the_expected_edges() {
    check(&mut real::RealPair::new());
}

#[cfg(target_os = "linux")]
mod real {
    use std::io::{self, Read, Write};
    use std::net::Shutdown;
    use std::time::{Duration, Instant};

    use h_realtime_engine::Readiness;
    use mio::{Events, Interest, Poll, Token, net};

    use crate::sim::contract::Pair;

    /// A connection over loopback.
    pub struct RealPair {
        poll: Poll,
        server: net::TcpStream,
        peer: std::net::TcpStream,
    }

    impl RealPair {
        pub fn new() -> Self {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            peer.set_nodelay(true).unwrap();
            peer.set_read_timeout(Some(Duration::from_secs(10)))
                .unwrap();
            let (server, _) = listener.accept().unwrap();
            server.set_nonblocking(true).unwrap();
            let mut server = net::TcpStream::from_std(server);
            let poll = Poll::new().unwrap();
            let interests = Interest::READABLE | Interest::WRITABLE;
            poll.registry()
                .register(&mut server, Token(1), interests)
                .unwrap();
            RealPair { poll, server, peer }
        }
    }

    impl Pair for RealPair {
        /// Over loopback everything sent has arrived, so a short silence suffices.
        fn events(&mut self) -> Vec<Readiness> {
            let mut events = Events::with_capacity(8);
            let mut seen: Vec<Readiness> = Vec::new();
            loop {
                self.poll.poll(&mut events, Some(SILENCE)).unwrap();
                if events.is_empty() {
                    return seen;
                }
                seen.extend(events.iter().map(|event| Readiness {
                    readable: event.is_readable(),
                    writable: event.is_writable(),
                    read_closed: event.is_read_closed(),
                }));
            }
        }

        fn read(&mut self, size: usize) -> io::Result<usize> {
            self.server.read(&mut vec![0; size])
        }

        fn write(&mut self, size: usize) -> io::Result<usize> {
            self.server.write(&vec![0; size])
        }

        fn shut(&mut self) {
            self.server.shutdown(Shutdown::Write).unwrap();
        }

        fn peer_send(&mut self, size: usize) {
            self.peer.write_all(&vec![0; size]).unwrap();
        }

        fn peer_read(&mut self, size: usize) {
            let started = Instant::now();
            self.peer.read_exact(&mut vec![0; size]).unwrap();
            assert!(started.elapsed() < Duration::from_secs(10));
        }

        fn peer_finish(&mut self) {
            self.peer.shutdown(Shutdown::Write).unwrap();
        }
    }

    const SILENCE: Duration = Duration::from_millis(40);
}
