//! Tests of the records, and of rewritten logs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use super::super::client_log::decode;
use super::*;
use crate::realtime::testing::Random;

/// A log in memory.
#[derive(Default)]
struct Memory {
    log: Vec<u8>,
    appends: usize,
    wants_rewrite: bool,
    /// The position of client 4 elsewhere.
    elsewhere: Option<Cursor>,
}

#[derive(Clone, Default)]
struct MemoryLog(Rc<RefCell<Memory>>);

impl ClientLog for MemoryLog {
    fn append(&mut self, records: &[u8]) {
        let mut memory = self.0.borrow_mut();
        memory.log.extend(records);
        memory.appends += 1;
    }

    fn wants_rewrite(&self) -> bool {
        self.0.borrow().wants_rewrite
    }

    fn replace(&mut self, log: Vec<u8>) {
        let mut memory = self.0.borrow_mut();
        memory.log = log;
        memory.wants_rewrite = false;
    }

    fn position_elsewhere(&self, client: Digest) -> Option<Cursor> {
        let is_known = client == self::client(4);
        self.0.borrow().elsewhere.filter(|_| is_known)
    }
}

impl MemoryLog {
    fn clients(&self) -> Vec<(Digest, u64)> {
        let loaded = decode(&self.0.borrow().log, 100_000);
        assert_eq!(loaded.damage, None);
        let clients = loaded.clients.into_iter();
        clients.map(|(client, at)| (client, at.position)).collect()
    }
}

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

fn clients(limit: usize) -> (Clients, MemoryLog) {
    let mut clients = Clients::new(limit, [1, 2, 3, 4]);
    let log = MemoryLog::default();
    client_log::start([1, 2, 3, 4], &mut log.0.borrow_mut().log);
    clients.set_log(Box::new(log.clone()));
    (clients, log)
}

/// Writes the records of a turn in which the log is not rewritten.
fn flush(clients: &mut Clients) {
    assert!(!clients.flush(1, |_| panic!("rewritten")));
}

#[test]
fn table_holds_disconnected_clients_and_log_holds_all() {
    let (mut clients, log) = clients(10);
    clients.restore(vec![(client(1), at(5)), (client(2), at(6))]);
    assert_eq!(clients.position(client(1)), Some(at(5)));
    clients.connect(client(1), at(8));
    assert_eq!(clients.position(client(1)), None);
    clients.connect(client(3), at(8));
    clients.alive(at(9));
    clients.close(client(3), at(10));
    assert_eq!(log.clients(), [], "written at the end of the turn");
    flush(&mut clients);
    flush(&mut clients);
    assert_eq!(log.0.borrow().appends, 1);
    assert_eq!(log.clients(), [(client(1), 9), (client(3), 10)]);
    assert_eq!((clients.len(), clients.is_empty()), (2, false));
}

#[test]
fn restored_position_never_replaces_a_later_one() {
    let (mut clients, _) = clients(10);
    clients.restore(vec![(client(1), at(5)), (client(2), at(6))]);
    clients.restore(vec![(client(1), at(4)), (client(2), at(7))]);
    assert_eq!(clients.position(client(1)), Some(at(5)));
    assert_eq!(clients.position(client(2)), Some(at(7)));
}

#[test]
fn later_position_at_another_server_is_used() {
    let (mut clients, log) = clients(10);
    log.0.borrow_mut().elsewhere = Some(at(5));
    clients.restore(vec![(client(3), at(1))]);
    for (own, expected) in [(None, 5), (Some(4), 5), (Some(6), 6)] {
        clients.restore(own.map(|own| (client(4), at(own))).into_iter().collect());
        assert_eq!(clients.position(client(4)), Some(at(expected)));
    }
    assert_eq!(clients.position(client(3)), Some(at(1)));
    assert_eq!(clients.position(client(5)), None);
}

