//! The limit on open files, which bounds the number of connections.

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

/// Descriptors other than connections: listeners, a database, standard streams, and connections
/// over the limit that are accepted to be answered with 503.
const OTHERS: usize = 48;
const LEAST_RESERVED: usize = 16;
/// Linux's default for `fs.nr_open`, which no process limit exceeds.
const UNLIMITED: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

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
