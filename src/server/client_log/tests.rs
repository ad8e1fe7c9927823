//! Tests of the files and the thread of the log of clients.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::files::{OpenedLog, OwnFile};
use super::writer::{MAX_QUEUED, MIN_REWRITE, QueuedLog, RETRY};
use super::*;
use crate::realtime::{CLIENT_RECORD_BYTES, Clients};

const SEED: [u64; 4] = [1, 2, 3, 4];
const LIMIT: usize = 100;

fn client(number: u64) -> Digest {
    Digest::from_words([number, number])
}

fn at(position: u64) -> Cursor {
    Cursor {
        epoch: 1,
        position,
        time: 0,
    }
}

fn open_in(folder: &Path) -> OpenedLog {
    files::open(&DataDir::open(folder).unwrap(), LIMIT, SEED, false).unwrap()
}

/// A server as far as the log is concerned.
struct Server {
    clients: Clients,
    thread: WriterThread,
}

impl Server {
    fn start(folder: &Path, seed: [u64; 4]) -> Server {
        Server::with(folder, seed, false)
    }

    fn with(folder: &Path, seed: [u64; 4], is_shared: bool) -> Server {
        let data = DataDir::open(folder).unwrap();
        let opened = files::open(&data, LIMIT, seed, is_shared).unwrap();
        let mut clients = Clients::new(LIMIT, opened.seed);
        clients.restore(opened.clients.clone());
        let (log, thread) = writer::start(opened, Arc::default()).unwrap();
        clients.set_log(Box::new(log));
        Server { clients, thread }
    }

    /// Connects and disconnects a client.
    fn serve(&mut self, number: u64, position: u64) {
        self.clients.connect(client(number), at(position));
        self.clients.close(client(number), at(position));
        self.clients.flush(0, |_| None);
    }

    fn stop(self) {
        drop(self.clients);
        self.thread.finish();
    }
}

