//! TLS for `wss://`: the trusted certificates, and the handshake.

use std::io::{self, ErrorKind};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::connect::{Refused, Stream, Until, io_reason};
use crate::cli::exit::Exit;
use crate::cli::text::printable;
use crate::trust::{self, Check, Roots, Untrusting};

/// The loaded TLS configuration.
pub(super) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Trusts the certificates in the PEM file `ca`, or else those of the system.
    pub(super) fn load(ca: Option<&Path>) -> Result<Self, Exit> {
        let roots = ca.map_or(Roots::System, |file| Roots::File(file.to_owned()));
        match trust::client(&Check::Name(roots)) {
            Ok(config) => Ok(Trust(Arc::new(config))),
            Err(error @ Untrusting::File(..)) => Err(Exit::new(Exit::NO_INPUT, error)),
            Err(Untrusting::System) => {
                let message = "the system has no CA certificates: give one with --ca-cert";
                Err(Exit::new(Exit::CONFIG, message))
            }
            Err(error @ Untrusting::Tls(_)) => Err(Exit::new(Exit::CONFIG, error)),
        }
    }

    /// Performs the TLS handshake with `host`. Errors refer to the server as `place`.
    pub(super) fn wrap(
        &self,
        mut tcp: TcpStream,
        host: &str,
        place: &str,
        deadline: Instant,
    ) -> Result<Box<dyn Stream>, Refused> {
        let name = ServerName::try_from(host.to_owned()).map_err(|_| {
            let message = format!("{} is no name of a server", printable(host));
            Refused::Final(Exit::new(Exit::USAGE, message))
        })?;
        let mut tls = ClientConnection::new(self.0.clone(), name)
            .map_err(|error| Refused::Unfit(printable(&error.to_string())))?;
        while tls.is_handshaking() {
            let stream = &mut tcp;
            let made = tls.complete_io(&mut Until { stream, deadline });
            made.map_err(|error| refused(&error, place))?;
        }
        Ok(Box::new(StreamOwned::new(tls, tcp)))
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.sock.as_fd()
    }

    fn set_patience(&self, patience: Duration) -> io::Result<()> {
        self.sock.set_patience(patience)
    }

    fn set_nonblocking(&self) -> io::Result<()> {
        self.sock.set_nonblocking(true)
    }
}

fn refused(error: &io::Error, place: &str) -> Refused {
    let Some(failure) = trust::tls_failure_within(error) else {
        return match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => Refused::for_now(format!(
                "{place} closed the connection during the TLS handshake (if it does not speak \
                 TLS: use ws://)"
            )),
            _ => Refused::for_now(format!("{place}: {}", io_reason(error))),
        };
    };
    if failure.is_plain {
        return Refused::Unfit(format!(
            "the server at {place} does not speak TLS: use ws://"
        ));
    }
    let reason = printable(&failure.reason);
    Refused::Unfit(match failure.can_be_trusted {
        true => format!("{reason}; if you trust it, give its file (PEM) with --ca-cert"),
        false => reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_a_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        for path in [file.path(), Path::new("/nonexistent/ca.pem")] {
            let code = Trust::load(Some(path)).map(drop).map_err(|exit| exit.code);
            assert_eq!(code, Err(Exit::NO_INPUT));
        }
    }
}
