//! A third-party web site.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// Serves a page for every path until the test ends, and returns its address.
pub fn serve_page(html: &'static str) -> SocketAddr {
    serve_pages(move |_| html.to_owned())
}

/// Serves the page that a function returns for the request line, and returns the address.
pub fn serve_pages(page: impl Fn(&str) -> String + Copy + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // One thread per connection: a browser may open one without sending anything.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(&stream, page));
        }
    });
    address
}

fn answer(mut stream: &TcpStream, page: impl Fn(&str) -> String) {
    let lines = BufReader::new(stream).lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let Some(request) = head.first() else {
        return;
    };
    let html = page(request);
    let length = html.len();
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{html}"
    );
}
