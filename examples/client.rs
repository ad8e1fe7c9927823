//! A client that prints what happens to the annotations of one document, and comes back
//! whenever its connection ends.
//!
//! ```text
//! cargo run --example client -- ws://127.0.0.1:5001/ws https://example.org/
//! ```
//!
//! With an access token in the environment variable `H_REALTIME_TOKEN` it hears of all that its
//! user may see. For `wss://`, give tungstenite one of its TLS features.

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

/// The server asks for a sign of life about every 30 s: when nothing comes for this long, the
/// connection is dead, whatever the kernel believes.
const SILENCE: Duration = Duration::from_secs(90);

/// The longest that it waits before it tries again.
const LONGEST_DELAY: Duration = Duration::from_secs(64);

fn main() -> Result<()> {
    let (Some(url), Some(document)) = (env::args().nth(1), env::args().nth(2)) else {
        return Err("usage: client URL DOCUMENT".into());
    };
    let client_id = random_id()?;
    let mut delay = Duration::from_secs(1);
    loop {
        let began = Instant::now();
        let ended = connect(&url).and_then(|socket| listen(socket, &document, &client_id));
        if let Err(why) = &ended {
            eprintln!("{why}");
        }
        if let Ok(Some(3000)) = ended {
            return Err("the token has ended: get another one".into());
        }
        // One that held is no reason to wait longer than at first.
        if began.elapsed() > LONGEST_DELAY {
            delay = Duration::from_secs(1);
        }
        // Clients that were cut together should not come back together.
        thread::sleep(delay.mul_f64(1.0 + f64::from(random()?) / f64::from(u32::MAX)));
        delay = (delay * 2).min(LONGEST_DELAY);
    }
}

fn connect(url: &str) -> Result<WebSocket<TcpStream>> {
    let uri: Uri = url.parse()?;
    let host = uri.host().ok_or("a URL without a host")?;
    let stream = TcpStream::connect((host, uri.port_u16().unwrap_or(80)))?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_nodelay(true)?;
    let mut request = url.into_client_request()?;
    if let Ok(token) = env::var("H_REALTIME_TOKEN") {
        let value = HeaderValue::from_str(&format!("Bearer {token}"))?;
        request.headers_mut().insert("Authorization", value);
    }
    let (socket, _) = tungstenite::client(request, stream).map_err(|error| error.to_string())?;
    Ok(socket)
}

/// Listens until the connection ends, and returns the code that the server gave for it.
fn listen(
    mut socket: WebSocket<TcpStream>,
    document: &str,
    client_id: &str,
) -> Result<Option<u16>> {
    // They may come in any order. Each connection begins with nothing: neither filter nor client
    // id is remembered.
    let clause = json!({"field": "/uri", "operator": "one_of", "value": [document]});
    for message in [
        // Events that are caused with this client id (`X-Client-Id` in h's API) are not sent here.
        json!({"type": "client_id", "value": client_id}),
        json!({"type": "filter", "id": 1, "filter":
            {"match_policy": "include_any", "actions": {}, "clauses": [clause]}}),
        json!({"type": "whoami", "id": 2}),
    ] {
        socket.send(Message::text(message.to_string()))?;
    }
    loop {
        // This answers the server's pings, too.
        match socket.read()? {
            Message::Text(text) => print(&serde_json::from_str(&text)?),
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
                // Of a deleted annotation nothing is told but its id.
                println!("{action} {} {}", annotation["id"], annotation["text"]);
            }
        }
        Some("session-change") => println!("groups {}", message["model"]["groups"]),
        Some("error") => println!("error {}", message["error"]["description"]),
        // There may be more kinds of messages one day.
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
