//! Checks the write-ahead log for commits that SQLite would skip.
//!
//! SQLite takes the first invalid frame for the end of the log, since a crash leaves an incomplete
//! transaction there. If a commit follows it, the frame was damaged later, and events would be
//! missing. The format is described in <https://www.sqlite.org/fileformat2.html#walformat>.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

/// Returns whether a log has a commit after the frames that SQLite reads. Must be called before SQLite
/// opens the log, which then may be overwritten.
pub(super) fn has_skipped_commit(path: &Path) -> io::Result<bool> {
    // Another process may restart the log while it is being read.
    for _ in 0..ATTEMPTS {
        match File::open(path).and_then(|log| skips_commit(BufReader::new(log))) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

fn skips_commit(mut log: impl Read) -> io::Result<bool> {
    let mut start = [0; HEADER + FRAME + 1];
    if !fill(&mut log, &mut start)? {
        return Ok(false);
    }
    let (header, first) = start.split_at(HEADER);
    let (Some(magic), Some(page)) = (word(header, 0), word(header, 8)) else {
        return Ok(true);
    };
    let is_little_endian = match magic {
        MAGIC => true,
        _ if magic == MAGIC | 1 => false,
        _ => return Ok(true),
    };
    let mut sum = Checksum {
        is_little_endian,
        state: (0, 0),
    };
    sum.add(&header[..24]);
    let page = usize::try_from(page).unwrap_or(usize::MAX);
    if !sum.equals(header, 24) || !(512..=65_536).contains(&page) {
        return Ok(true);
    }
    let salts = &header[16..24];
    let mut is_valid = true;
    let mut frames = first.chain(log);
    let mut frame = vec![0; FRAME + page];
    while fill(&mut frames, &mut frame)? {
        let is_of_this_log = &frame[8..16] == salts;
        sum.add(&frame[..8]);
        sum.add(&frame[FRAME..]);
        is_valid &= is_of_this_log && sum.equals(&frame, 16);
        let is_commit = word(&frame, 4) != Some(0);
        if !is_valid && is_of_this_log && is_commit {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Fills the buffer. Returns false if the input ends before.
fn fill(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match input.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

/// The cumulative checksum of a log.
struct Checksum {
    is_little_endian: bool,
    state: (u32, u32),
}

impl Checksum {
    fn add(&mut self, bytes: &[u8]) {
        let (mut first, mut second) = self.state;
        for pair in bytes.chunks_exact(8) {
            let [one, next] = [0, 4].map(|at| {
                let word = word(pair, at).unwrap_or_default();
                match self.is_little_endian {
                    true => word.swap_bytes(),
                    false => word,
                }
            });
            first = first.wrapping_add(one).wrapping_add(second);
            second = second.wrapping_add(next).wrapping_add(first);
        }
        self.state = (first, second);
    }

    fn equals(&self, bytes: &[u8], at: usize) -> bool {
        (word(bytes, at), word(bytes, at + 4)) == (Some(self.state.0), Some(self.state.1))
    }
}

/// Returns the big-endian number at an offset.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*bytes))
}

/// The number of reads, all of which must show the damage.
const ATTEMPTS: usize = 3;
/// The lengths of the header of the log and of that of a frame, in bytes.
const HEADER: usize = 32;
const FRAME: usize = 24;
/// The magic number of a log with little-endian checksums; that of one with big-endian checksums is
/// greater by one.
const MAGIC: u32 = 0x377f_0682;

#[cfg(test)]
mod tests {
    use std::fs;

    use rusqlite::Connection;

    use super::*;

    /// Returns the log of a database with a few commits.
    fn log() -> Vec<u8> {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("db");
        let db = Connection::open(&path).unwrap();
        db.pragma_update(None, "journal_mode", "WAL").unwrap();
        db.execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1); INSERT INTO t VALUES (2)")
            .unwrap();
        fs::read(temp.path().join("db-wal")).unwrap()
    }

    #[test]
    fn log_of_sqlite_skips_no_commit() {
        let log = log();
        assert!(log.len() > HEADER + 3 * 4096);
        assert!(!skips_commit(&*log).unwrap());
        // A crash truncates it.
        for len in (0..log.len()).step_by(509) {
            assert!(!skips_commit(&log[..len]).unwrap(), "{len}");
        }
    }

    #[test]
    fn damage_before_a_commit_is_detected() {
        let log = log();
        let last = log.len() - 4096 - FRAME;
        for at in (0..last).step_by(307) {
            let mut damaged = log.clone();
            damaged[at] ^= 0x10;
            assert!(skips_commit(&*damaged).unwrap(), "{at}");
        }
    }

    #[test]
    fn frames_of_an_earlier_log_are_ignored() {
        let mut log = log();
        let last = log.len() - 4096 - FRAME;
        // The salts of the last frame.
        log[last + 8] ^= 1;
        assert!(!skips_commit(&*log).unwrap());
    }
}
