//! A third-party web site.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// A request to a site.
pub struct SiteRequest {
    pub method: String,
    /// The path with the query.
    pub target: String,
    /// The header fields, with names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: String,
}

/// A response of a site.
pub struct SiteResponse {
    pub status: u16,
    pub media_type: &'static str,
    pub body: Vec<u8>,
}

impl SiteRequest {
    /// Returns the value of a header field.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.fields.iter();
        fields
            .find(|(field, _)| field == name)
            .map(|(_, value)| value.as_str())
    }

    /// Returns the target without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// Serves a page for every path until the test ends, and returns its address.
pub fn serve_page(html: &'static str) -> SocketAddr {
    serve_pages(move |_| html.to_owned())
}

/// Serves the page that a function returns for the request line, and returns the address.
pub fn serve_pages(page: impl Fn(&str) -> String + Send + Sync + 'static) -> SocketAddr {
    serve_site(move |request| SiteResponse {
        status: 200,
        media_type: "text/html; charset=utf-8",
        body: page(&format!("{} {} HTTP/1.1", request.method, request.target)).into(),
    })
}

/// Serves the responses that a function returns until the test ends, and returns the address.
pub fn serve_site(
    respond: impl Fn(&SiteRequest) -> SiteResponse + Send + Sync + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let respond = Arc::new(respond);
    // One thread per connection: a browser may open one without sending anything.
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let respond = Arc::clone(&respond);
            std::thread::spawn(move || answer(&stream, &*respond));
        }
    });
    address
}

fn answer(mut stream: &TcpStream, respond: &dyn Fn(&SiteRequest) -> SiteResponse) {
    let Some(request) = read_request(&mut BufReader::new(stream)) else {
        return;
    };
    let response = respond(&request);
    let head = format!(
        "HTTP/1.1 {} Response\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        response.status,
        response.media_type,
        response.body.len()
    );
    let _ = stream.write_all(&[head.as_bytes(), &response.body].concat());
}

fn read_request(reader: &mut BufReader<&TcpStream>) -> Option<SiteRequest> {
    let lines = reader.by_ref().lines().map_while(Result::ok);
    let head: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
    let mut words = head.first()?.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let fields = head.iter().skip(1).filter_map(|line| line.split_once(':'));
    let fields = fields.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()));
    let mut request = SiteRequest {
        method,
        target,
        fields: fields.collect(),
        body: String::new(),
    };
    let length = request.field("content-length");
    let length = length.and_then(|length| length.parse().ok()).unwrap_or(0);
    reader.take(length).read_to_string(&mut request.body).ok()?;
    Some(request)
}
