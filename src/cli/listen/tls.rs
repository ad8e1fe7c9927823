//! TLS for `wss://`: the trusted certificates, and the handshake.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::connect_error::{ConnectError, io_reason};
use super::stream::{ClientStream, DeadlineStream};
use crate::cli::sanitize::printable;
use crate::exit::Exit;
use crate::trust::{self, Roots, TrustError, Verification};

/// The loaded TLS configuration.
pub(in crate::cli) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Trusts the certificates in the PEM file `ca`, or else those of the system.
    pub(in crate::cli) fn load(ca: Option<&Path>) -> Result<Self, Exit> {
        let roots = ca.map_or(Roots::System, |file| Roots::File(file.to_owned()));
        match trust::client_config(&Verification::Name(roots)) {
            Ok(config) => Ok(Trust(Arc::new(config))),
            Err(error @ TrustError::File(..)) => Err(Exit::new(Exit::NO_INPUT, error)),
            Err(TrustError::System) => {
                let message = "this host has no CA certificates: give one with --ca-cert";
                Err(Exit::new(Exit::CONFIG, message))
            }
            Err(error @ TrustError::Tls(_)) => Err(Exit::new(Exit::CONFIG, error)),
        }
    }

    /// Performs the TLS handshake with `host`. Errors refer to the server as `endpoint`.
    pub(in crate::cli) fn handshake(
        &self,
        mut tcp: TcpStream,
        host: &str,
        endpoint: &str,
        deadline: Instant,
    ) -> Result<Box<dyn ClientStream>, ConnectError> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            let message = format!("{} is not a valid server name", printable(host));
            ConnectError::Permanent(Exit::new(Exit::USAGE, message))
        })?;
        let mut tls = ClientConnection::new(self.0.clone(), name)
            .map_err(|error| ConnectError::Mismatch(printable(&error.to_string())))?;
        while tls.is_handshaking() {
            let stream = &mut tcp;
            let made = tls.complete_io(&mut DeadlineStream { stream, deadline });
            made.map_err(|error| handshake_failed(&error, endpoint))?;
        }
        Ok(Box::new(TlsStream(StreamOwned::new(tls, tcp))))
    }
}

/// A TLS connection that ends with a closure alert. RFC 9112 §9.8: "Clients MUST send a closure alert
/// before closing the connection."
struct TlsStream(StreamOwned<ClientConnection, TcpStream>);

impl ClientStream for TlsStream {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.0.sock.as_fd()
    }

    /// A read of the plaintext may need many reads of the socket: the deadline holds for all together.
    fn read_by(&mut self, buffer: &mut [u8], deadline: Instant) -> io::Result<usize> {
        let StreamOwned { conn, sock } = &mut self.0;
        let mut stream = DeadlineStream {
            stream: sock,
            deadline,
        };
        rustls::Stream::new(conn, &mut stream).read(buffer)
    }

    fn write_by(&mut self, bytes: &[u8], deadline: Instant) -> io::Result<usize> {
        let StreamOwned { conn, sock } = &mut self.0;
        let mut stream = DeadlineStream {
            stream: sock,
            deadline,
        };
        rustls::Stream::new(conn, &mut stream).write(bytes)
    }

    fn has_unread(&mut self) -> bool {
        let state = self.0.conn.process_new_packets();
        state.map_or(true, |state| {
            state.plaintext_bytes_to_read() > 0 || state.peer_has_closed()
        })
    }
}

impl Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl Drop for TlsStream {
    fn drop(&mut self) {
        // The alert is best effort: a server that does not read must not delay the end.
        if self.set_nonblocking().is_ok() {
            let StreamOwned { conn, sock } = &mut self.0;
            conn.send_close_notify();
            while conn.wants_write() && conn.write_tls(sock).is_ok_and(|count| count > 0) {}
        }
    }
}

