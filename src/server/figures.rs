//! What the system says of this process. Linux; elsewhere some of it is not known.
//!
//! The reactor asks, so nothing here may take long: least of all to look at each of a hundred
//! thousand descriptors.

use std::cell::Cell;
use std::fs;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::clock::unix_now;

/// Asks the system about this process.
pub(super) struct Figures {
    /// Milliseconds since the Unix epoch.
    started: u64,
    /// Open files that are no connections, once they have been counted.
    others: Cell<Option<u64>>,
}

/// Memory, in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub total: u64,
    pub resident: u64,
}

impl Figures {
    /// Those of a process that starts now.
    pub fn start() -> Self {
        Figures {
            started: unix_now(),
            others: Cell::new(None),
        }
    }

    /// When it was started, in seconds since the Unix epoch.
    pub fn started(&self) -> f64 {
        self.started as f64 / 1e3
    }

    /// Processor time of all threads, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let time = clock_gettime(ClockId::ProcessCPUTime);
        time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
    }

    pub fn memory(&self) -> Option<Memory> {
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

    /// Open files, of which so many are connections.
    pub fn open_files(&self, connections: u64) -> Option<u64> {
        // Linux 6.2 and later tell their number as the folder's size.
        match fs::metadata(FILES).ok()?.len() {
            0 => self.count_files(connections),
            number => Some(number),
        }
    }

    /// Counts the files once. From then on only the connections change, but for a few.
    fn count_files(&self, connections: u64) -> Option<u64> {
        if self.others.get().is_none() {
            // One is the folder itself.
            let all = fs::read_dir(FILES).ok()?.count() as u64 - 1;
            self.others.set(Some(all.saturating_sub(connections)));
        }
        self.others.get().map(|others| others + connections)
    }

    /// `None` is no limit.
    pub fn max_files(&self) -> Option<u64> {
        getrlimit(Resource::Nofile).current
    }
}

const FILES: &str = "/proc/self/fd";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_knows_all_of_it() {
        let figures = Figures::start();
        assert!(figures.started() > 1.6e9 && figures.cpu_seconds() > 0.0);
        let memory = figures.memory().unwrap();
        assert!(memory.total >= memory.resident && memory.resident > 100_000);
        assert!(figures.max_files().is_none_or(|max| max >= 3));
        // Other tests open and close files meanwhile.
        let counted = figures.count_files(2).unwrap();
        assert!(counted >= 3 && figures.open_files(2).unwrap() >= 3);
        assert_eq!(figures.count_files(12), Some(counted + 10));
    }
}
