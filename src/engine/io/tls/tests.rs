//! Tests of the link against the library's own client, over a simulated wire.

mod endings;
mod wire;

use std::io::IoSlice;
use std::sync::Arc;

use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::version::{TLS12, TLS13};
use rustls::{HandshakeKind, SupportedProtocolVersion};
use wire::{Forger, Pair, client_config, configs};

use super::TlsLink;
use crate::Scratch;

const BOTH: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];

#[test]
fn both_versions_shake_hands_and_carry_data_both_ways() {
    for version in BOTH {
        let mut pair = Pair::new(&configs(version));
        pair.complete_handshake();
        assert_eq!(pair.client.protocol_version(), Some(version.version));
        assert_eq!(pair.client.alpn_protocol(), Some(&b"http/1.1"[..]));
        pair.client_sends(b"hello");
        assert_eq!(pair.fill_all(), b"hello");
        assert_eq!(pair.send(b"welcome"), 7);
        assert_eq!(pair.client_receives(), b"welcome");
        pair.assert_idle();
    }
}

#[test]
fn each_suite_of_tls_1_3_carries_data_under_key_after_key() {
    for suite in [
        TLS13_AES_256_GCM_SHA384,
        TLS13_AES_128_GCM_SHA256,
        TLS13_CHACHA20_POLY1305_SHA256,
    ] {
        let (server, _) = configs(&TLS13);
        let client = client_config(&TLS13, Some(suite));
        let mut pair = Pair::new(&(server, Arc::new(client)));
        pair.complete_handshake();
        assert_eq!(pair.client.negotiated_cipher_suite(), Some(suite));
        for size in [0, 1, 15, 16, 17, 5_000, 16_384] {
            let data: Vec<u8> = (0..size).map(|at| at as u8).collect();
            pair.client_sends(&data);
            assert_eq!(pair.fill_all(), data);
            assert_eq!(pair.send(&data), data.len());
            assert_eq!(pair.client_receives(), data);
            pair.client.refresh_traffic_keys().unwrap();
        }
        pair.client_writes();
        assert_eq!(pair.fill_all(), b"");
        pair.assert_idle();
    }
}

#[test]
fn a_client_hello_may_be_split_anywhere() {
    for version in BOTH {
        let configs = configs(version);
        let len = Pair::new(&configs).client_flight().len();
        for at in 1..len {
            let mut pair = Pair::new(&configs);
            let hello = pair.client_flight();
            pair.wire.feed(&hello[..at]);
            assert_eq!(pair.fill_all(), b"");
            assert_eq!(pair.link.partial.as_deref().map(<[u8]>::len), Some(at));
            pair.wire.feed(&hello[at..]);
            // The server's flight proves that it has parsed the hello.
            assert_eq!(pair.fill_all(), b"");
            assert!(pair.wire.sent() > 0, "split at {at}");
            assert!(pair.link.partial.is_none());
            if at % 32 == 1 {
                pair.complete_handshake();
            }
        }
    }
}

// T7
#[test]
fn input_may_arrive_byte_by_byte() {
    for version in BOTH {
        let mut pair = Pair::new(&configs(version));
        pair.wire.read_at_most(&[1]);
        pair.complete_handshake();
        pair.client_sends(b"hello");
        assert_eq!(pair.fill_all(), b"hello");
        pair.assert_idle();
    }
}

// RUSTSEC-2024-0399
#[test]
fn a_client_hello_may_come_in_several_records() {
    let (server, _) = configs(&TLS13);
    let mut client = client_config(&TLS13, None);
    client.max_fragment_size = Some(64);
    let configs = (server, Arc::new(client));
    for chunk in [1, 7, 64, 65, 200] {
        let mut pair = Pair::new(&configs);
        pair.wire.read_at_most(&[chunk]);
        pair.complete_handshake();
        pair.client_sends(&[b'x'; 300]);
        assert_eq!(pair.fill_all(), [b'x'; 300]);
        pair.assert_idle();
    }
}

// T3
#[test]
fn frames_in_one_record_and_in_many_arrive_together() {
    let mut pair = Pair::new(&configs(&TLS13));
    pair.complete_handshake();
    let frames = [[b'f'; 12]; 20].concat();
    pair.client_sends(&frames);
    assert_eq!(pair.fill_all(), frames);
    for frame in frames.chunks(12) {
        pair.client_sends(frame);
    }
    let fill = pair.fill().unwrap();
    assert_eq!((fill.bytes, fill.is_emptied, fill.eof), (240, true, false));
    pair.assert_idle();
}

