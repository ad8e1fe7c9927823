//! What there is in place of RabbitMQ where it was left out: nothing, of which there can be none.

use std::io;
use std::sync::Arc;

use crate::backend::Stats;
use crate::cli::exit::Exit;
use crate::config::BrokerSettings;
use crate::model::Asks;

pub(super) enum Source {}

pub(super) enum Feed {}

pub(super) fn source(_: &BrokerSettings, _: &Arc<Stats>) -> Result<Source, Exit> {
    let message = "this build cannot take events from RabbitMQ: it needs the feature amqp";
    Err(Exit::new(Exit::CONFIG, message))
}

pub(super) fn names(source: &Source) -> String {
    match *source {}
}

impl Feed {
    pub fn start(source: Source, _: impl Asks) -> io::Result<Feed> {
        match source {}
    }

    pub fn finish(self) {
        match self {}
    }
}
