//! Tests of the state of a connection.

use std::io::{self, ErrorKind, IoSlice};
use std::rc::Rc;

use super::*;
use crate::conn::pace::Pace;
use crate::frame::Frame;
use crate::http::{Head, check_upgrade, parse_head};
use crate::ledger::Ledger;
use crate::ws::{self, Limits, OpCode};

/// A stand-in with the size of a descriptor and the discriminant of the socket type.
type FdSized = (u32, u32);

/// A socket that is neither readable nor writable.
struct Blocked;

impl Socket for Blocked {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn write_vectored(&mut self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn peer(&self) -> Option<SocketAddr> {
        Some(([127, 0, 0, 1], 7).into())
    }
}

const NOW: Tick = 10_000;

fn conn(phase: Phase<char>) -> Conn<Blocked, char> {
    let transport = Transport::Plain(Blocked, Pace::default());
    let mut conn = Conn::new(transport, ListenerId(0), NOW);
    conn.phase = phase;
    conn
}

/// A handshake with these further header fields.
fn upgrade(fields: &str) -> Upgrade {
    let head = format!(
        "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{fields}\r\n"
    );
    match parse_head(head.as_bytes(), 8192, check_upgrade) {
        Ok(Head::Complete(Ok(upgrade))) => upgrade,
        _ => panic!("not a handshake"),
    }
}

fn head() -> HeadLayout {
    let bytes = b"POST / HTTP/1.1\r\nHost: a\r\n\r\n";
    match parse_head(bytes, 100, |request| HeadLayout::of(request, bytes)) {
        Ok(Head::Complete(Some(head))) => head,
        _ => panic!("the head is complete"),
    }
}

fn request(bytes: Vec<u8>, body: Option<PartialBody>, is_unread: bool) -> Phase<char> {
    Phase::Request {
        partial: Some(Box::new(PartialRequest {
            bytes,
            body,
            is_unread,
        })),
        has_answered: false,
    }
}

fn deferred(opening: Option<Opening>, trailing: Vec<u8>) -> Phase<char> {
    let opening = opening.map(|opening| (opening, 'a'));
    let mut deferred = Deferred::new(opening, true, false);
    deferred.trailing = trailing;
    Phase::Deferred(Box::new(deferred))
}

fn event_stream() -> Opening {
    Opening::EventStream(EventStream::new("12345"))
}

/// Receives the header of a frame with a payload.
fn begin_frame(conn: &mut Conn<Blocked, char>) {
    let mut bytes = Vec::new();
    ws::encode_client_frame(true, OpCode::Text, [0; 4], b"ab", &mut bytes);
    let limits = Limits {
        max_message: 100,
        max_fragments: 1,
        deflate: false,
    };
    conn.decoder.next(&mut bytes[..6], &limits).unwrap();
}

// M8
#[test]
fn connection_size_is_as_measured() {
    assert_eq!(size_of::<Conn<FdSized, ()>>(), 64);
    assert_eq!(size_of::<Option<Conn<FdSized, ()>>>(), 64);
    assert_eq!(size_of::<Conn<FdSized, [u64; 6]>>(), 104);
}

#[test]
fn flags_are_independent() {
    let mut flags = Flags::default();
    assert!(flags.raise(Flags::QUEUED));
    assert!(!flags.raise(Flags::QUEUED));
    flags.set(Flags::DIRTY);
    flags.set(Flags::DIRTY);
    assert!(flags.has(Flags::QUEUED) && flags.has(Flags::DIRTY));
    assert!(!flags.has(Flags::READABLE));
    flags.clear(Flags::QUEUED);
    flags.clear(Flags::QUEUED);
    assert!(!flags.has(Flags::QUEUED) && flags.has(Flags::DIRTY));
}

#[test]
fn opening_sets_the_flags_of_its_transport() {
    let flags = |opening: &Opening| {
        let mut flags = Flags::EVENT_STREAM;
        flags.set_opening(opening);
        [Flags::EVENT_STREAM, Flags::DEFLATE, Flags::DEFLATE_OUT].map(|flag| flags.has(flag))
    };
    assert_eq!(flags(&event_stream()), [true, false, false]);
    let plain = upgrade("");
    assert_eq!(flags(&Opening::WebSocket(plain)), [false, false, false]);
    if ws::CAN_DEFLATE {
        let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
        let both = upgrade(offer);
        assert_eq!(flags(&Opening::WebSocket(both)), [false, true, true]);
        // Its messages would need a larger window than the client has.
        let offer = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=8\r\n";
        let small = upgrade(offer);
        if small.deflate().is_some() {
            assert_eq!(flags(&Opening::WebSocket(small)), [false, true, false]);
        }
    }
}

#[test]
fn incomplete_input_is_that_of_the_phase_and_of_frames() {
    let bytes = || Vec::with_capacity(100);
    let body = || PartialBody {
        head: head(),
        end: BodyEnd::At(1),
    };
    let header = ProxyHeader { bytes: bytes() };
    for (phase, incomplete, of_body) in [
        (Phase::ProxyHeader(Box::new(header)), 100, 0),
        (Phase::first_request(), 0, 0),
        (request(bytes(), None, false), 100, 0),
        (
            request(bytes(), Some(body()), false),
            0,
            100 + head().memory(),
        ),
        (deferred(None, bytes()), 100, 0),
        (deferred(Some(event_stream()), bytes()), 105, 0),
        (
            deferred(Some(Opening::WebSocket(upgrade(""))), bytes()),
            100,
            0,
        ),
        (Phase::Open('a'), 0, 0),
        (Phase::Closing, 0, 0),
    ] {
        let mut conn = conn(phase);
        assert_eq!((conn.incomplete(), conn.body()), (incomplete, of_body));
        assert_eq!(conn.incomplete_frames(), 0);
        begin_frame(&mut conn);
        let frames = conn.decoder.buffered();
        assert!(frames > 0);
        assert_eq!(conn.incomplete_frames(), frames);
        assert_eq!(conn.incomplete(), incomplete + frames);
        conn.phase = Phase::Dead;
        assert_eq!((conn.incomplete(), conn.body()), (0, 0));
    }
    assert!(head().memory() > 0);
}

#[test]
fn unread_input_is_that_of_the_phase() {
    let unread = || ws::Unread {
        bytes: vec![1],
        at: 0,
    };
    for (phase, of_request, of_frames) in [
        (Phase::first_request(), false, false),
        (request(Vec::new(), None, false), false, false),
        (request(Vec::new(), None, true), true, true),
        (deferred(None, Vec::new()), false, false),
        (Phase::Open('a'), false, true),
        (Phase::Closing, false, true),
        (Phase::Dead, false, false),
    ] {
        let mut conn = conn(phase);
        assert_eq!(conn.has_unread(), of_request);
        conn.decoder.keep_unread(unread());
        assert_eq!(conn.has_unread(), of_frames);
    }
}

#[test]
fn output_queue_and_incomplete_input_end_the_rest() {
    let ledger = &mut Ledger::default();
    let mut conn = conn(Phase::Open('a'));
    assert!(conn.is_at_rest() && !conn.is_slow());
    assert_eq!(conn.queued(), 0);
    conn.flags.set(Flags::INCOMPLETE);
    assert!(!conn.is_at_rest());
    conn.flags.clear(Flags::INCOMPLETE);
    let mut tx = TxQueue::default();
    tx.push_shared(Frame::text("a"), 0, NOW, ledger);
    conn.tx = Some(Box::new(tx));
    assert!(!conn.is_at_rest() && !conn.is_slow());
    assert_eq!(conn.queued(), 3);
    conn.tx.as_mut().unwrap().over_soft_since = Some(NOW);
    assert!(conn.is_slow());
}

#[test]
fn only_an_open_connection_with_the_flag_is_an_open_stream() {
    for (phase, is_open) in [(Phase::Open('a'), true), (Phase::Closing, false)] {
        let mut conn = conn(phase);
        assert_eq!(conn.is_open(), is_open);
        assert!(!conn.is_open_stream());
        conn.flags.set(Flags::EVENT_STREAM);
        assert_eq!(conn.is_open_stream(), is_open);
    }
}

#[test]
fn time_of_a_ping_is_earlier_by_the_lag_of_its_output() {
    let mut conn = conn(Phase::Open('a'));
    let at = |conn: &Conn<Blocked, char>| {
        let last = conn.last_activity();
        (last.at / TICK_MS, last.is_ping)
    };
    assert_eq!(at(&conn), (u64::from(NOW), false));
    conn.flags.set(Flags::SLOW_PING);
    assert_eq!(at(&conn), (u64::from(NOW), false));
    conn.flags.set(Flags::AWAITING_PONG);
    assert_eq!(at(&conn), (u64::from(NOW - MAX_LAG), true));
    conn.flags.clear(Flags::SLOW_PING);
    assert_eq!(at(&conn), (u64::from(NOW - SHORT_LAG), true));
}

#[test]
fn recent_work_decays_until_the_activity() {
    let mut conn = conn(Phase::Open('a'));
    conn.recent.add(1 << 30, 0);
    let before = conn.recent;
    conn.note_activity(NOW + 40);
    assert_eq!(conn.last_activity, NOW + 40);
    assert_eq!(conn.recent, before.decayed(40));
    assert_ne!(conn.recent, before);
}

#[test]
fn only_open_connections_have_sessions() {
    let ledger = &mut Ledger::default();
    let mut arena = Arena::new();
    let stream = arena.insert(conn(deferred(Some(event_stream()), Vec::new())));
    let socket = arena.insert(conn(deferred(
        Some(Opening::WebSocket(upgrade(""))),
        Vec::new(),
    )));
    let open = arena.insert(conn(Phase::Open('b')));
    let closing = arena.insert(conn(Phase::Closing));
    for key in [stream, socket, closing] {
        assert_eq!(arena.session(key), None);
        assert_eq!(Sessions::last_activity(&mut arena, key), None);
    }
    assert_eq!(arena.session(open), Some(&mut 'b'));
    let last = Sessions::last_activity(&mut arena, open).unwrap();
    assert_eq!(last.at, u64::from(NOW) * TICK_MS);
    let awaits = [stream, socket, open].map(|key| arena.awaits_event_stream(key));
    assert_eq!(awaits, [true, false, false]);
    assert_eq!(arena.next_open(0), Some(open));
    assert_eq!(arena.next_open(open.slot()), Some(open));
    assert_eq!(arena.next_open(closing.slot()), None);
    assert_eq!(arena.peer(closing), Blocked.peer());
    assert!(arena.timer(open.slot()).is_some() && arena.timer(9).is_none());
    let mut tx = TxQueue::default();
    tx.push_shared(Rc::clone(&Frame::text("a")), 0, NOW, ledger);
    arena.get_mut(open).unwrap().tx = Some(Box::new(tx));
    assert_eq!((arena.buffered(open), arena.buffered(closing)), (3, 0));
    arena.remove(open);
    assert_eq!(arena.session(open), None);
    assert_eq!(arena.peer(open), None);
}
