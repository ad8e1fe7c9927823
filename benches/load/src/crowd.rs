//! All connections, and the loop that serves them.

use std::io;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use mio::{Events, Interest, Poll, Token};

use crate::cli::{Common, Probe};
use crate::conn::{Conn, Gone, Said, Script};
use crate::frames;
use crate::target::{Target, Terms};
use crate::watch::Watch;
use crate::{Error, Result};

pub struct Crowd {
    pub target: Target,
    pub script: Script,
    pub watch: Option<Watch>,
    /// Those that ended, since the mode last looked; only where ends are expected.
    pub gone: Vec<(usize, Gone)>,
    /// Whether a connection may end without ending the run.
    pub tolerant: bool,
    /// Time spent asking epoll in vain, instead of sleeping.
    pub spun: Duration,
    poll: Poll,
    events: Events,
    conns: Vec<Option<Conn>>,
    buffer: Vec<u8>,
    spin: bool,
    deadline: Instant,
}

impl Crowd {
    /// # Errors
    ///
    /// If the target is none, or the system gives no epoll.
    pub fn new(common: &Common, resume: bool) -> Result<Crowd> {
        let terms = Terms {
            allow_remote: common.allow_remote,
            sources: common.sources,
            ca: common.ca.as_deref(),
            resume,
        };
        let target = Target::new(&common.url, &terms)?;
        Ok(Crowd {
            script: Script::new(&target, common.deflate)?,
            target,
            watch: None,
            gone: Vec::new(),
            tolerant: false,
            spun: Duration::ZERO,
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

    /// Begins another connection, at the end or in the place of one that is gone.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
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

    /// Another source of wake-ups; its events are not told.
    ///
    /// # Errors
    ///
    /// Those of epoll.
    pub fn wake_for(&self, source: &mut mio::net::TcpStream) -> io::Result<()> {
        let interest = Interest::READABLE | Interest::WRITABLE;
        let registry = self.poll.registry();
        registry.register(source, Token(usize::MAX - 1), interest)
    }

    /// Opens `count` connections more, each of which says `hello` and awaits so many answers.
    /// Gives the index of the first.
    ///
    /// # Errors
    ///
    /// If one cannot be opened.
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
        let mask = self.script.mask;
        while ready < count {
            while begun < count && begun - ready < at_once {
                self.begin(self.conns.len(), begun)?;
                begun += 1;
            }
            self.turn(LONG, &mut |conn, said| {
                match said {
                    Said::Open => {
                        for text in hello {
                            let text = numbered(text, conn.number);
                            conn.send(&frames::encode(frames::TEXT, text.as_bytes(), mask))?;
                        }
                        conn.awaited = answers;
                    }
                    Said::Message(_) => conn.awaited = conn.awaited.saturating_sub(1),
                }
                if conn.awaited == 0 && !conn.ready {
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

    /// Opens the connection of the probe, if there is to be one.
    ///
    /// # Errors
    ///
    /// If it cannot be opened.
    pub fn open_watch(&mut self, common: &Common, probe: &Probe) -> Result<()> {
        if probe.every_ms == 0 {
            return Ok(());
        }
        let index = self.conns.len();
        let every = Duration::from_millis(probe.every_ms);
        let mut other = match &probe.url {
            Some(url) => Crowd::new(&with_url(common, url), false)?,
            None => Crowd::new(&with_url(common, &common.url), false)?,
        };
        // Its request names another path; the rest is the same for all.
        std::mem::swap(&mut self.target, &mut other.target);
        std::mem::swap(&mut self.script, &mut other.script);
        let opened = self.open(1, 1, &[], 0);
        std::mem::swap(&mut self.target, &mut other.target);
        std::mem::swap(&mut self.script, &mut other.script);
        opened?;
        self.watch = Some(Watch::new(index, every, &probe.message, self.script.mask));
        Ok(())
    }

    /// One round of the loop: waits at most so long, and serves what is ready.
    ///
    /// # Errors
    ///
    /// If a connection ends that should not, or the time is up.
    pub fn turn(
        &mut self,
        wait: Duration,
        said: &mut impl FnMut(&mut Conn, Said<'_>) -> Result<(), Gone>,
    ) -> Result<()> {
        self.tend_watch()?;
        self.wait(wait)?;
        let mut events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            let served = self.serve(event.token().0, said);
            if served.is_err() {
                self.events = events;
                return served;
            }
            self.tend_watch()?;
        }
        events.clear();
        self.events = events;
        Ok(())
    }

    /// Serves all connections, ready or not: an end that came together with the last bytes makes no
    /// event of its own.
    ///
    /// # Errors
    ///
    /// If a connection ends that should not.
    pub fn serve_all(
        &mut self,
        said: &mut impl FnMut(&mut Conn, Said<'_>) -> Result<(), Gone>,
    ) -> Result<()> {
        (0..self.conns.len()).try_for_each(|index| self.serve(index, said))
    }

    /// A connection, to say something on.
    pub fn conn(&mut self, index: usize) -> Option<&mut Conn> {
        self.conns.get_mut(index)?.as_mut()
    }

    /// Ends a connection with a reset, and leaves its place empty.
    pub fn drop_conn(&mut self, index: usize) -> bool {
        let conn = self.conns.get_mut(index).and_then(Option::take);
        conn.map(Conn::reset).is_some()
    }

    /// Ends a connection as TCP does it without haste, and leaves its place empty.
    pub fn end_conn(&mut self, index: usize) {
        if let Some(place) = self.conns.get_mut(index) {
            *place = None;
        }
    }

    /// Heartbeats answered so far, of all connections.
    pub fn pongs(&self) -> u64 {
        self.conns.iter().flatten().map(|conn| conn.pongs).sum()
    }

    fn wait(&mut self, wait: Duration) -> Result<()> {
        let before = Instant::now();
        if before > self.deadline {
            return Err("the time is up (--deadline)".into());
        }
        let wait = match &self.watch {
            _ if self.spin => Duration::ZERO,
            Some(watch) => wait.min(watch.sleep(before).max(Duration::from_micros(200))),
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
        said: &mut impl FnMut(&mut Conn, Said<'_>) -> Result<(), Gone>,
    ) -> Result<()> {
        let Some(mut conn) = self.conns.get_mut(index).and_then(Option::take) else {
            return Ok(());
        };
        let served = match &mut self.watch {
            Some(watch) if watch.index == index => {
                conn.ready(&self.script, &mut self.buffer, &mut |_, what| {
                    watch.said(&what);
                    Ok(())
                })
            }
            _ => conn.ready(&self.script, &mut self.buffer, said),
        };
        match served {
            Ok(()) => {
                self.conns[index] = Some(conn);
                Ok(())
            }
            Err(gone) if self.tolerant => {
                conn.reset();
                self.gone.push((index, gone));
                Ok(())
            }
            Err(gone) => Err(Error::from(format!("connection {}: {gone}", conn.number))),
        }
    }

    fn tend_watch(&mut self) -> Result<()> {
        let Some(watch) = &self.watch else {
            return Ok(());
        };
        if !watch.is_time(Instant::now()) {
            return Ok(());
        }
        let index = watch.index;
        self.serve(index, &mut |_, _| Ok(()))?;
        let conn = self.conns.get_mut(index).and_then(Option::as_mut);
        match (&mut self.watch, conn) {
            (Some(watch), Some(conn)) => Ok(watch.ask(conn)?),
            _ => Err("the probe's connection is gone".into()),
        }
    }
}

/// `{n}` in a text becomes a number, always as long.
pub fn numbered(text: &str, number: u64) -> String {
    text.replace("{n}", &format!("{number:06}"))
}

/// A bar on the terminal; nothing where there is none.
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
        sources: common.sources,
        deadline: common.deadline,
        json: None,
        allow_remote: common.allow_remote,
    }
}

/// How long a turn may wait where nothing else has to be done.
pub const LONG: Duration = Duration::from_millis(200);
