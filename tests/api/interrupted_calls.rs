//! A process that is stopped and continued repeatedly, which interrupts its system calls.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Received, Server, event};

// R4
#[test]
fn interrupted_system_calls_are_retried() {
    let server = Server::start();
    let mut reader = server.anonymous();
    reader.subscribe("/group", "__world__");
    let mut client = server.anonymous();
    for id in 0..300 {
        // The kernel does not restart a wait for events.
        server.signal(Signal::STOP);
        server.signal(Signal::CONT);
        client.send(&format!(r#"{{"type":"ping","id":{id}}}"#));
        server.signal(Signal::STOP);
        server.signal(Signal::CONT);
        let pong = format!(r#"{{"type": "pong", "ok": true, "reply_to": {id}}}"#);
        assert_eq!(client.receive(), Received::Text(pong));
        if id % 30 == 0 {
            assert_eq!(server.anonymous().drain(), []);
            let event = event("create", json!({})).to_string();
            assert_eq!(server.publish(&event).0, 202);
            assert!(matches!(reader.receive(), Received::Text(_)));
        }
    }
    let log = server.log();
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
}
