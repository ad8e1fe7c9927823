//! A client: its connection, its view, and the promises of the contract.

use std::collections::{BTreeMap, VecDeque};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Anonymous,
    /// A user who may be a member of the group.
    Member,
    /// The author of all annotations.
    Author,
}

impl Kind {
    pub(super) const AUTHOR: &'static str = "acct:author@x";
    pub(super) const MEMBER: &'static str = "acct:member@x";

    pub(super) fn userid(self) -> Option<&'static str> {
        match self {
            Kind::Anonymous => None,
            Kind::Member => Some(Kind::MEMBER),
            Kind::Author => Some(Kind::AUTHOR),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    Cursors,
    ClientId,
}

/// A message on its way to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Message {
    Upsert {
        id: usize,
        version: u64,
        /// The step at which it was sent.
        step: u64,
        cursor: Option<String>,
    },
    Delete {
        id: usize,
        step: u64,
        cursor: Option<String>,
    },
    /// The reply to a filter with `since`, with the view of a client that reads all annotations at
    /// this moment.
    Resumed {
        is_recovered: bool,
        cursor: String,
        snapshot: BTreeMap<usize, u64>,
        step: u64,
    },
    /// A gap, with the view of a client that reads all annotations at this moment.
    Gap {
        snapshot: BTreeMap<usize, u64>,
        step: u64,
    },
    Mark {
        cursor: String,
    },
    Closed,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub index: u32,
    pub inbox: VecDeque<Message>,
    /// Whether the server has closed it.
    pub is_closed: bool,
    /// Whether anything has been sent to it.
    pub has_output: bool,
    pub last_received: u64,
}

/// The promises of the contract about one annotation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Promise {
    /// The client must see it, if it may read it.
    pub is_due: bool,
    /// The client may see an outdated state, within the limits of the contract, unless it has been
    /// sent a message since this step.
    pub stale_since: Option<u64>,
    /// The same, if the connection ends before the next messages arrive.
    pub is_due_while_connected: bool,
    pub may_be_stale_if_lost: bool,
    /// The client could read it at some time.
    pub was_readable: bool,
    /// There was an event since the client has disconnected.
    pub has_event_since: bool,
    /// The step of the newest event that the client itself has caused. It ignores earlier messages.
    pub own_since: Option<u64>,
    /// The newest version that the client has received.
    pub newest: u64,
}

#[derive(Debug)]
pub(super) struct Receiver {
    pub kind: Kind,
    pub protocol: Protocol,
    pub connection: Option<Connection>,
    /// A former connection that the server has not noticed to be dead.
    pub old: Option<Connection>,
    /// The versions of the annotations that the client has.
    pub view: BTreeMap<usize, u64>,
    pub cursor: Option<String>,
    pub promises: Vec<Promise>,
    /// Whether the contract holds for the client: it has a cursor, or the server remembers it.
    pub is_known: bool,
    /// Whether a gap may be reported.
    pub may_have_gap: bool,
    /// Whether a gap must be reported on the next connection.
    pub must_have_gap: bool,
}

impl Promise {
    /// The client may see an outdated state from now on.
    pub(super) fn set_stale(&mut self, is_stale: bool, step: u64) {
        if is_stale {
            self.stale_since = Some(step);
        }
    }

    /// The client has read a message.
    pub(super) fn update(&mut self, step: u64) {
        self.stale_since = self.stale_since.filter(|since| *since > step);
    }
}

impl Receiver {
    pub(super) fn new(kind: Kind, protocol: Protocol, annotations: usize) -> Self {
        Receiver {
            kind,
            protocol,
            connection: None,
            old: None,
            view: BTreeMap::new(),
            cursor: None,
            promises: vec![Promise::default(); annotations],
            is_known: false,
            may_have_gap: false,
            must_have_gap: false,
        }
    }

    /// The client reads all annotations. The snapshot is of an earlier step.
    pub(super) fn reload(&mut self, snapshot: BTreeMap<usize, u64>, step: u64) {
        for (id, version) in &snapshot {
            let promise = &mut self.promises[*id];
            promise.newest = promise.newest.max(*version);
        }
        let former = std::mem::replace(&mut self.view, snapshot);
        for (id, version) in former {
            let own_since = self.promises[id].own_since;
            let is_newer = self.view.get(&id).is_some_and(|read| *read < version);
            if own_since.is_some_and(|own| is_newer || own > step) {
                self.view.insert(id, version);
            }
        }
        self.must_have_gap = false;
    }

    /// Returns whether the client lacks an annotation, or will if it reads a deletion and nothing more
    /// before its connection ends.
    pub(super) fn may_lack(&self, id: usize) -> bool {
        let is_deletion =
            |message: &Message| matches!(message, Message::Delete { id: of, .. } if *of == id);
        let mut inboxes = self.connection.iter().map(|connection| &connection.inbox);
        !self.view.contains_key(&id) || inboxes.any(|inbox| inbox.iter().any(is_deletion))
    }

    /// The messages of a connection are lost.
    pub(super) fn lose_unread(&mut self, connection: &Connection, step: u64) {
        let is_gap = |message: &Message| matches!(message, Message::Gap { .. });
        // The client has not read all annotations, and need not be told again: perhaps nothing is
        // missing anymore.
        if connection.inbox.iter().any(is_gap) {
            for promise in &mut self.promises {
                promise.is_due = false;
                promise.set_stale(true, step);
            }
        }
    }

    /// The connection has ended.
    pub(super) fn disconnected(&mut self, step: u64) {
        for promise in &mut self.promises {
            promise.set_stale(promise.may_be_stale_if_lost, step);
            promise.is_due &= !promise.is_due_while_connected;
            promise.may_be_stale_if_lost = false;
            promise.is_due_while_connected = false;
            promise.has_event_since = false;
        }
    }
}
