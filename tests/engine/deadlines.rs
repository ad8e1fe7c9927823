//! Every wait has a deadline.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use h_realtime_engine::Config;

use crate::sim::{Behavior, ClientEvent, Command, End, World, client_frame, handshake};

fn is_gone(world: &World, client: usize) -> bool {
    world.interest(client).is_none()
}

fn pings(world: &World, client: usize) -> usize {
    let events = world.clients[client].events.iter();
    events
        .filter(|event| matches!(event, ClientEvent::Ping(_)))
        .count()
}

/// Waits, one second at a time, until a condition holds, and returns the elapsed seconds.
fn seconds_until(world: &mut World, mut holds: impl FnMut(&mut World) -> bool) -> u64 {
    (1..200)
        .find(|_| {
            world.wait(1000);
            holds(world)
        })
        .expect("the condition was never met")
}

#[test]
fn idle_connection_is_pinged_after_about_30_seconds() {
    let mut world = World::calm();
    let client = world.open();
    // It answers, so it is pinged repeatedly; the first ping of some connections comes early.
    seconds_until(&mut world, |world| pings(world, client) == 1);
    for count in 2..6 {
        let after = seconds_until(&mut world, |world| pings(world, client) == count);
        assert!((26..=34).contains(&after), "{after} s");
    }
    assert!(!is_gone(&world, client));
}

// A proxy may cut an idle connection after some seconds, while a client may need longer to answer a
// ping.
#[test]
fn ping_interval_may_be_shorter_than_pong_timeout() {
    let config = Config::default().ping_interval(Duration::from_secs(5));
    let mut world = World::new(config, 1);
    let client = world.open();
    seconds_until(&mut world, |world| pings(world, client) == 1);
    for count in 2..10 {
        let after = seconds_until(&mut world, |world| pings(world, client) == count);
        assert!((4..=6).contains(&after), "{after} s");
    }
    // An unanswered ping keeps its full timeout, and no other ping follows.
    world.client(client).vanish();
    let before = world.engine.counters().pings_sent;
    seconds_until(&mut world, |world| {
        world.engine.counters().pings_sent > before
    });
    let cut = seconds_until(&mut world, |world| is_gone(world, client));
    assert!((19..=21).contains(&cut), "{cut} s");
    assert_eq!(world.engine.counters().pings_sent, before + 1);
}

// Its pongs are late: it is pinged at the same interval as others.
#[test]
fn late_pongs_do_not_change_the_ping_interval() {
    let config = Config::default().ping_interval(Duration::from_secs(5));
    let mut world = World::new(config, 1);
    let client = world.open_lazy();
    for count in 1..6 {
        let after = seconds_until(&mut world, |world| {
            world.engine.counters().pings_sent == count
        });
        assert!((2..=6).contains(&after), "{after} s");
        world.wait(12_000);
        assert_eq!(world.engine.counters().pings_sent, count);
        world.listen(client, usize::MAX);
        world.deliver(client);
    }
    assert!(!is_gone(&world, client));
}

#[test]
fn active_connection_is_not_pinged() {
    let mut world = World::calm();
    let client = world.open();
    for _ in 0..30 {
        world.wait(10_000);
        world.client(client).text("echo");
    }
    assert_eq!(world.engine.counters().pings_sent, 0);
}

// W17
#[test]
fn vanished_client_times_out_20_seconds_after_the_ping() {
    let mut world = World::calm();
    let client = world.open();
    world.client(client).vanish();
    let asked = |world: &mut World| world.engine.counters().pings_sent == 1;
    let silent = seconds_until(&mut world, asked);
    assert!((15..=33).contains(&silent), "{silent} s");
    let cut = seconds_until(&mut world, |world| is_gone(world, client));
    assert!((19..=21).contains(&cut), "{cut} s");
    assert_eq!(world.engine.counters().closed.timed_out, 1);
    assert!(world.clients[client].wire.state().is_aborted);
}

// W17: the kernel's buffer is full of unread output, so the ping cannot be sent.
#[test]
fn vanished_client_with_queued_output_times_out() {
    let mut world = World::calm();
    world.limits.send = 3000;
    let client = world.open();
    world.client(client).vanish();
    let keys = vec![world.key(client)];
    world.command(Command::FanOutTo { keys, size: 20_000 });
    world.wait(55_000);
    assert!(is_gone(&world, client));
    assert_eq!(world.engine.counters().closed.timed_out, 1);
}

// W17
#[test]
fn any_input_counts_as_activity() {
    let config = Config::default().message_timeout(Duration::from_secs(3600));
    let mut world = World::new(config, 1);
    let client = world.open_lazy();
    // One frame, byte by byte.
    let frame = crate::sim::client_frame(0x82, &[0; 100], [9; 4]);
    let last = frame.len() - 1;
    for (at, byte) in frame.into_iter().enumerate() {
        world.wait(19_000);
        world.client(client).has_begun = at != last;
        if at == last {
            world
                .client(client)
                .sent_messages
                .push(crate::sim::Payload::Binary(vec![0; 100]));
        }
        world.client(client).raw([byte]);
        world.deliver(client);
    }
    world.wait(1);
    assert!(!is_gone(&world, client));
    assert_eq!(world.inbox(client), 1);
}

