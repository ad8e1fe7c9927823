//! The shutdown of a server: all clients are closed with 1012 in turn, and the next server can
//! start at once.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Client, Received, Server, eventually};

/// The close frame that all clients receive.
fn service_restart() -> Received {
    Received::Close(Some((1012, "service restart".to_owned())))
}

/// Asserts that the server has exited successfully and removed its address file.
fn expect_clean_exit(server: &mut Server) {
    let (log, code) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    let names = fs::read_dir(server.data()).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    let expected = ["clients", "h-realtime.sqlite", "history.db", "publish.key"];
    assert_eq!(names, expected);
}

fn event() -> String {
    let annotation = json!({"id": "A", "user": "acct:a@example.org", "uri": "https://example.org/",
                            "permissions": {"read": ["group:__world__"]}});
    json!({"topic": "annotation", "action": "create", "annotation": annotation}).to_string()
}

#[test]
fn both_signals_close_all_clients_after_queued_output() {
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
        // Connections without a request do not delay the shutdown.
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
        expect_clean_exit(&mut server);
        // The time limit of a shutdown is only used by clients that need it.
        assert!(since.elapsed() < Duration::from_secs(5));
        drop(silent);
    }
}

#[test]
fn shutdown_waits_for_an_unresponsive_client_for_a_limited_time() {
    let mut server = Server::configured("[timeouts]\nclose = \"300ms\"\ndrain = \"300ms\"");
    let mut client = server.anonymous();
    server.signal(Signal::TERM);
    assert_eq!(client.receive(), service_restart());
    expect_clean_exit(&mut server);
}

#[test]
fn second_signal_ends_the_shutdown_at_once() {
    let mut server = Server::configured("[timeouts]\nclose = \"1h\"\ndrain = \"1h\"");
    let mut client = server.anonymous();
    server.signal(Signal::TERM);
    assert_eq!(client.receive(), service_restart());
    let since = Instant::now();
    server.signal(Signal::INT);
    expect_clean_exit(&mut server);
    assert!(since.elapsed() < Duration::from_secs(5));
    assert_eq!(client.receive(), Received::End);
}

/// Returns when each client was closed, in order, since the signal.
fn close_times(server: &Server, clients: &mut [Client]) -> Vec<Duration> {
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
        // Meanwhile only the admin listener accepts connections.
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
fn many_clients_are_closed_in_turn() {
    let mut server = Server::configured("[timeouts]\ndrain = \"2s\"");
    let mut clients: Vec<Client> = (0..400).map(|_| server.anonymous()).collect();
    let times = close_times(&server, &mut clients);
    let (first, last) = (times[0], times[times.len() - 1]);
    assert!(first < Duration::from_millis(500), "{first:?}");
    let early = times.iter().filter(|time| time.as_millis() < 500).count();
    assert!(early <= 200, "{early} of 400 in the first 500 ms");
    let range = Duration::from_millis(1500)..Duration::from_millis(3500);
    assert!(range.contains(&last), "{last:?}");
    expect_clean_exit(&mut server);
}

// A6
#[test]
fn next_server_starts_on_the_same_port_at_once() {
    let mut server = Server::start();
    let mut clients = [server.anonymous(), server.anonymous()];
    let token = server.user("acct:me@example.org");
    server.signal(Signal::TERM);
    for client in &mut clients {
        assert_eq!(client.receive(), service_restart());
    }
    // One client has closed, and the server waits for the other.
    clients[0].close(1012, "");
    assert_eq!(clients[0].receive(), Received::End);
    let next = server.successor();
    assert_eq!(next.address(), server.address());
    let mut client = next.logged_in(&token);
    client.subscribe("/group", "__world__");
    clients[1].close(1012, "");
    assert_eq!(server.wait().1, Some(0));

    // The end of the first server has not removed the second one's file.
    let found = fs::read_to_string(next.data().join("admin.address")).unwrap();
    assert_eq!(found.trim(), format!("http://{}/", next.admin));
    let file = next.folder().join("event");
    fs::write(&file, event()).unwrap();
    let output = next.run(&["publish", file.to_str().unwrap()]);
    assert_eq!(output, "create A matched 1");
    assert_eq!(client.drain().len(), 1);
}
