//! The end of a server: everybody is told to come back, in their turn, and the next server can
//! start at once.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Client, Received, Server, eventually};

/// What everybody is sent.
fn service_restart() -> Received {
    Received::Close(Some((1012, "service restart".to_owned())))
}

/// The server has ended well, and what says that it runs is gone.
fn ended_well(server: &mut Server) {
    let (log, code) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    let names = fs::read_dir(server.data()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["h-realtime.sqlite", "publish.key"]);
}

fn event() -> String {
    let annotation = json!({"id": "A", "user": "acct:a@example.org", "uri": "https://example.org/",
                            "permissions": {"read": ["group:__world__"]}});
    json!({"topic": "annotation", "action": "create", "annotation": annotation}).to_string()
}

#[test]
fn both_signals_send_everybody_away_after_what_was_on_its_way() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut server = Server::start();
        let token = server.user("acct:me@example.org");
        let mut clients = [
            server.anonymous(),
            server.logged_in(&token),
            server.anonymous(),
        ];
        for client in &mut clients {
            client.subscribe("/group", "__world__");
        }
        // Those who have not said what they want do not hold it up.
        let silent = TcpStream::connect(server.address()).unwrap();
        assert_eq!(server.publish(&event()).0, 202);
        let since = Instant::now();
        server.signal(signal);
        for client in &mut clients {
            assert!(matches!(client.receive(), Received::Text(_)));
            assert_eq!(client.receive(), service_restart());
            client.close(1012, "");
            assert_eq!(client.receive(), Received::End);
        }
        ended_well(&mut server);
        // The time that a shutdown may take is only for those who need it.
        assert!(since.elapsed() < Duration::from_secs(5));
        drop(silent);
    }
}

#[test]
fn a_client_that_does_not_answer_is_waited_for_but_not_long() {
    let mut server = Server::configured("[timeouts]\nclose = \"300ms\"\ndrain = \"300ms\"");
    let mut client = server.anonymous();
    server.signal(Signal::TERM);
    assert_eq!(client.receive(), service_restart());
    ended_well(&mut server);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let mut server = Server::configured("[timeouts]\nclose = \"1h\"\ndrain = \"1h\"");
    let mut client = server.anonymous();
    server.signal(Signal::TERM);
    assert_eq!(client.receive(), service_restart());
    let since = Instant::now();
    server.signal(Signal::INT);
    ended_well(&mut server);
    assert!(since.elapsed() < Duration::from_secs(5));
    assert_eq!(client.receive(), Received::End);
}

/// When each client was told to go, in order, since the signal.
fn farewells(server: &Server, clients: &mut [Client]) -> Vec<Duration> {
    let since = Instant::now();
    server.signal(Signal::TERM);
    let mut times: Vec<Duration> = thread::scope(|scope| {
        let waiting: Vec<_> = clients
            .iter_mut()
            .map(|client| {
                scope.spawn(move || {
                    assert_eq!(client.receive(), service_restart());
                    let told = since.elapsed();
                    client.close(1012, "");
                    told
                })
            })
            .collect();
        // Meanwhile nobody else is let in, but for the operator.
        eventually(Duration::from_millis(400), || {
            let error = TcpStream::connect(server.address()).err()?;
            (error.kind() == ErrorKind::ConnectionRefused).then_some(())
        });
        TcpStream::connect(server.admin).unwrap();
        let told = waiting.into_iter().map(|thread| thread.join().unwrap());
        told.collect()
    });
    times.sort();
    times
}

#[test]
fn many_are_sent_away_in_their_turn() {
    let mut server = Server::configured("[timeouts]\ndrain = \"2s\"");
    let mut clients: Vec<Client> = (0..400).map(|_| server.anonymous()).collect();
    let times = farewells(&server, &mut clients);
    let (first, last) = (times[0], times[times.len() - 1]);
    assert!(first < Duration::from_millis(500), "{first:?}");
    let early = times.iter().filter(|time| time.as_millis() < 500).count();
    assert!(early <= 200, "{early} of 400 in the first 500 ms");
    let range = Duration::from_millis(1500)..Duration::from_millis(3500);
    assert!(range.contains(&last), "{last:?}");
    ended_well(&mut server);
}

// A6
#[test]
fn the_next_server_starts_on_the_same_port_at_once() {
    let mut server = Server::start();
    let mut clients = [server.anonymous(), server.anonymous()];
    let token = server.user("acct:me@example.org");
    server.signal(Signal::TERM);
    for client in &mut clients {
        assert_eq!(client.receive(), service_restart());
    }
    // One has gone, the other is still being waited for.
    clients[0].close(1012, "");
    assert_eq!(clients[0].receive(), Received::End);
    let next = server.successor();
    assert_eq!(next.address(), server.address());
    let mut client = next.logged_in(&token);
    client.subscribe("/group", "__world__");
    clients[1].close(1012, "");
    assert_eq!(server.wait().1, Some(0));

    // The end of the first has not taken anything from the second.
    let found = fs::read_to_string(next.data().join("admin.address")).unwrap();
    assert_eq!(found.trim(), format!("http://{}/", next.admin));
    let file = next.folder().join("event");
    fs::write(&file, event()).unwrap();
    let said = next.run(&["publish", file.to_str().unwrap()]);
    assert_eq!(said, "create A matched 1");
    assert_eq!(client.drain().len(), 1);
}
