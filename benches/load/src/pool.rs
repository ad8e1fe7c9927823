//! All connections, and the event loop that serves them.

use std::io;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use mio::{Events, Interest, Poll, Token};

use crate::cli::{Common, Probe};
use crate::conn::{CloseReason, Conn, ConnEvent, Script};
use crate::frames;
use crate::probe::ProbeClient;
use crate::target::{Target, TargetOptions};
use crate::{Error, Result};

pub struct ConnPool {
    pub target: Target,
    pub script: Script,
    pub probe: Option<ProbeClient>,
    /// Connections that have ended since the mode last checked. Only filled if `tolerant`.
    pub closed: Vec<(usize, CloseReason)>,
    /// Whether the run continues when a connection ends.
    pub tolerant: bool,
    /// Time spent polling epoll without an event instead of sleeping.
    pub spun: Duration,
    /// The number of the first connection in the messages that connections begin with.
    pub first: u64,
    poll: Poll,
    events: Events,
    conns: Vec<Option<Conn>>,
    buffer: Vec<u8>,
    spin: bool,
    deadline: Instant,
}

impl ConnPool {
    /// # Errors
    ///
    /// Returns an error if the target is invalid, or the system provides no epoll.
    pub fn new(common: &Common, resume: bool) -> Result<ConnPool> {
        let options = TargetOptions {
            allow_remote: common.allow_remote,
            sources: common.sources,
            ca: common.ca.as_deref(),
            resume,
        };
        let target = Target::new(&common.url, &options)?;
        Ok(ConnPool {
            script: Script::new(&target, common.deflate)?,
            target,
            probe: None,
            closed: Vec::new(),
            tolerant: false,
            spun: Duration::ZERO,
            first: 0,
            poll: Poll::new()?,
            events: Events::with_capacity(512),
            conns: Vec::new(),
            buffer: vec![0; 256 * 1024],
            spin: common.spin,
            deadline: Instant::now() + Duration::from_secs(common.deadline),
        })
    }

    pub fn len(&self) -> usize {
        self.conns.len()
    }

    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// Begins another connection, at the end or in the slot of one that has ended.
    ///
    /// # Errors
    ///
    /// Returns the errors of the operating system.
    pub fn begin(&mut self, index: usize, number: u64) -> Result<()> {
        let mut conn = Conn::new(&self.target, number)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry.register(conn.source(), Token(index), interest)?;
        if index >= self.conns.len() {
            self.conns.resize_with(index + 1, || None);
        }
        self.conns[index] = Some(conn);
        Ok(())
    }

