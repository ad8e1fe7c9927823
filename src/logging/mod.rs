//! Logging: lines on standard error.
//!
//! Owns: the level, the format, and the writer thread. Logging never blocks the caller: lines go
//! into a queue. If the queue is full because standard error is not being read, lines are dropped
//! and counted. Must not know the meaning of the lines.
//!
//! The formats of lines are in `format`.

mod format;

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use log::{Level, LevelFilter, Log, Metadata, Record};

pub use format::Format;

/// Starts logging at `level`, in the detected format.
///
/// # Errors
/// If the writer thread cannot be created, or logging has been started already.
pub fn start(level: LevelFilter) -> io::Result<()> {
    let (queue, lines) = sync_channel(QUEUE);
    let logger = LOGGER.get_or_init(|| Logger {
        queue,
        dropped: AtomicU64::new(0),
        format: AtomicU8::new(Format::detected() as u8),
    });
    // The standard library's handle is not used: its lock would be held while a write is blocked.
    let mut out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
    thread::Builder::new()
        .name("log".into())
        .spawn(move || write_lines(&lines, &logger.dropped, &mut out))?;
    log::set_logger(logger).map_err(io::Error::other)?;
    log::set_max_level(level);
    Ok(())
}

/// Changes the level and the format.
pub fn set(level: LevelFilter, format: Format) {
    if let Some(logger) = LOGGER.get() {
        logger.format.store(format as u8, Ordering::Relaxed);
    }
    log::set_max_level(level);
}

/// Waits briefly for all lines so far to be written.
pub fn finish() {
    let Some(logger) = LOGGER.get() else { return };
    let end = Instant::now() + FLUSH_TIMEOUT;
    let (done, is_done) = sync_channel(1);
    while logger.queue.try_send(Item::Flush(done.clone())).is_err() {
        if Instant::now() >= end {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    let _ = is_done.recv_timeout(end.saturating_duration_since(Instant::now()));
}

/// Returns the number of lines that were dropped since the start.
pub fn dropped() -> u64 {
    let logger = LOGGER.get();
    logger.map_or(0, |logger| logger.dropped.load(Ordering::Relaxed))
}

struct Logger {
    queue: SyncSender<Item>,
    dropped: AtomicU64,
    /// A [`Format`].
    format: AtomicU8,
}

enum Item {
    Line(String),
    Flush(SyncSender<()>),
}

impl Log for Logger {
    /// Limits libraries to `info`, regardless of the level: at lower levels, some of them log the
    /// data that they send, including tokens and passwords.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_own = metadata.target().starts_with(OWN_TARGET);
        metadata.level() <= log::max_level() && (is_own || metadata.level() <= Level::Info)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let format = Format::from_number(self.format.load(Ordering::Relaxed));
        let line = format.line(jiff::Timestamp::now(), record);
        if self.queue.try_send(Item::Line(line)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {
        finish();
    }
}

/// Writes lines until the last sender is dropped. The number of dropped lines is reported once the
/// queued lines are written.
fn write_lines(lines: &Receiver<Item>, dropped: &AtomicU64, out: &mut dyn Write) {
    let mut reported = 0;
    loop {
        let item = match lines.try_recv() {
            Ok(item) => item,
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {
                let now = dropped.load(Ordering::Relaxed);
                if now > reported {
                    let count = now - reported;
                    reported = now;
                    log::warn!("{}", dropped_text(count));
                }
                match lines.recv() {
                    Ok(item) => item,
                    Err(_) => return,
                }
            }
        };
        match item {
            // A write error cannot be reported anywhere.
            Item::Line(line) => {
                let _ = out.write_all(line.as_bytes());
            }
            Item::Flush(done) => {
                // The process may end before this thread is idle again.
                let now = dropped.load(Ordering::Relaxed);
                if now > reported {
                    let _ = out.write_all(dropped_line(now - reported).as_bytes());
                    reported = now;
                }
                let _ = done.try_send(());
            }
        }
    }
}

fn dropped_text(count: u64) -> String {
    format!("dropped {count} log lines because standard error was not read")
}

/// Formats the report of dropped lines directly, for use when there is no time for the queue.
fn dropped_line(count: u64) -> String {
    let format = LOGGER.get().map_or(Format::Text, |logger| {
        Format::from_number(logger.format.load(Ordering::Relaxed))
    });
    let text = dropped_text(count);
    let arguments = format_args!("{text}");
    let record = Record::builder()
        .args(arguments)
        .level(Level::Warn)
        .target(module_path!())
        .build();
    format.line(jiff::Timestamp::now(), &record)
}

static LOGGER: OnceLock<Logger> = OnceLock::new();
/// The capacity of the queue, in lines.
const QUEUE: usize = 1024;
/// How long the end of the process may wait for the log.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
/// The prefix of this program's module names.
const OWN_TARGET: &str = "h_realtime";

#[cfg(test)]
mod tests {
    use super::*;

    fn logger(room: usize) -> (Logger, Receiver<Item>) {
        let (queue, lines) = sync_channel(room);
        let logger = Logger {
            queue,
            dropped: AtomicU64::new(0),
            format: AtomicU8::new(Format::Journal as u8),
        };
        (logger, lines)
    }

    fn log_line(logger: &Logger, target: &str, level: Level, text: &str) {
        let arguments = format_args!("{text}");
        let record = Record::builder()
            .args(arguments)
            .level(level)
            .target(target)
            .build();
        logger.log(&record);
    }

    // M10
    #[test]
    fn lines_beyond_the_queue_are_dropped_and_counted() {
        log::set_max_level(LevelFilter::Trace);
        let (logger, lines) = logger(2);
        for number in 0..5 {
            log_line(&logger, OWN_TARGET, Level::Info, &number.to_string());
        }
        assert_eq!(logger.dropped.load(Ordering::Relaxed), 3);
        drop(logger.queue);
        let mut out = Vec::new();
        write_lines(&lines, &logger.dropped, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "<6>0\n<6>1\n");
    }

    #[test]
    fn dropped_lines_are_reported_before_the_process_ends() {
        log::set_max_level(LevelFilter::Trace);
        let (logger, lines) = logger(2);
        log_line(&logger, OWN_TARGET, Level::Error, "0");
        let (done, is_done) = sync_channel(1);
        logger.queue.try_send(Item::Flush(done)).unwrap();
        for _ in 0..3 {
            log_line(&logger, OWN_TARGET, Level::Error, "no room");
        }
        let dropped = AtomicU64::new(logger.dropped.load(Ordering::Relaxed));
        assert_eq!(dropped.load(Ordering::Relaxed), 3);
        drop(logger.queue);
        let mut out = Vec::new();
        write_lines(&lines, &dropped, &mut out);
        is_done.try_recv().unwrap();
        let out = String::from_utf8(out).unwrap();
        assert!(out.contains("dropped 3 log lines"), "{out}");
    }

    // CVE-2026-33247
    #[test]
    fn libraries_are_limited_to_info() {
        log::set_max_level(LevelFilter::Trace);
        let (logger, lines) = logger(9);
        log_line(&logger, "tungstenite::protocol", Level::Debug, "token");
        log_line(&logger, "tungstenite::protocol", Level::Info, "1");
        log_line(&logger, "h_realtime::net", Level::Trace, "2");
        let logged = lines
            .try_iter()
            .filter(|item| matches!(item, Item::Line(_)));
        assert_eq!(logged.count(), 2);
    }
}
