//! The history file of the embedded backend: damaged files, and the encoding of receivers.

use std::cell::RefCell;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use h_realtime::backend::embedded::{
    Embedded, HistoryOptions, Store, StoreError, reencode_receivers,
};
use h_realtime::backend::{Backend, DataDir};
use h_realtime::model::{
    BackendEvent, BackendRequest, HistoryEvent, Plan, PublishError, RequestId, RestoredPlan,
    UnixMillis,
};

/// Input: a byte that selects what follows: 0, the encoding of receivers; 1 and 2, changes of four
/// bytes each to the database or to its log: an offset and a mask; 3, a file.
pub fn history_file(input: &[u8]) {
    let Some((&mode, rest)) = input.split_first() else {
        return;
    };
    match mode % 4 {
        0 => {
            if let Some(encoded) = reencode_receivers(rest) {
                assert_eq!(encoded, rest);
            }
        }
        1 => check_damaged(DATABASE, rest),
        2 => check_damaged(LOG, rest),
        _ => {
            let dir = directory();
            fs::write(dir.path().join(DATABASE), rest).expect("a file");
            if let Some((_, plans)) = restored(dir.path()) {
                assert!(plans.is_empty());
            }
        }
    }
}

/// A history with an open log, and its contents.
struct Template {
    database: Vec<u8>,
    log: Vec<u8>,
    epoch: u64,
    restored: Vec<RestoredPlan>,
    /// All plans, including those that were replaced.
    published: Vec<Plan>,
}

fn check_damaged(name: &str, changes: &[u8]) {
    thread_local! {
        static TEMPLATE: RefCell<Option<Template>> = const { RefCell::new(None) };
    }
    TEMPLATE.with_borrow_mut(|template| {
        let template = template.get_or_insert_with(Template::new);
        let (mut database, mut log) = (template.database.clone(), template.log.clone());
        let file = if name == LOG { &mut log } else { &mut database };
        for change in changes.chunks_exact(4) {
            let offset = u32::from_be_bytes([0, change[0], change[1], change[2]]) as usize;
            let len = file.len();
            file[offset % len] ^= change[3];
        }
        let dir = directory();
        fs::write(dir.path().join(DATABASE), database).expect("a file");
        fs::write(dir.path().join(LOG), log).expect("a file");
        let Some((epoch, plans)) = restored(dir.path()) else {
            return;
        };
        if epoch != template.epoch {
            assert!(plans.is_empty());
        } else if name == DATABASE {
            assert_eq!(plans, template.restored);
        } else {
            // Without its last frame, a log is that of the time before the last commit.
            let is_known = |one: &RestoredPlan| template.published.contains(&one.plan);
            assert!(plans.iter().all(is_known));
        }
    });
}

impl Template {
    fn new() -> Template {
        let dir = directory();
        let mut backend = open(dir.path()).expect("a backend");
        let mut published = Vec::new();
        for number in 0..30 {
            let readers = ["group:__world__", "acct:joe@example.org"][number % 2];
            let body = format!(
                r#"{{"topic":"annotation","action":"update","annotation":{{"id":"{}","user":
                   "acct:joe@example.org","uri":"http://a/","permissions":{{"read":["{readers}"]}}}}}}"#,
                number % 7
            );
            published.extend(publish(&mut backend, body.as_bytes()).expect("plans"));
        }
        let file = |name| fs::read(dir.path().join(name)).expect("a file");
        let (database, log) = (file(DATABASE), file(LOG));
        drop(backend);
        let (epoch, restored) = restored(dir.path()).expect("a history");
        assert_eq!(restored.len(), 7);
        Template {
            database,
            log,
            epoch,
            restored,
            published,
        }
    }
}

fn directory() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    let data = DataDir::open(dir.path()).expect("a data directory");
    Store::open(&data.database()).expect("a database");
    dir
}

/// Opens a backend; `None` if the history appears to be of a later version.
fn open(dir: &Path) -> Option<Embedded> {
    let data = DataDir::open(dir).expect("a data directory");
    match Embedded::open(&data, HistoryOptions::default(), Default::default(), NOW) {
        Err(StoreError::NewerHistory(..)) => None,
        opened => Some(opened.expect("a backend")),
    }
}

/// Starts a server; returns its epoch and the restored plans. It accepts an event.
fn restored(dir: &Path) -> Option<(u64, Vec<RestoredPlan>)> {
    let mut backend = open(dir)?;
    let (mut epoch, mut plans) = (None, Vec::new());
    for event in backend.turn(Vec::new(), NOW) {
        match event {
            BackendEvent::History(HistoryEvent::Start(start)) => {
                assert!(epoch.replace(start.epoch).is_none());
            }
            BackendEvent::History(HistoryEvent::Restored(chunk)) => plans.extend(chunk),
            _ => {}
        }
    }
    let published = publish(&mut backend, EVENT);
    assert!(published.is_ok_and(|plans| plans.len() == 1));
    Some((epoch.expect("a start"), plans))
}

fn publish(backend: &mut Embedded, body: &[u8]) -> Result<Vec<Plan>, PublishError> {
    let request = BackendRequest::Publish {
        request_id: RequestId(1),
        body: body.to_vec(),
        claim: h_realtime::model::PublishClaim::default(),
    };
    let events = backend.turn(vec![request], NOW);
    let mut results = events.into_iter().filter_map(|event| match event {
        BackendEvent::Published { result, .. } => Some(result),
        _ => None,
    });
    results.next().expect("an answer")
}

const DATABASE: &str = "history.db";
const LOG: &str = "history.db-wal";
const NOW: UnixMillis = 1_704_164_645_678;
const EVENT: &[u8] = br#"{"topic":"annotation","action":"create","annotation":{"id":"new","user":
    "acct:joe@example.org","uri":"http://a/","permissions":{"read":["group:__world__"]}}}"#;
