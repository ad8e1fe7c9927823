//! Protocol violations, broken sockets, and closing.

use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;

use rustls::crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256;
use rustls::version::{TLS12, TLS13};

use super::BOTH;
use super::wire::{Forger, Pair, client_config, configs};

#[test]
fn corrupt_client_hello_bytes_are_harmless() {
    for version in BOTH {
        let configs = configs(version);
        let len = Pair::new(&configs).client_flight().len();
        for at in 0..len {
            let mut pair = Pair::new(&configs);
            let mut hello = pair.client_flight();
            hello[at] ^= 0x15;
            pair.wire.feed(&hello);
            pair.wire.feed(&hello);
            pair.wire.end();
            pair.fill_to_the_end();
        }
        for at in 0..80 {
            let mut pair = Pair::new(&configs);
            let hello = pair.client_flight();
            pair.wire.feed(&hello);
            assert_eq!(pair.fill_all(), b"");
            assert_eq!(pair.client_receives(), b"");
            let mut flight = pair.client_flight();
            if let Some(byte) = flight.get_mut(at) {
                *byte ^= 0x15;
            }
            pair.wire.feed(&flight);
            pair.wire.end();
            pair.fill_to_the_end();
        }
    }
}

#[test]
fn garbage_after_a_partial_client_hello_is_an_error() {
    let (server, _) = configs(&TLS13);
    let mut client = client_config(&TLS13, None);
    client.max_fragment_size = Some(64);
    let mut pair = Pair::new(&(server, Arc::new(client)));
    let hello = pair.client_flight();
    pair.wire.feed(&hello[..100]);
    assert_eq!(pair.fill_all(), b"");
    pair.wire
        .feed(b"GET / HTTP/1.1\r\n\r\n and whatever else would fill up a record of 64 bytes");
    assert_eq!(pair.fill_error(), ErrorKind::InvalidData);
    assert!(pair.link.partial.is_none());
}

#[test]
fn excessive_key_updates_are_an_error() {
    let mut pair = Pair::new(&configs(&TLS13));
    pair.complete_handshake();
    for _ in 0..33 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.client_writes();
    }
    assert_eq!(pair.fill_error(), ErrorKind::InvalidData);
}

#[test]
fn a_failure_amid_a_fragmented_handshake_message_is_an_error() {
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
    // Two invalid messages and the start of a third.
    wire.feed(&forger.handshake_record(&[20, 0, 0, 0, 20, 0, 0, 0, 20]));
    let error = link.fill(&mut scratch, usize::MAX).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidData);
    assert!(link.partial.is_none());
    let refused = link.send(&[IoSlice::new(b"x")], &mut scratch);
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::BrokenPipe);
    link.shutdown_write(&mut scratch).unwrap();
    assert!(wire.is_shut());
}

