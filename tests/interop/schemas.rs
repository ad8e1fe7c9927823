//! Validates the schemas of the AsyncAPI document with data recorded from h and with the real
//! server, using `tests/clients/schemas.py`.

use std::path::Path;

use serde_json::json;

use crate::support::{PROGRAM, Server, python};

#[test]
#[ignore = "needs python3 with jsonschema: run tests/run"]
fn messages_match_the_schemas() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let server = Server::start();
    let userid = "acct:joe.bloggs@example.org";
    let place = json!({
        "url": server.listeners[0],
        "admin": format!("http://{}/", server.admin),
        "key": server.publish_key(),
        "token": server.user(userid),
        "userid": userid,
        "document": root.join("docs/asyncapi.yaml"),
        "transcripts": root.join("tests/data/transcripts"),
        "program": PROGRAM,
    });
    python("schemas.py", &place);
}
