//! Random walks: much longer than the paths of the search, and with more operations. `SEED=…` runs one
//! seed, and `SEEDS=…` that many, from `FROM=…`.

use crate::realtime::testing::Random;

use super::annotation::State;
use super::operations::{Crash, Op};
use super::path::{Step, play, shortest};
use super::receiver::Protocol;
use super::world::{Instance, World};

/// Takes random steps. After some of them, all clients connect and read everything, and what they
/// have is checked.
pub(super) fn random_walks(name: &str, instance: &Instance, seeds: u64) {
    let variable = |name: &str| {
        let text = std::env::var(name).ok()?;
        Some(text.parse::<u64>().expect("a number"))
    };
    let seeds = match variable("SEED") {
        Some(seed) => seed..=seed,
        None => {
            let before = variable("FROM").unwrap_or(0);
            before + 1..=before + variable("SEEDS").unwrap_or(seeds)
        }
    };
    for seed in seeds {
        if let Some(failure) = walk(instance, seed) {
            let path = shortest(&failure.path, |path| play(instance, path).is_some());
            let problem = play(instance, &path).unwrap_or(failure.problem);
            panic!("{name}, SEED={seed}: {problem}\nafter {path:?}");
        }
    }
}

struct Failure {
    path: Vec<Step>,
    problem: String,
}

/// Walks until a check fails, if any does.
fn walk(instance: &Instance, seed: u64) -> Option<Failure> {
    let mut random = Random(seed);
    let mut world = World::new(instance);
    let mut path = Vec::new();
    for _ in 0..STEPS {
        let op = any_op(&mut random, instance);
        if !world.is_possible(op) {
            continue;
        }
        path.push(Step::Do(op));
        let mut result = world.apply(op);
        if result.is_ok() && random.below(40) == 0 {
            path.push(Step::Settle);
            result = world.settle();
        }
        if let Err(problem) = result {
            return Some(Failure { path, problem });
        }
    }
    None
}

fn any_op(random: &mut Random, instance: &Instance) -> Op {
    let annotation = random.below(instance.annotations as u64) as usize;
    let receiver = random.below(instance.receivers.len() as u64) as usize;
    match random.below(100) {
        0..16 => {
            let is_client = instance.receivers[receiver].1 == Protocol::ClientId;
            let is_own = is_client && !instance.is_process && random.below(4) == 0;
            let author = is_own.then_some(receiver);
            Op::Event(annotation, any_state(random), author)
        }
        16..24 => Op::Rights(annotation, any_right(random)),
        24..28 => Op::Member(random.below(2) == 0),
        28..36 => Op::Connect(receiver),
        36..40 => Op::Resume(receiver),
        40..46 => Op::Lose(receiver),
        46..49 => Op::LoseOld(receiver),
        49..60 => Op::Read(receiver),
        60..64 => Op::ReadOne(receiver),
        64..80 => Op::Turn,
        80..84 => Op::Wait,
        84..90 => Op::Second,
        // h's times are those of the database.
        90..92 if !instance.is_process => Op::SetClock(random.below(2) == 0),
        92..96 => Op::Ready,
        96 => Op::Crash([Crash::Whole, Crash::Truncated][random.below(2) as usize]),
        97 => Op::Shutdown,
        98 => Op::RewriteLog,
        _ if instance.has_gaps => Op::NewEpoch,
        _ => Op::Turn,
    }
}

fn any_state(random: &mut Random) -> State {
    match random.below(20) {
        0..7 => State::Public,
        7..13 => State::Group,
        13..15 => State::Private,
        15..18 => State::Moved,
        18 => State::Hidden,
        _ => State::Deleted,
    }
}

fn any_right(random: &mut Random) -> State {
    [State::Public, State::Group, State::Private, State::Hidden][random.below(4) as usize]
}

/// The number of steps of a walk.
const STEPS: usize = 400;
