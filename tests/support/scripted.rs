//! A WebSocket server whose behavior is a script of the test.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

use tungstenite::handshake::derive_accept_key;

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

/// A script for one connection of [`scripted_in_turn`].
pub type Script = Box<dyn FnOnce(TcpStream, String) + Send>;

/// Runs each script on one connection, one after the other.
pub fn scripted_in_turn(scripts: Vec<Script>) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("ws://{}/ws", listener.local_addr().unwrap());
    let thread = thread::spawn(move || {
        for script in scripts {
            let (stream, key) = request_on(&listener);
            script(stream, key);
        }
    });
    (url, thread)
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
