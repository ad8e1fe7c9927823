//! The random steps.

use h_realtime::model::{
    AuthReply, BackendEvent, EndCause, Identity, InvalidToken, RequestId, TokenId, UnixMillis,
};
use h_realtime::realtime::{ApiSettings, TurnLimits};
use h_realtime_engine::Config;
use h_realtime_engine::ws::CAN_DEFLATE;

use crate::sim::rng::Rng;
use crate::sim::{Behavior, Faults, Limits, OFFER, PollerFaults, deflate, frames::handshake_with};

use super::app::Command;
use super::client_messages::{self, pick};
use super::model::Credentials;
use super::plans::{self, USERS};
use super::world::{Hello, World};

#[derive(Clone, Copy, Debug)]
enum Step {
    Connect,
    /// The network delivers bytes to the server.
    Bring,
    /// A client reads.
    Listen,
    ClientMessage,
    /// A client sends more messages at once than the engine processes in one turn.
    Burst,
    Ping,
    /// A client disconnects in one of several ways.
    Leave,
    /// The backend replies to a request.
    Answer,
    /// The backend replies to a request again.
    AnswerAgain,
    /// The backend loses a request.
    Lose,
    /// A user's memberships change.
    Regroup,
    EndToken,
    EndUser,
    /// The backend's queue becomes full, or accepts requests again.
    Overload,
    Publish,
    Turn,
    /// Runs turns until the engine is idle, without network activity.
    Settle,
    Wait,
    /// The machine is suspended for an hour.
    Sleep,
    /// The wall clock is set forward or back by an hour.
    SetClock,
}

/// A run: the world, and the state of the backend.
struct Run {
    world: World,
    rng: Rng,
    faults: Faults,
    max_terms: usize,
    tokens: Vec<Token>,
    answered: Vec<(RequestId, String)>,
    events: u64,
}

struct Token {
    userid: &'static str,
    expires: Option<UnixMillis>,
    has_ended: bool,
}

/// Runs `steps` steps, then disconnects all clients and checks that no state is left.
pub fn run(seed: u64, steps: usize) {
    play(seed, steps).world.sim.finish();
}

/// The same with a check of liveness before the end, also for new events.
pub fn run_to_liveness(seed: u64, steps: usize) {
    let mut run = play(seed, steps);
    (0..20).for_each(|_| run.publish());
    run.world.sim.check_liveness();
    run.world.sim.finish();
}

fn play(seed: u64, steps: usize) -> Run {
    let mut run = Run::new(seed);
    let is_verbose = std::env::var_os("TELL").is_some();
    let total: usize = STEPS.iter().map(|(weight, _)| weight).sum();
    for _ in 0..4 {
        run.connect();
    }
    for _ in 0..steps {
        let mut at = run.rng.below(total);
        let step = STEPS.iter().find(|(weight, _)| {
            let is_it = at < *weight;
            at = at.saturating_sub(*weight);
            is_it
        });
        if let Some((_, step)) = step {
            if is_verbose {
                eprintln!("{step:?}");
            }
            run.step(*step);
        }
    }
    run.world.requests.is_busy.set(false);
    run.answer();
    run
}

