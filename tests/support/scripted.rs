//! A WebSocket server whose behavior is a script of the test.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread::{self, JoinHandle};

use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::CloseFrame;
use tungstenite::protocol::{Role, WebSocket};

use super::PATIENCE;

/// Runs a script on the first connection after reading its request, with the request's
/// `Sec-WebSocket-Key`. Returns the URL of the server, which accepts no other connection.
pub fn scripted<T: Send + 'static>(
    script: impl FnOnce(TcpStream, String) -> T + Send + 'static,
) -> (String, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let thread = thread::spawn(move || {
        let (stream, key) = request_on(&listener);
        drop(listener);
        script(stream, key)
    });
    (url, thread)
}

/// A connection of [`subscribed`].
pub struct Subscribed(pub WebSocket<TcpStream>);

/// Runs each script on one connection, one after the other, once the client has sent a filter.
/// Returns the URL, and the `since` of each filter.
pub fn subscribed<F>(scripts: Vec<F>) -> (String, Receiver<Value>)
where
    F: FnOnce(&mut Subscribed) + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let (sender, filters) = channel();
    thread::spawn(move || {
        for script in scripts {
            let (mut stream, key) = request_on(&listener);
            let answer = switching(&key, "Upgrade", "");
            stream.write_all(answer.as_bytes()).unwrap();
            let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
            let filter = loop {
                let text = socket.read().unwrap().to_string();
                let message: Value = serde_json::from_str(&text).unwrap();
                if message["type"] == "filter" {
                    break message;
                }
            };
            assert_eq!(filter["id"], 1);
            // Not every test reads it.
            let _ = sender.send(filter["since"].clone());
            let mut connection = Subscribed(socket);
            script(&mut connection);
            while connection.0.read().is_ok() {}
        }
    });
    (url, filters)
}

impl Subscribed {
    pub fn say(&mut self, message: &Value) {
        self.0.send(Message::text(message.to_string())).unwrap();
    }

    /// Replies to the filter and to `whoami`.
    pub fn accept(&mut self, cursor: &str) {
        self.reply(&json!({"cursor": cursor, "recovered": true}));
    }

    /// Replies that there is a gap.
    pub fn accept_with_gap(&mut self, cursor: &str, oldest: &str) {
        self.reply(&json!({"cursor": cursor, "recovered": false, "oldest": oldest}));
    }

    fn reply(&mut self, more: &Value) {
        let mut reply = json!({"type": "filter", "ok": true, "reply_to": 1});
        for (key, value) in more.as_object().unwrap() {
            reply[key] = value.clone();
        }
        self.say(&reply);
        self.identify();
    }

    /// Replies to `whoami`.
    pub fn identify(&mut self) {
        self.say(&json!({"type": "whoyouare", "userid": null, "ok": true, "reply_to": 2}));
    }

    /// Closes the connection as a server that restarts.
    pub fn restart(&mut self) {
        let (code, reason) = (1012.into(), "".into());
        self.0.close(Some(CloseFrame { code, reason })).unwrap();
    }
}

/// Accepts a connection and reads its request. Returns the connection, and the key in the request.
fn request_on(listener: &TcpListener) -> (TcpStream, String) {
    let stream = listener.accept().unwrap().0;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let mut key = String::new();
    for line in BufReader::new(&stream).lines().map_while(Result::ok) {
        match line.split_once(": ") {
            Some(("Sec-WebSocket-Key", value)) => key = value.to_owned(),
            Some(_) => {}
            None if line.is_empty() => break,
            None => {}
        }
    }
    (stream, key)
}

/// Returns a 101 response for a key, with additional header fields.
pub fn switching(key: &str, connection: &str, more: &str) -> String {
    let accept = derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: {connection}\r\n\
         Sec-WebSocket-Accept: {accept}\r\n{more}\r\n"
    )
}
