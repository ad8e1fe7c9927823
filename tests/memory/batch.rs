//! Memory of one large batch of events for many connections: heap bytes counted by the allocator,
//! over sockets that accept all output.

use std::io::{self, ErrorKind, IoSlice};
use std::time::Duration;

use h_realtime::model::Plan;
use h_realtime::realtime::ApiSettings;
use h_realtime_engine::ws::{OpCode, encode_client_frame};
use h_realtime_engine::{
    Config, Engine, ListenerId, ListenerOptions, Mail, Now, Readiness, Socket,
};

use crate::sim::api::{Api, Command, event};
use crate::sim::environment::{Descriptive, Environment};
use crate::sim::rng::Rng;
use crate::{HEAP, alone};

/// A publish request has up to 1 MiB: as many events as fit.
const EVENTS: usize = 7_500;
const CONNECTIONS: usize = 4_000;

// M13
#[test]
fn batch_of_millions_of_notifications_uses_a_few_megabytes() {
    let name = "batch_of_millions_of_notifications_uses_a_few_megabytes";
    alone(module_path!(), name, publish_large_batch);
}

fn publish_large_batch() {
    let mut engine = Engine::new(
        Config::default(),
        Api::new(ApiSettings::default()),
        1,
        at(0),
    );
    let mut environment = Environment::new(Rng::new(1));
    environment.listen(&mut engine, ListenerOptions::default());
    for _ in 0..CONNECTIONS {
        open(&mut engine, &mut environment);
    }
    assert_eq!(engine.counters().open, CONNECTIONS as u64);
    let plans: Vec<Plan> = (0..EVENTS)
        .map(|number| event("g", format!("{{\"event\": {number}}}")))
        .collect();
    let base = HEAP.current_usage();
    HEAP.reset_peak_usage();
    environment.send(Mail::Command(Command::Batch(plans, 1)));
    for _ in 0..TURNS {
        environment.turn(&mut engine, at(0));
        assert_eq!(
            environment.wait(),
            Some(Duration::ZERO),
            "the engine sleeps while events are queued"
        );
        // Further messages are still handled.
        assert_eq!(environment.mail(), 0);
        environment.send(Mail::Command(Command::Batch(Vec::new(), 0)));
    }
    let taken = HEAP.peak_usage().saturating_sub(base);
    assert!(taken < MOST, "{taken} bytes");
    let progress = &engine.handler().progress;
    assert_eq!(
        progress.done, 0,
        "the publisher receives its response too early"
    );
    let most = progress.max_backlog;
    assert!(most < 196_608 + CONNECTIONS, "{most} receivers are queued");
    assert!(engine.counters().messages_out > 100_000);
}

/// A socket that accepts all output, with input sent by its peer.
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

impl Descriptive for Sink {}

/// Opens a WebSocket that filters for the group of all events.
fn open(engine: &mut Engine<Sink, Api>, environment: &mut Environment<Sink, Command>) {
    let mut sent = HANDSHAKE.to_vec();
    encode_client_frame(true, OpCode::Text, [1, 2, 3, 4], FILTER, &mut sent);
    environment.connect(ListenerId(0), Sink { sent }, None);
    environment.turn(engine, at(0));
    let accepted = environment.take_accepted();
    let readiness = Readiness {
        readable: true,
        writable: true,
        read_closed: false,
    };
    environment.ready(accepted[0].key, readiness);
    environment.turn(engine, at(0));
}

fn at(mono: u64) -> Now {
    Now {
        mono,
        unix: 1_700_000_000_000,
    }
}

const HANDSHAKE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n\r\n";
const FILTER: &[u8] = br#"{"filter": {"match_policy": "include_any", "actions": {},
    "clauses": [{"field": "/group", "value": "g"}]}}"#;
/// Turns, of the thousands that the batch takes: the queue has reached its maximum by then.
const TURNS: usize = 100;
/// Bytes that the batch may use besides its plans: 12 per queued receiver, twice that while a
/// vector grows, and the engine's tables for a batch of deliveries.
const MOST: usize = 6 << 20;
