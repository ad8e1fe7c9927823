//! Annotations of the maximum size.

use std::env;
use std::process::Command;
use std::thread;

use socket2::SockRef;

use crate::support::{Client, PUBLIC, Received, Server, Site, annotation_event, connect};

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn clients_that_read_receive_annotations_of_four_megabytes() {
    if run_over_ethernet("large::clients_that_read_receive") {
        return;
    }
    let site = Site::new();
    let longer = format!("SET text = repeat('x', {TEXT}) WHERE id = '{ROW}'");
    site.sql(&format!("UPDATE annotation {longer}"));
    let server = site.server("");
    let readers: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = subscribed(&server);
            thread::spawn(move || (0..EVENTS).map(|_| length(&mut client)).collect::<Vec<_>>())
        })
        .collect();
    let events = (0..EVENTS).map(|_| annotation_event("update", PUBLIC));
    site.publisher().publish_all("annotation", events);
    for reader in readers {
        let lengths = reader.join().unwrap();
        assert!(
            lengths.iter().all(|&length| length > TEXT),
            "closed, or incomplete: {lengths:?}"
        );
    }
    let slow = r#"h_realtime_disconnects_total{reason="slow"}"#;
    assert_eq!(server.metric(slow), 0.0);
}

/// Runs a test again in a separate network namespace whose loopback interface has Ethernet's MTU:
/// with the default MTU, the kernel accepts megabytes at once. Returns true in the outer process if
/// it did so; false in the inner process, or if namespaces are not available.
///
/// # Panics
///
/// Panics if the test failed in the namespace.
fn run_over_ethernet(test: &str) -> bool {
    const INSIDE: &str = "TEST_OVER_ETHERNET";
    if env::var_os(INSIDE).is_some() {
        return false;
    }
    let within = |program: &str| {
        let mut command = Command::new("unshare");
        command.args([
            "--net",
            "sh",
            "-c",
            "ip link set lo mtu 1500 up && exec \"$0\" \"$@\"",
        ]);
        command.arg(program).env(INSIDE, "");
        command
    };
    if !within("true")
        .output()
        .is_ok_and(|done| done.status.success())
    {
        return false;
    }
    let mut command = within(env::current_exe().unwrap().to_str().unwrap());
    let done = command.args([test, "--ignored"]).output().unwrap();
    assert!(
        done.status.success(),
        "{}",
        String::from_utf8_lossy(&done.stdout)
    );
    true
}

/// Connects a client with a small receive buffer, so that the server has to queue the rest.
fn subscribed(server: &Server) -> Client {
    let stream = connect(server.address());
    SockRef::from(&stream)
        .set_recv_buffer_size(64 << 10)
        .unwrap();
    let mut client = Client::over(stream, "/ws", "");
    client.subscribe("/id", PUBLIC);
    client
}

/// Returns the length of the next message, or zero if there is none.
fn length(client: &mut Client) -> usize {
    match client.receive() {
        Received::Text(text) => text.len(),
        _ => 0,
    }
}

/// Each client lags by up to [`EVENTS`] times this size: together more than the server may queue if
/// it queued a copy for each.
const TEXT: usize = 4_100_000;
const CLIENTS: usize = 30;
const EVENTS: usize = 3;
const ROW: &str = "00000001-1111-11e6-8000-000000000001";
