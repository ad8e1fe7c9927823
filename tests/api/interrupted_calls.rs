//! A process that is stopped and continued all the time: whatever call it is in is interrupted.

use rustix::process::Signal;
use serde_json::json;

use crate::support::{Received, Server, event};

// R4
#[test]
fn a_storm_of_signals_interrupts_nothing() {
    let server = Server::start();
    let mut reader = server.anonymous();
    reader.subscribe("/group", "__world__");
    let mut client = server.anonymous();
    for id in 0..300 {
        // A wait for events is not taken up again by the kernel.
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
