//! The annotations of the simulated database.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::backend::DropReason;
use crate::backend::h::history::{
    ChangedRow, Changes, Facts, GroupRights, PAGE, Page, Planned, Purpose, Rights, RowState,
};
use crate::backend::h::history_queries::{Decide, Swept, SweptPlan};
use crate::backend::h::ids::Uuid;
use crate::backend::time::PgTime;
use crate::model::{Candidates, Cause, EventKind, Plan, Stamp, Subject};

/// The tables, with a clock that starts at [`START`].
pub(super) struct FakeRows {
    started: Instant,
    pub annotations: HashMap<Uuid, FakeAnnotation>,
    /// The entries of the moderation log: key, annotation, and time.
    pub log: Vec<(i32, Uuid, PgTime)>,
    /// The muted users.
    pub muted: Vec<String>,
    /// The state of the rights in all groups.
    pub group_rights: u64,
    /// The documents with an active checkpoint, in all groups.
    pub checkpoints: Vec<i32>,
    pub knows_moderation: bool,
    /// Statements on changes, or on rights, are canceled by the server.
    pub slow_changes: bool,
    pub slow_rights: bool,
    /// The annotation that always breaks the connection when it is read in a batch.
    pub poison: Option<Uuid>,
    /// The number of pages of changes that were read.
    pub pages: usize,
}

/// A row of `annotation`.
#[derive(Clone, Debug)]
pub(super) struct FakeAnnotation {
    pub created: PgTime,
    pub updated: PgTime,
    pub deleted: bool,
    pub status: u64,
    pub author: &'static str,
    pub size: usize,
}

impl Default for FakeRows {
    fn default() -> Self {
        FakeRows {
            started: Instant::now(),
            annotations: HashMap::new(),
            log: Vec::new(),
            muted: Vec::new(),
            group_rights: 1,
            checkpoints: Vec::new(),
            knows_moderation: true,
            slow_changes: false,
            slow_rights: false,
            poison: None,
            pages: 0,
        }
    }
}

impl FakeRows {
    /// Returns the time of the database's clock.
    pub(super) fn now(&self) -> PgTime {
        let elapsed = i64::try_from(self.started.elapsed().as_micros()).unwrap();
        PgTime(START.0 + elapsed)
    }

    /// Adds an annotation that was created this long ago.
    pub(super) fn create(&mut self, number: u128, ago: Duration) -> Uuid {
        let time = self.now().before(ago);
        let annotation = FakeAnnotation {
            created: time,
            updated: time,
            deleted: false,
            status: 0,
            author: "acct:joe@b",
            size: 100,
        };
        let id = uuid(number);
        self.annotations.insert(id, annotation);
        id
    }

    /// Sets the creation of an annotation to a time in the future.
    pub(super) fn set_time(&mut self, id: Uuid, ahead: Duration) {
        let time = PgTime(self.now().0 + i64::try_from(ahead.as_micros()).unwrap());
        let row = self.annotations.get_mut(&id).unwrap();
        (row.created, row.updated) = (time, time);
    }

    /// Updates an annotation now.
    pub(super) fn update(&mut self, id: Uuid) {
        let now = self.now();
        self.annotations.get_mut(&id).unwrap().updated = now;
    }

    /// Deletes an annotation now, as h does at first.
    pub(super) fn delete(&mut self, id: Uuid) {
        self.update(id);
        self.annotations.get_mut(&id).unwrap().deleted = true;
    }

    /// Changes the moderation status of an annotation now.
    pub(super) fn moderate(&mut self, id: Uuid, status: u64) {
        let entry = (i32::try_from(self.log.len()).unwrap() + 1, id, self.now());
        self.annotations.get_mut(&id).unwrap().status = status;
        self.log.push(entry);
    }

    /// Returns the facts about an annotation. One that does not exist has default facts.
    pub(super) fn facts(&self, id: Uuid) -> Facts {
        let row = self
            .annotations
            .get(&id)
            .cloned()
            .unwrap_or(FakeAnnotation {
                created: PgTime(0),
                updated: PgTime(0),
                deleted: false,
                status: 0,
                author: "acct:joe@b",
                size: 100,
            });
        let muted = self.muted.iter().any(|author| author == row.author);
        let checkpoint = u64::from(self.checkpoints.contains(&DOCUMENT)) * CHECKPOINT;
        let mut rules = DefaultHasher::new();
        (muted, self.group_rights, checkpoint, row.status).hash(&mut rules);
        Facts {
            id,
            state: state(&row),
            is_new: row.created == row.updated,
            author: row.author.to_owned(),
            group: "g".to_owned(),
            document: DOCUMENT,
            size: row.size,
            muted,
            group_rights: self.group_rights,
            checkpoint,
            rules: rules.finish(),
            read_at: self.now(),
        }
    }

