//! Statistics about this process from the operating system. Some are available only on Linux.
//!
//! The reactor calls these functions, so none may take long. In particular, none may inspect each
//! of a hundred thousand descriptors.

use std::cell::Cell;
use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::model::unix_now;

/// Reads process statistics from the system.
pub(super) struct ProcessStats {
    /// Milliseconds since the Unix epoch.
    started: u64,
    /// The number of open files that are not connections, once counted.
    others: Cell<Option<u64>>,
}

/// Memory use, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub total: u64,
    pub resident: u64,
}

impl ProcessStats {
    /// Returns the statistics of a process that starts now.
    pub(super) fn start() -> Self {
        ProcessStats {
            started: unix_now(),
            others: Cell::new(None),
        }
    }

    /// Returns the start time, in seconds since the Unix epoch.
    pub(super) fn started(&self) -> f64 {
        self.started as f64 / 1e3
    }

    /// Returns the processor time of all threads, in seconds.
    pub(super) fn cpu_seconds(&self) -> f64 {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    }

    pub(super) fn memory(&self) -> Option<Memory> {
        let text = fs::read_to_string("/proc/self/statm").ok()?;
        let page = rustix::param::page_size() as u64;
        let mut pages = text
            .split(' ')
            .map_while(|number| number.parse::<u64>().ok());
        Some(Memory {
            total: pages.next()? * page,
            resident: pages.next()? * page,
        })
    }

    /// Returns the number of open files, including the given number of connections.
    pub(super) fn open_files(&self, connections: u64) -> Option<u64> {
        // Since Linux 6.2, the size of the directory is the number of files.
        match fs::metadata(FILES).ok()?.len() {
            0 => self.count_files(connections),
            number => Some(number),
        }
    }

    /// Counts the files once. After that the number is derived from the connections, since few
    /// other files change.
    fn count_files(&self, connections: u64) -> Option<u64> {
        if self.others.get().is_none() {
            // One of the entries is the directory itself.
            let all = fs::read_dir(FILES).ok()?.count() as u64 - 1;
            self.others.set(Some(all.saturating_sub(connections)));
        }
        self.others.get().map(|others| others + connections)
    }

    /// Returns the limit on open files. `None` means unlimited.
    pub(super) fn max_files(&self) -> Option<u64> {
        getrlimit(Resource::Nofile).current
    }
}

const FILES: &str = "/proc/self/fd";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_process_statistics_are_available() {
        let figures = ProcessStats::start();
        assert!(figures.started() > 1.6e9 && figures.cpu_seconds() > 0.0);
        let memory = figures.memory().unwrap();
        assert!(memory.total >= memory.resident && memory.resident > 100_000);
        assert!(figures.max_files().is_none_or(|max| max >= 3));
        // Other tests open and close files concurrently.
        let counted = figures.count_files(2).unwrap();
        assert!(counted >= 3 && figures.open_files(2).unwrap() >= 3);
        assert_eq!(figures.count_files(12), Some(counted + 10));
    }
}
