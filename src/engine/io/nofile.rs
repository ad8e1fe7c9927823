//! The limit on open files, which bounds the number of connections, and the table of descriptors.

use std::os::fd::RawFd;
use std::os::unix::net::UnixDatagram;

use rustix::io::fcntl_dupfd_cloexec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::RESERVED_CONNECTIONS;

/// Raises the soft limit on open files to the hard limit, and returns the resulting limit. The
/// usual soft limit of 1,024 only protects programs that use `select`.
pub fn raise_open_files() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.unwrap_or(UNLIMITED);
    if limit.current.unwrap_or(UNLIMITED) >= wanted {
        return wanted;
    }
    let raised = Rlimit {
        current: Some(wanted),
        maximum: limit.maximum,
    };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => wanted,
        Err(error) => {
            log::warn!("the limit on open files cannot be raised: {error}");
            limit.current.unwrap_or(UNLIMITED)
        }
    }
}

/// Returns the maximum number of connections for a limit on open files, at least 1.
pub fn most_connections(open_files: u64) -> usize {
    usize::try_from(open_files)
        .unwrap_or(usize::MAX)
        .saturating_sub(OTHERS + reserved_connections(open_files))
        .max(1)
}

/// Returns the connection limit of the reserved listener for a limit on open files: an eighth of
/// it, from 16 to [`RESERVED_CONNECTIONS`].
pub fn reserved_connections(open_files: u64) -> usize {
    let eighth = usize::try_from(open_files / 8).unwrap_or(usize::MAX);
    eighth.clamp(LEAST_RESERVED, RESERVED_CONNECTIONS)
}

/// Enlarges the kernel's table of this process's descriptors for this number of connections, up to
/// [`TABLE`]. Otherwise, the kernel doubles it each time that it is full, and in a process with
/// several threads, the `accept` that causes it waits for 10 to 25 ms.
pub(crate) fn reserve_descriptors(connections: usize) {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let wanted = connections.saturating_add(OTHERS).min(limit).min(TABLE);
    let highest = RawFd::try_from(wanted.saturating_sub(1)).unwrap_or(0);
    // The table grows with the highest number in use, and never shrinks. If this fails, it grows
    // later, as described.
    if let Ok(any) = UnixDatagram::unbound() {
        drop(fcntl_dupfd_cloexec(&any, highest));
    }
}

/// The maximum number of descriptors for which the table is allocated in advance: 1 MiB of the
/// kernel's memory.
const TABLE: usize = 1 << 17;
/// Descriptors other than connections: listeners, a database, standard streams, and connections
/// over the limit that are accepted to be answered with 503.
const OTHERS: usize = 48;
const LEAST_RESERVED: usize = 16;
/// Linux's default for `fs.nr_open`, which no process limit exceeds.
const UNLIMITED: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    // A4: a doubling of the table keeps all clients waiting.
    #[cfg(target_os = "linux")]
    #[test]
    fn descriptor_table_is_allocated_in_advance() {
        let limit = usize::try_from(raise_open_files()).unwrap();
        reserve_descriptors(3000);
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let size = status.lines().find_map(|line| line.strip_prefix("FDSize:"));
        let size: usize = size.unwrap().trim().parse().unwrap();
        assert!(size >= limit.min(3000 + OTHERS), "{size}");
        // Numbers beyond any limit are no error.
        reserve_descriptors(usize::MAX);
    }

    #[test]
    fn soft_limit_on_open_files_is_raised_to_the_hard_limit() {
        let limit = getrlimit(Resource::Nofile);
        let wanted = limit.maximum.unwrap_or(UNLIMITED);
        let lower = Rlimit {
            current: Some(wanted - 1),
            maximum: limit.maximum,
        };
        setrlimit(Resource::Nofile, lower).unwrap();
        for _ in 0..2 {
            assert_eq!(raise_open_files(), wanted);
            assert_eq!(getrlimit(Resource::Nofile).current, Some(wanted));
        }
    }

    #[test]
    fn reserved_connections_scale_with_the_open_file_limit() {
        for (open_files, reserved, others) in [
            (0, 16, 1),
            (65, 16, 1),
            (100, 16, 36),
            (256, 32, 176),
            (1024, 128, 848),
            (2048, 256, 1744),
            (1 << 20, 256, (1 << 20) - 304),
        ] {
            assert_eq!(reserved_connections(open_files), reserved, "{open_files}");
            assert_eq!(most_connections(open_files), others, "{open_files}");
        }
    }
}