impl Run {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let rejects = rng.chance(40);
        let settings = ApiSettings {
            invalid_token: match rejects {
                true => InvalidToken::Reject,
                false => InvalidToken::Anonymous,
            },
            max_terms: if rng.chance(30) { 6 } else { 200 },
            ..ApiSettings::default()
        };
        let max_terms = settings.max_terms;
        let config = config(&mut rng);
        let limits = turn_limits(&mut rng);
        let mut world = World::new(config, settings, limits, rejects, rng.fork());
        world.sim.poller_faults = PollerFaults {
            delayed: rng.below(60) as u32,
            spurious: 10,
            repeated: 5,
            shuffled: true,
        };
        if rng.chance(30) {
            world.sim.environment.descriptors = 3 + rng.below(20);
        }
        world.sim.environment.unregistered = if rng.chance(30) { 10 } else { 0 };
        let mut some = |percent: u32| if rng.chance(50) { percent } else { 0 };
        let faults = Faults {
            interrupted: some(10),
            would_block: some(20),
            short_read: some(30),
            short_write: some(50),
            broken: some(20),
            zero_writes: false,
        };
        Run {
            world,
            rng,
            faults,
            max_terms,
            tokens: Vec::new(),
            answered: Vec::new(),
            events: 0,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Connect => self.connect(),
            Step::Bring
            | Step::Listen
            | Step::ClientMessage
            | Step::Burst
            | Step::Ping
            | Step::Leave => {
                let at = self.rng.below(self.world.sim.active.len());
                if let Some(number) = self.world.sim.active.get(at).copied() {
                    self.step_of(number, step);
                }
            }
            Step::Answer => self.answer(),
            Step::AnswerAgain => self.answer_again(),
            Step::Lose => {
                let mut questions = self.world.requests.questions.borrow_mut();
                let at = self.rng.below(questions.len());
                if at < questions.len() {
                    questions.remove(at);
                }
            }
            Step::Regroup => {
                let userid = pick(&mut self.rng, USERS).into();
                let memberships = plans::memberships(&mut self.rng);
                self.tell(BackendEvent::Memberships {
                    userid,
                    memberships,
                });
            }
            Step::EndToken => self.end_token(),
            Step::EndUser => self.end_user(),
            Step::Overload => {
                let is_busy = self.rng.chance(25);
                self.world.requests.is_busy.set(is_busy);
            }
            Step::Publish => self.publish(),
            Step::Turn => {
                self.world.sim.exchange();
                self.world.sim.turn();
            }
            Step::Settle => self.world.sim.settle(),
            Step::Wait => self.world.sim.wait(self.rng.below(1500) as u64),
            Step::Sleep => {
                self.world.sim.flow();
                self.world.sim.clock += HOUR;
                self.maybe_publish();
                self.world.sim.flow();
            }
            Step::SetClock => {
                match self.rng.chance(50) {
                    true => self.world.sim.wall += HOUR,
                    false => self.world.sim.wall -= HOUR,
                }
                self.maybe_publish();
            }
        }
    }

    fn step_of(&mut self, number: usize, step: Step) {
        let bytes = match self.rng.below(4) {
            0 => 1 + self.rng.below(8),
            1 => 1 + self.rng.below(200),
            _ => usize::MAX,
        };
        let client = &mut self.world.sim.clients[number];
        // Some clients send before the handshake response.
        let may_speak = client.key.is_some()
            && (client.progress.is_open || self.rng.chance(20))
            && !client.behavior.has_sent_close
            && !client.behavior.has_finished
            && !client.behavior.is_wrong;
        match step {
            Step::Bring => drop(client.wire.state().deliver(bytes)),
            Step::Listen => drop(self.world.sim.listen(number, bytes)),
            Step::Ping if may_speak => client.ping(),
            Step::ClientMessage if may_speak => {
                let message = client_messages::any(&mut self.rng, self.max_terms);
                let fragment = self.rng.chance(15).then(|| self.rng.below(30));
                self.world.send(number, message, fragment);
            }
            Step::Burst if may_speak => {
                (0..100).for_each(|_| self.world.send(number, client_messages::long(), None));
                let client = &mut self.world.sim.clients[number];
                client.wire.state().deliver(usize::MAX);
            }
            Step::Leave => match self.rng.below(7) {
                0..2 if may_speak => client.close(1000),
                2 => client.finish(),
                3 => client.reset(),
                4 => client.vanish(),
                5 if may_speak => {
                    client.behavior.is_wrong = true;
                    client.frame(0x83, b"unknown opcode");
                }
                6 if may_speak && client.compresses => {
                    client.behavior.is_wrong = true;
                    client.finish_part();
                    client.frame(0xC1, &deflate(&vec![b' '; 1 << 17]));
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn connect(&mut self) {
        let rng = &mut self.rng;
        let behavior = Behavior {
            is_eager: rng.chance(60),
            ..Behavior::default()
        };
        let sizes = [300, 2000, 10_000, 200_000];
        let limits = Limits {
            receive: sizes[rng.below(4)],
            send: sizes[rng.below(4)],
        };
        let faults = Faults {
            // Only for clients without expectations.
            broken: if behavior.is_eager {
                0
            } else {
                self.faults.broken
            },
            ..self.faults
        };
        let compresses = CAN_DEFLATE && rng.chance(40);
        let offer = if compresses { OFFER } else { "" };
        let (credentials, bytes) = match rng.below(20) {
            0..5 => (Credentials::Anonymous, handshake_with("/ws", offer)),
            5 => (
                Credentials::EmptyToken,
                handshake_with("/ws?access_token=", offer),
            ),
            6 => (
                Credentials::Token,
                handshake_with("/ws?access_token=wrong", offer),
            ),
            _ => (Credentials::Token, self.handshake(offer)),
        };
        let hello = Hello {
            credentials,
            bytes,
            compresses,
        };
        self.world.connect(behavior, limits, faults, hello);
    }

    /// Returns a handshake with a new or a used token.
    fn handshake(&mut self, offer: &str) -> Vec<u8> {
        let mut at = self.rng.below(self.tokens.len());
        if self.tokens.is_empty() || self.rng.chance(30) {
            at = self.tokens.len();
            let life = [HOUR / 2, 1000 + self.rng.below(20_000) as u64][self.rng.below(2)];
            let expires = self.world.sim.now().unix + life;
            self.tokens.push(Token {
                userid: pick(&mut self.rng, USERS),
                expires: self.rng.chance(50).then_some(expires),
                has_ended: false,
            });
        }
        if self.rng.chance(50) {
            return handshake_with(&format!("/ws?access_token=t{at}"), offer);
        }
        let fields = format!("{offer}Authorization: Bearer t{at}\r\n");
        handshake_with("/ws", &fields)
    }

    /// Replies to a request, not always the oldest.
    fn answer(&mut self) {
        let count = self.world.requests.questions.borrow().len();
        if count == 0 {
            return;
        }
        let at = match self.rng.chance(60) {
            true => 0,
            false => self.rng.below(count),
        };
        let question = self.world.requests.questions.borrow_mut().remove(at);
        let reply = match self.rng.chance(5) {
            true => AuthReply::Unavailable,
            false => self.reply(&question.1),
        };
        let request_id = question.0;
        self.answered.push(question);
        self.tell(BackendEvent::Authenticated { request_id, reply });
    }

    /// Returns the current owner of a token.
    fn reply(&mut self, token: &str) -> AuthReply {
        let number = token.strip_prefix('t').and_then(|rest| rest.parse().ok());
        let number: usize = number.unwrap_or(usize::MAX);
        match self.tokens.get(number).filter(|token| !token.has_ended) {
            Some(token) => AuthReply::Known(Identity {
                userid: token.userid.into(),
                memberships: plans::memberships(&mut self.rng),
                token: TokenId(number as u64),
                expires: token.expires,
            }),
            None => AuthReply::Unknown,
        }
    }

    fn answer_again(&mut self) {
        let at = self.rng.below(self.answered.len());
        if let Some((request_id, _)) = self.answered.get(at).cloned() {
            // Possibly of another user.
            let other = format!("t{}", self.rng.below(self.tokens.len() + 1));
            let reply = self.reply(&other);
            self.tell(BackendEvent::Authenticated { request_id, reply });
        }
    }

    fn end_token(&mut self) {
        let at = self.rng.below(self.tokens.len() + 1);
        if let Some(token) = self.tokens.get_mut(at) {
            token.has_ended = true;
        }
        let token = TokenId(at as u64);
        let cause = EndCause::Revoked;
        self.tell(BackendEvent::TokenEnded { token, cause });
    }

    fn end_user(&mut self) {
        let userid = pick(&mut self.rng, USERS);
        for token in &mut self.tokens {
            token.has_ended |= token.userid == userid;
        }
        let userid = userid.into();
        self.tell(BackendEvent::UserDeleted { userid });
    }

    fn publish(&mut self) {
        let count = 1 + self.rng.below(6) as u64;
        let first = self.events;
        self.events += count;
        let plans = (first..self.events).map(|number| plans::any(&mut self.rng, number));
        let plans = plans.collect();
        self.world.sim.command(Command::Deliver(plans));
    }

    /// Publishes an event, first of all after a clock jump.
    fn maybe_publish(&mut self) {
        for _ in 0..self.rng.below(4) {
            self.publish();
        }
    }

    fn tell(&mut self, tell: BackendEvent) {
        self.world.sim.command(Command::BackendEvent(tell));
    }
}

/// Mostly small limits, so that they are reached; sometimes the real ones.
fn config(rng: &mut Rng) -> Config {
    let mut config = Config::default().max_connections(12 + rng.below(24));
    if rng.chance(60) {
        config.queue_soft = 1 << (9 + rng.below(5));
        config.queue_hard = config.queue_soft * (2 + rng.below(4));
    }
    config
}

/// Limits on the events of a turn: mostly small ones, so that batches are split.
fn turn_limits(rng: &mut Rng) -> TurnLimits {
    match rng.chance(70) {
        true => TurnLimits {
            backlog: 1 + rng.below(20),
            matches: 1 + rng.below(20),
            events: 1 + rng.below(4),
            bytes: 1 + rng.below(6000),
        },
        false => TurnLimits::default(),
    }
}

const HOUR: u64 = 3_600_000;

/// The steps, and the weight of each.
const STEPS: &[(usize, Step)] = &[
    (70, Step::Connect),
    (130, Step::Bring),
    (130, Step::Listen),
    (260, Step::ClientMessage),
    (5, Step::Burst),
    (20, Step::Ping),
    (16, Step::Leave),
    (90, Step::Answer),
    (8, Step::AnswerAgain),
    (8, Step::Lose),
    (30, Step::Regroup),
    (8, Step::EndToken),
    (3, Step::EndUser),
    (6, Step::Overload),
    (190, Step::Publish),
    (90, Step::Turn),
    (30, Step::Settle),
    (40, Step::Wait),
    (2, Step::Sleep),
    (2, Step::SetClock),
];
