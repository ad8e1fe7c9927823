//! The counters of the engine.

use h_realtime_engine::Config;

use crate::sim::{Command, World};

const KIB: usize = 1024;

fn send(world: &mut World, client: usize) {
    let key = world.key(client);
    let text = "hello".to_owned();
    world.command(Command::SendTo { key, text });
    world.flow();
}

#[test]
fn sent_and_undelivered_messages_are_counted() {
    let mut world = World::calm();
    let client = world.open();
    for sent in 1..=3 {
        // The application sends it as a message and as a block of an event stream.
        send(&mut world, client);
        let counters = world.engine.counters();
        assert_eq!((counters.messages_out, counters.undelivered), (sent, sent));
    }
}

#[test]
fn unsent_messages_are_counted_when_their_connection_ends() {
    let mut world = World::calm();
    let client = world.open_lazy();
    let queued = |world: &World| world.interest(client).unwrap().queued;
    while queued(&world) <= 30 * KIB {
        let keys = vec![world.key(client)];
        let size = 10 * KIB;
        world.command(Command::FanOutTo { keys, size });
        world.flow();
    }
    let messages = queued(&world).div_ceil(10 * KIB + KIB) as u64;
    world.client(client).reset();
    world.flow();
    let counters = world.engine.counters();
    // The first one may have been sent in part.
    assert_eq!(counters.unsent, messages);
    assert_eq!((counters.queued_bytes, counters.slow), (0, 0));
}

#[test]
fn lag_is_the_delay_of_the_periodic_work() {
    let mut world = World::new(Config::default(), 1);
    world.wait(10_000);
    let before = world.engine.counters().lag.sum();
    assert!(before < 0.5, "{before}");
    world.stand_still(4000);
    world.flow();
    let lag = world.engine.counters().lag.sum() - before;
    assert!((2.5..4.0).contains(&lag), "{lag}");
}
