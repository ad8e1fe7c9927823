//! Tests of the format, and of the positions after a crash.

use std::collections::HashMap;

use super::*;

const SEED: [u64; 4] = [1, 2, 3, 4];

fn client(number: u64) -> Digest {
    Digest::from_words([number, !number])
}

fn at(position: u64) -> Cursor {
    Cursor {
        epoch: 7,
        position,
        time: position * 1000,
    }
}

fn log(records: &[Record]) -> Vec<u8> {
    let mut out = Vec::new();
    start(SEED, &mut out);
    records.iter().for_each(|record| record.encode(&mut out));
    out
}

fn positions(log: &[u8]) -> Vec<(Digest, u64)> {
    let loaded = decode(log, 100);
    // Single positions are the same.
    let mut decoder = Decoder::new(100);
    decoder.feed(log);
    assert_eq!(decoder.seed(), loaded.seed);
    for (client, received) in &loaded.clients {
        assert_eq!(decoder.position(*client), Some(*received));
    }
    let positions = loaded.clients.into_iter();
    positions
        .map(|(client, at)| (client, at.position))
        .collect()
}

use Record::{Alive, Closed, Connected};

#[test]
fn records_have_fixed_sizes_and_decode_to_themselves() {
    let records = [
        Connected(client(1), at(5)),
        Closed(client(u64::MAX), at(u64::MAX / 1000)),
        Alive(at(0)),
    ];
    assert_eq!(log(&[]).len(), HEADER);
    assert_eq!(log(&records).len(), HEADER + records.len() * RECORD);
    for record in records {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        assert_eq!(Record::decode(&bytes), Some(record));
    }
    let loaded = decode(&log(&records), 100);
    assert_eq!((loaded.seed, loaded.damage), (Some(SEED), None));
}

// D11
#[test]
fn client_that_was_connected_has_the_position_of_the_last_sign_of_life() {
    let log = log(&[
        Alive(at(90)),
        Connected(client(1), at(10)),
        Connected(client(2), at(10)),
        Alive(at(20)),
        Closed(client(2), at(25)),
        Alive(at(30)),
        Connected(client(3), at(40)),
    ]);
    let expected = [(client(1), 30), (client(2), 25), (client(3), 40)];
    assert_eq!(positions(&log), expected);
}

#[test]
fn later_sign_of_life_with_an_earlier_position_lowers_no_position() {
    let log = log(&[
        Connected(client(1), at(10)),
        Alive(at(50)),
        Connected(client(2), at(20)),
        Alive(at(20)),
        Alive(at(30)),
        Connected(client(3), at(5)),
        Alive(at(5)),
    ]);
    let expected = [(client(1), 50), (client(2), 30), (client(3), 5)];
    assert_eq!(positions(&log), expected);
}

#[test]
fn newest_record_decides_and_orders_the_clients() {
    let records = [
        Closed(client(1), at(10)),
        Closed(client(2), at(20)),
        Connected(client(1), at(30)),
        Closed(client(3), at(40)),
        Closed(client(1), at(50)),
    ];
    let bytes = log(&records);
    let expected = [(client(2), 20), (client(3), 40), (client(1), 50)];
    assert_eq!(positions(&bytes), expected);
    let newest: Vec<_> = decode(&bytes, 2).clients;
    assert_eq!(newest, [(client(3), at(40)), (client(1), at(50))]);
    assert_eq!(decode(&bytes, 0).clients, []);
}

#[test]
fn every_prefix_of_a_log_loads_an_earlier_state() {
    let records: Vec<Record> = (1..9)
        .flat_map(|number| {
            let position = at(number * 10);
            [
                Connected(client(number % 3), position),
                Alive(at(number * 10 + 1)),
                Closed(client(number % 3), at(number * 10 + 2)),
            ]
        })
        .collect();
    let bytes = log(&records);
    let full: HashMap<_, _> = positions(&bytes).into_iter().collect();
    for end in 0..bytes.len() {
        let loaded = decode(&bytes[..end], 100);
        let whole = end.saturating_sub(HEADER) / RECORD;
        let expected = match end {
            0 => None,
            1..HEADER => Some(Damage::Header),
            _ if (end - HEADER).is_multiple_of(RECORD) => None,
            _ => Some(Damage::Record((HEADER + whole * RECORD) as u64)),
        };
        assert_eq!(loaded.damage, expected, "{end}");
        let whole = HEADER + whole * RECORD;
        if end >= HEADER {
            assert_eq!(positions(&bytes[..end]), positions(&bytes[..whole]));
        }
        for (client, received) in loaded.clients {
            assert!(received.position <= full[&client]);
        }
    }
}

