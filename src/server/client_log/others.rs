//! The logs of other running servers, which this server follows.
//!
//! Owns: reading the records that are added to these files, so that a client that reconnects to
//! another server of the same port is known there. The thread that writes reads, too. The reactor
//! takes the lock for the look-up of a client, and the thread for the decoding of one buffer.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::files::{BUFFER, MAX_FILES, check_kind, read_all};
use crate::backend::DataDir;
use crate::realtime::{ClientLogDecoder, Cursor, Digest};

/// The clients in the logs of other servers, by the number of the file.
#[derive(Clone, Default)]
pub(super) struct OtherClients(Arc<Mutex<BTreeMap<usize, ClientLogDecoder>>>);

/// The open logs of other servers.
pub(super) struct OtherLogs {
    data: DataDir,
    /// The number of this server's file.
    own_number: usize,
    seed: [u64; 4],
    /// The maximum number of clients of each log.
    limit: usize,
    files: BTreeMap<usize, File>,
    clients: OtherClients,
    buffer: Vec<u8>,
}

impl OtherClients {
    /// Returns the latest position of a client.
    pub(super) fn position(&self, client: Digest) -> Option<Cursor> {
        let logs = self.locked();
        let positions = logs.values().filter_map(|log| log.position(client));
        positions.reduce(Cursor::or_later)
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<usize, ClientLogDecoder>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OtherLogs {
    /// Follows no log yet.
    pub(super) fn new(data: &DataDir, own_number: usize, seed: [u64; 4], limit: usize) -> Self {
        OtherLogs {
            data: data.clone(),
            own_number,
            seed,
            limit,
            files: BTreeMap::new(),
            clients: OtherClients::default(),
            buffer: vec![0; BUFFER],
        }
    }

    /// Returns the clients in these logs, as of the last poll.
    pub(super) fn clients(&self) -> OtherClients {
        self.clients.clone()
    }

    /// Reads the records that have been added, and files that have been created or replaced.
    pub(super) fn poll(&mut self) {
        let own_number = self.own_number;
        for number in (1..=MAX_FILES).filter(|number| *number != own_number) {
            let path = self.data.client_log(number);
            if let Err(error) = self.poll_file(number, &path) {
                log::debug!("{}: {error}", path.display());
                self.forget(number);
            }
        }
    }

    fn poll_file(&mut self, number: usize, path: &Path) -> io::Result<()> {
        let Some(there) = id_at(path)? else {
            // Another server has taken over its clients.
            self.forget(number);
            return Ok(());
        };
        match self.files.get_mut(&number) {
            Some(file) if id(&file.metadata()?) == there => {
                let clients = &self.clients;
                read_all(file, &mut self.buffer, |bytes| {
                    if let Some(decoder) = clients.locked().get_mut(&number) {
                        decoder.feed(bytes);
                    }
                })
            }
            _ => self.open(number, path),
        }
    }

    /// Reads a file from the beginning. Until the end has been reached, the previous clients stay.
    fn open(&mut self, number: usize, path: &Path) -> io::Result<()> {
        check_kind(path)?;
        let mut file = File::open(path)?;
        let mut decoder = ClientLogDecoder::new(self.limit);
        read_all(&mut file, &mut self.buffer, |bytes| decoder.feed(bytes))?;
        match decoder.seed() {
            // A server that has just created the file replaces it to write the header.
            None => Ok(()),
            Some(seed) if seed != self.seed => Err(io::Error::other("different key")),
            Some(_) => {
                self.files.insert(number, file);
                // Released without the lock, for which the reactor may be waiting.
                let former = self.clients.locked().insert(number, decoder);
                drop(former);
                Ok(())
            }
        }
    }

    fn forget(&mut self, number: usize) {
        if self.files.remove(&number).is_some() {
            let former = self.clients.locked().remove(&number);
            drop(former);
        }
    }
}

fn id_at(path: &Path) -> io::Result<Option<(u64, u64)>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(id(&metadata))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn id(metadata: &fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
