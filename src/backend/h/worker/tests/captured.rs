//! Captures the log in tests.

use std::cell::RefCell;

use log::{LevelFilter, Log, Metadata, Record};

thread_local! {
    static LINES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Stores each thread's lines for the test that runs on it.
struct Keeper;

impl Log for Keeper {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        LINES.with_borrow_mut(|lines| lines.push(record.args().to_string()));
    }

    fn flush(&self) {}
}

/// The captured lines of this thread.
pub(super) struct Lines(());

/// Starts to capture this thread's lines.
pub(super) fn capture() -> Lines {
    // Another test may have installed the logger already.
    let _ = log::set_logger(&Keeper);
    log::set_max_level(LevelFilter::Trace);
    LINES.take();
    Lines(())
}

impl Lines {
    /// Returns the number of lines with `text`.
    pub(super) fn count(&self, text: &str) -> usize {
        LINES.with_borrow(|lines| lines.iter().filter(|line| line.contains(text)).count())
    }

    /// Returns the number that each line with `text` reports, which precedes the word `since`.
    pub(super) fn numbers(&self, text: &str) -> Vec<u64> {
        LINES.with_borrow(|lines| {
            let about = lines.iter().filter(|line| line.contains(text));
            let number = |line: &String| {
                let (before, _) = line.split_once(" since the last").unwrap();
                before.rsplit(' ').next().unwrap().parse().unwrap()
            };
            about.map(number).collect()
        })
    }
}
