//! An exhaustive search through the states of a small instance: annotations, receivers, rights,
//! replays, and restarts, in every order of events. Each state that is reached is checked against the
//! delivery contract.
//!
//! | file | contents |
//! |---|---|
//! | `annotation` | the states of annotations, and who may read them |
//! | `receiver` | a client: its view, and what the contract promises it |
//! | `world` | the API, its backend, and the network |
//! | `operations` | the operations |
//! | `restarts` | restarts, crashes, and new epochs |
//! | `check` | the contract |
//! | `fingerprint` | a number for each distinct state |
//! | `search`, `random` | the search, and random walks |
//! | `path` | sequences of operations: those on which a check has failed before, and the shortest one |

mod annotation;
mod check;
mod fingerprint;
mod operations;
mod path;
mod random;
mod receiver;
mod restarts;
mod search;
mod world;

use annotation::State;
use operations::{Crash, Op};
use random::random_walks;
use receiver::{Kind, Protocol};
use search::search;
use world::{Instance, PageFilter};

/// Rights of annotations and memberships of users change while clients with cursors connect,
/// disconnect, and read.
#[test]
fn cursors_and_rights() {
    let instance = Instance {
        receivers: vec![
            (Kind::Anonymous, Protocol::Cursors),
            (Kind::Member, Protocol::Cursors),
        ],
        annotations: 2,
        ..Instance::default()
    };
    let mut ops = vec![
        Op::Event(0, State::Public, None),
        Op::Event(0, State::Group, None),
        Op::Event(0, State::Deleted, None),
        Op::Rights(0, State::Hidden),
        Op::Rights(0, State::Public),
        Op::Event(1, State::Group, None),
        Op::Member(true),
        Op::Member(false),
        Op::Turn,
    ];
    for receiver in [0, 1] {
        ops.extend([
            Op::Connect(receiver),
            Op::Lose(receiver),
            Op::Read(receiver),
        ]);
    }
    search("cursors and rights", &instance, &ops, 5);
}

/// One client that reads messages one by one, or not at all, and resumes from any cursor, while
/// annotations move and are hidden.
#[test]
fn any_cursor_of_a_slow_reader() {
    let instance = Instance {
        receivers: vec![(Kind::Member, Protocol::Cursors)],
        annotations: 2,
        is_slow: true,
        ..Instance::default()
    };
    let ops = [
        Op::Event(0, State::Public, None),
        Op::Event(0, State::Moved, None),
        Op::Event(1, State::Group, None),
        Op::Rights(0, State::Hidden),
        Op::Rights(0, State::Public),
        Op::Member(true),
        Op::Member(false),
        Op::Connect(0),
        Op::Lose(0),
        Op::ReadOne(0),
        Op::Read(0),
        Op::Turn,
        Op::Wait,
    ];
    search("any cursor of a slow reader", &instance, &ops, 6);
}

/// Clients that do not use cursors, with crashes, restarts, and dead connections.
#[test]
fn unmodified_clients_and_restarts() {
    let instance = Instance {
        receivers: vec![(Kind::Anonymous, Protocol::ClientId)],
        annotations: 2,
        ..Instance::default()
    };
    let ops = [
        Op::Event(0, State::Public, None),
        Op::Event(0, State::Group, None),
        Op::Event(1, State::Public, Some(0)),
        Op::Connect(0),
        Op::Lose(0),
        Op::LoseOld(0),
        Op::Read(0),
        Op::Turn,
        Op::Wait,
        Op::Ready,
        Op::Crash(Crash::Whole),
        Op::Crash(Crash::Truncated),
        Op::Shutdown,
        Op::RewriteLog,
    ];
    search("unmodified clients and restarts", &instance, &ops, 6);
}