fn positions(folder: &Path) -> Vec<(Digest, u64)> {
    let clients = open_in(folder).clients.into_iter();
    clients.map(|(client, at)| (client, at.position)).collect()
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Waits for a condition.
fn wait_until(mut is_met: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !is_met() {
        assert!(Instant::now() < end, "not in time");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn clients_survive_a_restart_in_a_private_file() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::start(temp.path(), SEED);
    server.serve(1, 10);
    server.serve(2, 20);
    server.stop();
    assert_eq!(names(temp.path()), ["clients"]);
    let mode = fs::metadata(temp.path().join("clients"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let server = Server::start(temp.path(), [9; 4]);
    assert_eq!(server.clients.position(client(1)), Some(at(10)));
    server.stop();
    assert_eq!(positions(temp.path()), [(client(1), 10), (client(2), 20)]);
    assert_eq!(
        open_in(temp.path()).seed,
        SEED,
        "the first key stays in use"
    );
}

#[test]
fn records_of_a_turn_survive_the_end_of_the_process() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::start(temp.path(), SEED);
    server.clients.connect(client(1), at(10));
    server.clients.alive(at(15));
    server.clients.flush(0, |_| None);
    let path = temp.path().join("clients");
    let file = |extra: u64| fs::metadata(&path).unwrap().len() == 64 + extra;
    wait_until(|| file(2 * CLIENT_RECORD_BYTES as u64));
    // The lock belongs to the process, and ends with it: a copy has none.
    let copy = tempfile::tempdir().unwrap();
    fs::copy(&path, copy.path().join("clients")).unwrap();
    assert_eq!(positions(copy.path()), [(client(1), 15)]);
    server.stop();
}

#[test]
fn torn_end_is_discarded_and_the_rest_is_kept() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::start(temp.path(), SEED);
    server.serve(1, 10);
    server.stop();
    let path = temp.path().join("clients");
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&[7; 30]).unwrap();
    drop(file);
    assert_eq!(positions(temp.path()), [(client(1), 10)]);
    // The file has been rewritten without it.
    let length = fs::metadata(&path).unwrap().len();
    assert_eq!(length, 64 + CLIENT_RECORD_BYTES as u64);
    fs::write(&path, [7; 1000]).unwrap();
    assert_eq!(positions(temp.path()), []);
}

#[test]
fn each_running_server_has_a_file_and_reads_all() {
    let temp = tempfile::tempdir().unwrap();
    let mut first = Server::start(temp.path(), SEED);
    first.serve(1, 10);
    first.serve(2, 20);
    let records = 4 * CLIENT_RECORD_BYTES as u64;
    wait_until(|| fs::metadata(temp.path().join("clients")).unwrap().len() == 64 + records);
    let mut second = Server::start(temp.path(), [9; 4]);
    assert_eq!(names(temp.path()), ["clients", "clients-2"]);
    assert_eq!(second.clients.position(client(1)), Some(at(10)));
    second.serve(1, 15);
    second.serve(3, 30);
    second.stop();
    // A running server's file is left alone; that of an ended server is taken over.
    let third = Server::start(temp.path(), [9; 4]);
    assert_eq!(names(temp.path()), ["clients", "clients-2"]);
    assert_eq!(third.clients.position(client(3)), Some(at(30)));
    first.stop();
    third.stop();
    let mut expected = positions(temp.path());
    expected.sort();
    assert_eq!(
        expected,
        [(client(1), 15), (client(2), 20), (client(3), 30)]
    );
    assert_eq!(names(temp.path()), ["clients"]);
}

#[test]
fn servers_that_start_together_use_one_key() {
    let temp = tempfile::tempdir().unwrap();
    let seeds: Vec<_> = std::thread::scope(|scope| {
        let start = |number| {
            let folder = temp.path();
            scope.spawn(move || {
                let data = DataDir::open(folder).unwrap();
                files::open(&data, LIMIT, [number; 4], true).unwrap()
            })
        };
        let threads: Vec<_> = (1..=8).map(start).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert!(seeds.iter().all(|opened| opened.seed == seeds[0].seed));
    assert_eq!(names(temp.path()).len(), 8);
}

#[test]
fn log_with_another_key_is_discarded() {
    let temp = tempfile::tempdir().unwrap();
    let other = tempfile::tempdir().unwrap();
    for (folder, seed, number) in [(temp.path(), SEED, 1), (other.path(), [9; 4], 2)] {
        let mut server = Server::start(folder, seed);
        server.serve(number, 10);
        server.stop();
    }
    fs::copy(other.path().join("clients"), temp.path().join("clients-5")).unwrap();
    assert_eq!(positions(temp.path()), [(client(1), 10)]);
    assert_eq!(names(temp.path()), ["clients"]);
}

#[test]
fn unusable_file_is_an_error_that_names_it() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("clients");
    fs::create_dir(&path).unwrap();
    let data = DataDir::open(temp.path()).unwrap();
    let error = files::open(&data, LIMIT, SEED, false)
        .err()
        .unwrap()
        .to_string();
    assert_eq!(error, format!("{}: not a regular file", path.display()));
    assert!(path.is_dir());
}

// M15
#[test]
fn long_log_is_rewritten_with_the_current_state() {
    let temp = tempfile::tempdir().unwrap();
    let mut server = Server::start(temp.path(), SEED);
    let path = temp.path().join("clients");
    let mut longest = 0;
    let mut is_shorter = || {
        let length = fs::metadata(&path).unwrap().len();
        longest = longest.max(length);
        length < longest
    };
    let mut position = 0;
    while !is_shorter() {
        for _ in 0..100 {
            position += 1;
            server.clients.connect(client(1), at(position));
            server.clients.close(client(1), at(position));
        }
        server.clients.flush(0, |_| None);
        assert!(position < 10_000_000, "never rewritten");
    }
    assert!(longest < 2 * MIN_REWRITE, "{longest}");
    server.stop();
    assert_eq!(positions(temp.path()), [(client(1), position)]);
}

// D11
#[test]
fn records_after_a_failed_write_are_dropped_until_the_log_is_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("clients");
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let dropped: Arc<AtomicU64> = Arc::default();
    let opened = OpenedLog {
        file: OwnFile::of(full, &path),
        ..open_in(temp.path())
    };
    let (mut log, mut writer, items) = QueuedLog::with_writer(opened, Arc::clone(&dropped));
    let mut write_all = || items.try_iter().for_each(|item| writer.write(item));
    let records = [0; 3 * CLIENT_RECORD_BYTES];
    log.append(&records);
    write_all();
    log.append(&records);
    write_all();
    assert_eq!(dropped.load(Ordering::Relaxed), 6);
    assert!(!log.wants_rewrite(), "not before the pause has passed");
    writer.on_time(Instant::now() + RETRY);
    assert!(log.wants_rewrite());
    log.replace(vec![1; 100]);
    log.append(&records);
    items.try_iter().for_each(|item| writer.write(item));
    assert_eq!(dropped.load(Ordering::Relaxed), 6);
    let length = fs::metadata(&path).unwrap().len();
    assert_eq!(length, 100 + records.len() as u64);
}

// M15, D11
#[test]
fn records_beyond_the_queue_are_dropped_until_the_log_is_replaced() {
    let temp = tempfile::tempdir().unwrap();
    let opened = open_in(temp.path());
    let dropped: Arc<AtomicU64> = Arc::default();
    let (mut log, mut writer, items) = QueuedLog::with_writer(opened, Arc::clone(&dropped));
    let record = [0; CLIENT_RECORD_BYTES];
    let fitting = MAX_QUEUED / CLIENT_RECORD_BYTES;
    for _ in 0..fitting {
        log.append(&record);
    }
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    log.append(&record);
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    assert!(!log.wants_rewrite(), "not while the disk is too slow");
    let mut write_all = || items.try_iter().for_each(|item| writer.write(item));
    write_all();
    // There is room again, but no record may be missing between others.
    log.append(&record);
    assert_eq!(dropped.load(Ordering::Relaxed), 2);
    assert!(log.wants_rewrite());
    log.replace(vec![1; 100]);
    assert!(!log.wants_rewrite());
    log.append(&record);
    write_all();
    assert_eq!(dropped.load(Ordering::Relaxed), 2);
    let length = fs::metadata(temp.path().join("clients")).unwrap().len();
    assert_eq!(length, 100 + CLIENT_RECORD_BYTES as u64);
}

#[test]
fn failed_replacement_is_retried_after_a_pause() {
    let temp = tempfile::tempdir().unwrap();
    let folder = temp.path().join("data");
    let opened = open_in(&folder);
    let dropped: Arc<AtomicU64> = Arc::default();
    let (mut log, mut writer, items) = QueuedLog::with_writer(opened, Arc::clone(&dropped));
    let away = temp.path().join("away");
    fs::rename(&folder, &away).unwrap();
    log.replace(vec![1; 100]);
    log.append(&[0; CLIENT_RECORD_BYTES]);
    items.try_iter().for_each(|item| writer.write(item));
    assert_eq!(
        dropped.load(Ordering::Relaxed),
        1,
        "not appended to the old log"
    );
    assert!(!log.wants_rewrite(), "not before the pause has passed");
    writer.on_time(Instant::now() + RETRY);
    assert!(log.wants_rewrite());
    fs::rename(&away, &folder).unwrap();
    log.replace(vec![1; 100]);
    log.append(&[0; CLIENT_RECORD_BYTES]);
    items.try_iter().for_each(|item| writer.write(item));
    assert_eq!(dropped.load(Ordering::Relaxed), 1);
    let length = fs::metadata(folder.join("clients")).unwrap().len();
    assert_eq!(length, 100 + CLIENT_RECORD_BYTES as u64);
}

#[test]
fn client_of_another_running_server_is_known() {
    let temp = tempfile::tempdir().unwrap();
    let mut first = Server::with(temp.path(), SEED, true);
    let mut second = Server::with(temp.path(), SEED, true);
    first.serve(1, 10);
    wait_until(|| second.clients.position(client(1)) == Some(at(10)));
    // A client that seems to be connected has the position of its last sign of life.
    first.clients.connect(client(2), at(15));
    first.clients.alive(at(20));
    first.clients.flush(0, |_| None);
    wait_until(|| second.clients.position(client(2)) == Some(at(20)));
    second.serve(3, 30);
    wait_until(|| first.clients.position(client(3)) == Some(at(30)));
    // Replaced logs are read again.
    for position in 40..100_000 {
        first.clients.alive(at(position));
    }
    first.clients.close(client(2), at(100_000));
    first.clients.flush(0, |_| None);
    first.serve(1, 100_001);
    wait_until(|| second.clients.position(client(1)) == Some(at(100_001)));
    assert_eq!(second.clients.position(client(2)), Some(at(100_000)));
    // A new server takes over the log of the ended one.
    first.stop();
    let mut third = Server::with(temp.path(), SEED, true);
    third.serve(4, 100_002);
    wait_until(|| second.clients.position(client(4)) == Some(at(100_002)));
    assert_eq!(second.clients.position(client(2)), Some(at(100_000)));
    second.stop();
    third.stop();
}

#[test]
fn server_that_starts_during_the_shutdown_of_another_follows_it() {
    let temp = tempfile::tempdir().unwrap();
    let mut old = Server::start(temp.path(), SEED);
    let new = Server::start(temp.path(), SEED);
    old.serve(1, 10);
    old.stop();
    wait_until(|| new.clients.position(client(1)) == Some(at(10)));
    new.stop();
}
