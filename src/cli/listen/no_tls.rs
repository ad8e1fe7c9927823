//! Replaces `tls` in builds without TLS, with a type that has no values.

use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

use super::connect_error::ConnectError;
use super::stream::ClientStream;
use crate::exit::Exit;

pub(in crate::cli) enum Trust {}

impl Trust {
    pub(in crate::cli) fn load(_ca: Option<&Path>) -> Result<Self, Exit> {
        Err(Exit::new(
            Exit::USAGE,
            "this build does not include TLS; rebuild it with the feature tls",
        ))
    }

    pub(in crate::cli) fn handshake(
        &self,
        _: TcpStream,
        _: &str,
        _: &str,
        _: Instant,
    ) -> Result<Box<dyn ClientStream>, ConnectError> {
        match *self {}
    }
}
