//! Damaged, replaced, and foreign files.

use std::os::unix::fs::FileExt as _;

use super::*;
use crate::model::PublishError;

/// A deterministic generator of pseudorandom numbers (SplitMix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound as u64) as usize
    }
}

/// Returns a directory's history with some events, as files without an open connection. With
/// `with_log`, most events are only in the write-ahead log.
fn written(site: &Site, with_log: bool) -> (Vec<RestoredPlan>, u64) {
    let (mut server, start) = site.started();
    for number in 0..60 {
        let id = format!("{}", number % 40);
        let readers: &[&str] = if number % 3 == 0 {
            &[JOE]
        } else {
            &["group:__world__"]
        };
        server.publish(&event("update", &id, readers, &"text ".repeat(number * 3)));
    }
    let copies = with_log.then(|| {
        ["history.db", "history.db-wal"].map(|name| {
            let path = site.path().with_file_name(name);
            let bytes = fs::read(&path).unwrap();
            (path, bytes)
        })
    });
    drop(server);
    for (path, bytes) in copies.into_iter().flatten() {
        fs::write(path, bytes).unwrap();
    }
    let copy = Site::new();
    for name in ["history.db", "history.db-wal"] {
        let from = site.path().with_file_name(name);
        if from.exists() {
            fs::copy(from, copy.path().with_file_name(name)).unwrap();
        }
    }
    let restored = copy.started().1;
    assert_eq!(restored.start.epoch, start.start.epoch);
    assert_eq!(restored.plans.len(), 40);
    (restored.plans, restored.start.epoch)
}

#[test]
fn altered_bytes_give_the_same_events_or_a_new_epoch() {
    for (seed, name, with_log) in [(1, "history.db", false), (2, "history.db-wal", true)] {
        let site = Site::new();
        let (plans, epoch) = written(&site, with_log);
        let path = site.path().with_file_name(name);
        let whole = fs::read(&path).unwrap();
        let others: Vec<_> = [site.path(), site.path().with_file_name("history.db-wal")]
            .into_iter()
            .filter_map(|path| Some((path.clone(), fs::read(&path).ok()?)))
            .collect();
        let mut numbers = Numbers(seed);
        let (mut same, mut lost) = (0, 0);
        for _ in 0..60 {
            for beside in [
                "",
                "-wal",
                "-shm",
                ".damaged",
                ".damaged-wal",
                ".damaged-shm",
            ] {
                let _ = fs::remove_file(site.path().with_file_name(format!("history.db{beside}")));
            }
            for (path, bytes) in &others {
                fs::write(path, bytes).unwrap();
            }
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            for _ in 0..=numbers.below(4) {
                let at = numbers.below(whole.len());
                let byte = [numbers.below(256) as u8];
                file.write_all_at(&byte, at as u64).unwrap();
            }
            drop(file);
            let (mut server, restored) = site.started();
            match restored.start.epoch == epoch {
                true => {
                    same += 1;
                    let differs = (restored.plans.iter().zip(&plans)).position(|(a, b)| a != b);
                    assert_eq!((restored.plans.len(), differs), (plans.len(), None));
                }
                false => {
                    lost += 1;
                    assert!(restored.plans.is_empty());
                    assert!(site.path().with_file_name("history.db.damaged").exists());
                }
            }
            server.publish(&create("new"));
        }
        // Every byte of the log is covered by a checksum.
        assert!(same > 0 || with_log, "{name} {same} {lost}");
        assert!(lost > 0, "{name} {same} {lost}");
    }
}

#[test]
fn truncated_file_gives_a_new_epoch() {
    let site = Site::new();
    let (_, epoch) = written(&site, false);
    let whole = fs::read(site.path()).unwrap();
    for len in [1, 100, 4096, whole.len() / 2, whole.len() - 1] {
        fs::write(site.path(), &whole[..len]).unwrap();
        let (_, restored) = site.started();
        assert_ne!(restored.start.epoch, epoch, "{len}");
        let damaged = fs::read(site.path().with_file_name("history.db.damaged")).unwrap();
        assert_eq!(damaged.len(), len);
    }
}

#[test]
fn foreign_files_are_moved_aside() {
    let site = Site::new();
    let text = b"This is a text file, long enough to have a header.".repeat(99);
    fs::write(site.path(), &text).unwrap();
    let (mut server, first) = site.started();
    server.publish(&create("a"));
    drop(server);
    let aside = site.path().with_file_name("history.db.damaged");
    assert_eq!(fs::read(&aside).unwrap(), text);

    fs::remove_file(site.path()).unwrap();
    fs::copy(site.data().database(), site.path()).unwrap();
    let (_, second) = site.started();
    assert_ne!(first.start.epoch, second.start.epoch);
    let aside = Connection::open(aside).unwrap();
    let users: i64 = aside
        .query_row("SELECT count(*) FROM user", [], |row| row.get(0))
        .unwrap();
    assert_eq!(users, 2);
}

#[test]
fn file_of_a_later_version_stops_the_start_and_is_unchanged() {
    let site = Site::new();
    drop(site.started());
    site.file()
        .pragma_update(None, "user_version", "2")
        .unwrap();
    let opened = Embedded::open(&site.data(), site.options, Arc::default(), NOW);
    let error = opened.unwrap_err();
    assert!(matches!(error, StoreError::NewerHistory(..)), "{error:?}");
    assert!(
        error
            .to_string()
            .contains("history.db: the history has schema version 2")
    );
    let version: i64 = site
        .file()
        .query_row("PRAGMA user_version", [], |row| row.get(0))
        .unwrap();
    assert_eq!(version, 2);
}