    pub(super) fn changes(&mut self, page: Page) -> Option<Changes> {
        if self.slow_changes {
            return None;
        }
        self.pages += 1;
        let mut rows: Vec<_> = self
            .annotations
            .iter()
            .map(|(id, row)| changed(*id, row))
            .collect();
        rows.sort_by_key(|row| (row.changed, row.id));
        let mut moderated: Vec<_> = self
            .log
            .iter()
            .filter_map(|(key, id, time)| {
                let mut row = changed(*id, self.annotations.get(id)?);
                row.changed = row.changed.max(*time);
                Some((*key, row))
            })
            .collect();
        match page {
            Page::After(after, log_id) => {
                rows.retain(|row| (row.changed, row.id) > after);
                moderated.retain(|(key, _)| log_id.is_some_and(|log_id| *key > log_id));
            }
            Page::Before(before, since, has_log) => {
                rows.retain(|row| (row.changed, row.id) < before && row.changed >= since);
                rows.reverse();
                moderated.retain(|_| has_log);
                moderated.reverse();
            }
        }
        rows.truncate(PAGE);
        moderated.truncate(PAGE);
        if !self.knows_moderation {
            moderated.clear();
        }
        Some(Changes {
            now: self.now(),
            rows,
            moderated,
            knows_moderation: self.knows_moderation,
        })
    }

    pub(super) fn rights(&self, authors: &[&str], groups: &[&str]) -> Option<Rights> {
        let muted = self
            .muted
            .iter()
            .filter(|one| authors.contains(&one.as_str()));
        let rights = GroupRights {
            rights: self.group_rights,
            checkpoint: CHECKPOINT,
            documents: self.checkpoints.clone(),
        };
        let groups = groups
            .iter()
            .map(|group| ((*group).to_owned(), rights.clone()));
        (!self.slow_rights).then(|| Rights {
            muted: muted.cloned().collect(),
            groups: groups.collect(),
        })
    }

    pub(super) fn annotations(&self, ids: &[Uuid], decide: Decide<'_>) -> Vec<Swept> {
        let read = ids.iter().map(|id| Swept {
            id: *id,
            result: match self.annotations.contains_key(id) {
                true => Ok(self.swept(*id, decide)),
                false => Err((DropReason::Missing, None)),
            },
        });
        read.collect()
    }

    fn swept(&self, id: Uuid, decide: Decide<'_>) -> SweptPlan {
        let facts = self.facts(id);
        let Some(purpose) = decide(&facts) else {
            return SweptPlan::Skip(Box::new(facts));
        };
        let kind = match (facts.state.deleted, purpose) {
            (true, _) => EventKind::Delete,
            (false, Purpose::RightsChange) => EventKind::Create,
            (false, Purpose::Event) if facts.is_new => EventKind::Create,
            (false, Purpose::Event) => EventKind::Update,
        };
        let mut plan = notification(id, kind, kind.as_str());
        if purpose == Purpose::RightsChange {
            plan.cause = Cause::RightsChange;
        }
        plan.variants[0] = format!("{}{}", plan.variants[0], " ".repeat(facts.size)).into();
        SweptPlan::Send(Box::new(Planned { plan, facts }), purpose)
    }
}

fn changed(id: Uuid, row: &FakeAnnotation) -> ChangedRow {
    ChangedRow {
        id,
        state: state(row),
        changed: row.updated,
        size: row.size,
    }
}

fn state(row: &FakeAnnotation) -> RowState {
    RowState {
        updated: row.updated,
        deleted: row.deleted,
        status: row.status,
    }
}

/// Returns the plan of a notification on an annotation.
pub(super) fn notification(id: Uuid, kind: EventKind, action: &str) -> Plan {
    Plan {
        kind,
        subject: Subject::Annotation(id.to_url_safe().into()),
        stamp: Stamp::default(),
        cause: Cause::Event,
        candidates: Candidates::Terms(Vec::new()),
        exclude_client: None,
        rules: Vec::new(),
        variants: vec![json!({ "action": action }).to_string().into()],
    }
}

pub(super) fn uuid(number: u128) -> Uuid {
    Uuid(number.to_be_bytes())
}

/// The database's clock at the start, in 2026.
pub(super) const START: PgTime = PgTime(830_000_000_000_000);
const DOCUMENT: i32 = 5;
const CHECKPOINT: u64 = 9;
