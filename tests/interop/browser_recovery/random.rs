//! Random changes over random interruptions.
//!
//! An annotation that has become unreadable stays so: the client treats a deletion as final until its
//! user has applied it.

use std::collections::BTreeMap;

use h_realtime_test_kit::rng::Rng;

use super::sidebar::Sidebar;
use super::world::{BOB, CAROL, DAVE, World, hidden, private};

/// The annotations by word, and the users whose rights have changed.
#[derive(Default)]
struct Model {
    words: BTreeMap<&'static str, Word>,
    is_carol_muted: bool,
    is_dave_unmuted: bool,
    /// The changes and the interruptions so far.
    trace: Vec<String>,
}

#[derive(Debug)]
struct Word {
    author: &'static str,
    version: u32,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Hidden since its creation.
    Hidden,
    Visible,
    Gone,
}

/// Plays a number of rounds, each with one interruption.
pub fn play(seed: u64, rounds: usize) {
    let mut rng = Rng::new(seed);
    let mut model = Model::default();
    let mut world = World::start("[timeouts]\ndrain = \"100ms\"\nclose = \"500ms\"");
    let sidebar = Sidebar::open(&world.service);
    world.fence(&sidebar, 0);
    for _ in 0..rounds {
        model.change_some(&world, &mut rng);
        if rng.chance(50) {
            sidebar.apply();
        }
        interrupt(&mut world, &mut model, &mut rng);
        model.change_some(&world, &mut rng);
        let connection = world.link.connections();
        world.link.restore();
        if rng.chance(50) {
            world.wait_for_connection(connection);
        }
    }
    world.fence(&sidebar, 0);
    let fence = world.fence_text();
    let mut expected = model.visible();
    expected.push(fence);
    let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    println!("seed {seed}\n{}", model.trace.join("\n"));
    sidebar.shows(&expected);
}

/// Interrupts the connection, with changes before its end.
fn interrupt(world: &mut World, model: &mut Model, rng: &mut Rng) {
    let kind = rng.below(5);
    model.trace.push(format!("interruption {kind}"));
    match kind {
        0 => world.link.stall(),
        1 => world.link.lose_output(),
        _ => {}
    }
    model.change_some(world, rng);
    match kind {
        2 => {
            world.link.stall();
            world.restart();
        }
        3 => {
            world.link.stall();
            world.server.restart();
        }
        _ => {}
    }
    world.link.cut();
    world.link.stall();
}

impl Model {
    fn change_some(&mut self, world: &World, rng: &mut Rng) {
        for _ in 0..rng.below(6) {
            match rng.below(20) {
                0 if !self.is_carol_muted => {
                    self.is_carol_muted = true;
                    world.server.run(&["user", "mute", CAROL]);
                    self.trace.push("mute carol".to_owned());
                }
                1 if !self.is_dave_unmuted => {
                    self.is_dave_unmuted = true;
                    world.server.run(&["user", "unmute", DAVE]);
                    self.trace.push("unmute dave".to_owned());
                }
                _ => self.change_word(world, rng),
            }
        }
    }

    fn change_word(&mut self, world: &World, rng: &mut Rng) {
        let name = WORDS[rng.below(WORDS.len())];
        let author = [BOB, BOB, CAROL, DAVE][rng.below(4)];
        let word = self.words.entry(name).or_insert(Word {
            author,
            version: 0,
            state: State::Hidden,
        });
        if word.state == State::Gone {
            return;
        }
        word.version += 1;
        let annotation = world.annotation_by(word.author, name, word.version);
        let (state, action, annotation) = match (word.state, rng.below(6)) {
            (State::Hidden, 0 | 1) => (State::Hidden, "update", hidden(annotation)),
            (State::Visible, 0) => (State::Gone, "update", hidden(annotation)),
            (State::Visible, 1) => (State::Gone, "update", private(annotation)),
            (State::Visible, 2) => (State::Gone, "delete", annotation),
            _ => (State::Visible, "update", annotation),
        };
        let action = if word.version == 1 { "create" } else { action };
        world.publish(action, &annotation);
        word.state = state;
        self.trace.push(format!("{action} {name} {word:?}"));
    }

    /// Returns the texts of all visible annotations.
    fn visible(&self) -> Vec<String> {
        let is_visible = |word: &Word| {
            let is_muted = match word.author {
                CAROL => self.is_carol_muted,
                DAVE => !self.is_dave_unmuted,
                _ => false,
            };
            word.state == State::Visible && !is_muted
        };
        let words = self.words.iter().filter(|(_, word)| is_visible(word));
        words
            .map(|(name, word)| format!("{name} v{}", word.version))
            .collect()
    }
}

const WORDS: [&str; 10] = [
    "alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel", "india", "juliett",
];
