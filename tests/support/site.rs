//! A third-party web site: one page, the same for every path.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Serves a page until the test ends, and returns its address.
pub fn serve_page(html: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // One thread per connection: a browser may open one without sending anything.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(&stream, html));
        }
    });
    address
}

fn answer(mut stream: &TcpStream, html: &str) {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    if lines.take_while(|line| !line.is_empty()).count() == 0 {
        return;
    }
    let length = html.len();
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{html}"
    );
}
