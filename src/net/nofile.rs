//! The limit on open files, which is the limit on connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the process's soft limit on open files to the hard one, and says what it is then.
/// The soft limit's usual 1,024 is for programs that use `select`.
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

/// The most connections that go with a limit on open files, at least 1.
pub fn most_connections(open_files: u64) -> usize {
    usize::try_from(open_files)
        .unwrap_or(usize::MAX)
        .saturating_sub(RESERVED)
        .max(1)
}

/// Descriptors for what is no connection: listeners, a database, standard streams, and room
/// for those who are let in only to be told that there is none.
const RESERVED: usize = 64;
/// Linux's default `fs.nr_open`, which no process exceeds.
const UNLIMITED: u64 = 1 << 20;
