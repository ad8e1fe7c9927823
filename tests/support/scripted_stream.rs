//! A server of event streams whose behavior is a script of the test.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use super::PATIENCE;

/// The head of a response with an event stream that ends with the connection.
pub const STREAM: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\
                          Cache-Control: no-cache\r\nConnection: close\r\n\r\n";

/// Runs each script on one connection, one after the other, after reading its request. Each
/// connection stays open until the client closes it, unless the script has shut it down. Returns the
/// URL, and the head of each request.
pub fn event_streams<F>(scripts: Vec<F>) -> (String, Receiver<String>)
where
    F: FnOnce(&mut TcpStream) + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/sse", listener.local_addr().unwrap());
    let (sender, requests) = channel();
    thread::spawn(move || {
        for script in scripts {
            let mut stream = listener.accept().unwrap().0;
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.set_write_timeout(Some(PATIENCE)).unwrap();
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") {
                assert_ne!(reader.read_line(&mut request).unwrap(), 0, "{request}");
            }
            // Not every test reads it.
            let _ = sender.send(request);
            script(&mut stream);
            let _ = std::io::copy(&mut reader, &mut std::io::sink());
        }
    });
    (url, requests)
}

/// Writes text; the client may have ended.
pub fn say(stream: &mut TcpStream, text: &str) {
    let _ = stream.write_all(text.as_bytes());
}

/// Ends the stream.
pub fn hang_up(stream: &mut TcpStream) {
    let _ = stream.shutdown(std::net::Shutdown::Write);
}
