//! Messages, filters, URIs, and the index.

use std::hint::black_box;

use criterion::Criterion;
use h_realtime::model::Field;
use h_realtime::realtime::Digest;
use h_realtime::realtime::parts::{Digester, Index, parse_filter};
use h_realtime::realtime::{ApiSession, ApiSettings};
use h_realtime::uri;
use h_realtime_engine::testing::Recorder;
use h_realtime_engine::{ConnKey, Handler, Message, Now, Sessions};
use h_realtime_test_kit::api::Api;
use micro::messages::{CLIENT_ID, PING, WHOAMI, criteria, filter as filter_message, page};

/// From the text of a message to its reply, without socket and framing.
pub fn dispatch(c: &mut Criterion) {
    let mut group = c.benchmark_group("dispatch");
    let mut api = Api::new(ApiSettings::default());
    let (mut recorder, mut sessions) = (Recorder::default(), Only(ApiSession::default()));
    let now = Now::default();
    api.on_open(&mut recorder.conn_cx(now, &mut sessions, key(0)));
    let filter: &str = filter_message(&[page(1)]).leak();
    for (name, text) in [
        ("ping", PING),
        ("whoami", WHOAMI),
        ("client_id", CLIENT_ID),
        ("filter of 1 page", filter),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                let mut cx = recorder.conn_cx(now, &mut sessions, key(0));
                api.on_message(&mut cx, Message::Text(black_box(text)));
                recorder.take_replies()
            });
        });
    }
    group.finish();
}

/// The session of the only connection.
struct Only(ApiSession);

impl Sessions<ApiSession> for Only {
    fn session(&mut self, _: ConnKey) -> Option<&mut ApiSession> {
        Some(&mut self.0)
    }
}

/// From the JSON of a filter to its terms in the index.
pub fn filter(c: &mut Criterion) {
    let mut group = c.benchmark_group("filter terms");
    let digester = Digester::new(SEED);
    for count in [1, 10, 100] {
        let pages: Vec<_> = (0..count).map(page).collect();
        let filter = criteria(&pages);
        group.bench_function(format!("{count} pages"), |b| {
            b.iter(|| {
                let parsed = parse_filter(black_box(&filter), 200, &digester, None, &mut 0);
                parsed.expect("a valid filter")
            });
        });
    }
    group.finish();
}

pub fn uri(c: &mut Criterion) {
    let mut group = c.benchmark_group("uri");
    for (name, uri) in [
        ("plain", "https://example.org/articles/tides.html"),
        (
            "query",
            "http://www.Example.org:80/a/../b?utm_source=x&q=moon+tides&page=2#section-3",
        ),
        (
            "escapes",
            "https://example.org/%7Ejoe/caf%C3%A9/na\u{ef}ve?q=%41%2f",
        ),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| uri::normalize(black_box(uri)).expect("a valid URI"));
        });
    }
    let page = page(1);
    group.bench_function("keys of an annotation", |b| {
        b.iter(|| uri::annotation_keys([black_box(page.as_str())].into_iter(), None));
    });
    group.finish();
}

/// An index of 10,000 connections.
pub fn index(c: &mut Criterion) {
    let mut group = c.benchmark_group("index of 10,000");
    let digester = Digester::new(SEED);
    let digest = |page: &str| digester.term(Field::Uri, page);
    let own: Vec<Digest> = (0..=CONNECTIONS as usize)
        .map(|at| digest(&page(at)))
        .collect();
    let common = digester.term(Field::Group, "__world__");
    let mut index = Index::default();
    for number in 0..CONNECTIONS {
        index.replace(key(number), &[own[number as usize], common]);
    }

    let mut found = Vec::new();
    for (name, term, want) in [
        ("match 1", own[5000], 1),
        ("match none", own[CONNECTIONS as usize], 0),
        ("match all", common, CONNECTIONS as usize),
    ] {
        group.bench_function(name, |b| {
            b.iter(|| {
                found.clear();
                index.collect(black_box(term), &mut found);
                assert_eq!(found.len(), want);
            });
        });
    }
    let filters = [[own[CONNECTIONS as usize], common], [own[5000], common]];
    let mut turns = filters.iter().cycle();
    group.bench_function("replace a filter of 2 terms", |b| {
        b.iter(|| index.replace(key(5000), turns.next().expect("an infinite iterator")));
    });
    group.bench_function("remove, and add again", |b| {
        b.iter(|| {
            index.remove(key(5000));
            index.replace(key(5000), &filters[1]);
        });
    });
    group.finish();
}

fn key(number: u32) -> ConnKey {
    ConnKey::from_u64(1 << 32 | u64::from(number)).expect("a generation")
}

const SEED: [u64; 4] = [1, 2, 3, 4];
const CONNECTIONS: u32 = 10_000;