// CVE-2014-0193: neither bytes nor control frames nor fragments extend the deadline of a message.
#[test]
fn message_deadline_is_ten_seconds_in_any_fragmentation() {
    for drip in [&b"\x00\x81\0\0\0\0x"[..], b"\x8A\x80\0\0\0\0", b"\x00"] {
        let mut world = World::calm();
        let client = world.open();
        world.wait(60_000);
        world.client(client).behavior.is_wrong = true;
        world.client(client).has_begun = true;
        // The first fragment, and in the last drip the header of a long frame.
        world.client(client).raw(b"\x01\x81\0\0\0\0x");
        if drip.len() == 1 {
            world.client(client).raw(b"\x00\xfe\x10\0\0\0\0\0");
        }
        for second in 0..10 {
            assert!(!is_gone(&world, client), "after {second} s");
            assert_eq!(world.clients[client].closed_with(), None);
            world.client(client).raw(drip);
            world.wait(990);
        }
        world.wait(300);
        assert_eq!(world.clients[client].closed_with(), Some(1008), "{drip:x?}");
        assert_eq!(world.engine.counters().incomplete_bytes, 0);
    }
}

/// A completed message ends its deadline, even if the next message has begun.
#[test]
fn overlapping_messages_have_separate_deadlines() {
    let mut world = World::calm();
    let client = world.open();
    let frame = crate::sim::client_frame(0x82, b"ab", [9; 4]);
    world.client(client).has_begun = true;
    world.client(client).raw(&frame[..5]);
    for _ in 0..10 {
        world.wait(9_000);
        world
            .client(client)
            .sent_messages
            .push(crate::sim::Payload::Binary(b"ab".to_vec()));
        world
            .client(client)
            .raw([&frame[5..], &frame[..5]].concat());
    }
    world.wait(1_000);
    assert!(!is_gone(&world, client));
    assert_eq!(world.inbox(client), 10);
}

// W18
#[test]
fn simultaneous_connections_are_not_pinged_together() {
    let mut world = World::calm();
    let clients: Vec<_> = (0..1000).map(|_| world.connect()).collect();
    clients
        .iter()
        .for_each(|&client| world.client(client).send_handshake("/ws"));
    world.flow();
    let mut before = 0;
    let mut most = 0;
    for _ in 0..40 {
        world.wait(1000);
        let sent = world.engine.counters().pings_sent;
        most = most.max(sent - before);
        before = sent;
    }
    assert!(before >= 1000, "{before}");
    assert!(most < 200, "{most} in one second");
}

// W18, W19: the machine was suspended for an hour, so every deadline has passed.
#[test]
fn clock_jump_only_closes_clients_without_pong() {
    let mut world = World::calm();
    let clients: Vec<_> = (0..1500).map(|_| world.connect()).collect();
    clients
        .iter()
        .for_each(|&client| world.client(client).send_handshake("/ws"));
    let silent = world.connect();
    world.flow();
    let vanished = clients[7];
    world.client(vanished).vanish();
    let ticks = world.log().get().ticks;
    world.clock += 3_600_000;
    world.turn();
    let first = world.engine.counters().pings_sent;
    assert!(
        (1..1500).contains(&first),
        "so many at most in a turn: {first}"
    );
    world.flow();
    assert_eq!(world.engine.counters().pings_sent, 1500);
    assert!(
        world.log().get().ticks - ticks <= 2,
        "missed ticks are not caught up"
    );
    assert!(is_gone(&world, silent));
    world.wait(20_200);
    assert_eq!(world.engine.counters().open, 1499);
    assert!(is_gone(&world, vanished));
}

// W19: the deadline of the pong counts from the ping, regardless of the idle time before it.
#[test]
fn late_pong_after_a_clock_jump_keeps_the_connection() {
    let config = Config::default()
        // The connection is checked several times while the pong is outstanding.
        .ping_interval(Duration::from_secs(5));
    let mut world = World::new(config, 1);
    let client = world.open_lazy();
    world.clock += 3_600_000;
    world.turn();
    assert_eq!(world.engine.counters().pings_sent, 1);
    world.wait(19_000);
    assert!(!is_gone(&world, client));
    world.listen(client, usize::MAX);
    world.deliver(client);
    world.wait(3_000);
    assert!(!is_gone(&world, client));
    // Without a pong, the next ping is the last.
    world.wait(6_000 + 20_200);
    assert!(is_gone(&world, client));
    assert_eq!(world.engine.counters().closed.timed_out, 1);
}

#[test]
fn head_deadline_is_ten_seconds_from_accept() {
    let mut world = World::calm();
    let (silent, dripping) = (world.connect(), world.connect());
    let head = handshake("/ws");
    for (second, byte) in head.iter().enumerate().take(9) {
        world.wait(1000);
        world.client(dripping).raw([*byte]);
        assert!(!is_gone(&world, silent), "{second}");
    }
    world.wait(800);
    assert!(!is_gone(&world, silent) && !is_gone(&world, dripping));
    world.wait(300);
    assert!(is_gone(&world, silent));
    assert_eq!(world.clients[silent].events, []);
    assert_eq!(
        world.clients[dripping].statuses(),
        [408],
        "the request is incomplete"
    );
    assert_eq!(world.clients[dripping].end(), End::Eof);
}

