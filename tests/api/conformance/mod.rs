//! Replays recorded transcripts of h's server.
//!
//! `tests/data/transcripts` contains the input of clients of h's own server, and its output. The
//! same input is sent to this server. The output of each transcript must be equal, or the
//! difference must be listed with its reason in `differences.rs`. The last line of the output
//! counts the transcripts.
//!
//! In responses to requests, the status code, the body, `Content-Type`, and the fields of the
//! WebSocket handshake are compared. The order of the fields is not compared, nor are these fields,
//! which differ in all responses:
//!
//! - `Date`, which contains the time;
//! - `Content-Length` and `Sec-WebSocket-Version` in a 101, which h adds: RFC 9110 §8.6 forbids the
//!   former, and RFC 6455 §4.2.2 has the latter only when a version is refused;
//! - `Connection: close`, which this server sends whenever the connection ends, and h does not.
//!
//! Notifications are compared as JSON including the order of their keys: whitespace and escapes are
//! ignored. Replies are compared as text.
//!
//! The embedded backend runs the transcripts that need neither h's database nor its message queue.
//! h's backend runs all, which needs the feature `h`, and a PostgreSQL and a RabbitMQ of the test
//! (`tests/setup` installs them).
//!
//! # Another server
//!
//! With these environment variables, the transcripts run against any server, including h itself:
//!
//! ```text
//! CONFORMANCE_SERVER=127.0.0.1:5001 \
//! CONFORMANCE_DATABASE=postgresql://postgres@127.0.0.1/h \
//! CONFORMANCE_BROKER=amqp://guest:guest@127.0.0.1:5672/%2f \
//!     cargo test --features h --test api conformance -- --ignored --nocapture
//! ```
//!
//! The database must have the rows of `tests/data/h/seed.sql`. h itself must not differ
//! (`CONFORMANCE_DIFFERENCES=none`), and it has no order between output caused by sockets and by
//! the message queue: after each step the test waits for `CONFORMANCE_SETTLE` seconds (0.3 if this
//! is not set and no differences are allowed). `CONFORMANCE_RESTART_BROKER` is a shell command; its
//! transcript is skipped without it. Transcripts that need a server of their own are skipped, too.

mod connection;
mod differences;
#[cfg(feature = "h")]
mod environment;
#[cfg(feature = "h")]
mod h;
mod player;
mod summary;
mod tally;
mod transcript;

use std::time::Duration;

use h_realtime::model::Secret;

use player::{Message, Player, World};
use tally::Tally;

use crate::support::Server;

#[test]
fn embedded_backend_matches_transcripts() {
    let server = Server::start();
    add_users(&server);
    let mut tally = Tally::new(differences::of_the_embedded_backend());
    for transcript in transcript::read(&WITHOUT_H) {
        let mut player = Player::new(server.address(), &Alone, None);
        tally.count(&transcript, player.find(&transcript));
    }
    tally.finish();
}

/// Transcripts that need neither a database nor a message queue of h.
const WITHOUT_H: [&str; 5] = ["handshakes", "credentials", "messages", "filters", "frames"];

/// A server without a database or message queue.
struct Alone;

impl World for Alone {
    fn publish(&self, _: &str, _: &[Message]) {
        unreachable!()
    }

    fn change(&self, _: &str) {
        unreachable!()
    }

    fn restart_broker(&self) {
        unreachable!()
    }

    fn terminate(&self) {
        unreachable!()
    }

    fn time(&self, _: f64) -> Duration {
        unreachable!()
    }
}

/// Adds the users and tokens of the transcripts, except for users that are deleted in h.
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
    // An empty token would authenticate every client without a token.
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
