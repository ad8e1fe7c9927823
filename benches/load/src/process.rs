//! Resource usage of a process, read from /proc.

use std::fs;
use std::ops::Sub;

use rustix::time::{ClockId, clock_gettime};

use crate::Result;

/// A monitored process.
#[derive(Clone, Copy)]
pub struct Process {
    pub pid: u32,
}

/// CPU time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cpu {
    /// The total in nanoseconds: the scheduler's exact count, or, on kernels without it, the sum of
    /// the samples below.
    pub total: f64,
    /// The part in user mode. The kernel only samples it at each tick: over seconds it is accurate
    /// to a few percent of the total.
    pub user: f64,
    pub system: f64,
}

impl Process {
    /// # Errors
    ///
    /// Returns an error if the process has ended.
    pub fn cpu(self) -> Result<Cpu> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        // The second field is a name in parentheses, which may contain spaces.
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

    /// The scheduler's count over all threads, in nanoseconds. `None` on kernels without
    /// CONFIG_SCHED_INFO.
    fn scheduled(self) -> Option<f64> {
        self.schedstat(0)
    }

    /// Nanoseconds for which its threads were runnable without getting a CPU.
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

    /// Resident memory in bytes, exact to a page. On kernels without CONFIG_PROC_PAGE_MONITOR, the
    /// kernel's counter, which can lag by dozens of pages per CPU.
    ///
    /// # Errors
    ///
    /// Returns an error if the process has ended.
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

    /// Returns the usage in between, with the exact total split according to the samples.
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

/// Returns the CPU time of this process, in seconds.
pub fn own_cpu() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// Nanoseconds in a tick of `/proc/PID/stat`: a hundred per second on every Linux.
const TICK: f64 = 1e7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_usage_is_measured() {
        let process = Process {
            pid: std::process::id(),
        };
        // At least one tick, for kernels without a finer count.
        while own_cpu() < 0.05 {
            std::hint::black_box(0);
        }
        assert!(process.cpu().unwrap().total > 0.0);
        assert!(process.resident().unwrap() > 100_000.0);
        assert!(own_cpu() > 0.0);
    }

    #[test]
    fn split_adds_up_to_exact_total() {
        let cpu = |total, user, system| Cpu {
            total,
            user,
            system,
        };
        let used = cpu(1000.0, 30.0, 10.0) - cpu(200.0, 10.0, 10.0);
        assert_eq!((used.total, used.user, used.system), (800.0, 800.0, 0.0));
    }
}
