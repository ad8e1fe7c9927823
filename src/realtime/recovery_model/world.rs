//! The API, its backend, and the network between the API and its clients.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::{
    BackendEvent, Candidates, Cause, EpochScope, EventKind, Field, HistoryEvent, HistoryStart,
    Plan, RestoredPlan, Stamp, Subject,
};
use crate::net::Now;
use crate::realtime::digest::Digest;
use crate::realtime::history::Cursor;
use crate::realtime::testing::{Output, TestApi, term};
use crate::realtime::{ApiSettings, HistorySettings};

use super::annotation::{Annotation, State};
use super::receiver::{Connection, Kind, Message, Protocol, Receiver};
use super::restarts::Log;

/// A small instance of the system.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    pub receivers: Vec<(Kind, Protocol)>,
    pub annotations: usize,
    /// The memory limit of the history.
    pub memory: usize,
    /// Whether unread messages remain in the server's queue, so that it waits with the next ones.
    pub is_slow: bool,
    /// Whether positions are those of a process, and lost with it.
    pub is_process: bool,
    /// Whether events may leave the history before they are replayed.
    pub has_gaps: bool,
    /// The filters of the receivers in turn.
    pub filters: &'static [PageFilter],
}

/// A filter for the annotations on a page, in one of several forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PageFilter {
    /// A term.
    Term,
    /// A pattern for the page's address.
    Wildcard,
    /// All annotations, except those with the tag of the other page.
    Excluding,
    /// Two clauses that must both match.
    All,
}

impl PageFilter {
    /// Returns the filter as JSON.
    pub(super) fn json(self) -> String {
        let (policy, clauses) = match self {
            PageFilter::Term => ("include_any", r#"{"field":"/group","value":"page"}"#),
            PageFilter::Wildcard => (
                "include_any",
                r#"{"field":"/wildcard_uri","value":"http://x.org/page/*"}"#,
            ),
            PageFilter::Excluding => (
                "include_any",
                r#"{"field":"/user","value":"author"},
                   {"field":"/tags","operator":"not_one_of","value":"Elsewhere"}"#,
            ),
            PageFilter::All => (
                "include_all",
                r#"{"field":"/tags","value":"page"},{"field":"/user","value":"acct:author@x"}"#,
            ),
        };
        format!(r#"{{"match_policy":"{policy}","clauses":[{clauses}],"actions":{{}}}}"#)
    }
}

impl Default for Instance {
    fn default() -> Self {
        Instance {
            receivers: Vec::new(),
            annotations: 1,
            memory: 1 << 20,
            is_slow: false,
            is_process: false,
            has_gaps: false,
            filters: &[PageFilter::Term],
        }
    }
}

impl Instance {
    /// Returns the filter of a receiver.
    pub(super) fn filter(&self, receiver: usize) -> String {
        self.filters[receiver % self.filters.len()].json()
    }

    /// Returns the terms of an annotation on a page. Terms that no filter needs are left out.
    fn candidates(&self, id: usize, page: &str) -> Candidates {
        let mut terms = vec![term(Field::Id, &id.to_string()), term(Field::Group, page)];
        if self.filters != [PageFilter::Term] {
            let address = format!("http://x.org/{page}/{id}");
            let keys = crate::uri::annotation_keys([address.as_str()].into_iter(), None);
            terms.extend(keys.iter().map(|key| term(Field::Uri, key)));
            terms.push(term(Field::User, "author"));
            terms.push(term(Field::User, "author@x"));
            terms.push(term(Field::Tags, page));
        }
        Candidates::Terms(terms)
    }
}

pub(super) struct World<'a> {
    pub instance: &'a Instance,
    pub api: TestApi,
    pub annotations: Vec<Option<Annotation>>,
    pub receivers: Vec<Receiver>,
    pub is_member: bool,
    pub epoch: u64,
    /// The newest position.
    pub position: u64,
    /// The number of events.
    pub version: u64,
    /// The number of operations.
    pub step: u64,
    /// Whether the backend has filled the history.
    pub is_ready: bool,
    pub log: Log,
    next_index: u32,
}

impl<'a> World<'a> {
    pub(super) fn new(instance: &'a Instance) -> Self {
        let (api, log) = start_api(instance, Vec::new(), NOW);
        let receivers = instance.receivers.iter();
        let receivers =
            receivers.map(|(kind, protocol)| Receiver::new(*kind, *protocol, instance.annotations));
        let mut world = World {
            instance,
            api,
            annotations: vec![None; instance.annotations],
            receivers: receivers.collect(),
            is_member: false,
            epoch: 1,
            position: 0,
            version: 0,
            step: 0,
            is_ready: false,
            log,
            next_index: 0,
        };
        world.fill().expect("nothing is sent");
        world.ready().expect("nothing is sent");
        world
    }

