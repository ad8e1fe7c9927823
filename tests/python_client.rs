//! Python's `websockets` against the real server: what it is asked to do is in
//! `tests/clients/websockets_client.py`.

mod support;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;
use support::Server;

#[test]
#[ignore = "needs python3 with websockets: run tests/run"]
fn pythons_websockets() {
    // Not the target directory of the day: tests/run makes it at this place.
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/python/bin/python");
    assert!(
        python.exists(),
        "this test needs {} with websockets: tests/run makes it",
        python.display()
    );
    let mut server = Server::start();
    let userid = "acct:joe.bloggs@example.org";
    let place = json!({
        "url": server.listeners[0],
        "admin": format!("http://{}/", server.admin),
        "key": server.publish_key(),
        "token": server.user(userid),
        "userid": userid,
        "pid": server.child.id(),
    });
    let mut client = Command::new(python)
        .arg(root.join("tests/clients/websockets_client.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = client.stdin.take().unwrap();
    stdin.write_all(place.to_string().as_bytes()).unwrap();
    drop(stdin);
    // The script bounds its own time.
    let output = client.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(server.wait().1, Some(0));
}
