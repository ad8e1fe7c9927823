//! Stubs for builds without TLS: uninhabited types, so that no other code depends on the feature.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::marker::PhantomData;

use crate::CertificateInfo;
use crate::engine::scratch::Scratch;
use crate::engine::timer::Tick;
use crate::io::socket::{Fill, Socket};
use crate::ledger::Ledger;

/// A certificate and key; cannot exist in this build.
#[derive(Clone, Debug)]
pub struct TlsConfig(Infallible);

/// A TLS connection; cannot exist in this build.
pub struct TlsLink<S>(Infallible, PhantomData<S>);

#[allow(missing_docs, clippy::missing_errors_doc)]
impl<S: Socket> TlsLink<S> {
    pub fn new(_: S, config: &TlsConfig) -> Result<Self, Infallible> {
        match config.0 {}
    }

    pub fn fill(&mut self, _: &mut Scratch, _: usize) -> io::Result<Fill> {
        match self.0 {}
    }

    pub fn send(&mut self, _: &[IoSlice<'_>], _: &mut Scratch) -> io::Result<usize> {
        match self.0 {}
    }

    pub fn flush(&mut self) -> io::Result<bool> {
        match self.0 {}
    }

    pub fn has_output(&self) -> bool {
        match self.0 {}
    }

    pub fn records(&self) -> usize {
        match self.0 {}
    }

    pub fn count(&mut self, _: &mut Ledger, _: Tick) {
        match self.0 {}
    }

    pub fn stalls(&self, _: Tick, _: Tick) -> bool {
        match self.0 {}
    }

    pub fn release(&mut self, _: &mut Ledger) {
        match self.0 {}
    }

    pub fn buffered(&self) -> usize {
        match self.0 {}
    }

    pub fn is_handshaking(&self) -> bool {
        match self.0 {}
    }

    pub fn shutdown_write(&mut self, _: &mut Scratch) -> io::Result<()> {
        match self.0 {}
    }

    pub fn socket_mut(&mut self) -> &mut S {
        match self.0 {}
    }
}

#[allow(missing_docs, clippy::missing_errors_doc)]
impl TlsConfig {
    pub fn chain(&self) -> &[CertificateInfo] {
        match self.0 {}
    }

    pub fn from_pem_files(_: &std::path::Path, _: &std::path::Path) -> Result<Self, io::Error> {
        Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "this build has no TLS: it needs the feature tls",
        ))
    }
}
