//! A page in a real Chromium that behaves like the official client.

use serde_json::{Value, json};

use crate::support::{Browser, Server, serve_page};

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn authenticated_sidebar() {
    let server = Server::start();
    let token = server.user("acct:alice@example.org");
    let browser = open_client();
    let url = format!("{}?access_token={token}", server.listeners[0]);
    connect(
        &browser,
        &url,
        &[
            client_id("a1"),
            whoami(),
            uri_filter("https://example.org/1"),
        ],
    );
    let first = browser.until("seen[0]");
    let alice = "acct:alice@example.org";
    assert_eq!(
        first,
        json!({"type": "whoyouare", "userid": alice, "ok": true, "reply_to": 1})
    );
    assert_eq!(browser.value("socket.protocol"), "");
    let extensions = browser.value("socket.extensions");
    let agreed = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(extensions, agreed, "Chromium offers it");
    fence(&browser);

    server.publish(&event("create", "theirs", "https://example.org/1", "b2"));
    server.publish(&event("create", "own", "https://example.org/1", "a1"));
    server.publish(&event("create", "elsewhere", "https://example.org/2", "b2"));
    server.publish(&event("delete", "theirs", "https://example.org/1", "b2"));
    fence(&browser);
    assert_eq!(
        notifications(&browser),
        json!([["create", "theirs"], ["delete", "theirs"]])
    );
    // Another group was selected: the same filter is sent again on the same connection.
    send(&browser, &uri_filter("https://example.org/2"));
    fence(&browser);
    server.publish(&event("update", "here", "https://example.org/2", "b2"));
    server.publish(&event("update", "gone", "https://example.org/1", "b2"));
    fence(&browser);
    let all = json!([
        ["create", "theirs"],
        ["delete", "theirs"],
        ["update", "here"]
    ]);
    assert_eq!(notifications(&browser), all);

    // A deleted user's connection is closed with a code after which the client reconnects.
    server.run(&["user", "delete", alice]);
    assert_eq!(browser.until("closed")[0], 3000);
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn anonymous_sidebar() {
    let server = Server::start();
    let browser = open_client();
    let url = &server.listeners[0];
    connect(
        &browser,
        url,
        &[
            uri_filter("https://example.org/1"),
            client_id("a1"),
            whoami(),
        ],
    );
    let first = browser.until("seen[0]");
    assert_eq!(
        first,
        json!({"type": "whoyouare", "userid": null, "ok": true, "reply_to": 1})
    );
    server.publish(&event("create", "one", "https://example.org/1", "b2"));
    server.publish(&event("create", "own", "https://example.org/1", "a1"));
    fence(&browser);
    assert_eq!(notifications(&browser), json!([["create", "one"]]));
    let shown = browser.value("seen.find((m) => m.payload).payload[0]");
    // Without these the client would show no later event.
    for key in ["permissions", "tags", "text", "target", "updated", "group"] {
        assert!(!shown[key].is_null(), "{key}: {shown}");
    }
    for key in ["read", "update", "delete"] {
        assert!(shown["permissions"][key].is_array(), "{key}: {shown}");
    }
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn single_annotation_page_and_notebook() {
    let server = Server::start();
    let browser = open_client();
    let url = &server.listeners[0];
    // A string where the other views have a list.
    let thread = json!([
        {"field": "/references", "operator": "one_of", "value": "root", "case_sensitive": true},
        {"field": "/id", "operator": "equals", "value": "root", "case_sensitive": true},
    ]);
    connect(&browser, url, &[filter(&thread), client_id("a1"), whoami()]);
    browser.until("seen[0]");
    server.publish(&event("update", "root", "https://example.org/1", "b2"));
    server.publish(&event("update", "other", "https://example.org/1", "b2"));
    fence(&browser);
    assert_eq!(notifications(&browser), json!([["update", "root"]]));

    let world = json!([
        {"field": "/group", "operator": "equals", "value": "__world__", "case_sensitive": true},
    ]);
    send(&browser, &filter(&world));
    fence(&browser);
    server.publish(&event("create", "any", "https://example.org/3", "b2"));
    fence(&browser);
    assert_eq!(
        notifications(&browser),
        json!([["update", "root"], ["create", "any"]])
    );
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn browser_receives_close_codes() {
    let mut server = Server::start();
    let browser = open_client();
    let url = server.listeners[0].clone();
    for (act, closed) in [
        // The client treats any code other than its own 1000 as a failure of the new connection.
        ("socket.close(1000)", json!([1000, "", true])),
        ("socket.close(4000, 'bye')", json!([4000, "bye", true])),
        ("socket.close()", json!([1005, "", true])),
        (
            "socket.send('{')",
            json!([1007, "invalid message format", true]),
        ),
        (
            "socket.send('x'.repeat(65537))",
            json!([1009, "message is too big", true]),
        ),
    ] {
        connect(&browser, &url, &[whoami()]);
        browser.until("seen[0]");
        browser.run(act);
        assert_eq!(browser.until("closed"), closed, "{act}");
    }
    connect(&browser, &url, &[whoami()]);
    browser.until("seen[0]");
    server.signal(rustix::process::Signal::TERM);
    let restart = json!([1012, "service restart", true]);
    assert_eq!(browser.until("closed"), restart);
    assert_eq!(server.wait().1, Some(0));
}

fn open_client() -> Browser {
    let site = serve_page(CLIENT);
    let browser = Browser::start();
    browser.open(&format!("http://{site}/app.html"));
    browser
}

fn connect(browser: &Browser, url: &str, messages: &[Value]) {
    browser.run(&format!("connect({url:?}, {})", json!(messages)));
}

fn send(browser: &Browser, message: &Value) {
    browser.run(&format!("socket.send(JSON.stringify({message}))"));
}

/// Waits until everything sent before has been answered.
fn fence(browser: &Browser) {
    let id = browser.run("return fence()");
    browser.until(&format!("seen.some((m) => m.reply_to === {id})"));
}

/// Returns the action and the id of each notification.
fn notifications(browser: &Browser) -> Value {
    browser.value("seen.filter((m) => m.payload).map((m) => [m.options.action, m.payload[0].id])")
}

fn client_id(id: &str) -> Value {
    json!({"messageType": "client_id", "value": id})
}

fn whoami() -> Value {
    json!({"type": "whoami", "id": 1})
}

fn uri_filter(uri: &str) -> Value {
    filter(
        &json!([{"field": "/uri", "operator": "one_of", "value": [uri], "case_sensitive": false}]),
    )
}

fn filter(clauses: &Value) -> Value {
    let actions = json!({"create": true, "update": true, "delete": true});
    json!({"filter": {"match_policy": "include_any", "clauses": clauses, "actions": actions}})
}

fn event(action: &str, id: &str, uri: &str, client_id: &str) -> String {
    let annotation = json!({
        "id": id,
        "user": "acct:bob@example.org",
        "uri": uri,
        "permissions": {"read": ["group:__world__"]},
    });
    json!({
        "topic": "annotation", "action": action, "annotation_id": id,
        "src_client_id": client_id, "annotation": annotation,
    })
    .to_string()
}

/// Like the official client, it sends all messages when the connection opens, and would fail on
/// anything other than JSON text.
const CLIENT: &str = "<!doctype html><title>A client</title><link rel=icon href='data:,'>
<script>
let socket, seen, closed, fences = 1000;
function connect(url, messages) {
  [seen, closed] = [[], null];
  socket = new WebSocket(url);
  socket.onopen = () => messages.forEach((message) => socket.send(JSON.stringify(message)));
  socket.onmessage = ({ data }) => seen.push(JSON.parse(data));
  socket.onclose = ({ code, reason, wasClean }) => { closed = [code, reason, wasClean]; };
}
function fence() {
  socket.send(JSON.stringify({ type: 'ping', id: ++fences }));
  return fences;
}
</script>";
