//! Kills of the command, the server, and the receiver in rounds. A checker verifies that every
//! annotation's newest state arrives, in order, and no text after its retraction.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tempfile::TempDir;

use super::forward::publish;
use crate::support::{Hook, HookReply, HookRequest, PATIENCE, Program, Server, eventually};

/// The state of an annotation that the receiver has acknowledged: a number, or `None` if deleted.
type State = Option<u64>;

/// The acknowledged states of the annotations, and violations of their order.
#[derive(Default)]
struct Checker {
    states: BTreeMap<String, State>,
    /// The newest number of each annotation.
    newest: BTreeMap<String, u64>,
    deleted: BTreeMap<String, bool>,
    faults: Vec<String>,
    random: u64,
}

impl Checker {
    fn random(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    /// Records a request, and chooses the reply.
    fn reply(&mut self, request: &HookRequest) -> HookReply {
        let failure = match self.random(6) {
            0 => Some(HookReply::Status(500, "")),
            1 => Some(HookReply::Reset),
            _ => None,
        };
        // A reset may hide that the request was processed, so that every request is recorded.
        let payload = request.json();
        let id = payload["data"]["id"].as_str().unwrap().to_owned();
        let text = payload["data"]["text"].as_str();
        let number: State = text.map(|text| text.parse().unwrap());
        if let Some(number) = number {
            let newest = self.newest.get(&id).copied().unwrap_or_default();
            if number < newest {
                self.faults.push(format!("{id}: {number} after {newest}"));
            }
            if self.deleted.get(&id) == Some(&true) {
                self.faults
                    .push(format!("{id}: {number} after its deletion"));
            }
            self.newest.insert(id.clone(), number.max(newest));
        } else {
            self.deleted.insert(id.clone(), true);
        }
        if failure.is_none() {
            self.states.insert(id, number);
        }
        failure.unwrap_or(HookReply::Status(204, ""))
    }
}

struct Rounds {
    server: Server,
    folder: TempDir,
    hook: Option<Hook>,
    address: SocketAddr,
    program: Program,
    checker: Arc<Mutex<Checker>>,
    expected: BTreeMap<String, State>,
    next: u64,
}

impl Rounds {
    fn start(seed: u64) -> Rounds {
        let checker = Arc::new(Mutex::new(Checker {
            random: seed,
            ..Checker::default()
        }));
        let folder = TempDir::new().unwrap();
        let server = Server::start();
        let hook = hook(None, &checker);
        let address = hook.address;
        let program = command(&server, address, folder.path());
        program.wait_for_error_line("connected");
        Rounds {
            server,
            folder,
            hook: Some(hook),
            address,
            program,
            checker,
            expected: BTreeMap::new(),
            next: 0,
        }
    }

    /// Publishes events of a few annotations. Every fifth annotation is deleted, and its id is not
    /// used again.
    fn publish(&mut self, count: u64) {
        for _ in 0..count {
            self.next += 1;
            let generation = self.next / 40;
            let id = format!("A{generation}-{}", self.next % 8);
            let state = (self.next % 40 < 32).then_some(self.next);
            let action = match (state, self.expected.contains_key(&id)) {
                (None, _) => "delete",
                (Some(_), true) => "update",
                (Some(_), false) => "create",
            };
            let text = state.unwrap_or_default().to_string();
            publish(&self.server, action, json!({"id": id, "text": text}));
            self.expected.insert(id, state);
        }
    }

    fn restart_command(&mut self) {
        self.program.child.kill().unwrap();
        self.program.wait();
        self.program = command(&self.server, self.address, self.folder.path());
    }

    fn restart_receiver(&mut self) {
        self.hook = None;
        self.publish(10);
        let address = self.address;
        let hook = eventually(PATIENCE, || {
            std::panic::catch_unwind(|| hook(Some(address), &self.checker)).ok()
        });
        self.hook = Some(hook);
    }

    fn finish(&self) {
        let end = std::time::Instant::now() + 6 * PATIENCE;
        loop {
            let checker = self.checker.lock().unwrap();
            assert_eq!(checker.faults, [""; 0]);
            if checker.states == self.expected {
                return;
            }
            assert!(
                std::time::Instant::now() < end,
                "acknowledged {:?}, expected {:?}",
                checker.states,
                self.expected
            );
            drop(checker);
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn hook(address: Option<SocketAddr>, checker: &Arc<Mutex<Checker>>) -> Hook {
    let checker = Arc::clone(checker);
    let reply = move |_: usize, request: &HookRequest| checker.lock().unwrap().reply(request);
    match address {
        Some(address) => Hook::at(address, reply),
        None => Hook::start(reply),
    }
}

fn command(server: &Server, receiver: SocketAddr, folder: &Path) -> Program {
    let url = format!("http://{receiver}/hook");
    super::forward::start(&server.listeners[0], &url, folder, &[])
}

#[test]
fn kills_of_command_server_and_receiver_lose_no_newest_state() {
    let mut rounds = Rounds::start(0x9e37_79b9);
    for round in 0..12 {
        rounds.publish(20);
        match round % 4 {
            0 => rounds.restart_command(),
            1 => rounds.server.restart(),
            2 => rounds.restart_receiver(),
            _ => {
                rounds.program.child.kill().unwrap();
                rounds.program.wait();
                rounds.server.restart();
                rounds.publish(5);
                rounds.program = command(&rounds.server, rounds.address, rounds.folder.path());
            }
        }
    }
    rounds.publish(20);
    rounds.finish();
}
