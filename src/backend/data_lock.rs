//! The lock on a data directory, held by one server or shared by several that share their ports.
//!
//! It is a `flock(2)` lock on the directory itself. The kernel releases it whenever the process
//! ends, and it needs no file: it works on a full disk and leaves nothing behind.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The kind of lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockMode {
    /// For this process only.
    Exclusive,
    /// Shared by all processes that request this kind.
    Shared,
}

/// A lock on a directory. Dropping it releases it.
#[derive(Debug)]
pub struct DirLock {
    _directory: File,
    /// Whether no other process held a lock on the directory.
    pub is_sole_holder: bool,
}

/// The result of an attempt to lock a directory.
#[derive(Debug)]
pub enum LockAttempt {
    /// The directory is locked.
    Locked(DirLock),
    /// Another process holds a conflicting lock. Contains its id, if known.
    Held(Option<u32>),
    /// The file system does not support these locks.
    Unsupported(io::Error),
}

impl DirLock {
    /// Tries to lock a directory without waiting.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn attempt(path: &Path, sharing: LockMode) -> io::Result<LockAttempt> {
        let directory = File::open(path)?;
        let is_sole_holder = match directory.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => return Ok(LockAttempt::Unsupported(error)),
        };
        let locked = match sharing {
            LockMode::Exclusive => is_sole_holder,
            LockMode::Shared => match directory.try_lock_shared() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(error)) => return Ok(LockAttempt::Unsupported(error)),
            },
        };
        Ok(match locked {
            true => LockAttempt::Locked(DirLock {
                _directory: directory,
                is_sole_holder,
            }),
            false => LockAttempt::Held(holder(path)),
        })
    }
}

/// Returns the id of a process that holds a lock on a directory. Processes in other namespaces have
/// none.
fn holder(path: &Path) -> Option<u32> {
    let metadata = fs::metadata(path).ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    holder_of(metadata.ino(), &locks)
}

/// Finds the process in a line of `/proc/locks` such as `1: FLOCK  ADVISORY  WRITE 2384
/// fd:01:1441794 0 EOF`. Only the inode is compared: on some file systems the device differs from
/// that in `stat(2)`.
fn holder_of(inode: u64, locks: &str) -> Option<u32> {
    let inode = inode.to_string();
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        if words.next() != Some("FLOCK") {
            return None;
        }
        let pid = words.nth(2)?;
        let file = words.next()?;
        let is_same_inode = file.rsplit(':').next() == Some(&inode);
        is_same_inode
            .then(|| pid.parse().ok())
            .flatten()
            .filter(|pid| *pid > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(path: &Path, sharing: LockMode) -> LockAttempt {
        DirLock::attempt(path, sharing).unwrap()
    }

    #[test]
    fn exclusive_lock_has_one_holder_and_is_released_on_drop() {
        let temp = tempfile::tempdir().unwrap();
        let LockAttempt::Locked(lock) = attempt(temp.path(), LockMode::Exclusive) else {
            panic!("not locked");
        };
        assert!(lock.is_sole_holder);
        for sharing in [LockMode::Exclusive, LockMode::Shared] {
            let LockAttempt::Held(pid) = attempt(temp.path(), sharing) else {
                panic!("locked twice");
            };
            assert!(pid.is_none_or(|pid| pid == std::process::id()), "{pid:?}");
        }
        drop(lock);
        let again = attempt(temp.path(), LockMode::Exclusive);
        assert!(matches!(again, LockAttempt::Locked(_)));
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn shared_locks_exclude_only_exclusive_locks() {
        let temp = tempfile::tempdir().unwrap();
        let LockAttempt::Locked(first) = attempt(temp.path(), LockMode::Shared) else {
            panic!("not locked");
        };
        let LockAttempt::Locked(second) = attempt(temp.path(), LockMode::Shared) else {
            panic!("not locked");
        };
        assert_eq!((first.is_sole_holder, second.is_sole_holder), (true, false));
        let exclusive = attempt(temp.path(), LockMode::Exclusive);
        assert!(matches!(exclusive, LockAttempt::Held(_)));
        drop((first, second));
        let exclusive = attempt(temp.path(), LockMode::Exclusive);
        assert!(matches!(exclusive, LockAttempt::Locked(_)));
    }

    #[test]
    fn lock_holder_is_found_by_inode() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fd:01:77 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 12 fd:01:177 0 EOF\n\
                     3: FLOCK  ADVISORY  WRITE 13 fd:01:77 0 EOF\n\
                     3: -> FLOCK  ADVISORY  WRITE 14 fd:01:77 0 EOF\n\
                     4: FLOCK  ADVISORY  READ -1 00:2a:78 0 EOF\n";
        assert_eq!(holder_of(77, locks), Some(13));
        assert_eq!(holder_of(78, locks), None);
        assert_eq!(holder_of(79, locks), None);
    }
}
