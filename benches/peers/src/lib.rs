//! Code shared by the peers.
//!
//! Each peer serves two paths: `/echo` sends every message back, `/fan` sends each message to all
//! other connections on that path. Each prints `listening on ADDRESS` when it is ready, and runs on
//! one thread. Each follows its authors' own examples, with the settings that suit it best here.

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Parser;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The arguments of the peers on tokio.
#[derive(Parser)]
pub struct Args {
    /// Address to listen on.
    #[arg(default_value = "127.0.0.1:0")]
    pub address: std::net::SocketAddr,
    #[arg(long, requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    #[arg(long, requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
}

impl Args {
    /// Returns rustls with ring and default tickets.
    ///
    /// # Errors
    ///
    /// Returns an error if the files are not a valid certificate and key.
    pub fn tls(&self) -> Result<Option<TlsAcceptor>> {
        let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) else {
            return Ok(None);
        };
        let chain = CertificateDer::pem_file_iter(cert)?.collect::<std::result::Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_file(key)?;
        let mut config = ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.ticketer = tokio_rustls::rustls::crypto::ring::Ticketer::new()?;
        Ok(Some(TlsAcceptor::from(Arc::new(config))))
    }
}

/// Raises the soft limit on open files to the hard limit.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // If this fails, refused connections will show it.
    let _ = setrlimit(Resource::Nofile, raised);
}

/// The queue length of one connection of a fan-out.
pub const FAN_QUEUE: usize = 1024;