#[test]
fn rewritten_log_has_one_record_for_each_client() {
    let (mut clients, log) = clients(10);
    for position in 1..100 {
        clients.connect(client(1), at(position));
        clients.close(client(1), at(position));
    }
    clients.connect(client(2), at(50));
    log.0.borrow_mut().wants_rewrite = true;
    let in_slot = |slot| (slot == 7).then_some((client(2), at(60)));
    assert!(!clients.flush(8, in_slot));
    assert_eq!(log.clients(), [(client(1), 99), (client(2), 60)]);
    assert_eq!(log.0.borrow().log.len(), HEADER + 2 * RECORD);
    // The open client is still connected in the log.
    clients.alive(at(70));
    flush(&mut clients);
    assert_eq!(log.clients(), [(client(1), 99), (client(2), 70)]);
}

/// Clients connect and disconnect while the log is rewritten, and the log fails meanwhile.
#[test]
fn long_log_is_rewritten_in_steps_with_all_changes() {
    const SLOTS: u64 = 20_000;
    let (mut clients, log) = clients(2 * SLOTS as usize);
    let mut random = Random(3);
    // The open client and the position of each slot. Client numbers are those of slots.
    let mut open: Vec<Option<u64>> = vec![None; SLOTS as usize];
    let mut expected = BTreeMap::new();
    let (mut position, mut turns) = (0, 0);
    for round in 0..2 {
        for number in 0..SLOTS {
            position += 1;
            change(&mut clients, &mut open, &mut expected, number, position);
        }
        // Records are lost from here on.
        clients.flush(0, |_| None);
        log.0.borrow_mut().log.truncate(HEADER);
        log.0.borrow_mut().wants_rewrite = true;
        let replaced = |log: &MemoryLog| !log.0.borrow().wants_rewrite;
        while !replaced(&log) {
            let changes = random.below(300);
            for _ in 0..changes {
                position += 1;
                let number = random.below(SLOTS);
                change(&mut clients, &mut open, &mut expected, number, position);
            }
            let mut visited = 0;
            let more = clients.flush(SLOTS as usize, |slot| {
                visited += 1;
                open[slot as usize].map(|received| (client(slot.into()), at(received)))
            });
            let most = REWRITTEN + STEPS_PER_RECORD * changes as usize;
            assert!(visited <= most, "{visited} connections in a turn");
            assert_ne!(more, replaced(&log));
            turns += 1;
        }
        let loaded: BTreeMap<_, _> = log.clients().into_iter().collect();
        assert_eq!(loaded, expected, "round {round}");
    }
    assert!(turns >= 2 * SLOTS as usize / REWRITTEN, "{turns} turns");
}

/// A log with the limits of the one of the server, on a disk that is always fast.
#[derive(Clone, Default)]
struct LimitedLog(Rc<RefCell<Limited>>);

#[derive(Default)]
struct Limited {
    records: usize,
    compact: usize,
    /// Whether a record was added in this turn, and is still being written.
    is_busy: bool,
    replaced: usize,
}

impl ClientLog for LimitedLog {
    fn append(&mut self, records: &[u8]) {
        let mut log = self.0.borrow_mut();
        log.records += records.len() / RECORD;
        log.is_busy = true;
        assert!(log.records < 6 * log.compact + 5_000, "the log is too long");
    }

    fn wants_rewrite(&self) -> bool {
        let log = self.0.borrow();
        !log.is_busy && log.records > 4 * log.compact
    }

    fn replace(&mut self, rewritten: Vec<u8>) {
        let mut log = self.0.borrow_mut();
        log.records = rewritten.len() / RECORD;
        log.compact = log.records;
        log.replaced += 1;
    }

    fn position_elsewhere(&self, _: Digest) -> Option<Cursor> {
        None
    }
}