#[test]
fn each_request_has_its_own_deadline() {
    let mut world = World::calm();
    let client = world.connect();
    for _ in 0..5 {
        world.wait(9_000);
        world
            .client(client)
            .request("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n", &[200]);
    }
    world.wait(9_900);
    assert_eq!(world.clients[client].statuses(), [200; 5]);
    assert!(!is_gone(&world, client));
    world.wait(300);
    assert!(is_gone(&world, client));
}

#[test]
fn body_deadline_is_ten_seconds_from_its_head() {
    let mut world = World::calm();
    let client = world.connect();
    world.wait(9_000);
    let head =
        "POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n";
    world.client(client).request(head, &[200]);
    for _ in 0..9 {
        world.wait(1000);
        world.client(client).raw("x");
    }
    world.wait(900);
    assert_eq!(world.clients[client].events, [ClientEvent::Continue]);
    world.wait(300);
    assert_eq!(world.clients[client].statuses(), [408]);
}

#[test]
fn deferred_handshake_times_out_with_503() {
    let mut world = World::calm();
    let client = world.connect();
    world.client(client).send_handshake("/later");
    world.wait(9_900);
    assert_eq!(world.clients[client].events, []);
    world.wait(300);
    assert_eq!(world.clients[client].statuses(), [503]);
    assert!(is_gone(&world, client));
    // The late response has no effect.
    let key = world.key(client);
    world.command(Command::AnswerTo { key, accept: true });
    world.flow();
    assert_eq!(world.engine.counters().opened, 0);
}

#[test]
fn deferred_request_without_upgrade_has_its_own_deadline() {
    let config = Config::default()
        .defer_timeout(Duration::from_secs(1))
        .respond_timeout(Duration::from_secs(20));
    let mut world = World::new(config, 1);
    let client = world.connect();
    world
        .client(client)
        .request("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", &[503]);
    world.wait(19_900);
    assert_eq!(world.clients[client].events, []);
    world.wait(300);
    assert_eq!(world.clients[client].statuses(), [503]);
    assert!(is_gone(&world, client));
}

#[test]
fn deferred_request_that_has_taken_effect_waits_for_its_outcome() {
    let mut world = World::calm();
    let client = world.connect();
    world
        .client(client)
        .request("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n", &[200]);
    world.wait(100);
    let key = world.key(client);
    world.log().get().begun.push(key);
    world.wait(100_000);
    world.shut_down(Duration::from_secs(1));
    world.wait(10_000);
    assert_eq!(world.clients[client].events, []);
    world.command(Command::AnswerTo { key, accept: true });
    world.flow();
    assert_eq!(world.clients[client].statuses(), [200]);
    world.wait(3_000);
    assert!(world.has_ended());
}

// A4
#[test]
fn two_thousand_silent_sockets_time_out_after_ten_seconds() {
    let mut world = World::calm();
    let peer = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
    for number in 0..2000 {
        let behavior = Behavior::default();
        let client = world.connect_from(Some(peer), behavior);
        if number % 2 == 1 {
            world.client(client).raw("G");
            world.deliver(client);
        }
    }
    let client = world.open();
    assert_eq!(world.engine.counters().connections, 2001);
    world.client(client).text("echo still served");
    // Clients with an incomplete request get a response, and the server does not wait for them.
    world.wait(10_100 + 2_100);
    assert_eq!(world.engine.counters().connections, 1);
    assert_eq!(world.engine.counters().handshake_timeouts, 1000);
    assert_eq!(world.inbox(client), 1);
}

// Requests that have been received but not processed do not extend the timeout of a client that
// prevents the server from processing them.
#[test]
fn unread_answers_to_pipelined_requests_do_not_extend_the_handshake_timeout() {
    let mut world = World::calm();
    world.limits.send = 1000;
    let client = world.connect();
    world.client(client).behavior.is_eager = false;
    for _ in 0..4000 {
        let request = "GET /ok HTTP/1.1\r\nHost: a\r\n\r\n";
        world.client(client).request(request, &[200]);
    }
    world.deliver(client);
    world.wait(9_500);
    assert!(!is_gone(&world, client));
    // The deadline, and the time for an ended connection to flush its output.
    world.wait(6_000);
    assert!(is_gone(&world, client));
}

#[test]
fn frames_after_the_close_frame_of_the_server_do_not_extend_the_close_timeout() {
    let mut world = World::calm();
    let client = world.open_lazy();
    world.client(client).behavior.is_wrong = true;
    world.client(client).has_begun = true;
    let key = world.key(client);
    world.command(Command::CloseOne { key, code: 3000 });
    world.flow();
    assert!(!is_gone(&world, client));
    let frames = client_frame(0x89, b"", [9; 4]).repeat(50_000);
    for _ in 0..60 {
        world.client(client).raw(&frames);
        world.deliver(client);
        world.clock += 100;
        world.turn();
    }
    assert!(is_gone(&world, client));
}
