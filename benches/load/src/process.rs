//! What a process has used, as /proc tells.

use std::fs;
use std::ops::Sub;

use rustix::time::{ClockId, clock_gettime};

use crate::Result;

/// A process that is watched.
#[derive(Clone, Copy)]
pub struct Process {
    pub pid: u32,
}

/// Processor time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// All of it, in nanoseconds: what the scheduler has counted, exact; where the kernel keeps
    /// no such count, the sum of the samples below.
    pub total: f64,
    /// Of it in user mode. The kernel only samples this, at each tick: over seconds it is good
    /// to a few percent of the total.
    pub user: f64,
    pub system: f64,
}

impl Process {
    /// # Errors
    ///
    /// If the process is no more.
    pub fn cpu(self) -> Result<Cpu> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The second field is a name in parentheses, and may hold spaces.
        let (_, rest) = stat.rsplit_once(')').ok_or("no stat")?;
        let field = |number: usize| -> Result<f64> {
            let text = rest.split_whitespace().nth(number - 3);
            Ok(text.ok_or("stat is short")?.parse::<f64>()? * TICK)
        };
        let (user, system) = (field(14)?, field(15)?);
        Ok(Cpu {
            total: self.scheduled().unwrap_or(user + system),
            user,
            system,
        })
    }

    /// What the scheduler has counted of all its threads, in nanoseconds. A kernel without
    /// CONFIG_SCHED_INFO has no such file.
    fn scheduled(self) -> Option<f64> {
        self.schedstat(0)
    }

    /// Nanoseconds that its threads were ready to run and had no CPU, since other processes had it.
    pub fn waited(self) -> Option<f64> {
        self.schedstat(1)
    }

    fn schedstat(self, field: usize) -> Option<f64> {
        let mut total = 0.0;
        for task in fs::read_dir(format!("/proc/{}/task", self.pid)).ok()? {
            let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
            total += text.split_whitespace().nth(field)?.parse::<f64>().ok()?;
        }
        Some(total)
    }

    /// Resident memory, in bytes, exact to a page; where the kernel does not walk the pages
    /// for us (no CONFIG_PROC_PAGE_MONITOR), what it keeps count of, which can be some dozens of
    /// pages behind for each processor.
    ///
    /// # Errors
    ///
    /// If the process is no more.
    pub fn resident(self) -> Result<f64> {
        let exact = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.pid));
        let (text, name) = match exact {
            Ok(text) => (text, "Rss:"),
            Err(_) => (
                fs::read_to_string(format!("/proc/{}/status", self.pid))?,
                "VmRSS:",
            ),
        };
        let line = text.lines().find(|line| line.starts_with(name));
        let figure = line.and_then(|line| line.split_whitespace().nth(1));
        Ok(figure.ok_or("no Rss")?.parse::<f64>()? * 1024.0)
    }
}

impl Sub for Cpu {
    type Output = Cpu;

    /// What was used in between, with the exact total split as the samples say.
    fn sub(self, before: Cpu) -> Cpu {
        let total = self.total - before.total;
        let (user, system) = (self.user - before.user, self.system - before.system);
        let share = match user + system {
            sampled if sampled > 0.0 => user / sampled,
            _ => 0.0,
        };
        Cpu {
            total,
            user: total * share,
            system: total * (1.0 - share),
        }
    }
}

/// Processor time of this process, in seconds.
pub fn own_cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Nanoseconds in a tick of `/proc/PID/stat`: a hundred a second, on every Linux.
const TICK: f64 = 1e7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let process = Process {
            pid: std::process::id(),
        };
        // A tick's worth at least, for kernels where nothing finer is counted.
        while own_cpu() < 0.05 {
            std::hint::black_box(0);
        }
        assert!(process.cpu().unwrap().total > 0.0);
        assert!(process.resident().unwrap() > 100_000.0);
        assert!(own_cpu() > 0.0);
    }

    #[test]
    fn the_split_adds_up_to_the_exact_total() {
        let cpu = |total, user, system| Cpu {
            total,
            user,
            system,
        };
        let used = cpu(1000.0, 30.0, 10.0) - cpu(200.0, 10.0, 10.0);
        assert_eq!((used.total, used.user, used.system), (800.0, 800.0, 0.0));
    }
}
