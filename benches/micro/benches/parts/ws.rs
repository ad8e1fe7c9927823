//! Masking, framing, and compression.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput};
use h_realtime_engine::ws::{
    Decoder, Deflater, Event, Inflater, Limits, OpCode, apply_mask, encode_frame,
};
use micro::messages::{MASK, PING, frame, notification};

pub fn mask(c: &mut Criterion) {
    let mut group = c.benchmark_group("mask");
    let mut bytes = vec![b'a'; 64 * 1024 + 8];
    for (name, from, length) in [
        ("short", 0, PING.len()),
        ("600 B", 0, 600),
        ("64 KiB", 0, 64 * 1024),
        ("64 KiB, unaligned", 3, 64 * 1024),
    ] {
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(name, |b| {
            b.iter(|| apply_mask(black_box(&mut bytes[from..from + length]), MASK, from));
        });
    }
    group.finish();
}

pub fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    let limits = Limits {
        max_message: 64 * 1024,
        max_fragments: 1024,
        deflate: false,
    };
    for (name, text) in messages() {
        group.throughput(Throughput::Bytes(text.len() as u64));
        let bytes = frame(&text);
        group.bench_function(name, |b| {
            // Decoding unmasks in place, so each iteration needs a frame of its own.
            let fresh = || (Decoder::default(), bytes.clone());
            let decode = |(decoder, bytes): &mut (Decoder, Vec<u8>)| {
                let (taken, event) = decoder.next(bytes, &limits).expect("a valid frame");
                assert!(matches!(event, Some(Event::Text(_))));
                taken
            };
            b.iter_batched_ref(fresh, decode, BatchSize::SmallInput);
        });
    }
    group.finish();
}

pub fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let mut out = Vec::new();
    for (name, text) in messages() {
        group.throughput(Throughput::Bytes(text.len() as u64));
        group.bench_function(name, |b| {
            b.iter(|| {
                out.clear();
                encode_frame(OpCode::Text, black_box(text.as_bytes()), &mut out);
                black_box(&out);
            });
        });
    }
    group.finish();
}

pub fn deflate(c: &mut Criterion) {
    let mut group = c.benchmark_group("deflate");
    let event = notification();
    group.throughput(Throughput::Bytes(event.len() as u64));
    let mut deflater = Deflater::default();
    let deflated = deflater.deflate(event.as_bytes(), event.len());
    let deflated = deflated.expect("compressible text").to_vec();
    group.bench_function(BenchmarkId::new("deflate", "event of 600 B"), |b| {
        b.iter(|| {
            deflater
                .deflate(black_box(event.as_bytes()), event.len())
                .is_some()
        });
    });
    let mut inflater = Inflater::default();
    group.bench_function(BenchmarkId::new("inflate", "event of 600 B"), |b| {
        b.iter(|| {
            let event = inflater.inflate(true, black_box(&deflated), 64 * 1024);
            event.expect("valid compressed data").size()
        });
    });
    group.finish();
}

fn messages() -> [(&'static str, String); 3] {
    [
        ("ping", PING.to_owned()),
        ("600 B", notification()),
        ("64 KiB", "x".repeat(64 * 1024)),
    ]
}