    /// Starts the history, and restores the stored plans.
    pub(super) fn fill(&mut self) -> Result<(), String> {
        self.is_ready = false;
        self.history(HistoryEvent::Start(HistoryStart {
            epoch: self.epoch,
            scope: match self.instance.is_process {
                true => EpochScope::Process,
                false => EpochScope::Stored,
            },
            floor: 0,
            floor_time: 0,
            head: self.position,
        }))?;
        let mut stored: Vec<RestoredPlan> = (0..self.annotations.len())
            .filter_map(|id| self.stored(id))
            .collect();
        stored.sort_by_key(|stored| stored.plan.stamp.position);
        self.history(HistoryEvent::Restored(stored))
    }

    pub(super) fn ready(&mut self) -> Result<(), String> {
        self.is_ready = true;
        for receiver in &mut self.receivers {
            let is_open = receiver.connection.as_ref().is_some_and(|it| !it.is_closed);
            receiver.is_known |= is_open && receiver.protocol == Protocol::ClientId;
        }
        self.history(HistoryEvent::Ready)
    }

    fn history(&mut self, event: HistoryEvent) -> Result<(), String> {
        let outputs = self.api.backend_event(BackendEvent::History(event));
        self.route(outputs, None)
    }

    /// Returns the last plan of an annotation as a backend has stored it, unless it belongs to an
    /// earlier epoch.
    fn stored(&self, id: usize) -> Option<RestoredPlan> {
        let annotation = self.annotations[id].as_ref()?;
        let plan = (annotation.position > 0).then(|| self.plan(id))??;
        let past = annotation.past.iter();
        let past = past.map(|(until, page, rules)| crate::model::PastState {
            until: *until,
            candidates: self.instance.candidates(id, page),
            rules: rules.clone(),
        });
        Some(RestoredPlan {
            plan,
            event_position: annotation.event_position,
            past: past.collect(),
        })
    }