fn handshake_failed(error: &io::Error, endpoint: &str) -> ConnectError {
    let Some(failure) = trust::tls_failure_within(error) else {
        return match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
                ConnectError::temporary(format!(
                    "{endpoint} closed the connection during the TLS handshake (if it does not use \
                 TLS, use ws://)"
                ))
            }
            _ => ConnectError::temporary(format!("{endpoint}: {}", io_reason(error))),
        };
    };
    if failure.is_plain {
        return ConnectError::Mismatch(format!(
            "the server at {endpoint} does not use TLS: use ws://"
        ));
    }
    let reason = printable(&failure.reason);
    ConnectError::Mismatch(match failure.can_be_trusted {
        true => format!("{reason}; if you trust it, give its PEM file with --ca-cert"),
        false => reason,
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;
    use std::{fs, thread};

    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::{ServerConfig, ServerConnection};

    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for path in [file.path(), Path::new("/nonexistent/ca.pem")] {
            let code = Trust::load(Some(path)).map(drop).map_err(|exit| exit.code);
            assert_eq!(code, Err(Exit::NO_INPUT));
        }
    }

    /// Returns a stream to a server that runs this function.
    fn connect<T: Send + 'static>(
        serve: fn(StreamOwned<ServerConnection, TcpStream>) -> T,
    ) -> (Box<dyn ClientStream>, thread::JoinHandle<T>) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a key");
        let file = tempfile::NamedTempFile::new().expect("a file");
        fs::write(file.path(), made.cert.pem()).expect("a certificate");
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key.into())
            .expect("a configuration");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = thread::spawn(move || {
            let (tcp, _) = listener.accept().expect("a connection");
            let tls = ServerConnection::new(Arc::new(config)).expect("a session");
            serve(StreamOwned::new(tls, tcp))
        });
        let Ok(trust) = Trust::load(Some(file.path())) else {
            panic!("the certificate is trusted");
        };
        let tcp = TcpStream::connect(address).expect("a connection");
        let deadline = Instant::now() + Duration::from_secs(60);
        let stream = trust.handshake(tcp, "localhost", "the server", deadline);
        let Ok(stream) = stream else {
            panic!("no handshake");
        };
        (stream, server)
    }

    #[test]
    fn connection_ends_with_a_closure_alert() {
        let (mut stream, server) = connect(|mut tls| {
            let mut received = Vec::new();
            let ended = tls.read_to_end(&mut received);
            // Without the alert, the end is an error.
            (received, ended.map_err(|error| error.kind()))
        });
        stream.write_all(b"bye").expect("room");
        drop(stream);
        assert_eq!(server.join().expect("no panic"), (b"bye".to_vec(), Ok(3)));
    }

    #[test]
    fn unread_bytes_of_a_record_are_reported() {
        let (mut stream, server) = connect(|mut tls| {
            tls.write_all(b"ab").expect("room");
            let _ = tls.read(&mut [0]);
        });
        assert!(!stream.has_unread());
        for (byte, is_left) in [(b'a', true), (b'b', false)] {
            let mut read = [0];
            stream.read_exact(&mut read).expect("a byte");
            assert_eq!((read[0], stream.has_unread()), (byte, is_left));
        }
        drop(stream);
        server.join().expect("no panic");
    }

    #[test]
    fn deadline_holds_for_a_record_that_arrives_byte_by_byte() {
        let (mut stream, server) = connect(|mut tls| {
            let _ = tls.conn.complete_io(&mut tls.sock);
            // The start of a record, byte by byte.
            let _ = tls.sock.write_all(&[0x17, 3, 3, 0x10, 0]);
            for _ in 0..60 {
                if tls.sock.write_all(&[7]).is_err() {
                    break;
                }
                thread::sleep(Duration::from_millis(50));
            }
        });
        let start = Instant::now();
        let deadline = start + Duration::from_millis(200);
        let read = DeadlineStream {
            stream: &mut *stream,
            deadline,
        }
        .read(&mut [0; 16]);
        let lasted = start.elapsed();
        drop(stream);
        let _ = server.join();
        assert!(lasted < Duration::from_millis(1000), "{lasted:?} {read:?}");
    }
}
