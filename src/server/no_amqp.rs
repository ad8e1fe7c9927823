//! Stubs for builds without RabbitMQ, with types that have no values.

use std::io;
#[cfg(feature = "sqlite")]
use std::sync::Arc;

#[cfg(feature = "sqlite")]
use crate::backend::Stats;
use crate::config::{BrokerSettings, ServerSettings, Values};
use crate::model::BackendHandle;

pub(super) enum Source {}

pub(super) enum Feed {}

// A build without RabbitMQ is reported where the settings are read.
pub(super) fn source(
    _: &BrokerSettings,
    _: &ServerSettings,
    _: &Values,
) -> Result<Source, Vec<String>> {
    Err(Vec::new())
}

#[cfg(feature = "sqlite")]
pub(super) fn stats(source: &Source) -> Arc<Stats> {
    match *source {}
}

#[cfg(feature = "sqlite")]
pub(super) fn names(source: &Source) -> String {
    match *source {}
}

impl Feed {
    pub(crate) fn start(source: Source, _: impl BackendHandle) -> io::Result<Feed> {
        match source {}
    }

    pub(crate) fn finish(self) {
        match self {}
    }
}
