//! A client that prints the events of one document's annotations. Whenever its connection ends, it
//! reconnects, and receives the events that it has missed.
//!
//! ```text
//! cargo run --example client -- ws://127.0.0.1:5001/ws https://example.org/
//! ```
//!
//! The document may be a pattern, such as `https://example.org/*`, if the server is h-realtime.
//! With an access token in the environment variable `H_REALTIME_TOKEN`, it receives everything that
//! its user may read. For `wss://`, enable one of tungstenite's TLS features.

use std::env;
use std::error::Error;
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::{HeaderValue, Uri};
use tungstenite::{Message, WebSocket};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The server sends a ping about every 30 s. A connection without input for this long is dead, even
/// if the kernel has not noticed.
const READ_TIMEOUT: Duration = Duration::from_secs(90);

/// The maximum delay before a reconnect.
const MAX_DELAY: Duration = Duration::from_secs(64);

fn main() -> Result<()> {
    let (Some(url), Some(document)) = (env::args().nth(1), env::args().nth(2)) else {
        return Err("usage: client URL DOCUMENT".into());
    };
    let client_id = random_id()?;
    // The position in the server's history: the newest cursor, of which only the server knows the
    // meaning.
    let mut since = "now".to_owned();
    let mut delay = Duration::from_secs(1);
    loop {
        let began = Instant::now();
        let ended =
            connect(&url).and_then(|socket| listen(socket, &document, &client_id, &mut since));
        if let Err(error) = &ended {
            eprintln!("{error}");
        }
        if let Ok(Some(3000)) = ended {
            return Err("the token has expired or was revoked: get a new one".into());
        }
        // A connection that lasted resets the delay.
        if began.elapsed() > MAX_DELAY {
            delay = Duration::from_secs(1);
        }
        // A random part, so that disconnected clients do not reconnect all at once.
        thread::sleep(delay.mul_f64(1.0 + f64::from(random()?) / f64::from(u32::MAX)));
        delay = (delay * 2).min(MAX_DELAY);
    }
}

fn connect(url: &str) -> Result<WebSocket<TcpStream>> {
    let uri: Uri = url.parse()?;
    let host = uri.host().ok_or("the URL has no host")?;
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80)))?;
    stream.set_read_timeout(Some(READ_TIMEOUT))?;
    stream.set_nodelay(true)?;
    let mut request = url.into_client_request()?;
    if let Ok(token) = env::var("H_REALTIME_TOKEN") {
        let value = HeaderValue::from_str(&format!("Bearer {token}"))?;
        request.headers_mut().insert("Authorization", value);
    }
    let (socket, _) = tungstenite::client(request, stream).map_err(|error| error.to_string())?;
    Ok(socket)
}

/// Listens until the connection ends, and returns the server's close code. Keeps the cursor of the
/// last message in `since`.
fn listen(
    mut socket: WebSocket<TcpStream>,
    document: &str,
    client_id: &str,
    since: &mut String,
) -> Result<Option<u16>> {
    // The order does not matter. A new connection has neither a filter nor a client id.
    let field = match document.contains('*') {
        true => "/wildcard_uri",
        false => "/uri",
    };
    let clause = json!({"field": field, "operator": "one_of", "value": [document]});
    for message in [
        // Events with this client id (`X-Client-Id` in h's API) are not sent to this client.
        json!({"type": "client_id", "value": client_id}),
        json!({"type": "filter", "id": 1, "since": since, "filter":
            {"match_policy": "include_any", "actions": {}, "clauses": [clause]}}),
        json!({"type": "whoami", "id": 2}),
    ] {
        socket.send(Message::text(message.to_string()))?;
    }
    loop {
        // This also answers the server's pings.
        match socket.read()? {
            Message::Text(text) => {
                let message: Value = serde_json::from_str(&text)?;
                print(&message);
                // A server without cursors sends none.
                if let Some(cursor) = message["cursor"].as_str() {
                    cursor.clone_into(since);
                }
            }
            Message::Close(frame) => return Ok(frame.map(|frame| frame.code.into())),
            _ => {}
        }
    }
}

fn print(message: &Value) {
    match message["type"].as_str() {
        Some("whoyouare") => println!("connected as {}", message["userid"]),
        Some("annotation-notification") => {
            let action = message["options"]["action"].as_str().unwrap_or_default();
            for annotation in message["payload"].as_array().into_iter().flatten() {
                // A deleted annotation has only an id.
                println!("{action} {} {}", annotation["id"], annotation["text"]);
            }
        }
        Some("session-change") => println!("groups {}", message["model"]["groups"]),
        Some("filter") => {
            // Clauses that this server does not know have no effect.
            for clause in message["ignored"].as_array().into_iter().flatten() {
                println!("ignored {} {}", clause["field"], clause["reason"]);
            }
            // The server no longer has all events after the cursor, and continues with new ones.
            if message["recovered"] == false {
                println!("gap {}", message["oldest"]);
            }
        }
        Some("error") => println!("error {}", message["error"]["description"]),
        // Future versions may add message types.
        _ => {}
    }
}

fn random_id() -> Result<String> {
    (0..4)
        .map(|_| random().map(|part| format!("{part:08x}")))
        .collect()
}

fn random() -> Result<u32> {
    Ok(getrandom::u32()?)
}
