//! The log of clients, compared with a search through its records.

use h_realtime::realtime::parts::{CLIENT_LOG_HEADER, Record, decode_client_log, start_client_log};
use h_realtime::realtime::{CLIENT_RECORD_BYTES, ClientLogDecoder, Cursor, Digest, LoadedClients};

/// Input: the size of pieces, a limit, a choice, and either a log or records of three bytes each.
///
/// A log decodes in pieces as at once. The log of the records, cut at any position, yields the
/// positions that a search through the complete records finds.
pub fn client_log(input: &[u8]) {
    let &[piece, limit, choice, ref rest @ ..] = input else {
        return;
    };
    let (piece, limit) = (usize::from(piece) + 1, usize::from(limit));
    if choice == 0 {
        compare(rest, piece, limit);
        return;
    }
    let records: Vec<Record> = rest.as_chunks().0.iter().map(record).collect();
    let mut log = Vec::new();
    start_client_log([1, 2, 3, 4], &mut log);
    records.iter().for_each(|record| record.encode(&mut log));
    // The last bytes are lost.
    let lost = usize::from(choice - 1).min(log.len());
    log.truncate(log.len() - lost);
    let loaded = compare(&log, piece, limit);
    let Some(bytes) = log.len().checked_sub(CLIENT_LOG_HEADER) else {
        assert!(loaded.seed.is_none() && loaded.clients.is_empty());
        return;
    };
    let complete = bytes / CLIENT_RECORD_BYTES;
    assert_eq!(
        loaded.damage.is_some(),
        !bytes.is_multiple_of(CLIENT_RECORD_BYTES)
    );
    let expected = search(&records[..complete]);
    let skipped = expected.len().saturating_sub(limit);
    assert_eq!(loaded.clients, expected[skipped..]);
}

fn compare(log: &[u8], piece: usize, limit: usize) -> LoadedClients {
    let whole = decode_client_log(log, limit);
    let mut decoder = ClientLogDecoder::new(limit);
    log.chunks(piece).for_each(|piece| decoder.feed(piece));
    let pieces = decoder.finish();
    assert_eq!(
        (pieces.seed, &pieces.clients, pieces.damage),
        (whole.seed, &whole.clients, whole.damage)
    );
    whole
}

fn record(&[kind, client, position]: &[u8; 3]) -> Record {
    let received = Cursor {
        epoch: 1,
        position: position.into(),
        time: 0,
    };
    let client = Digest::from_words([u64::from(client % 16), 1]);
    match kind % 3 {
        0 => Record::Connected(client, received),
        1 => Record::Closed(client, received),
        _ => Record::Alive(received),
    }
}

/// Returns the clients in order of their last records.
fn search(records: &[Record]) -> Vec<(Digest, Cursor)> {
    let mut found = Vec::new();
    for (at, record) in records.iter().enumerate() {
        let later = &records[at + 1..];
        let (client, received, is_connected) = match *record {
            Record::Connected(client, received) => (client, received, true),
            Record::Closed(client, received) => (client, received, false),
            Record::Alive(_) => continue,
        };
        let is_of_client = |record: &Record| matches!(record, Record::Connected(other, _) | Record::Closed(other, _) if *other == client);
        if later.iter().any(is_of_client) {
            continue;
        }
        let alive = later.iter().filter_map(|record| match record {
            Record::Alive(received) if is_connected => Some(received.position),
            _ => None,
        });
        let position = alive.fold(received.position, u64::max);
        found.push((
            client,
            Cursor {
                position,
                ..received
            },
        ));
    }
    found
}
