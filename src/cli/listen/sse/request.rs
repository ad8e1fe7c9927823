//! The request for an event stream, and the validation of its response.

use super::super::connect::{exchange, open_stream};
use super::super::connect_error::{ConnectError, io_reason};
use super::super::handshake::{ResponseHead, get_request};
use super::super::options::ListenOptions;
use super::super::resume::NOW;
use super::super::stream::ClientStream;
use super::body::Body;
use super::parser::EventParser;
use crate::cli::filter_flags::push_parameter;
use crate::cli::sanitize::printable;

/// An open event stream.
pub(in super::super) struct SseConnection {
    pub(super) stream: Box<dyn ClientStream>,
    pub(super) body: Body,
    /// The bytes that arrived with the head of the response.
    pub(super) rest: Vec<u8>,
    pub(super) parser: EventParser,
    /// A block has been received: the server has accepted the filter.
    pub(super) is_open: bool,
}

/// Makes one attempt to open the event stream after the position `since`.
pub(in super::super) fn connect(
    options: &ListenOptions,
    since: Option<&str>,
) -> Result<SseConnection, ConnectError> {
    let mut stream = open_stream(options)?;
    let request = request(options, since);
    let (head, rest) = exchange(&mut *stream, &request, 200, &options.target)?;
    let body = check(&head).map_err(ConnectError::Mismatch)?;
    let quick = stream.set_nonblocking();
    quick.map_err(|error| ConnectError::temporary(io_reason(&error)))?;
    Ok(SseConnection {
        stream,
        body,
        rest,
        parser: EventParser::default(),
        is_open: false,
    })
}

/// Returns the request. A position that the server has sent is the `Last-Event-ID`, as browsers send
/// it; the one of `--since` may also be a time.
fn request(options: &ListenOptions, since: Option<&str>) -> Vec<u8> {
    let uri = &options.target.request;
    let mut query = uri.query().unwrap_or_default().to_owned();
    if !options.query.is_empty() {
        query.push_str(if query.is_empty() { "" } else { "&" });
        query.push_str(&options.query);
    }
    push_parameter(&mut query, "client_id", &options.client_id);
    let mut fields = FIELDS.to_owned();
    match since {
        None => {}
        Some(since) if options.since.as_deref() == Some(since) => {
            push_parameter(&mut query, "since", since);
        }
        Some(NOW) => {}
        Some(cursor) => fields.push_str(&format!("Last-Event-ID: {cursor}\r\n")),
    }
    let target = format!("{}?{query}", uri.path());
    get_request(uri, &target, &fields, options.token.as_ref())
}

/// Validates the response. The error describes the problem.
fn check(head: &ResponseHead) -> Result<Body, String> {
    let kind = head.value("Content-Type").unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("text/event-stream") {
        return Err(match kind {
            "" => "the response has no Content-Type: the URL is not that of an event stream"
                .to_owned(),
            kind => format!(
                "the response is {}, not text/event-stream: the URL is not that of an event stream",
                printable(kind)
            ),
        });
    }
    match head.value("Content-Encoding") {
        None => Body::of(head),
        Some(coding) if coding.eq_ignore_ascii_case("identity") => Body::of(head),
        Some(coding) => Err(format!(
            "the response has a Content-Encoding that was not requested: {}",
            printable(coding)
        )),
    }
}

/// The fields of every request. `no-store` keeps caches from answering.
const FIELDS: &str = "Accept: text/event-stream\r\nCache-Control: no-store\r\n";

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::super::args::ListenArgs;
    use super::super::super::handshake::read_head;
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: ListenArgs,
    }

    fn requested(arguments: &[&str], since: Option<&str>) -> String {
        let fixed = ["listen", "--sse", "--client-id", "c 1"];
        let cli = Cli::try_parse_from([&fixed, arguments].concat()).expect("arguments");
        let options = ListenOptions::new(cli.args, Some("t0ken".to_owned()));
        let options = options.unwrap_or_else(|exit| panic!("{}", exit.message));
        String::from_utf8(request(&options, since)).expect("text")
    }

    #[test]
    fn request_has_the_filter_the_token_and_the_position() {
        let filter = [
            "ws://h.example/ws",
            "--uri",
            "https://a.example/?b=c&d",
            "--tag",
            "é",
        ];
        let query =
            "uri=https%3A%2F%2Fa.example%2F%3Fb%3Dc%26d&tag=%C3%A9&match=any&client_id=c%201";
        for (arguments, since, query, position) in [
            (&[][..], None, query.to_owned(), ""),
            (&[], Some("now"), query.to_owned(), ""),
            (
                &[],
                Some("-cursor"),
                query.to_owned(),
                "Last-Event-ID: -cursor\r\n",
            ),
            (
                &["--since", "2026-01-02T03:04:05+01:00"],
                Some("2026-01-02T03:04:05+01:00"),
                format!("{query}&since=2026-01-02T03%3A04%3A05%2B01%3A00"),
                "",
            ),
            (
                &["--since", "now"],
                Some("later"),
                query.to_owned(),
                "Last-Event-ID: later\r\n",
            ),
        ] {
            let found = requested(&[&filter, arguments].concat(), since);
            let version = env!("CARGO_PKG_VERSION");
            let expected = format!(
                "GET /sse?{query} HTTP/1.1\r\nHost: h.example\r\n{FIELDS}{position}\
                 User-Agent: h-realtime/{version}\r\nAuthorization: Bearer t0ken\r\n\r\n"
            );
            assert_eq!(found, expected);
        }
        let found = requested(&["http://h.example/news?uri=u&x"], None);
        let expected = "GET /news?uri=u&x&match=any&client_id=c%201 HTTP/1.1\r\n";
        assert!(!found.starts_with(expected), "{found}");
        let expected = "GET /news?uri=u&x&client_id=c%201 HTTP/1.1\r\n";
        assert!(found.starts_with(expected), "{found}");
    }

    #[test]
    fn responses_other_than_event_streams_are_refused() {
        for (fields, part) in [
            ("Content-Type: text/event-stream\r\n", None),
            ("Content-Type: Text/Event-Stream ; charset=utf-8\r\n", None),
            (
                "Content-Type: text/event-stream\r\nContent-Encoding: identity\r\n",
                None,
            ),
            ("", Some("no Content-Type")),
            ("Content-Type: text/html\r\n", Some("is text/html,")),
            (
                "Content-Type: text/event-streams\r\n",
                Some("text/event-streams,"),
            ),
            (
                "Content-Type: text/event-stream\r\nContent-Encoding: gzip\r\n",
                Some("gzip"),
            ),
            (
                "Content-Type: text/event-stream\r\nTransfer-Encoding: x\r\n",
                Some("Transfer"),
            ),
        ] {
            let head = format!("HTTP/1.1 200 OK\r\n{fields}\r\n");
            let (head, _) = read_head(&mut head.as_bytes()).expect("a head");
            let found = check(&head).err();
            assert_eq!(found.is_some(), part.is_some(), "{fields}: {found:?}");
            let part = part.unwrap_or_default();
            assert!(found.unwrap_or_default().contains(part), "{fields}");
        }
    }
}
