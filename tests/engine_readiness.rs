//! Edges come once: whatever is left unread or unwritten is taken up again without one.

mod sim;

use h_realtime::net::{Config, Readiness};
use sim::{Command, End, Limits, World, pad};

fn small_buffers() -> World {
    let mut world = World::calm();
    world.limits = Limits {
        receive: 1 << 20,
        send: 4000,
    };
    world
}

/// A world in which a client of few unread bytes is not read from.
fn soon_choked() -> World {
    let config = Config {
        queue_soft: 2000,
        ..Config::default()
    };
    let mut world = World::new(config, 1);
    world.limits.send = 4000;
    world
}

// R1: what was left when the handler's answer came, when the queue was too long, …
#[test]
fn one_who_could_not_be_read_from_is_read_from_when_its_end_begins() {
    let mut world = soon_choked();
    let client = world.connect();
    world.client(client).conduct.is_eager = false;
    let request = "GET /big HTTP/1.1\r\nHost: sim\r\n\r\n";
    world.client(client).request(request, &[200]);
    world.client(client).raw("GET /big HTT");
    world.clients[client].wire.state().deliver(usize::MAX);
    world.settle();
    // Behind that it sends more, and ends its side: all on edges that come and go now.
    world.client(client).raw("P/1.1");
    world.client(client).finish();
    world.clients[client].wire.state().deliver(usize::MAX);
    world.settle();
    assert!(world.interest(client).is_some_and(|interest| interest.is_choked));
    // Its time for a whole request is up.
    world.wait(10_100);
    world.client(client).conduct.is_eager = true;
    world.flow();
    assert_eq!(world.clients[client].statuses(), [200, 408]);
    assert_eq!(world.clients[client].end(), End::Eof);
    assert_eq!(world.interest(client), None, "it is gone as soon as both have ended");
}

#[test]
fn one_who_could_not_be_read_from_is_read_from_when_it_is_evicted() {
    let mut world = soon_choked();
    let client = world.open_lazy();
    world.client(client).text(&format!("echo {}", pad(9000)));
    world.clients[client].wire.state().deliver(usize::MAX);
    world.settle();
    world.client(client).close(1000);
    world.clients[client].wire.state().deliver(usize::MAX);
    world.settle();
    assert!(world.interest(client).is_some_and(|interest| interest.is_choked));
    let key = world.key(client);
    world.command(Command::CloseOne { key, code: 4000 });
    world.settle();
    assert!(world.interest(client).is_some_and(|interest| interest.is_to_be_shut));
}
