//! The files of the log of clients.
//!
//! Owns: their names, locks, and replacement. Each server writes a file of its own, `clients` or
//! `clients-N`, and holds a lock on it. A server that starts takes the first unlocked one, and reads
//! all of them: those of ended servers are merged into its own and removed, those of running servers
//! are left alone.
//!
//! A file is replaced by renaming a draft over it, whose name belongs to the holder of the lock. The
//! lock is that of the file at the path: it moves to the draft with the rename.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use super::others::OtherLogs;
use super::{describe, failed};
use crate::backend::{DataDir, DataDirError, create_private, sync_directory_of};
use crate::realtime::{
    ClientLogDecoder, Cursor, Digest, LoadedClients, Remembered, encode_client_log,
};

/// The log of this server, and the state from all logs.
pub(super) struct OpenedLog {
    pub seed: [u64; 4],
    pub clients: Vec<(Digest, Cursor)>,
    pub file: OwnFile,
    /// The length of the log. `None` if it could not be written.
    pub length: Option<u64>,
    /// The logs of other servers, if there may be any.
    pub others: Option<OtherLogs>,
}

/// The file that this server writes.
pub(super) struct OwnFile {
    path: PathBuf,
    /// Locked.
    file: File,
}

/// The file of another server.
struct OtherFile {
    path: PathBuf,
    file: File,
    /// Its server has ended, so the file is locked now.
    has_ended: bool,
}

/// Takes a file, reads all files, and writes the result to the file. `is_shared` states that other
/// servers may use the directory at the same time.
///
/// # Errors
/// No file can be created or locked.
pub(super) fn open(
    data: &DataDir,
    limit: usize,
    new_seed: [u64; 4],
    is_shared: bool,
) -> Result<OpenedLog, DataDirError> {
    let (own_number, mut file) = take(data)?;
    let mut logs = Vec::new();
    let mut ended = Vec::new();
    let mut is_followed = is_shared;
    for number in 1..=MAX_FILES {
        if number == own_number {
            logs.push((
                file.path.clone(),
                load(&mut file.file, limit),
                modified(&file.file),
            ));
        } else if let Some(mut other) = OtherFile::open(data.client_log(number)) {
            // The server with the lowest number chooses the key, so it waits for no other.
            if number < own_number {
                other.wait_for_header();
            }
            let loaded = load(&mut other.file, limit);
            logs.push((other.path.clone(), loaded, modified(&other.file)));
            match other.has_ended {
                true => ended.push(other),
                false => is_followed = true,
            }
        }
    }
    let (seed, clients) = merge(logs, limit, new_seed);
    let log = encode_client_log(seed, clients.iter().copied());
    let written = file.replace(&log);
    match &written {
        Ok(()) => ended.iter().for_each(OtherFile::remove),
        Err(error) => log::warn!("{}; trying again", describe(&file.path, error)),
    }
    Ok(OpenedLog {
        seed,
        clients,
        length: written.is_ok().then_some(log.len() as u64),
        file,
        others: is_followed.then(|| OtherLogs::new(data, own_number, seed, limit)),
    })
}

/// Takes the first file that no running server holds.
fn take(data: &DataDir) -> Result<(usize, OwnFile), DataDirError> {
    for number in 1..=MAX_FILES {
        let path = data.client_log(number);
        if let Some(file) = OwnFile::take(&path).map_err(|error| failed(&path, error))? {
            return Ok((number, file));
        }
    }
    let error = format!("{MAX_FILES} other servers use this directory");
    Err(failed(data.path(), io::Error::other(error)))
}

impl OwnFile {
    /// Opens or creates the file, and locks it. Returns `None` if another server holds it.
    fn take(path: &Path) -> io::Result<Option<OwnFile>> {
        for _ in 0..ATTEMPTS {
            check_kind(path)?;
            let opened = match OpenOptions::new().read(true).append(true).open(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => create_private(path),
                opened => opened,
            };
            let file = match opened {
                // Created by another server since.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                opened => opened?,
            };
            match file.try_lock() {
                Err(TryLockError::WouldBlock) => return Ok(None),
                // The file system supports no locks. There is one server as a rule.
                Ok(()) | Err(TryLockError::Error(_)) => {}
            }
            // Another server may have replaced or removed the file before it was locked.
            if is_at(&file, path) {
                let path = path.to_owned();
                return Ok(Some(OwnFile { path, file }));
            }
        }
        Ok(None)
    }

    /// Returns an open file as that of the log.
    #[cfg(test)]
    pub(super) fn of(file: File, path: &Path) -> OwnFile {
        let path = path.to_owned();
        OwnFile { path, file }
    }

    /// Replaces the contents at once. The new contents are durable.
    pub(super) fn replace(&mut self, log: &[u8]) -> io::Result<()> {
        let draft = draft_of(&self.path);
        // A killed server may have left it behind.
        let _ = fs::remove_file(&draft);
        let written = create_private(&draft).and_then(|mut file| {
            let _ = file.try_lock();
            file.write_all(log)?;
            file.sync_all()?;
            fs::rename(&draft, &self.path)?;
            Ok(file)
        });
        match written {
            Ok(file) => {
                self.file = file;
                sync_directory_of(&self.path)
            }
            Err(error) => {
                let _ = fs::remove_file(&draft);
                Err(error)
            }
        }
    }

