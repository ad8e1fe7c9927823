//! A command that runs beside the test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// A running command whose lines are read as they come; it is killed when the test ends.
pub struct Program {
    pub child: Child,
    out: Receiver<String>,
    words: Receiver<String>,
}

impl Program {
    /// Starts it, with nothing to read.
    pub fn start(command: &mut Command) -> Program {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = lines(child.stdout.take().unwrap());
        let words = lines(child.stderr.take().unwrap());
        Program { child, out, words }
    }

    /// The next line of standard output; `None` at its end.
    pub fn line(&self) -> Option<String> {
        next(&self.out)
    }

    /// The next line of standard error; `None` at its end.
    pub fn word(&self) -> Option<String> {
        next(&self.words)
    }

    /// The next line of standard error, which may take so long to come: the error says whether
    /// it took longer or was the end.
    pub fn word_within(&self, patience: Duration) -> Result<String, RecvTimeoutError> {
        self.words.recv_timeout(patience)
    }

    /// The next line of standard error that has this in it.
    pub fn said(&self, part: &str) -> String {
        let mut others = Vec::new();
        while let Some(line) = self.word() {
            if line.contains(part) {
                return line;
            }
            others.push(line);
        }
        panic!("{part:?} was not said: {others:?}");
    }

    /// Waits for it to end; its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        eventually(PATIENCE, || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}

fn next(lines: &Receiver<String>) -> Option<String> {
    match lines.recv_timeout(PATIENCE) {
        Ok(line) => Some(line),
        Err(RecvTimeoutError::Disconnected) => None,
        Err(RecvTimeoutError::Timeout) => panic!("no line came"),
    }
}

/// Tries until there is something, but no longer than this.
pub fn eventually<T>(within: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(Instant::now() < end, "it did not happen within {within:?}");
        thread::sleep(Duration::from_millis(5));
    }
}
