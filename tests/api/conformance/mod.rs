//! What h answered, asked again here.
//!
//! `tests/data/transcripts` has what clients sent to h's own server, and what came back. The
//! same is sent to this one. Each transcript must come out the same, or be listed, with the
//! reason, in `differences.rs`. The last line that is printed counts them.
//!
//! Of an answer to a request the status code, the body, `Content-Type` and what belongs to the
//! WebSocket handshake are compared. Not compared is how the fields are ordered, nor these, in
//! which all answers differ:
//!
//! - `Date`, which says when it was;
//! - `Content-Length` and `Sec-WebSocket-Version` in a 101, which h adds: RFC 9110 §8.6 forbids
//!   the one, and RFC 6455 §4.2.2 has the other only where a version is refused;
//! - `Connection: close`, which is announced here wherever the connection ends, and by h not.
//!
//! Notifications are compared as JSON, the order of their keys included: neither white space
//! nor how a character is escaped makes a difference. Answers are compared as text.
//!
//! The embedded back end is asked what needs neither h's database nor its message queue. All
//! are asked of h's back end, which needs the feature `h` and a PostgreSQL and a RabbitMQ of the
//! test's own (`tests/run` installs them).
//!
//! # Another server
//!
//! With these in the environment, any server is asked, also h itself:
//!
//! ```text
//! CONFORMANCE_SERVER=127.0.0.1:5001 \
//! CONFORMANCE_DATABASE=postgresql://postgres@127.0.0.1/h \
//! CONFORMANCE_BROKER=amqp://guest:guest@127.0.0.1:5672/%2f \
//!     cargo test --features h --test api conformance -- --ignored --nocapture
//! ```
//!
//! The database must have the rows of `tests/data/h/seed.sql`. Of h nothing but the same is right
//! (`CONFORMANCE_DIFFERENCES=none`), and it has no order between what the sockets and the message
//! queue say: after each step all that comes within `CONFORMANCE_SETTLE` seconds is waited for
//! (0.3 when this is not set and no differences are right).
//! `CONFORMANCE_RESTART_BROKER` is a shell command; the transcript about that is left out without
//! it. Those that need a server of their own are left out, too.

mod connection;
mod differences;
#[cfg(feature = "h")]
mod h;
mod player;
#[cfg(feature = "h")]
mod surroundings;
mod tally;
mod transcript;
mod words;

use std::time::Duration;

use h_realtime::model::Secret;

use player::{Message, Player, World};
use tally::Tally;

use crate::support::Server;

#[test]
fn the_embedded_backend() {
    let server = Server::start();
    add_users(&server);
    let mut tally = Tally::new(differences::of_the_embedded_backend());
    for transcript in transcript::read(&WITHOUT_H) {
        let mut player = Player::new(server.address(), &Alone, None);
        tally.count(&transcript, player.find(&transcript));
    }
    tally.finish();
}

/// Those that need no database and no message queue of h's.
const WITHOUT_H: [&str; 5] = ["handshakes", "credentials", "messages", "filters", "frames"];

/// There is nothing but the server.
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