    /// Returns the last plan of an annotation.
    pub(super) fn plan(&self, id: usize) -> Option<Plan> {
        let annotation = self.annotations[id].as_ref()?;
        let is_deleted = annotation.state == State::Deleted;
        let kind = match (is_deleted, annotation.is_rights_change) {
            (true, _) => EventKind::Delete,
            (false, true) => EventKind::Create,
            (false, false) => EventKind::Update,
        };
        let (action, version) = (kind.as_str(), annotation.version);
        let payload = match is_deleted {
            true => format!(r#"{{"id":"{id}"}}"#),
            false => format!(r#"{{"id":"{id}","v":{version}}}"#),
        };
        let text = format!(
            r#"{{"type":"annotation-notification","options":{{"action":"{action}"}},"payload":[{payload}]}}"#
        );
        let author = annotation.author;
        Some(Plan {
            kind,
            subject: subject(id),
            stamp: Stamp {
                position: annotation.position,
                time: annotation.noticed,
            },
            cause: match annotation.is_rights_change {
                true => Cause::RightsChange,
                false => Cause::Event,
            },
            candidates: self.instance.candidates(id, annotation.audience().page()),
            exclude_client: author.map(|receiver| client_id(receiver).into()),
            rules: annotation.rules(),
            variants: vec![text.into()],
        })
    }

    /// Returns the annotations that a receiver may read, and finds by its filter.
    pub(super) fn snapshot(&self, receiver: usize) -> BTreeMap<usize, u64> {
        let kind = self.receivers[receiver].kind;
        let annotations = self.annotations.iter().enumerate();
        let readable = annotations.filter_map(|(id, annotation)| {
            let annotation = annotation.as_ref()?;
            let is_for = annotation.is_for(kind, self.is_member);
            is_for.then_some((id, annotation.version))
        });
        readable.collect()
    }

    /// Returns whether the history has an entry of an annotation.
    pub(super) fn is_held(&self, id: usize) -> bool {
        let realtime = &self.api.realtime;
        let subject = realtime.subject_digest(&subject(id));
        realtime.history.of_subject(subject).is_some()
    }

    pub(super) fn next_index(&mut self) -> u32 {
        self.next_index += 1;
        self.next_index
    }

    /// Returns the receiver with an open connection, and whether that is its former one.
    fn receiver_of(&self, index: u32) -> Option<(usize, bool)> {
        let is_it = |connection: &Option<Connection>| {
            connection.as_ref().is_some_and(|it| it.index == index)
        };
        let mut receivers = self.receivers.iter().enumerate();
        receivers.find_map(|(number, receiver)| {
            match (is_it(&receiver.connection), is_it(&receiver.old)) {
                (true, _) => Some((number, false)),
                (_, true) => Some((number, true)),
                _ => None,
            }
        })
    }

    /// Applies the effects of a call, which concerns the connection `serving` if there is one.
    pub(super) fn route(
        &mut self,
        outputs: Vec<Output>,
        serving: Option<u32>,
    ) -> Result<(), String> {
        let mut closed = Vec::new();
        for output in outputs {
            match output {
                Output::Reply(text) => {
                    self.sent(serving.ok_or("a reply without a connection")?, &text)?
                }
                Output::Deliver(messages) => {
                    for (index, text) in messages {
                        self.sent(index, &text)?;
                    }
                }
                Output::Close(index, ..) => closed.push(index),
                other => return Err(format!("unexpected: {other:?}")),
            }
        }
        for index in closed {
            if !self.instance.has_gaps {
                return Err("closed although nothing was evicted".to_owned());
            }
            self.close(index);
        }
        Ok(())
    }

    /// The server has closed a connection.
    fn close(&mut self, index: u32) {
        let Some((number, is_old)) = self.receiver_of(index) else {
            return;
        };
        let (receiver, step) = (&mut self.receivers[number], self.step);
        if is_old {
            let last = receiver.old.take().map(|old| old.last_received);
            self.api.lose(index, last.unwrap_or_default());
        } else if let Some(connection) = &mut receiver.connection
            && !connection.is_closed
        {
            connection.is_closed = true;
            connection.inbox.push_back(Message::Closed);
            let last = connection.last_received;
            receiver.disconnected(step);
            self.api.lose(index, last);
        }
    }

    fn sent(&mut self, index: u32, text: &str) -> Result<(), String> {
        let Some((number, is_old)) = self.receiver_of(index) else {
            return Err(format!("sent to a closed connection: {text}"));
        };
        let message = self.parse(number, text)?;
        self.check_sent(number, is_old, &message)?;
        let is_slow = self.instance.is_slow;
        let receiver = &mut self.receivers[number];
        let connection = match is_old {
            true => &mut receiver.old,
            false => &mut receiver.connection,
        };
        if let Some(connection) = connection {
            connection.has_output |= !matches!(message, Message::Resumed { .. });
            connection.inbox.push_back(message);
            if is_slow {
                self.api.set_blocked(index, true);
            }
        }
        Ok(())
    }

    fn parse(&self, number: usize, text: &str) -> Result<Message, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let cursor = value["cursor"].as_str().map(str::to_owned);
        let kind = value["type"].as_str().unwrap_or_default();
        let step = self.step;
        let message = match (kind, cursor) {
            ("annotation-notification", cursor) => {
                let annotation = &value["payload"][0];
                let id = annotation["id"].as_str().and_then(|id| id.parse().ok());
                let id = id.ok_or("no id")?;
                match value["options"]["action"].as_str() {
                    Some("delete") => Message::Delete { id, step, cursor },
                    Some("create" | "update") => Message::Upsert {
                        id,
                        version: annotation["v"].as_u64().ok_or("no version")?,
                        step,
                        cursor,
                    },
                    _ => return Err(format!("no action: {text}")),
                }
            }
            ("filter", Some(cursor)) => Message::Resumed {
                is_recovered: value["recovered"] == true,
                cursor,
                snapshot: self.snapshot(number),
                step,
            },
            ("recovery", None) => Message::Gap {
                snapshot: self.snapshot(number),
                step,
            },
            ("cursor", Some(cursor)) => Message::Mark { cursor },
            _ => return Err(format!("unexpected: {text}")),
        };
        Ok(message)
    }
}

/// Creates the API with the clients in a log.
pub(super) fn start_api(
    instance: &Instance,
    clients: Vec<(Digest, Cursor)>,
    now: Now,
) -> (TestApi, Log) {
    let settings = ApiSettings {
        history: HistorySettings {
            memory: instance.memory,
            silence: SILENCE,
            ..HistorySettings::default()
        },
        ..ApiSettings::default()
    };
    let mut api = TestApi::new(settings);
    api.now = now;
    api.realtime.replays.set_max_entries(1);
    let log = Log::new(&clients);
    let storage = Box::new(log.clone());
    api.realtime.restore_clients(clients, Some(storage));
    (api, log)
}

pub(super) fn subject(id: usize) -> Subject {
    Subject::Annotation(id.to_string().into())
}

pub(super) fn client_id(receiver: usize) -> String {
    format!("client{receiver}")
}

/// The time at the beginning.
const NOW: Now = Now {
    mono: 1_000_000,
    unix: 1_700_000_000_000,
};
/// How long a connection may be silent, in milliseconds.
pub(super) const SILENCE: u64 = 70_000;