    /// Appends bytes. After an error, the end of the log is invalid until it is replaced.
    pub(super) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        self.file.write_all(records)
    }

    /// Makes the appended bytes durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl OtherFile {
    /// Opens the file, if it exists.
    fn open(path: PathBuf) -> Option<OtherFile> {
        let file = match check_kind(&path).and_then(|()| File::open(&path)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                log::warn!("{}; ignoring the log", describe(&path, &error));
                return None;
            }
        };
        let has_ended = file.try_lock().is_ok() && is_at(&file, &path);
        Some(OtherFile {
            path,
            file,
            has_ended,
        })
    }

    /// Waits briefly for the header of a server that starts at the same time, so that both use the
    /// same key.
    fn wait_for_header(&mut self) {
        let end = Instant::now() + HEADER_TIMEOUT;
        while !self.has_ended && self.is_empty() && Instant::now() < end {
            thread::sleep(HEADER_PAUSE);
            // It replaces the file to write the header.
            if let Ok(file) = File::open(&self.path) {
                self.file = file;
            }
        }
    }

    /// Removes the file of an ended server, which is locked, and its draft.
    fn remove(&self) {
        let _ = fs::remove_file(draft_of(&self.path));
        let _ = fs::remove_file(&self.path);
    }

    fn is_empty(&self) -> bool {
        self.file
            .metadata()
            .is_ok_and(|metadata| metadata.len() == 0)
    }
}

/// Combines the clients of all logs. The key is that of the first usable log, for all servers.
fn merge(
    mut logs: Vec<(PathBuf, LoadedClients, SystemTime)>,
    limit: usize,
    new_seed: [u64; 4],
) -> ([u64; 4], Vec<(Digest, Cursor)>) {
    let seed = logs.iter().find_map(|(_, loaded, _)| loaded.seed);
    let seed = seed.unwrap_or(new_seed);
    logs.sort_by_key(|(_, _, modified)| *modified);
    let mut clients = Remembered::new(limit);
    for (path, loaded, _) in logs {
        let path = path.display();
        match loaded.damage {
            Some(damage) if loaded.seed.is_none() => {
                log::warn!("{path}: discarded the log of clients: {damage}");
            }
            Some(damage) => log::info!("{path}: discarded the end of the log of clients: {damage}"),
            None => {}
        }
        match loaded.seed {
            Some(own) if own != seed => log::warn!(
                "{path}: discarded the log of clients: its key differs from that of the other logs"
            ),
            _ => {
                let loaded = loaded.clients.into_iter();
                loaded.for_each(|(client, received)| clients.merge(client, received));
            }
        }
    }
    (seed, clients.iter().collect())
}

fn load(file: &mut File, limit: usize) -> LoadedClients {
    let mut decoder = ClientLogDecoder::new(limit);
    let mut buffer = vec![0; BUFFER];
    if let Err(error) = read_all(file, &mut buffer, |bytes| decoder.feed(bytes)) {
        log::warn!("cannot read the log of clients to its end: {error}");
    }
    decoder.finish()
}

/// Reads a file to its end.
pub(super) fn read_all(
    file: &mut File,
    buffer: &mut [u8],
    mut on_bytes: impl FnMut(&[u8]),
) -> io::Result<()> {
    loop {
        match file.read(buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => on_bytes(buffer.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Returns the path of the draft for a file.
fn draft_of(path: &Path) -> PathBuf {
    let mut draft = path.to_owned().into_os_string();
    draft.push(".new");
    draft.into()
}

/// Fails if there is something else than a regular file: opening it might block.
pub(super) fn check_kind(path: &Path) -> io::Result<()> {
    match fs::metadata(path) {
        Ok(metadata) if !metadata.is_file() => Err(io::Error::other("not a regular file")),
        _ => Ok(()),
    }
}

fn modified(file: &File) -> SystemTime {
    let metadata = file.metadata().and_then(|metadata| metadata.modified());
    metadata.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Returns whether this file is at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    let (Ok(file), Ok(there)) = (file.metadata(), fs::metadata(path)) else {
        return false;
    };
    (file.dev(), file.ino()) == (there.dev(), there.ino())
}

/// The maximum number of servers that share a directory.
pub(super) const MAX_FILES: usize = 64;
/// The number of times that a file may be replaced by others while it is being opened.
const ATTEMPTS: usize = 100;
/// How long to wait for the header of another server's log.
const HEADER_TIMEOUT: Duration = Duration::from_secs(1);
/// The interval between two attempts.
const HEADER_PAUSE: Duration = Duration::from_millis(5);
/// The number of bytes that are read at once.
pub(super) const BUFFER: usize = 64 << 10;
