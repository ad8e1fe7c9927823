//! What h answered, asked again here.
//!
//! `tests/data/transcripts` has what clients sent to h's own server, and what came back. The
//! same is sent to this one. Each transcript must come out the same, or be listed, with the
//! reason, in `differences.rs`.
//!
//! Of an answer to a request the status code, the body, `Content-Type` and what belongs to the
//! WebSocket handshake are compared. Not compared is how the fields are ordered, nor these, in
//! which all answers differ:
//!
//! - `Date`, which says when it was;
//! - `Content-Length` and `Sec-WebSocket-Version` in a 101, which h adds: RFC 9110 §8.6 forbids
//!   the one, and RFC 6455 §4.2.2 has the other only where a version is refused;
//! - `Connection: close`, which is announced here wherever the connection ends, and by h not.

mod differences;
mod player;
#[path = "../support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::path::Path;

use h_realtime::model::Secret;
use serde_json::Value;

use player::{Player, summary};
use support::Server;

#[test]
fn what_h_answered() {
    let server = Server::start();
    add_users(&server);
    let transcripts = transcripts();
    let mut listed = differences::listed();
    let (mut same, mut intended, mut wrong) = (0, 0, String::new());
    for transcript in &transcripts {
        let name = transcript["name"].as_str().unwrap();
        let found = play(&server, transcript);
        match listed.remove(name) {
            None if found.here.is_empty() => same += 1,
            Some(here) if found.here == here && !here.is_empty() => intended += 1,
            Some(_) if found.here.is_empty() => {
                writeln!(wrong, "{name} is listed as different, and is the same\n").unwrap();
            }
            listed => {
                let (here, both) = (found.here, found.both);
                writeln!(wrong, "{name}: {here}\n  listed: {listed:?}\n{both}").unwrap();
            }
        }
    }
    assert!(
        listed.is_empty(),
        "listed, but there are no such transcripts: {listed:?}"
    );
    let count = transcripts.len() - same - intended;
    println!("{same} the same, {intended} intended differences, {count} wrong");
    assert_eq!(count, 0, "{count} of {}:\n\n{wrong}", transcripts.len());
}

/// How a transcript came out differently; empty where it did not.
#[derive(Default)]
struct Found {
    /// What came here in the steps that differ, in short.
    here: String,
    /// Both sides of these steps.
    both: String,
}

fn play(server: &Server, transcript: &Value) -> Found {
    let mut player = Player::new(server.address());
    let mut found = Found::default();
    for (number, step) in transcript["steps"].as_array().unwrap().iter().enumerate() {
        let here = player.play(step);
        let h = step["expect"].as_array().map_or(&[][..], Vec::as_slice);
        if here == h {
            continue;
        }
        if !found.here.is_empty() {
            found.here.push_str("; ");
        }
        write!(found.here, "{number}: {}", summary(&here)).unwrap();
        let sides = [
            ("sent", step.clone()),
            ("h", h.into()),
            ("here", here.into()),
        ];
        for (side, events) in sides {
            writeln!(found.both, "  {number} {side:4} {events}").unwrap();
        }
    }
    found
}

fn transcripts() -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/transcripts");
    let mut all = Vec::new();
    for file in ["handshakes", "credentials", "messages", "filters", "frames"] {
        let text = std::fs::read_to_string(folder.join(file).with_extension("jsonl")).unwrap();
        all.extend(
            text.lines()
                .map(|line| serde_json::from_str::<Value>(line).unwrap()),
        );
    }
    all
}

/// The users and tokens that the transcripts name. A user who is deleted in h is not there.
fn add_users(server: &Server) {
    let store = server.store();
    for &(userid, tokens) in USERS {
        store.add_user(userid, None, 0).unwrap();
        for &(token, expires) in tokens {
            let secret = Secret(token.to_owned());
            store.add_token(userid, &secret, 0, expires).unwrap();
        }
    }
}

type Tokens = &'static [(&'static str, Option<u64>)];

const USERS: &[(&str, Tokens)] = &[
    (
        "acct:alice@localhost",
        &[
            ("6879-alice-developer-token", None),
            ("6879 token with spaces", None),
            ("5768-alice-oauth", Some(YEAR_2099)),
            ("5768-alice-norefresh", Some(YEAR_2099)),
            ("5768-alice-oauth-noexpiry-refreshexpired", None),
            ("5768-alice-oauth-expired", Some(YEAR_2001)),
        ],
    ),
    // The empty token would log in everybody who sends none.
    (
        "acct:bob@localhost",
        &[("6879-bob-developer-token", None), ("", None)],
    ),
    (
        "acct:carol@localhost",
        &[("6879-carol-developer-token", None)],
    ),
    (
        "acct:dave@localhost",
        &[("6879-dave-developer-token", None)],
    ),
    (
        "acct:Luis.Silva@localhost",
        &[("6879-luis-developer-token", None)],
    ),
    (
        "acct:mallory@example.com",
        &[("6879-mallory-developer-token", None)],
    ),
    (
        "acct:nogroups@localhost",
        &[("6879-nogroups-developer-token", None)],
    ),
];

/// In milliseconds since the Unix epoch.
const YEAR_2001: u64 = 978_307_200_000;
const YEAR_2099: u64 = 4_070_908_800_000;
