//! Memory of one large batch of events for many connections: bytes on the heap, counted by the
//! allocator, over sockets that take everything.

use std::io::{self, ErrorKind, IoSlice};

use h_realtime::http::Request;
use h_realtime::model::{
    Ask, Asks, Busy, Decision, EventKind, Field, MonoMillis, Plan, Reach, Rule, Term, UnixMillis,
};
use h_realtime::net::{
    Arrival, Config, ConnKey, Cx, Engine, Handler, ListenerId, Message, Now, Readiness, Socket,
    Verdict,
};
use h_realtime::realtime::{Delivered, EventQueue, Realtime, Session, Settings, TurnLimits};
use h_realtime::ws::{OpCode, encode_client_frame};
use peak_alloc::PeakAlloc;

#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

/// A request to publish has up to 1 MiB: as many events as fit.
const EVENTS: usize = 7_500;
const CONNECTIONS: usize = 4_000;

// M13
#[test]
fn a_batch_of_millions_of_notifications_takes_a_few_megabytes() {
    let mut engine = Engine::new(Config::default(), App::new(), 1, at(0));
    for _ in 0..CONNECTIONS {
        open(&mut engine);
    }
    assert_eq!(engine.counters().open, CONNECTIONS as u64);
    let plans: Vec<Plan> = (0..EVENTS).map(plan).collect();
    let base = HEAP.current_usage();
    HEAP.reset_peak_usage();
    engine.begin_turn(at(0));
    engine.command(plans);
    for _ in 0..TURNS {
        engine.begin_turn(at(0));
        engine.serve();
        engine.reap();
        assert!(engine.timeout().is_zero(), "it sleeps, and events wait");
        assert!(engine.wants_commands());
    }
    let taken = HEAP.peak_usage().saturating_sub(base);
    assert!(taken < MOST, "{taken} bytes");
    let App { batches, most, .. } = engine.handler();
    assert_eq!(*batches, 0, "the publisher is answered too early");
    assert!(*most < 65_536 + CONNECTIONS, "{most} receivers wait");
    assert!(engine.counters().messages_out > 100_000);
}

struct App {
    realtime: Realtime,
    events: EventQueue<()>,
    /// Batches of which all is on its way.
    batches: usize,
    /// Receivers that waited.
    most: usize,
}

impl App {
    fn new() -> App {
        let settings = Settings::default();
        App {
            realtime: Realtime::new(Box::new(NoBackEnd), settings, [1, 2, 3, 4]),
            events: EventQueue::new(1, TurnLimits::default()),
            batches: 0,
            most: 0,
        }
    }
}

impl Handler for App {
    type Session = Session;
    type Command = Vec<Plan>;

    fn on_request(
        &mut self,
        cx: &mut Cx<'_, Session>,
        key: ConnKey,
        _: ListenerId,
        request: &Request<'_>,
    ) -> Verdict {
        self.realtime.on_request(cx, key, request)
    }

    fn on_message(&mut self, cx: &mut Cx<'_, Session>, key: ConnKey, message: Message<'_>) {
        self.realtime.on_message(cx, key, message);
    }

    fn on_command(&mut self, _: &mut Cx<'_, Session>, plans: Vec<Plan>) {
        self.events.push(0, plans, MonoMillis(0), ());
    }

    fn on_turn(&mut self, cx: &mut Cx<'_, Session>) -> bool {
        let batches = &mut self.batches;
        let is_left = self
            .realtime
            .deliver_from(cx, &mut self.events, |_, delivered| {
                *batches += usize::from(matches!(delivered, Delivered::Batch(..)));
            });
        self.most = self.most.max(cx.backlog());
        is_left
    }
}

struct NoBackEnd;

impl Asks for NoBackEnd {
    fn ask(&self, _: Ask) -> Result<(), Busy> {
        Err(Busy)
    }
}

/// A socket that takes everything; what its peer has sent comes first.
struct Sink {
    sent: Vec<u8>,
}

impl Socket for Sink {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.sent.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let count = self.sent.len().min(buf.len());
        buf[..count].copy_from_slice(&self.sent[..count]);
        self.sent = self.sent.split_off(count);
        Ok(count)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(slices.iter().map(|slice| slice.len()).sum())
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens a WebSocket that filters for the group of all events.
fn open(engine: &mut Engine<Sink, App>) {
    let mut sent = HANDSHAKE.to_vec();
    encode_client_frame(true, OpCode::Text, [1, 2, 3, 4], FILTER, &mut sent);
    let arrival = Arrival {
        socket: Sink { sent },
        listener: ListenerId(0),
        peer: None,
        tls: None,
        has_preface: false,
    };
    engine.begin_turn(at(0));
    let key = engine.accept(arrival).expect("room");
    let readiness = Readiness {
        readable: true,
        writable: true,
        read_closed: false,
    };
    engine.ready(key, readiness);
    engine.serve();
    engine.reap();
}

fn plan(number: usize) -> Plan {
    let term = Term {
        field: Field::Group,
        value: "g".into(),
    };
    let rule = Rule {
        when: Vec::new(),
        then: Decision::Send(0),
    };
    Plan {
        kind: EventKind::Create,
        reach: Reach::Terms(vec![term]),
        exclude_client: None,
        rules: vec![rule],
        variants: vec![format!("{{\"event\": {number}}}").into()],
    }
}

fn at(mono: u64) -> Now {
    let unix: UnixMillis = 1_700_000_000_000;
    Now { mono, unix }
}

const HANDSHAKE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
const FILTER: &[u8] = br#"{"filter": {"match_policy": "include_any", "actions": {},
    "clauses": [{"field": "/group", "value": "g"}]}}"#;
/// Turns, of the thousands that the batch takes: by then as much waits as ever will.
const TURNS: usize = 100;
/// Bytes that the batch may take besides its plans: 12 for each receiver that waits, twice that
/// while a vector grows, and the engine's tables for a wave.
const MOST: usize = 6 << 20;
