//! The limit on open files.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, and says what it is then. The soft limit's usual
/// 1,024 is for programs that use `select`.
pub(super) fn raise_limit() -> u64 {
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

/// Descriptors for what is no connection: listeners, the database, standard streams, and room
/// for those who are let in only to be told that there is none.
pub(super) const RESERVED: usize = 64;
/// Linux's default `fs.nr_open`, which no process exceeds.
const UNLIMITED: u64 = 1 << 20;