// D11
#[test]
fn every_damaged_byte_is_detected() {
    let records = [1, 2, 3].map(|number| Closed(client(number), at(number)));
    let bytes = log(&records);
    for index in 0..bytes.len() {
        for bit in 0..8 {
            let mut damaged = bytes.clone();
            damaged[index] ^= 1 << bit;
            let loaded = decode(&damaged, 100);
            let whole = index.saturating_sub(HEADER) / RECORD;
            if index < HEADER {
                assert!(loaded.seed.is_none() && loaded.damage.is_some(), "{index}");
                assert_eq!(loaded.clients, []);
            } else {
                let offset = (HEADER + whole * RECORD) as u64;
                assert_eq!(loaded.damage, Some(Damage::Record(offset)));
                assert_eq!(loaded.clients.len(), whole);
            }
        }
    }
    let zeros = [&*bytes, &[0; 500]].concat();
    let loaded = decode(&zeros, 100);
    assert_eq!(loaded.clients.len(), 3);
    assert_eq!(loaded.damage, Some(Damage::Record(bytes.len() as u64)));
}

#[test]
fn log_of_another_version_or_hash_function_is_discarded() {
    let bytes = log(&[Closed(client(1), at(1))]);
    let mut other = bytes.clone();
    other[8] = 2;
    assert_eq!(decode(&other, 9).damage, Some(Damage::Version(2)));
    // A header with a correct checksum, and the digest of a different function.
    let mut words: [u64; 6] = words(&bytes[16..HEADER]).unwrap();
    words[5] ^= 1;
    let mut other = bytes[..12].to_vec();
    other.extend(checksum(&words).to_le_bytes());
    words
        .iter()
        .for_each(|word| other.extend(word.to_le_bytes()));
    other.extend(&bytes[HEADER..]);
    let loaded = decode(&other, 9);
    assert_eq!(loaded.damage, Some(Damage::HashFunction));
    assert!(loaded.seed.is_none() && loaded.clients.is_empty());
}

#[test]
fn damage_is_described_with_its_place() {
    for (damage, text) in [
        (Damage::Header, "the header is invalid"),
        (Damage::Version(2), "the format has version 2 instead of 1"),
        (
            Damage::HashFunction,
            "the digests are of a different hash function",
        ),
        (Damage::Record(112), "invalid from byte 112"),
    ] {
        assert_eq!(damage.to_string(), text);
    }
}

#[test]
fn pieces_decode_like_the_whole() {
    let records: Vec<_> = (0..20)
        .map(|number| Connected(client(number), at(number)))
        .collect();
    let bytes = log(&records);
    for piece in [1, 7, 47, 48, 49, 64, 1000] {
        let mut decoder = Decoder::new(100);
        bytes.chunks(piece).for_each(|piece| decoder.feed(piece));
        let loaded = decoder.finish();
        assert_eq!(loaded.clients, decode(&bytes, 100).clients, "{piece}");
        assert_eq!(loaded.damage, None);
    }
}

#[test]
fn evicted_connected_clients_take_no_memory() {
    let mut decoder = Decoder::new(10);
    decoder.feed(&log(&[]));
    for number in 0..100_000 {
        let mut bytes = Vec::new();
        Connected(client(number), at(number)).encode(&mut bytes);
        Alive(at(number)).encode(&mut bytes);
        decoder.feed(&bytes);
    }
    assert!(decoder.bytes() <= 32 << 10, "{}", decoder.bytes());
    assert_eq!(decoder.alive.len(), 1);
    assert_eq!(decoder.finish().clients.len(), 10);
}

// M15
#[test]
fn connected_client_takes_at_most_64_bytes() {
    let mut decoder = Decoder::new(100_000);
    decoder.feed(&log(&[]));
    for number in 1..=100_000 {
        let mut bytes = Vec::new();
        Connected(client(number), at(number)).encode(&mut bytes);
        decoder.feed(&bytes);
        if number >= 4_000 {
            let bytes = decoder.bytes();
            assert!(bytes <= 64 * number as usize, "{bytes} bytes for {number}");
        }
    }
}

#[test]
fn numbers_of_records_do_not_wrap_around() {
    let mut decoder = Decoder::new(10);
    decoder.number = u32::MAX - 3;
    let mut bytes = log(&[Connected(client(1), at(1))]);
    for number in 2..7 {
        Alive(at(10 + number)).encode(&mut bytes);
        Connected(client(number), at(number)).encode(&mut bytes);
    }
    decoder.feed(&bytes);
    // Later signs of life no longer count for clients that have connected since.
    let positions = (1..7).map(|number| decoder.position(client(number)).unwrap().position);
    assert_eq!(positions.collect::<Vec<_>>(), [16, 2, 3, 4, 5, 6]);
}