#[test]
fn altered_row_is_detected_by_its_checksum() {
    for change in [
        "UPDATE event SET body = CAST(replace(CAST(body AS TEXT), 'http:', 'xttp:') AS BLOB)",
        "UPDATE event SET time = time + 1",
        "UPDATE event SET subject = 'a' || subject",
        "UPDATE event SET state = CAST(state || 'x' AS BLOB)",
        "UPDATE event SET seq = seq + 1 WHERE seq IN (SELECT max(seq) FROM event)",
        "UPDATE event SET author = NULL",
        "UPDATE past SET until = until + 1",
        "DELETE FROM past WHERE until IN (SELECT max(until) FROM past)",
        "DELETE FROM event WHERE seq IN (SELECT min(seq) FROM event)",
        "DELETE FROM meta",
    ] {
        let site = Site::new();
        let (_, epoch) = written(&site, false);
        let changed = site.file().execute(change, []);
        assert!(changed.is_ok_and(|rows| rows > 0), "{change}");
        let (_, restored) = site.started();
        assert_ne!(restored.start.epoch, epoch, "{change}");
        assert!(restored.plans.is_empty(), "{change}");
    }
}

type Change = fn(&Site);

#[test]
fn lost_file_is_replaced_while_the_server_runs() {
    let changes: [(&str, Change); 4] = [
        ("removed", |site| fs::remove_file(site.path()).unwrap()),
        ("replaced", |site| {
            let other = Site::new();
            drop(other.started());
            fs::rename(other.path(), site.path()).unwrap();
        }),
        ("emptied", |site| {
            site.file().execute_batch("DELETE FROM meta").unwrap();
        }),
        ("dropped", |site| {
            site.file().execute_batch("DROP TABLE event").unwrap();
        }),
    ];
    for (name, change) in changes {
        let site = Site::new();
        let (mut server, first) = site.started();
        server.publish(&create("a"));
        change(&site);
        let messages = server.try_publish(&create("b"), NOW);
        let answer = messages.iter().find_map(|message| match message {
            BackendEvent::Published { result, .. } => Some(result.clone()),
            _ => None,
        });
        let plans = answer.unwrap().unwrap();
        let restored = Restored::of(messages);
        assert_ne!(restored.start.epoch, first.start.epoch, "{name}");
        assert!(plans[0].stamp.position > restored.start.head, "{name}");
        assert!(
            Restored::find(server.turn(Vec::new(), NOW)).is_none(),
            "{name}"
        );
        drop(server);
        assert_eq!(site.started().1.ids(), ["b"], "{name}");
    }
}

#[test]
fn removed_log_loses_no_event_of_the_running_server() {
    let site = Site::new();
    let (mut server, first) = site.started();
    server.publish(&create("a"));
    fs::remove_file(site.path().with_file_name("history.db-wal")).unwrap();
    let restored = Restored::of(server.turn(Vec::new(), NOW));
    assert_eq!(restored.start.epoch, first.start.epoch);
    assert_eq!(restored.ids(), ["a"]);
}

#[test]
fn older_copy_under_a_running_server_gives_a_new_epoch() {
    let site = Site::new();
    drop(site.started());
    let copy = site.path().with_file_name("copy");
    fs::copy(site.path(), &copy).unwrap();
    let (mut server, first) = site.started();
    server.publish(&create("a"));
    fs::rename(copy, site.path()).unwrap();
    let restored = Restored::of(server.turn(Vec::new(), NOW));
    assert_ne!(restored.start.epoch, first.start.epoch);
}

#[test]
fn locked_history_rejects_events_and_recovers() {
    let site = Site::new();
    let (mut server, _) = site.started();
    let History::Stored(stored) = &mut server.0.history else {
        panic!("no file");
    };
    stored.set_busy_timeout(std::time::Duration::ZERO);
    let other = site.file();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let messages = server.turn(vec![publish(&create("a")), queue_event(&create("b"))], NOW);
    let [
        BackendEvent::Published {
            result: Err(PublishError::Unavailable(text)),
            ..
        },
    ] = &messages[..]
    else {
        panic!("{messages:?}");
    };
    assert!(text.contains("history.db: the history is locked"), "{text}");
    other.execute_batch("COMMIT").unwrap();
    // The event from the queue is processed now.
    let plans = server.poll();
    assert_eq!(plans.iter().map(id).collect::<Vec<_>>(), ["b"]);
}

#[test]
fn full_file_rejects_events_loses_none_and_recovers() {
    let site = Site::new();
    let (mut server, _) = site.started();
    server.publish(&create("a"));
    let History::Stored(stored) = &mut server.0.history else {
        panic!("no file");
    };
    stored.set_page_limit(40);
    let large = event("create", "b", &["group:__world__"], &"x".repeat(500_000));
    let requests = vec![
        publish(&create("c")),
        publish(&large),
        queue_event(&create("d")),
    ];
    let messages = server.turn(requests, NOW);
    assert_eq!(messages.len(), 2, "{messages:?}");
    for message in &messages {
        let BackendEvent::Published {
            result: Err(PublishError::StorageFull(text)),
            ..
        } = message
        else {
            panic!("{message:?}");
        };
        assert!(
            text.contains("history.db") && text.contains("free some space"),
            "{text}"
        );
    }
    // Small events fit.
    let messages = server.try_publish(&create("e"), NOW);
    let [
        BackendEvent::QueueEvents { plans, .. },
        BackendEvent::Published { result: Ok(_), .. },
    ] = &messages[..]
    else {
        panic!("{messages:?}");
    };
    assert_eq!(id(&plans[0]), "d");
    drop(server);
    assert_eq!(site.started().1.ids(), ["a", "d", "e"]);
}