#[test]
fn record_arrives_with_short_reads() {
    let mut pair = Pair::new(&configs(&TLS13));
    pair.complete_handshake();
    let text = [b'x'; 16_000];
    for limit in [1000, 4096] {
        pair.client_sends(&text);
        pair.client_sends(b"short");
        let mut plain = Vec::new();
        let mut fills = 0;
        while plain.len() < text.len() + 5 {
            let fill = pair.link.fill(&mut pair.scratch, limit).unwrap();
            plain.extend_from_slice(&pair.scratch.input[..fill.bytes]);
            fills += 1;
        }
        assert_eq!(plain, [&text[..], b"short"].concat());
        assert_eq!(fills, 16_067_usize.div_ceil(limit), "{limit}");
        pair.assert_idle();
    }
}

#[test]
fn short_frames_share_a_record() {
    let mut pair = Pair::new(&configs(&TLS13));
    pair.complete_handshake();
    let frames = [[b'f'; 100]; 20];
    let slices = frames.each_ref().map(|frame| IoSlice::new(frame));
    let taken = pair.link.send(&slices, &mut pair.scratch).unwrap();
    assert_eq!(taken, 2000);
    assert!(pair.wire.sent() < 2000 + 64, "more than one record");
    assert_eq!(pair.client_receives(), frames.concat());
}

#[test]
fn much_data_passes_through_short_reads_and_writes() {
    let data: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
    let odd = [1400, 0, 3, 1, 0, 17_000, 0, 40_000, 5];
    let even = [0, 16_384, 16_406, 0, 1, 9000];
    for (version, data, reads, writes) in [
        (&TLS13, &data[..], &odd[..], &odd[..]),
        (&TLS12, &data, &even, &even),
        (&TLS13, &data, &odd, &[100, 1, 0]),
        (&TLS13, &data[..10_000], &[1, 0], &[1, 0]),
    ] {
        let mut pair = Pair::new(&configs(version));
        pair.complete_handshake();
        pair.wire.read_at_most(reads);
        pair.wire.write_at_most(writes);
        let mut received = Vec::new();
        let mut sent = 0;
        let mut echo = Vec::new();
        let mut echoed = 0;
        while received.len() < data.len() {
            // Small pieces, like a client's frames.
            if sent < data.len() {
                let end = data.len().min(sent + 5000);
                pair.client_sends(&data[sent..end]);
                sent = end;
            }
            echo.extend(pair.fill_all());
            let (head, tail) = echo[echoed..].split_at((echo.len() - echoed) / 3);
            let slices = [IoSlice::new(head), IoSlice::new(&[]), IoSlice::new(tail)];
            echoed += pair.link.send(&slices, &mut pair.scratch).unwrap();
            pair.link.flush().unwrap();
            received.extend(pair.client_receives());
        }
        assert!(received == data);
        pair.wire.read_at_most(&[]);
        pair.wire.write_at_most(&[]);
        assert!(pair.link.flush().unwrap());
        pair.assert_idle();
    }
}

#[test]
fn send_is_bounded_and_buffers_one_record() {
    let data = vec![b'd'; 200_000];
    let mut pair = Pair::new(&configs(&TLS13));
    pair.complete_handshake();
    assert_eq!(pair.send(&data), 64 * 1024);
    assert!(!pair.link.has_output());
    assert_eq!(pair.client_receives().len(), 64 * 1024);
    // The kernel accepts the first record, a part of the second, and no more.
    pair.wire.write_at_most(&[20_000, 1000, 0]);
    assert_eq!(pair.send(&data), 32 * 1024);
    let held_back = pair.link.out.as_deref().unwrap().len();
    assert!((15_000..16_000).contains(&held_back), "{held_back}");
    // The buffered rest is sent first, then one record, a part of which is buffered again.
    assert_eq!(pair.send(&data), 16 * 1024);
    pair.wire.write_at_most(&[0]);
    assert_eq!(pair.send(&data), 0);
    assert!(!pair.link.flush().unwrap());
    pair.wire.write_at_most(&[]);
    assert!(pair.link.flush().unwrap());
    assert_eq!(pair.client_receives().len(), 48 * 1024);
    assert!(pair.link.out.is_none());
}

#[test]
fn blocked_flight_is_completed_by_flush() {
    for version in BOTH {
        let mut pair = Pair::new(&configs(version));
        pair.wire.write_at_most(&[100, 0, 0]);
        let hello = pair.client_flight();
        pair.wire.feed(&hello);
        assert_eq!(pair.fill_all(), b"");
        assert!(pair.link.has_output());
        assert_eq!(pair.wire.sent(), 100);
        assert!(!pair.link.flush().unwrap());
        assert_eq!(pair.send(b"too early"), 0);
        pair.wire.write_at_most(&[]);
        assert!(pair.link.flush().unwrap());
        assert!(!pair.link.has_output());
        pair.complete_handshake();
        pair.assert_idle();
    }
}

