//! Replays recorded transcripts of h's server.
//!
//! `tests/data/transcripts` contains the input of clients of h's own server, and its output. The
//! same input is sent to this server. The output of each transcript must be equal, or the
//! difference must be listed with its reason in `tests/conformance/differences.rs`. The last line of
//! the output counts the transcripts. The code is that of the program
//! `examples/api_conformance.rs`, which runs against any server.
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

#[cfg(feature = "h")]
mod environment;
#[cfg(feature = "h")]
mod h;
mod program;
mod recorded;

use h_realtime::model::Secret;

use crate::kit::differences;
use crate::kit::player::Player;
use crate::kit::program::NoWorld;
use crate::kit::tally::Tally;
use crate::kit::target::Target;
use crate::kit::transcript;
use crate::support::Server;

#[test]
fn embedded_backend_matches_transcripts() {
    let server = Server::start();
    add_users(&server);
    let mut tally = Tally::new(differences::of_the_embedded_backend());
    let target = Target::local(server.address());
    for transcript in WITHOUT_H.iter().flat_map(|file| transcript::of_file(file)) {
        let mut player = Player::new(&target, &NoWorld, None);
        tally.count(&transcript, player.find(&transcript));
    }
    tally.finish();
}

/// Transcripts that need neither a database nor a message queue of h.
const WITHOUT_H: [&str; 5] = ["handshakes", "credentials", "messages", "filters", "frames"];

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