// T9
#[test]
fn plain_http_gets_an_alert_and_an_error() {
    let mut pair = Pair::new(&configs(&TLS13));
    pair.wire.feed(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(pair.fill_error(), ErrorKind::InvalidData);
    // RFC 8446 §6: alert (21), fatal (2).
    let alert = pair.wire.take_sent();
    assert_eq!((alert[0], alert[5], alert.len()), (21, 2, 7));
    // Later input is discarded, and the end of the stream is reported.
    pair.wire.feed(b"more of it");
    let fill = pair.fill().unwrap();
    assert_eq!((fill.bytes, fill.is_emptied, fill.eof), (0, false, false));
    pair.wire.end();
    assert!(pair.fill().unwrap().eof);
    pair.link.shutdown_write(&mut pair.scratch).unwrap();
    assert!(pair.wire.is_shut());
    assert_eq!(pair.wire.sent(), 0, "no close_notify behind an alert");
}

#[test]
fn blocked_alert_is_sent_by_flush_before_shutdown() {
    let mut pair = Pair::new(&configs(&TLS13));
    pair.wire.write_at_most(&[0, 3, 0, 0]);
    pair.wire.feed(b"GET / HTTP/1.1\r\n\r\n");
    assert_eq!(pair.fill_error(), ErrorKind::InvalidData);
    assert!(pair.link.has_output());
    pair.link.shutdown_write(&mut pair.scratch).unwrap();
    assert!(!pair.wire.is_shut());
    pair.wire.write_at_most(&[]);
    assert!(pair.link.flush().unwrap());
    assert_eq!(pair.wire.take_sent().len(), 7);
    assert!(pair.wire.is_shut());
}

#[test]
fn a_broken_record_is_an_error_and_gets_an_alert() {
    for version in BOTH {
        let mut pair = Pair::new(&configs(version));
        pair.complete_handshake();
        pair.client_sends(b"hello");
        pair.wire.corrupt_last_byte();
        assert_eq!(pair.fill_error(), ErrorKind::InvalidData);
        let client_error = pair.client_error();
        assert!(client_error.contains("BadRecordMac"), "{client_error}");
    }
}

// T4
#[test]
fn a_record_that_is_too_long_is_an_error() {
    let mut pair = Pair::new(&configs(&TLS13));
    pair.complete_handshake();
    // The library would wait for up to 18 KiB.
    pair.wire.feed(&[23, 3, 3, 0x47, 0xff]);
    pair.wire.feed(&[0; 16 * 1024]);
    assert_eq!(pair.fill_all(), b"");
    pair.wire.feed(&[0; 400]);
    assert_eq!(pair.fill_error(), ErrorKind::InvalidData);
    assert!(pair.link.partial.is_none());
}

#[test]
fn no_common_protocol_is_an_error() {
    let (server, _) = configs(&TLS13);
    let mut client = client_config(&TLS13, None);
    client.alpn_protocols = vec![b"h2".to_vec()];
    let mut pair = Pair::new(&(server, Arc::new(client)));
    let hello = pair.client_flight();
    pair.wire.feed(&hello);
    assert_eq!(pair.fill_error(), ErrorKind::InvalidData);
    let client_error = pair.client_error();
    assert!(
        client_error.contains("NoApplicationProtocol"),
        "{client_error}"
    );
}

// RUSTSEC-2024-0336
#[test]
fn close_notify_in_a_handshake_ends_without_spinning() {
    let close_notify = [21, 3, 3, 0, 2, 1, 0];
    // Instead of a ClientHello: tolerated a few times, like other warnings.
    let mut pair = Pair::new(&configs(&TLS12));
    let results: Vec<_> = (0..10)
        .map_while(|_| {
            pair.wire.feed(&close_notify);
            pair.fill().ok()
        })
        .collect();
    assert!(results.len() < 10);
    assert!(results.iter().all(|fill| fill.bytes == 0 && !fill.eof));

    // Instead of the client's second flight.
    for version in BOTH {
        let mut pair = Pair::new(&configs(version));
        let hello = pair.client_flight();
        pair.wire.feed(&hello);
        assert_eq!(pair.fill_all(), b"");
        for _ in 0..10 {
            pair.wire.feed(&close_notify);
        }
        assert_eq!(pair.fill_error(), ErrorKind::InvalidData);
        pair.link.shutdown_write(&mut pair.scratch).unwrap();
        assert!(pair.wire.is_shut());
    }
}

// T5
#[test]
fn eof_without_close_notify_is_an_end() {
    for version in BOTH {
        let mut pair = Pair::new(&configs(version));
        pair.complete_handshake();
        pair.client_sends(b"last words");
        pair.client_sends(b"cut");
        pair.wire.forget_last_byte();
        pair.wire.end();
        let fill = pair.fill().unwrap();
        assert_eq!((fill.bytes, fill.eof), (10, false));
        let fill = pair.fill().unwrap();
        assert_eq!((fill.bytes, fill.eof), (0, true));
        // The write side is still open, and closes in order.
        assert_eq!(pair.send(b"bye"), 3);
        pair.link.shutdown_write(&mut pair.scratch).unwrap();
        assert_eq!(pair.client_receives(), b"bye");
    }
}

#[test]
fn eof_right_after_handshake_bytes_is_detected() {
    let mut pair = Pair::new(&configs(&TLS13));
    let hello = pair.client_flight();
    pair.wire.feed(&hello[..50]);
    pair.wire.end();
    let fill = pair.fill().unwrap();
    assert_eq!((fill.bytes, fill.is_emptied, fill.eof), (0, false, false));
    assert!(pair.fill().unwrap().eof);
}

#[test]
fn input_after_close_notify_is_dropped() {
    for version in BOTH {
        let mut pair = Pair::new(&configs(version));
        pair.complete_handshake();
        pair.client_sends(b"last words");
        pair.client.send_close_notify();
        pair.client_writes();
        pair.wire.feed(&[0xff; 20_000]);
        let fill = pair.fill().unwrap();
        assert_eq!((fill.bytes, fill.eof), (10, true));
        pair.wire.feed(b"nor this");
        let fill = pair.fill().unwrap();
        assert_eq!((fill.bytes, fill.eof), (0, true));
        pair.assert_idle();
        // Only the peer's write side has ended.
        assert_eq!(pair.send(b"bye"), 3);
        pair.link.shutdown_write(&mut pair.scratch).unwrap();
        assert_eq!(pair.client_receives(), b"bye");
    }
}

// W9, T6
#[test]
fn close_notify_is_sent_once_after_pending_output() {
    for version in BOTH {
        let mut pair = Pair::new(&configs(version));
        pair.complete_handshake();
        pair.wire.write_at_most(&[10, 0, 0, 0]);
        assert_eq!(pair.send(b"our last words"), 14);
        pair.link.shutdown_write(&mut pair.scratch).unwrap();
        pair.link.shutdown_write(&mut pair.scratch).unwrap();
        assert!(!pair.wire.is_shut());
        let refused = pair.link.send(&[IoSlice::new(b"x")], &mut pair.scratch);
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::BrokenPipe);
        pair.wire.write_at_most(&[]);
        assert!(pair.link.flush().unwrap());
        assert!(pair.wire.is_shut());
        assert_eq!(pair.client_receives(), b"our last words");
        assert!(pair.client_has_seen_close());
        // The read side is still open.
        pair.client_sends(b"yours");
        assert_eq!(pair.fill_all(), b"yours");
        pair.assert_idle();
    }
}

// T6: the engine processes no records after it has shut down the write side, so that the session
// has none to send; the link would drop them anyway.
#[test]
fn no_record_follows_close_notify() {
    let mut pair = Pair::new(&configs(&TLS13));
    pair.complete_handshake();
    pair.wire.write_at_most(&[0]);
    pair.link.shutdown_write(&mut pair.scratch).unwrap();
    let queued = |pair: &Pair| pair.link.out.as_deref().map_or(0, <[u8]>::len);
    let close_notify = queued(&pair);
    assert!(close_notify > 0);
    pair.link.emit(b"a record").unwrap();
    assert_eq!(queued(&pair), close_notify);
    pair.wire.write_at_most(&[]);
    assert!(pair.link.flush().unwrap());
    pair.link.emit(b"a record").unwrap();
    assert_eq!(pair.wire.sent(), close_notify);
    assert!(pair.wire.is_shut());
}

// T2
#[test]
fn broken_socket_is_still_shut_down() {
    let mut pair = Pair::new(&configs(&TLS13));
    pair.complete_handshake();
    pair.wire.break_writing();
    pair.link.shutdown_write(&mut pair.scratch).unwrap();
    assert!(pair.wire.is_shut());
    assert!(!pair.link.has_output());
}