// Clients that connect in every turn neither delay the end of a rewrite nor its beginning.
#[test]
fn log_is_rewritten_in_time_while_many_clients_reconnect() {
    for (slots, connected, per_turn) in [(50_000, 50_000, 200), (100_000, 5_000, 100)] {
        let mut clients = Clients::new(connected, [1, 2, 3, 4]);
        let log = LimitedLog::default();
        clients.set_log(Box::new(log.clone()));
        // Few connections in an arena that was full before.
        let slot_of = |number: u64| (number * (slots / connected as u64)) as u32;
        let mut open = vec![None; slots as usize];
        for turn in 0..20 * connected / per_turn {
            for offset in 0..per_turn {
                let number = ((turn * per_turn + offset) % connected) as u64;
                let slot = &mut open[slot_of(number) as usize];
                if slot.is_some() {
                    clients.close(client(number), at(turn as u64));
                }
                clients.connect(client(number), at(turn as u64));
                *slot = Some((client(number), at(turn as u64)));
            }
            clients.flush(slots as usize, |slot| open[slot as usize]);
            log.0.borrow_mut().is_busy = false;
        }
        let replaced = log.0.borrow().replaced;
        assert!(replaced >= 3, "{replaced} rewrites");
    }
}

/// Connects a client, or disconnects it.
fn change(
    clients: &mut Clients,
    open: &mut [Option<u64>],
    expected: &mut BTreeMap<Digest, u64>,
    number: u64,
    position: u64,
) {
    let slot = &mut open[number as usize];
    let client = client(number);
    match slot.take() {
        Some(_) => clients.close(client, at(position)),
        None => {
            clients.connect(client, at(position));
            *slot = Some(position);
        }
    }
    expected.insert(client, position);
}

#[test]
fn rewritten_log_that_cannot_be_stored_does_not_grow() {
    let (mut clients, log) = clients(10);
    log.0.borrow_mut().wants_rewrite = true;
    let more = clients.flush(10_000, |_| None);
    log.0.borrow_mut().wants_rewrite = false;
    assert!(more);
    for position in 1..100_000 {
        clients.alive(at(position));
        clients.flush(10_000, |_| None);
    }
    assert!(clients.bytes() < 4 * BATCH, "{}", clients.bytes());
}

#[test]
fn last_records_are_written_on_drop() {
    let (mut table, log) = clients(10);
    table.connect(client(1), at(1));
    table.close(client(1), at(2));
    drop(table);
    assert_eq!(log.clients(), [(client(1), 2)]);

    // A log with dropped records is replaced if all clients have disconnected.
    for (closes, expected) in [(true, vec![(client(1), 2)]), (false, vec![])] {
        let (mut table, log) = clients(10);
        table.connect(client(1), at(1));
        if closes {
            table.close(client(1), at(2));
        }
        flush(&mut table);
        log.0.borrow_mut().log.truncate(HEADER);
        log.0.borrow_mut().wants_rewrite = true;
        drop(table);
        assert_eq!(log.clients(), expected);
    }
}

#[test]
fn table_without_a_log_buffers_no_records() {
    let mut table = Clients::new(10, [1, 2, 3, 4]);
    for position in 1..100_000 {
        table.connect(client(1), at(position));
        table.close(client(1), at(position));
    }
    assert_eq!((table.len(), table.batch.capacity()), (1, 0));
}

#[test]
fn records_are_not_omitted_while_the_limit_is_zero() {
    let (mut clients, log) = clients(10);
    clients.connect(client(1), at(1));
    clients.set_limit(0);
    clients.close(client(1), at(2));
    clients.set_limit(10);
    clients.alive(at(3));
    flush(&mut clients);
    assert_eq!(
        (clients.is_empty(), log.clients()),
        (true, vec![(client(1), 2)])
    );
}

#[test]
fn long_turns_are_written_in_pieces() {
    let (mut table, log) = clients(10);
    for position in 1..100_000 {
        table.alive(at(position));
    }
    assert!(log.0.borrow().appends > 50);
    assert!(table.bytes() < 4 * BATCH, "{}", table.bytes());
}
