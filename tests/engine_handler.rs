//! When handlers are called, and what becomes of what they say.

mod sim;

use h_realtime::ws::CloseCode;
use sim::{Command, World};

#[test]
fn a_reply_where_there_is_nobody_to_reply_to_reaches_nobody() {
    let mut world = World::calm();
    let one = world.open();
    // The model application also says something stray in every tick and in on_close.
    world.command(Command::Stray);
    world.wait(600);
    let two = world.open();
    world.client(two).text("echo a");
    world.flow();
    let key = world.key(two);
    world.command(Command::CloseOne { key, code: 4000 });
    world.client(one).text("echo b");
    world.flow();
    for (client, text) in [(one, "b"), (two, "a")] {
        let last = format!("echo {text}");
        let texts = world.clients[client].texts();
        assert!(texts.last().is_some_and(|text| text.ends_with(&last)), "{texts:?}");
        assert!(!texts.contains(&"stray"));
    }
    assert_eq!(world.clients[two].closed_with(), Some(CloseCode(4000).0));
}
