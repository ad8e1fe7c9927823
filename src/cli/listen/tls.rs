//! TLS for `wss://`: which certificates to trust, and the handshake.

use std::io;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{CertificateError, ClientConfig, ClientConnection, Error, StreamOwned};

use super::connect::{Stream, io_reason};
use crate::cli::exit::Exit;
use crate::cli::text::printable;
use crate::trust::{self, Check, Roots, Untrusting};

/// The certificates to trust, ready for use.
pub(super) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Trusts the certificates in the PEM file `ca`, else those of the system.
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

    /// Does the TLS handshake; the error is for a person.
    pub(super) fn wrap(&self, mut tcp: TcpStream, host: &str) -> Result<Box<dyn Stream>, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{} is no name of a server", printable(host)))?;
        let mut tls = ClientConnection::new(self.0.clone(), name)
            .map_err(|error| printable(&error.to_string()))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp).map_err(|error| reason(&error))?;
        }
        Ok(Box::new(StreamOwned::new(tls, tcp)))
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn set_patience(&self, read: Duration, write: Duration) -> io::Result<()> {
        self.sock.set_patience(read, write)
    }
}

fn reason(error: &io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref());
    match tls {
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "TLS: the certificate is of an unknown CA (if you trust it: --ca-cert)".to_owned()
        }
        Some(error) => printable(&format!("TLS: {error}")),
        None => io_reason(error),
    }
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
