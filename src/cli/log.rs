//! The log: lines on standard error, written by a thread of their own.
//!
//! Owns: how lines look, and those that wait to be written. Whoever logs is never held up: a
//! pipe that nobody reads, or a terminal that was stopped, must not stop the reactor. Lines that
//! find too many others waiting are dropped, and the log itself says how many.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use env_logger::{Builder, Env, Target, WriteStyle};
use log::LevelFilter;

/// The log of this process. What waits is written before it is dropped, if that is soon.
pub struct Log(Arc<Waiting>);

/// The lines that are not written yet.
#[derive(Default)]
struct Waiting {
    bytes: AtomicUsize,
    dropped: AtomicUsize,
}

/// Where lines are put.
struct Lines {
    to_writer: Sender<Vec<u8>>,
    waiting: Arc<Waiting>,
}

/// Starts the log. `RUST_LOG` sets what is shown, but cannot make the client libraries show the
/// requests they send, which hold tokens.
pub fn start() -> Log {
    let mut builder = Builder::from_env(Env::default().default_filter_or("info"));
    for client in ["tungstenite", "ureq", "ureq_proto", "rustls"] {
        builder.filter_module(client, LevelFilter::Info);
    }
    let log = Log(Arc::default());
    // Without a thread the lines are written by those who log.
    if let Ok(lines) = Lines::to_standard_error(&log.0) {
        builder.target(Target::Pipe(Box::new(lines)));
        let is_set = |name| std::env::var_os(name).is_some();
        if io::stderr().is_terminal() && !is_set("NO_COLOR") && !is_set("RUST_LOG_STYLE") {
            builder.write_style(WriteStyle::Always);
        }
    }
    builder.init();
    log
}

impl Lines {
    fn to_standard_error(waiting: &Arc<Waiting>) -> io::Result<Self> {
        // Not the standard library's handle, whose lock would be held while a line is stuck.
        let out = File::from(io::stderr().as_fd().try_clone_to_owned()?);
        Lines::to(out, waiting)
    }

    fn to(out: impl Write + Send + 'static, waiting: &Arc<Waiting>) -> io::Result<Self> {
        let (to_writer, lines) = channel();
        let lines_waiting = Arc::clone(waiting);
        thread::Builder::new()
            .name("log".into())
            .spawn(move || write_lines(&lines, out, &lines_waiting))?;
        let waiting = Arc::clone(waiting);
        Ok(Lines { to_writer, waiting })
    }
}

/// The logger hands each line over in one piece.
impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let size = line.len() + OVERHEAD;
        let before = self.waiting.bytes.fetch_add(size, Ordering::AcqRel);
        if before + size > MOST_WAITING || self.to_writer.send(line.to_vec()).is_err() {
            self.waiting.bytes.fetch_sub(size, Ordering::AcqRel);
            self.waiting.dropped.fetch_add(1, Ordering::AcqRel);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_lines(lines: &Receiver<Vec<u8>>, mut out: impl Write, waiting: &Waiting) {
    for line in lines {
        // There is nobody to tell that nothing can be told.
        let _ = out.write_all(&line);
        let dropped = waiting.dropped.swap(0, Ordering::AcqRel);
        if dropped > 0 {
            let _ = writeln!(
                out,
                "[{dropped} lines were dropped: nobody read them in time]"
            );
        }
        let size = line.len() + OVERHEAD;
        waiting.bytes.fetch_sub(size, Ordering::AcqRel);
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let end = Instant::now() + PATIENCE;
        while self.0.bytes.load(Ordering::Acquire) > 0 && Instant::now() < end {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Bytes that may wait: some thousands of lines.
const MOST_WAITING: usize = 256 * 1024;
/// What a line takes beside its own bytes.
const OVERHEAD: usize = 64;
/// How long the end of the program waits for its last lines.
const PATIENCE: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::sync_channel;

    use super::*;

    /// Takes what it is given when it is told to, and hands it on.
    struct Stuck {
        go: Receiver<()>,
        out: Sender<Vec<u8>>,
    }

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.go.recv().map_err(io::Error::other)?;
            self.out.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    // M10
    #[test]
    fn what_nobody_reads_is_dropped_and_that_is_told() {
        let (may_go, go) = sync_channel(1_000_000);
        let (out, written) = channel();
        let waiting = Arc::default();
        let mut lines = Lines::to(Stuck { go, out }, &waiting).unwrap();
        let line = [b'x'; 1000];
        for _ in 0..1000 {
            lines.write_all(&line).unwrap();
        }
        assert!(waiting.bytes.load(Ordering::Acquire) <= MOST_WAITING);
        let kept = MOST_WAITING / (line.len() + OVERHEAD);
        for _ in 0..=kept {
            may_go.send(()).unwrap();
        }
        let all: Vec<Vec<u8>> = written.iter().take(kept + 1).collect();
        let told = format!(
            "[{} lines were dropped: nobody read them in time]\n",
            1000 - kept
        );
        // It is told piece by piece, behind the first line.
        assert_eq!(all[0], line);
        assert!(told.as_bytes().starts_with(&all[1]));
        // Now there is room again.
        drop(Log(Arc::clone(&waiting)));
        may_go.send(()).unwrap();
        lines.write_all(b"last").unwrap();
        (0..10).for_each(|_| may_go.send(()).unwrap());
        assert!(written.iter().any(|bytes| bytes == b"last"));
    }
}