    /// Registers another socket that wakes the loop. Its events are not reported.
    ///
    /// # Errors
    ///
    /// Returns the errors of epoll.
    pub fn wake_for(&self, source: &mut mio::net::TcpStream) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry.register(source, Token(usize::MAX - 1), interest)
    }

    /// Opens `count` more connections. Each sends `hello` and waits for its responses. Returns the
    /// index of the first.
    ///
    /// # Errors
    ///
    /// Returns an error if a connection cannot be opened.
    pub fn open(
        &mut self,
        count: u64,
        at_once: u64,
        hello: &[String],
        answers: u32,
    ) -> Result<usize> {
        let first = self.conns.len();
        let bar = progress("opening", count);
        let (mut begun, mut ready) = (0, 0);
        let (mask, offset) = (self.script.mask, self.first);
        while ready < count {
            while begun < count && begun - ready < at_once {
                self.begin(self.conns.len(), begun)?;
                begun += 1;
            }
            self.turn(MAX_WAIT, &mut |conn, event| {
                match event {
                    ConnEvent::Open => {
                        for text in hello {
                            let text = numbered(text, offset + conn.number);
                            conn.send(&frames::encode(frames::TEXT, text.as_bytes(), mask))?;
                        }
                        conn.outstanding = answers;
                    }
                    ConnEvent::Message(_) => conn.outstanding = conn.outstanding.saturating_sub(1),
                }
                if conn.outstanding == 0 && !conn.ready {
                    conn.ready = true;
                    ready += 1;
                }
                Ok(())
            })?;
            bar.set_position(ready);
        }
        bar.finish_and_clear();
        Ok(first)
    }

    /// Opens the connection of the probe, if one is configured.
    ///
    /// # Errors
    ///
    /// Returns an error if it cannot be opened.
    pub fn open_probe(&mut self, common: &Common, probe: &Probe) -> Result<()> {
        if probe.every_ms == 0 {
            return Ok(());
        }
        let index = self.conns.len();
        let every = Duration::from_millis(probe.every_ms);
        let mut other = match &probe.url {
            Some(url) => ConnPool::new(&with_url(common, url), false)?,
            None => ConnPool::new(&with_url(common, &common.url), false)?,
        };
        // Its request has another path; everything else is shared.
        std::mem::swap(&mut self.target, &mut other.target);
        std::mem::swap(&mut self.script, &mut other.script);
        let opened = self.open(1, 1, &[], 0);
        std::mem::swap(&mut self.target, &mut other.target);
        std::mem::swap(&mut self.script, &mut other.script);
        opened?;
        self.probe = Some(ProbeClient::new(
            index,
            every,
            &probe.message,
            self.script.mask,
        ));
        Ok(())
    }

    /// Runs one turn of the loop: waits for at most `wait` and serves the ready connections.
    ///
    /// # Errors
    ///
    /// Returns an error if a connection ends unexpectedly, or the deadline has passed.
    pub fn turn(
        &mut self,
        wait: Duration,
        on_event: &mut impl FnMut(&mut Conn, ConnEvent<'_>) -> Result<(), CloseReason>,
    ) -> Result<()> {
        self.serve_probe()?;
        self.wait(wait)?;
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let served = self.serve(event.token().0, on_event);
            if served.is_err() {
                self.events = events;
                return served;
            }
            self.serve_probe()?;
        }
        events.clear();
        self.events = events;
        Ok(())
    }

    /// Serves all connections, ready or not: an end of stream that arrived together with the last
    /// bytes causes no event of its own.
    ///
    /// # Errors
    ///
    /// Returns an error if a connection ends unexpectedly.
    pub fn serve_all(
        &mut self,
        on_event: &mut impl FnMut(&mut Conn, ConnEvent<'_>) -> Result<(), CloseReason>,
    ) -> Result<()> {
        (0..self.conns.len()).try_for_each(|index| self.serve(index, on_event))
    }

    /// Returns a connection by index.
    pub fn conn(&mut self, index: usize) -> Option<&mut Conn> {
        self.conns.get_mut(index)?.as_mut()
    }

    /// Closes a connection with a reset and leaves its slot empty.
    pub fn drop_conn(&mut self, index: usize) -> bool {
        let conn = self.conns.get_mut(index).and_then(Option::take);
        conn.map(Conn::reset).is_some()
    }

    /// Closes a connection gracefully and leaves its slot empty.
    pub fn end_conn(&mut self, index: usize) {
        if let Some(place) = self.conns.get_mut(index) {
            *place = None;
        }
    }

    /// Returns the number of pings answered so far, over all connections.
    pub fn pongs(&self) -> u64 {
        self.conns.iter().flatten().map(|conn| conn.pongs).sum()
    }

    fn wait(&mut self, wait: Duration) -> Result<()> {
        let before = Instant::now();
        if before > self.deadline {
            return Err("the run exceeded --deadline".into());
        }
        let wait = match &self.probe {
            _ if self.spin => Duration::ZERO,
            Some(probe) => wait.min(probe.sleep(before).max(Duration::from_micros(200))),
            None => wait,
        };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            polled => polled?,
        }
        if self.spin && self.events.is_empty() {
            self.spun += before.elapsed();
        }
        Ok(())
    }

    fn serve(
        &mut self,
        index: usize,
        on_event: &mut impl FnMut(&mut Conn, ConnEvent<'_>) -> Result<(), CloseReason>,
    ) -> Result<()> {
        let Some(mut conn) = self.conns.get_mut(index).and_then(Option::take) else {
            return Ok(());
        };
        let served = match &mut self.probe {
            Some(probe) if probe.index == index => {
                conn.ready(&self.script, &mut self.buffer, &mut |_, event| {
                    probe.on_event(&event);
                    Ok(())
                })
            }
            _ => conn.ready(&self.script, &mut self.buffer, on_event),
        };
        match served {
            Ok(()) => {
                self.conns[index] = Some(conn);
                Ok(())
            }
            Err(reason) if self.tolerant => {
                conn.reset();
                self.closed.push((index, reason));
                Ok(())
            }
            Err(reason) => Err(Error::from(format!("connection {}: {reason}", conn.number))),
        }
    }

    fn serve_probe(&mut self) -> Result<()> {
        let Some(probe) = &self.probe else {
            return Ok(());
        };
        if !probe.is_time(Instant::now()) {
            return Ok(());
        }
        let index = probe.index;
        self.serve(index, &mut |_, _| Ok(()))?;
        let conn = self.conns.get_mut(index).and_then(Option::as_mut);
        match (&mut self.probe, conn) {
            (Some(probe), Some(conn)) => Ok(probe.send_due(conn)?),
            _ => Err("the probe's connection has ended".into()),
        }
    }
}

/// Replaces `{n}` in a text by a number of fixed width, and `{n%K}` by its remainder modulo K.
pub fn numbered(text: &str, number: u64) -> String {
    let mut text = text.replace("{n}", &format!("{number:06}"));
    while let Some((before, rest)) = text.split_once("{n%")
        && let Some((modulus, after)) = rest.split_once('}')
        && let Ok(modulus @ 1..) = modulus.parse::<u64>()
    {
        text = format!("{before}{:06}{after}", number % modulus);
    }
    text
}

/// Returns a progress bar, hidden if there is no terminal.
pub fn progress(what: &'static str, length: u64) -> ProgressBar {
    let bar = ProgressBar::new(length).with_message(what);
    let style = ProgressStyle::with_template("{msg:>10} {wide_bar} {pos}/{len} {elapsed}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

fn with_url(common: &Common, url: &str) -> Common {
    Common {
        url: url.to_owned(),
        connections: 1,
        pid: None,
        server: None,
        ca: common.ca.clone(),
        opening: 1,
        hello: Vec::new(),
        hello_answers: 0,
        deflate: false,
        spin: false,
        slices: false,
        sources: common.sources,
        deadline: common.deadline,
        json: None,
        allow_remote: common.allow_remote,
    }
}

/// The maximum wait of a turn when nothing else is scheduled.
pub const MAX_WAIT: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_replace_placeholders() {
        assert_eq!(numbered("a{n}b{n}", 7), "a000007b000007");
        assert_eq!(numbered("{n%200}/{n%3}/{n}", 401), "000001/000002/000401");
        assert_eq!(numbered("{n%0}{n%", 1), "{n%0}{n%");
    }
}
