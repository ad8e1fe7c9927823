//! The lock on a data directory, which one server holds, or several that share their ports.
//!
//! It is a lock of `flock(2)` on the directory itself. The kernel releases it when the process
//! ends, however that comes about, and no file is needed: it works on a full disk, and leaves
//! nothing behind.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// How a directory is to be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// For this process alone.
    Exclusive,
    /// For all processes that ask for this.
    Shared,
}

/// A lock on a directory. Dropping it releases it.
#[derive(Debug)]
pub struct DirLock {
    _directory: File,
    /// Whether no other process had locked the directory.
    pub was_alone: bool,
}

/// The result of trying to lock a directory.
#[derive(Debug)]
pub enum Locking {
    /// It is locked.
    Locked(DirLock),
    /// Another process has locked it, and its id, if the system says.
    Held(Option<u32>),
    /// The file system has no such locks.
    Unsupported(io::Error),
}

impl DirLock {
    /// Tries to lock a directory, without waiting.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn attempt(path: &Path, sharing: Sharing) -> io::Result<Locking> {
        let directory = File::open(path)?;
        let was_alone = match directory.try_lock() {
            Ok(()) => true,
            Err(TryLockError::WouldBlock) => false,
            Err(TryLockError::Error(error)) => return Ok(Locking::Unsupported(error)),
        };
        let locked = match sharing {
            Sharing::Exclusive => was_alone,
            Sharing::Shared => match directory.try_lock_shared() {
                Ok(()) => true,
                Err(TryLockError::WouldBlock) => false,
                Err(TryLockError::Error(error)) => return Ok(Locking::Unsupported(error)),
            },
        };
        Ok(match locked {
            true => Locking::Locked(DirLock {
                _directory: directory,
                was_alone,
            }),
            false => Locking::Held(holder(path)),
        })
    }
}

/// The id of a process that holds a lock on a directory. Other namespaces' processes have none.
fn holder(path: &Path) -> Option<u32> {
    let metadata = fs::metadata(path).ok()?;
    let locks = fs::read_to_string("/proc/locks").ok()?;
    holder_of(metadata.ino(), &locks)
}

/// The process in a line of `/proc/locks`, as in
/// `1: FLOCK  ADVISORY  WRITE 2384 fd:01:1441794 0 EOF`. The device is left out: some file systems
/// have another one there than in `stat(2)`.
fn holder_of(inode: u64, locks: &str) -> Option<u32> {
    let inode = inode.to_string();
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        if words.next() != Some("FLOCK") {
            return None;
        }
        let pid = words.nth(2)?;
        let file = words.next()?;
        let is_it = file.rsplit(':').next() == Some(&inode);
        is_it
            .then(|| pid.parse().ok())
            .flatten()
            .filter(|pid| *pid > 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(path: &Path, sharing: Sharing) -> Locking {
        DirLock::attempt(path, sharing).unwrap()
    }

    #[test]
    fn an_exclusive_lock_is_held_by_one_and_released_when_dropped() {
        let temp = tempfile::tempdir().unwrap();
        let Locking::Locked(lock) = attempt(temp.path(), Sharing::Exclusive) else {
            panic!("not locked");
        };
        assert!(lock.was_alone);
        for sharing in [Sharing::Exclusive, Sharing::Shared] {
            let Locking::Held(pid) = attempt(temp.path(), sharing) else {
                panic!("locked twice");
            };
            assert!(pid.is_none_or(|pid| pid == std::process::id()), "{pid:?}");
        }
        drop(lock);
        let again = attempt(temp.path(), Sharing::Exclusive);
        assert!(matches!(again, Locking::Locked(_)));
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn shared_locks_exclude_only_exclusive_ones() {
        let temp = tempfile::tempdir().unwrap();
        let Locking::Locked(first) = attempt(temp.path(), Sharing::Shared) else {
            panic!("not locked");
        };
        let Locking::Locked(second) = attempt(temp.path(), Sharing::Shared) else {
            panic!("not locked");
        };
        assert_eq!((first.was_alone, second.was_alone), (true, false));
        let exclusive = attempt(temp.path(), Sharing::Exclusive);
        assert!(matches!(exclusive, Locking::Held(_)));
        drop((first, second));
        let exclusive = attempt(temp.path(), Sharing::Exclusive);
        assert!(matches!(exclusive, Locking::Locked(_)));
    }

    #[test]
    fn the_holder_is_found_by_its_inode() {
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
