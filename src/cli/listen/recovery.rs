//! The part of a session that concerns cursors: the reply to a filter with `since`, gaps, rejected
//! cursors, and servers without cursors.

use std::time::{Duration, Instant};

use super::consumer::EventConsumer;
use super::liveness::Liveness;
use super::messages::FilterReply;
use super::options::ListenOptions;
use super::resume::Resume;
use super::session::{ClientSession, Disconnect, SessionEnd};
use crate::cli::sanitize::printable;
use crate::exit::Exit;

/// An open connection without a reply to its filter.
pub(super) struct Unconfirmed {
    /// The line about the identity, to be printed when the filter is in place.
    identity: String,
    /// A server that supports cursors replies before this time.
    due: Instant,
}

impl<C: EventConsumer> ClientSession<'_, C> {
    /// Called when the server has answered the last opening message. A server that supports cursors
    /// has replied to the filter before, or does so once it has loaded its history. The identity is
    /// reported when the filter is in place.
    pub(super) fn on_open(&mut self, identity: String) -> Result<(), Exit> {
        self.is_open = true;
        if self.resume.since().is_some() && !self.has_cursors {
            let due = Instant::now() + REPLY_TIMEOUT;
            self.unconfirmed = Some(Unconfirmed { identity, due });
        } else {
            self.check_confirmed()?;
            self.output.connected(&identity);
        }
        Ok(())
    }

    /// Handles the reply to the filter. Returns the end of the session, if the consumer continues
    /// from another position.
    pub(super) fn on_filter_set(
        &mut self,
        reply: &FilterReply,
    ) -> Result<Option<SessionEnd>, Exit> {
        self.check_interpretation(reply)?;
        let Some(recovered) = reply.recovered else {
            return Ok(None);
        };
        self.has_cursors = true;
        if !recovered {
            if let Some(reason) = self.output.gap(reply.oldest.as_deref()) {
                return Ok(Some(SessionEnd::Disconnect(Disconnect::broken(reason))));
            }
            let since = self.resume.since().map(str::to_owned);
            report_gap(self.output, since.as_deref(), reply.oldest.as_deref());
        }
        if let Some(unconfirmed) = self.unconfirmed.take() {
            self.output.connected(&unconfirmed.identity);
        }
        // Otherwise the events after `since` follow, each with a cursor. Until then, the position
        // stays: adopting the cursor of the reply could skip these events.
        let is_current = !recovered || self.resume.is_from_now();
        if let (Some(cursor), true) = (&reply.cursor, is_current) {
            self.output.mark(cursor);
            self.resume.advance(cursor, Instant::now())?;
        }
        Ok(None)
    }

    /// Returns the failure for a server that has not interpreted the whole filter.
    fn check_interpretation(&mut self, reply: &FilterReply) -> Result<(), Exit> {
        match reply.confirms() {
            _ if !self.options.needs_confirmation => Ok(()),
            Ok(true) => {
                self.is_confirmed = true;
                Ok(())
            }
            Ok(false) => Err(unconfirmed(self.options)),
            Err(ignored) => {
                let name = &self.options.target.name;
                let message = format!("{name}: the server ignores a part of the filter: {ignored}");
                Err(Exit::new(Exit::USAGE, message))
            }
        }
    }

    /// Returns the failure for a server that sends annotations without having confirmed the filter.
    pub(super) fn check_confirmed(&self) -> Result<(), Exit> {
        match self.options.needs_confirmation && !self.is_confirmed {
            true => Err(unconfirmed(self.options)),
            false => Ok(()),
        }
    }

    /// Reports, once for each connection, a server that does not reply to the filter.
    pub(super) fn check_reply(&mut self, now: Instant) -> Result<(), Exit> {
        if let Some(unconfirmed) = self.unconfirmed.take_if(|reply| now >= reply.due) {
            self.check_confirmed()?;
            self.output.connected(&unconfirmed.identity);
            self.output.status(
                "the server does not support cursors: events during an interruption will be missed",
            );
        }
        Ok(())
    }

    /// Returns the time until something is due.
    pub(super) fn timeout(&self, liveness: &Liveness, now: Instant) -> Duration {
        let reply = self.unconfirmed.as_ref();
        let reply = reply.map(|reply| reply.due.saturating_duration_since(now));
        let due = [reply, self.resume.timeout(now), self.output.timeout(now)];
        let silence = liveness.timeout(now);
        due.into_iter().flatten().fold(silence, Duration::min)
    }
}

/// Returns the failure for a server without the extended filter language.
fn unconfirmed(options: &ListenOptions) -> Exit {
    let message = format!(
        "{}: the server does not confirm filters, and would misunderstand this one: with it, only \
         --uri, --group, --id, and --references can be used",
        options.target.name
    );
    Exit::new(Exit::UNAVAILABLE, message)
}

/// Reports that events may be missing. The session continues with live events.
pub(super) fn report_gap(
    output: &mut impl EventConsumer,
    since: Option<&str>,
    oldest: Option<&str>,
) {
    let after = match since {
        Some(since) => format!("after {}", printable(since)),
        None => "since the last connection".to_owned(),
    };
    let oldest = match oldest {
        Some(oldest) => format!(" (the oldest possible cursor is {})", printable(oldest)),
        None => String::new(),
    };
    output.status(format_args!(
        "gap: the server no longer has all events {after}{oldest}; continuing from now"
    ));
}

/// Returns the failure for a cursor that the server rejects, with its description.
pub(super) fn cursor_rejected(options: &ListenOptions, resume: &Resume, description: &str) -> Exit {
    let remedy = match resume.state_path() {
        Some(path) => format!(
            "remove {} to start with --since, or use it with the server that it belongs to",
            path.display()
        ),
        None => "use --since with now, a time, or a cursor of this server".to_owned(),
    };
    let (name, since) = (&options.target.name, resume.since());
    let since = printable(since.unwrap_or_default());
    let description = description.trim_end_matches('.');
    let message =
        format!("{name}: the server rejected the cursor {since}: {description}; {remedy}");
    Exit::new(Exit::INVALID_CURSOR, message)
}

/// The time that the reply to a filter with `since` may take after the reply to `whoami`.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
