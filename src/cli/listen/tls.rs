//! TLS for `wss://`: the trusted certificates, and the handshake.

use std::io::{self, ErrorKind};
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
        Ok(Box::new(StreamOwned::new(tls, tcp)))
    }
}

impl ClientStream for StreamOwned<ClientConnection, TcpStream> {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.sock.as_fd()
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
