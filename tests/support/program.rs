//! A command that runs during the test.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::PATIENCE;

/// A running command whose output is read line by line; killed on drop.
pub struct Program {
    pub child: Child,
    out: Receiver<String>,
    errors: Receiver<String>,
}

impl Program {
    /// Starts it without input.
    pub fn start(command: &mut Command) -> Program {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let out = lines(child.stdout.take().unwrap());
        let errors = lines(child.stderr.take().unwrap());
        Program { child, out, errors }
    }

    /// Returns the next line of standard output, or `None` at its end.
    pub fn line(&self) -> Option<String> {
        next(&self.out)
    }

    /// Returns the next line of standard error, or `None` at its end.
    pub fn error_line(&self) -> Option<String> {
        next(&self.errors)
    }

    /// Returns the next line of standard error within `patience`. The error distinguishes a timeout
    /// from the end of the output.
    pub fn error_line_within(&self, patience: Duration) -> Result<String, RecvTimeoutError> {
        self.errors.recv_timeout(patience)
    }

    /// Returns the next line of standard error that contains `part`.
    pub fn wait_for_error_line(&self, part: &str) -> String {
        let mut others = Vec::new();
        while let Some(line) = self.error_line() {
            if line.contains(part) {
                return line;
            }
            others.push(line);
        }
        panic!("no line contains {part:?}: {others:?}");
    }

    /// Waits for the process to exit and returns its exit code.
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
        Err(RecvTimeoutError::Timeout) => panic!("timed out waiting for a line"),
    }
}

/// Calls `attempt` until it returns a value, for at most `within`.
pub fn eventually<T>(within: Duration, mut attempt: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + within;
    loop {
        if let Some(result) = attempt() {
            return result;
        }
        assert!(
            Instant::now() < end,
            "the condition was not met within {within:?}"
        );
        thread::sleep(Duration::from_millis(5));
    }
}
