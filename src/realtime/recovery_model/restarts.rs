//! Restarts, crashes, and new epochs.

use std::cell::RefCell;
use std::rc::Rc;

use crate::realtime::LoadedClients;
use crate::realtime::client_log::{RECORD, decode, encode};
use crate::realtime::clients::ClientLog;
use crate::realtime::digest::Digest;
use crate::realtime::history::Cursor;

use super::operations::Crash;
use super::receiver::Protocol;
use super::world::{World, client_id, start_api};

/// The file of remembered clients.
#[derive(Clone)]
pub(super) struct Log(Rc<RefCell<File>>);

struct File {
    bytes: Vec<u8>,
    /// The length of the part that was written at once.
    whole: usize,
    wants_rewrite: bool,
    /// Whether the server is gone.
    is_closed: bool,
}

impl Log {
    pub(super) fn new(clients: &[(Digest, Cursor)]) -> Self {
        let bytes = encode(SEED, clients.iter().copied());
        Log(Rc::new(RefCell::new(File {
            whole: bytes.len(),
            bytes,
            wants_rewrite: false,
            is_closed: false,
        })))
    }

    /// Returns the clients in the log.
    pub(super) fn load(&self) -> LoadedClients {
        decode(&self.0.borrow().bytes, 100)
    }

    /// Returns the clients in the log without its last record.
    pub(super) fn load_truncated(&self) -> LoadedClients {
        decode(&self.truncated(), 100)
    }

    fn truncated(&self) -> Vec<u8> {
        let file = self.0.borrow();
        let len = (file.bytes.len() - RECORD / 2).max(file.whole);
        file.bytes[..len].to_vec()
    }

    pub(super) fn wants_rewrite(&self) -> bool {
        self.0.borrow().wants_rewrite
    }

    pub(super) fn request_rewrite(&self) {
        self.0.borrow_mut().wants_rewrite = true;
    }
}

impl ClientLog for Log {
    fn append(&mut self, records: &[u8]) {
        let mut file = self.0.borrow_mut();
        if !file.is_closed {
            file.bytes.extend(records);
        }
    }

    fn wants_rewrite(&self) -> bool {
        Log::wants_rewrite(self)
    }

    fn replace(&mut self, log: Vec<u8>) {
        let mut file = self.0.borrow_mut();
        if !file.is_closed {
            file.whole = log.len();
            file.bytes = log;
            file.wants_rewrite = false;
        }
    }

    fn position_elsewhere(&self, _: Digest) -> Option<Cursor> {
        None
    }
}

impl World<'_> {
    /// The server ends without writing anything.
    pub(super) fn crash(&mut self, crash: Crash) -> Result<(), String> {
        let step = self.step;
        self.log.0.borrow_mut().is_closed = true;
        for receiver in &mut self.receivers {
            if let Some(connection) = receiver.connection.take() {
                receiver.lose_unread(&connection, step);
                receiver.disconnected(step);
            }
            receiver.old = None;
        }
        let loaded = match crash {
            Crash::Whole => self.log.load(),
            Crash::Truncated => self.log.load_truncated(),
        };
        self.start(loaded.clients)
    }

    pub(super) fn shut_down(&mut self) -> Result<(), String> {
        for number in 0..self.receivers.len() {
            if let Some(old) = self.receivers[number].old.take() {
                self.api.lose(old.index, old.last_received);
            }
            self.lose(number);
        }
        // The last records are written when the table is dropped.
        let (_, log) = start_api(self.instance, Vec::new(), self.api.now);
        let log = std::mem::replace(&mut self.log, log);
        let (api, _) = start_api(self.instance, Vec::new(), self.api.now);
        drop(std::mem::replace(&mut self.api, api));
        self.start(log.load().clients)
    }

    fn start(&mut self, known: Vec<(Digest, Cursor)>) -> Result<(), String> {
        (self.api, self.log) = start_api(self.instance, known.clone(), self.api.now);
        for number in 0..self.receivers.len() {
            let digest = self.client_digest(number);
            let receiver = &mut self.receivers[number];
            if receiver.protocol == Protocol::ClientId {
                receiver.is_known &= known.iter().any(|(client, _)| *client == digest);
            }
        }
        if self.instance.is_process {
            self.read_annotations();
        }
        self.fill()
    }

    /// A process of h reads the newest states of all annotations, in the order of their changes. Former
    /// states and their receivers are not known.
    fn read_annotations(&mut self) {
        self.epoch += 1;
        let mut changed: Vec<_> = self.annotations.iter_mut().flatten().collect();
        changed.sort_by_key(|annotation| annotation.changed);
        self.position = changed.len() as u64;
        for (position, annotation) in (1..).zip(changed) {
            annotation.position = position;
            annotation.event_position = position;
            annotation.noticed = annotation.changed;
            annotation.past.clear();
        }
        let step = self.step;
        for receiver in &mut self.receivers {
            for (id, annotation) in self.annotations.iter().enumerate() {
                let is_event = annotation.as_ref().is_none_or(|it| !it.is_rights_change);
                let promise = &mut receiver.promises[id];
                promise.set_stale(true, step);
                promise.is_due &= is_event;
            }
        }
    }

    /// Returns the digest by which a client is recognized.
    pub(super) fn client_digest(&self, number: usize) -> Digest {
        let digester = &self.api.realtime.digester;
        let client = digester.client_id(&client_id(number));
        let user = self.receivers[number].kind.userid();
        Digest::of_client(client, user.map(|user| digester.userid(user)))
    }

    /// The history is lost while the server runs.
    pub(super) fn begin_epoch(&mut self) -> Result<(), String> {
        self.epoch += 1;
        self.position = 0;
        for annotation in self.annotations.iter_mut().flatten() {
            annotation.position = 0;
            annotation.past.clear();
        }
        for receiver in &mut self.receivers {
            receiver.may_have_gap = true;
            let is_open = receiver.connection.as_ref().is_some_and(|it| !it.is_closed);
            receiver.must_have_gap |= receiver.is_known && !is_open;
        }
        self.fill()
    }
}

/// The key of digests, as in [`TestApi`](crate::realtime::testing::TestApi).
const SEED: [u64; 4] = [1, 2, 3, 4];