// T1
#[test]
fn a_key_update_is_answered_before_the_next_data() {
    let mut pair = Pair::new(&configs(&TLS13));
    pair.complete_handshake();
    for round in 0..40 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.client_sends(b"new keys");
        assert_eq!(pair.fill_all(), b"new keys");
        // RFC 8446 §4.6.3: the response is due "prior to sending its next Application Data record";
        // without it, the client could not decrypt the next record.
        assert_eq!(pair.send(b"mine too"), 8, "round {round}");
        assert_eq!(pair.client_receives(), b"mine too");
    }
    // Also on a connection that is otherwise idle.
    pair.client.refresh_traffic_keys().unwrap();
    pair.client_writes();
    assert_eq!(pair.fill_all(), b"");
    pair.assert_idle();
    assert_eq!(pair.send(b"ping"), 4);
    assert_eq!(pair.client_receives(), b"ping");
}

#[test]
fn writing_is_safe_amid_a_fragmented_handshake_message() {
    let (server, _) = configs(&TLS13);
    let mut client = client_config(&TLS13, Some(TLS13_AES_128_GCM_SHA256));
    client.enable_secret_extraction = true;
    let mut pair = Pair::new(&(server, Arc::new(client)));
    pair.complete_handshake();
    let Pair {
        wire,
        mut link,
        mut scratch,
        client,
    } = pair;
    let mut forger = Forger::new(client, TLS13_AES_128_GCM_SHA256);
    let say = |link: &mut TlsLink<_>, scratch: &mut Scratch| {
        let taken = link.send(&[IoSlice::new(b"meanwhile")], scratch);
        assert_eq!(taken.unwrap(), 9);
    };
    // A KeyUpdate that requests no response, in two records, the second of which is incomplete,
    // too.
    let message = [24, 0, 0, 1, 0];
    let first = forger.handshake_record(&message[..3]);
    let second = forger.handshake_record(&message[3..]);
    for part in [&first[..], &second[..9]] {
        wire.feed(part);
        assert_eq!(link.fill(&mut scratch, usize::MAX).unwrap().bytes, 0);
        assert!(link.partial.is_some());
        say(&mut link, &mut scratch);
    }
    wire.feed(&second[9..]);
    assert_eq!(link.fill(&mut scratch, usize::MAX).unwrap().bytes, 0);
    assert!(link.partial.is_none());
    say(&mut link, &mut scratch);
    link.shutdown_write(&mut scratch).unwrap();
    assert!(wire.is_shut());
}

#[test]
fn sessions_resume_without_server_state() {
    for version in BOTH {
        let configs = configs(version);
        let mut first = Pair::new(&configs);
        first.complete_handshake();
        first.client_receives();
        assert_eq!(first.client.handshake_kind(), Some(HandshakeKind::Full));
        let mut second = Pair::new(&configs);
        second.complete_handshake();
        assert_eq!(second.client.handshake_kind(), Some(HandshakeKind::Resumed));
        second.client_sends(b"again");
        assert_eq!(second.fill_all(), b"again");
    }
}

#[test]
fn interrupted_calls_are_repeated() {
    let mut pair = Pair::new(&configs(&TLS13));
    pair.wire.interrupt();
    pair.complete_handshake();
    pair.client_sends(b"hello");
    assert_eq!(pair.fill_all(), b"hello");
}

/// Prints the memory used by an idle connection (with `--nocapture`). Asserts only the part that
/// this module controls.
#[test]
fn idle_connection_keeps_only_its_session() {
    let configs = configs(&TLS13);
    let mut links = Vec::new();
    Pair::new(&configs).complete_handshake();
    let before = resident_bytes();
    for _ in 0..COUNT {
        let mut pair = Pair::new(&configs);
        pair.complete_handshake();
        pair.client_sends(b"hello");
        assert_eq!(pair.fill_all(), b"hello");
        pair.send(b"welcome");
        pair.client_receives();
        pair.assert_idle();
        pair.wire.shrink();
        links.push(Box::new(pair.link));
    }
    if let (Some(before), Some(after)) = (before, resident_bytes()) {
        println!(
            "an idle TLS connection: {} bytes itself, {} resident, that of the wire included",
            size_of_val(&*links[0]),
            after.saturating_sub(before) / COUNT
        );
    }
    const COUNT: usize = 100;
}

fn resident_bytes() -> Option<usize> {
    let statm = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = statm.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}
