//! Restarts of the message broker and the database with a thousand clients: no client is
//! disconnected, and requests that need neither are answered.

use std::thread;

use h_realtime_engine::raise_open_files;

use crate::support::{
    Client, PATIENCE, PUBLIC, Postgres, RabbitMq, Server, Site, action_and_id, annotation_event,
    eventually, http,
};

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn broker_and_database_outages_do_not_disconnect_clients() {
    raise_open_files();
    let broker = thread::spawn(RabbitMq::start);
    let database = Postgres::start();
    let broker = broker.join().unwrap();
    let site = Site::on(&database, &broker);
    // Frequent sweeps, so that some find no database.
    let server = site.server("[auth]\nsweep = \"200ms\"\n[timeouts]\nping = \"10m\"");
    let mut clients = a_thousand(&server);
    publish(&site, "before");
    expect_all_receive(&mut clients, "before");
    without_the_broker(&site, &broker, &server, &mut clients);
    for round in 0..2 {
        without_the_database(&site, &database, &server, &mut clients, round);
    }
    // Each client has received everything, so none has reconnected in between.
    expect_all_answered(&mut clients);
    // The log has one line for each outage and each recovery.
    let lines = |part: &str| server.log().matches(part).count();
    assert_eq!((lines(DEGRADED), lines(RECOVERED)), (3, 3));
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn limits_on_queued_events_are_configurable_and_drops_are_logged() {
    let broker = thread::spawn(RabbitMq::start);
    let database = Postgres::start();
    let broker = broker.join().unwrap();
    let site = Site::on(&database, &broker);
    let server = site.server("[limits]\nevent = \"2KiB\"\nbacklog_events = 5\n");
    let dropped = |reason: &str| {
        server.metric(&format!(
            "h_realtime_queue_events_dropped_total{{reason=\"{reason}\"}}"
        ))
    };
    let large = format!("{{\"a\": \"{}\"}}", "x".repeat(3000));
    let publisher = site.publisher();
    publisher.publish_raw("annotation", large.as_bytes(), "application/json", "utf-8");
    server.log_with("dropped oversized messages from the queue: 1 since");
    server.log_with("limits.event=2048B");
    assert_eq!(dropped("too_large"), 1.0);

    database.stop();
    eventually(PATIENCE, || (server.readiness() == 503).then_some(()));
    let events = (0..200).map(|number| annotation_event(&number.to_string(), PUBLIC));
    publisher.publish_all("annotation", events);
    eventually(PATIENCE, || (dropped("overflow") == 195.0).then_some(()));
    database.start_again();
    server.wait_until_ready();
    // The lines add up to all drops, although fewer than ten seconds may have passed.
    eventually(PATIENCE, || {
        let log = server.log();
        let lines = log.lines().filter_map(|line| {
            line.split_once("dropped the oldest events that waited for the database: ")
        });
        let numbers = lines.map(|(_, rest)| rest.split(' ').next().unwrap().parse::<u32>());
        (numbers.map(Result::unwrap).sum::<u32>() == 195).then_some(())
    });
}

fn without_the_broker(site: &Site, broker: &RabbitMq, server: &Server, clients: &mut [Client]) {
    broker.stop();
    eventually(PATIENCE, || (server.readiness() == 503).then_some(()));
    wait_for_log_lines(server, DEGRADED, 1);
    assert_eq!(public_status(server), 200);
    expect_all_answered(clients);
    // The database is available, so tokens can be resolved.
    assert!(handshake(server, ALICE).starts_with("HTTP/1.1 101 "));
    broker.start_again();
    server.wait_until_ready();
    wait_for_log_lines(server, RECOVERED, 1);
    publish(site, "after the broker");
    expect_all_receive(clients, "after the broker");
}

fn without_the_database(
    site: &Site,
    database: &Postgres,
    server: &Server,
    clients: &mut [Client],
    round: usize,
) {
    let dropped = || server.metric("h_realtime_queue_events_dropped_total");
    let dropped_before = dropped();
    database.stop();
    eventually(PATIENCE, || (server.readiness() == 503).then_some(()));
    wait_for_log_lines(server, DEGRADED, round + 2);
    assert_eq!(public_status(server), 200);
    expect_all_answered(clients);
    let refused = handshake(server, ALICE);
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains("\r\nRetry-After: "), "{refused}");
    assert!(handshake(server, "").starts_with("HTTP/1.1 101 "));
    for number in 0..WAITING {
        publish(site, &format!("waits {round} {number}"));
    }
    expect_all_answered(clients);
    database.start_again();
    server.wait_until_ready();
    wait_for_log_lines(server, RECOVERED, round + 2);
    publish(site, "after the database");
    for client in clients {
        let mut waited = Vec::new();
        loop {
            let message = client.json();
            match action_and_id(&message).0 {
                "after the database" => break,
                action => waited.push(action.to_owned()),
            }
        }
        let kept = (0..WAITING).map(|number| format!("waits {round} {number}"));
        let kept: Vec<String> = kept.skip((dropped() - dropped_before) as usize).collect();
        assert_eq!(waited, kept, "neither delivered nor counted");
    }
    assert!(handshake(server, ALICE).starts_with("HTTP/1.1 101 "));
}

/// Waits for this number of matching lines in the log. The server checks twice per second: shorter
/// outages are not logged.
fn wait_for_log_lines(server: &Server, line: &str, count: usize) {
    eventually(PATIENCE, || {
        (server.log().matches(line).count() == count).then_some(())
    });
}

const DEGRADED: &str = "] degraded: backend unavailable";
const RECOVERED: &str = "] recovered: backend ready";

/// Half of them are authenticated.
fn a_thousand(server: &Server) -> Vec<Client> {
    let mut clients: Vec<Client> = (0..1000)
        .map(|number| match number % 2 {
            0 => server.anonymous(),
            _ => server.user_of_h("alice"),
        })
        .collect();
    for client in &mut clients {
        client.subscribe("/id", PUBLIC);
    }
    clients
}

fn publish(site: &Site, action: &str) {
    let event = annotation_event(action, PUBLIC);
    site.publisher().publish("annotation", &event);
}

fn expect_all_receive(clients: &mut [Client], action: &str) {
    for client in clients {
        assert_eq!(action_and_id(&client.json()).0, action);
    }
}

fn expect_all_answered(clients: &mut [Client]) {
    for client in clients {
        assert_eq!(client.drain(), []);
    }
}

/// Returns the head of the response to a handshake with these fields.
fn handshake(server: &Server, fields: &str) -> String {
    Client::try_open(server.address(), "/ws", fields).head
}

fn public_status(server: &Server) -> u16 {
    let request = b"GET /_status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    http(server.address(), request).0
}

const ALICE: &str = "Authorization: Bearer 6879-alice-developer-token\r\n";
/// The number of events published while the database is unavailable.
const WAITING: usize = 3;