/// A history with room for one annotation, and a history that is lost while the server runs.
#[test]
fn evictions_and_new_epochs() {
    let instance = Instance {
        receivers: vec![
            (Kind::Anonymous, Protocol::Cursors),
            (Kind::Member, Protocol::ClientId),
        ],
        annotations: 2,
        memory: 1700,
        is_slow: true,
        has_gaps: true,
        ..Instance::default()
    };
    let mut ops = vec![
        Op::Event(0, State::Public, None),
        Op::Event(0, State::Group, None),
        Op::Event(1, State::Public, None),
        Op::Rights(0, State::Hidden),
        Op::Turn,
        Op::Wait,
        Op::NewEpoch,
        Op::Ready,
    ];
    for receiver in [0, 1] {
        ops.extend([
            Op::Connect(receiver),
            Op::Lose(receiver),
            Op::Read(receiver),
        ]);
    }
    search("evictions and new epochs", &instance, &ops, 5);
}

/// Random walks have more annotations and clients.
fn of_walks() -> Instance {
    Instance {
        receivers: all_receivers(),
        annotations: 4,
        ..Instance::default()
    }
}

/// Long random walks, in which clocks jump.
#[test]
fn random_walks_with_stored_positions() {
    let instance = of_walks();
    random_walks("stored positions", &instance, WALKS);
}

fn of_slow_readers() -> Instance {
    Instance {
        is_slow: true,
        ..of_walks()
    }
}

#[test]
fn random_walks_of_slow_readers() {
    random_walks("slow readers", &of_slow_readers(), WALKS);
}

#[test]
fn random_walks_with_evictions() {
    let instance = Instance {
        memory: 3500,
        is_slow: true,
        has_gaps: true,
        ..of_walks()
    };
    random_walks("evictions", &instance, WALKS);
}

/// Positions are those of a process of h, and clients resume at another one by the time in the
/// cursor.
fn of_processes() -> Instance {
    Instance {
        is_process: true,
        ..of_walks()
    }
}

#[test]
fn random_walks_between_processes_of_h() {
    random_walks("processes of h", &of_processes(), WALKS);
}

/// Conditional filters, by which the same annotations are found in other ways.
fn of_conditional_filters() -> Instance {
    Instance {
        filters: CONDITIONAL,
        ..of_walks()
    }
}

#[test]
fn random_walks_with_conditional_filters() {
    random_walks("conditional filters", &of_conditional_filters(), WALKS);
}

#[test]
fn random_walks_with_conditional_filters_and_evictions() {
    let instance = Instance {
        memory: 8000,
        is_slow: true,
        has_gaps: true,
        filters: CONDITIONAL,
        ..of_walks()
    };
    random_walks("conditional filters and evictions", &instance, WALKS);
}

/// Rights and memberships change while clients with wildcards connect, disconnect, and read.
#[test]
fn wildcards_and_rights() {
    let instance = Instance {
        receivers: vec![(Kind::Member, Protocol::Cursors)],
        annotations: 2,
        filters: &[PageFilter::Wildcard],
        ..Instance::default()
    };
    let ops = [
        Op::Event(0, State::Public, None),
        Op::Event(0, State::Moved, None),
        Op::Event(1, State::Group, None),
        Op::Rights(0, State::Hidden),
        Op::Rights(0, State::Public),
        Op::Member(true),
        Op::Member(false),
        Op::Connect(0),
        Op::Lose(0),
        Op::Read(0),
        Op::Turn,
    ];
    search("wildcards and rights", &instance, &ops, 5);
}

fn all_receivers() -> Vec<(Kind, Protocol)> {
    vec![
        (Kind::Anonymous, Protocol::Cursors),
        (Kind::Member, Protocol::ClientId),
        (Kind::Member, Protocol::Cursors),
        (Kind::Author, Protocol::ClientId),
    ]
}

/// All forms of conditional filters.
const CONDITIONAL: &[PageFilter] = &[
    PageFilter::Wildcard,
    PageFilter::Excluding,
    PageFilter::All,
    PageFilter::Wildcard,
];
/// The number of random walks.
const WALKS: u64 = 64;
