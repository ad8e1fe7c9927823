//! Python's `websockets` with the real server; the script is `tests/clients/websockets_client.py`.

use serde_json::json;

use crate::support::{Server, python};

#[test]
#[ignore = "needs python3 with websockets: run tests/run"]
fn python_websockets() {
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
    python("websockets_client.py", &place);
    assert_eq!(server.wait().1, Some(0));
}
