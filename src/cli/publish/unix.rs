//! HTTP over a Unix socket: the transport that `ureq` lacks.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Instant;

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, ShutdownHandle, Transport,
};
use ureq::{Error, Timeout};

/// A connector to one socket, regardless of the URL.
#[derive(Debug)]
pub(super) struct UnixConnector(pub PathBuf);

/// A resolver that does not resolve names: the address that it returns is not used.
#[derive(Debug)]
pub(super) struct NoResolver;

/// A connection without TLS.
#[derive(Debug)]
pub(super) struct UnixTransport {
    stream: Arc<InterruptibleStream>,
    buffers: LazyBuffers,
}

/// A socket whose reads and writes may be interrupted by signals.
#[derive(Debug)]
struct InterruptibleStream(UnixStream);

impl ShutdownHandle for InterruptibleStream {
    fn shutdown(&self) {
        // An error means that the socket is shut down already.
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl Resolver for NoResolver {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, Error> {
        let mut addresses = self.empty();
        addresses.push(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        Ok(addresses)
    }
}

impl Connector for UnixConnector {
    type Out = UnixTransport;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<UnixTransport>, Error> {
        let stream = Arc::new(InterruptibleStream(UnixStream::connect(&self.0)?));
        let weak = Arc::downgrade(&stream) as Weak<dyn ShutdownHandle>;
        (details.register_shutdown)(weak)?;
        let config = details.config;
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Some(UnixTransport { stream, buffers }))
    }
}

impl InterruptibleStream {
    /// Retries a system call that signals interrupt, until the timeout.
    fn with_timeout<T>(
        &self,
        timeout: NextTimeout,
        mut call: impl FnMut(&mut &UnixStream) -> std::io::Result<T>,
    ) -> Result<T, Error> {
        let reason: Timeout = timeout.reason;
        let limit = timeout.not_zero().map(|limit| *limit);
        let start = Instant::now();
        loop {
            let left = limit.map(|limit| limit.saturating_sub(start.elapsed()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(Error::Timeout(reason));
            }
            self.0.set_read_timeout(left)?;
            self.0.set_write_timeout(left)?;
            match call(&mut &self.0) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Err(Error::Timeout(reason));
                }
                result => return Ok(result?),
            }
        }
    }
}

impl Transport for UnixTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let mut rest = self.buffers.output().get(..amount).unwrap_or_default();
        while !rest.is_empty() {
            let write = |stream: &mut &UnixStream| stream.write(rest);
            let written = self.stream.with_timeout(timeout.for_write(), write)?;
            if written == 0 {
                return Err(std::io::Error::from(ErrorKind::WriteZero).into());
            }
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        let input = self.buffers.input_append_buf();
        let read = |stream: &mut &UnixStream| stream.read(input);
        let count = self.stream.with_timeout(timeout.for_read(), read)?;
        self.buffers.input_appended(count);
        Ok(count > 0)
    }

    fn is_open(&mut self) -> bool {
        // Only the end of the stream, or unsolicited bytes, can be read at this point.
        let is_quiet = || -> std::io::Result<bool> {
            let mut stream = &self.stream.0;
            stream.set_nonblocking(true)?;
            let read = stream.read(&mut [0]);
            stream.set_nonblocking(false)?;
            Ok(read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock))
        };
        is_quiet().unwrap_or(false)
    }
}
