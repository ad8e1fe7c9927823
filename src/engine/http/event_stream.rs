//! The format of event streams (WHATWG HTML, section "Server-sent events"), and the head of the
//! response.
//!
//! Owns: which bytes a block may contain, so that no value can end its line or its block. Must not
//! know: the meaning of events.

use std::borrow::Cow;

use super::http_date;

/// A response that is an event stream: its head, and the request for which it is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventStream {
    /// Additional header fields, encoded.
    fields: Vec<u8>,
    request: Box<str>,
}

impl EventStream {
    /// Creates an event stream. `request` is passed to
    /// [`Handler::on_open_stream`](crate::Handler::on_open_stream) when it has opened, and counts as
    /// input of the client until then.
    pub fn new(request: impl Into<Box<str>>) -> Self {
        EventStream {
            fields: Vec::new(),
            request: request.into(),
        }
    }

    /// Adds a header field to the response. Control characters in the value are dropped.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        let value = value.into();
        let text = value.chars().filter(|c| !c.is_control());
        let line = format!("{name}: {}\r\n", text.collect::<String>());
        self.fields.extend_from_slice(line.as_bytes());
        self
    }

    /// Returns the text that was passed to [`EventStream::new`].
    pub fn request(&self) -> &str {
        &self.request
    }

    /// Encodes the head of the response. `now` is the current time in milliseconds since the Unix
    /// epoch. The body is delimited by the end of the connection (RFC 9112 §6.3), which clients of
    /// HTTP/1.0 understand, too.
    pub fn encode_head(&self, now: u64, out: &mut Vec<u8>) {
        let date = http_date(now);
        let head = format!(
            "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: {}\r\n",
            Self::CONTENT_TYPE
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(&self.fields);
        out.extend_from_slice(b"Connection: close\r\n\r\n");
    }

    /// The value of `Content-Type`.
    pub const CONTENT_TYPE: &'static str = "text/event-stream; charset=utf-8";
}

/// A block of an event stream. With data, the client dispatches an event. Without data, it only
/// stores the id and the reconnection time.
///
/// ```
/// use h_realtime_engine::http::Block;
///
/// let mut out = Vec::new();
/// let block = Block { id: Some("7"), data: Some("one\ntwo"), ..Block::default() };
/// block.encode(&mut out);
/// assert_eq!(out, b"id: 7\ndata: one\ndata: two\n\n");
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block<'a> {
    /// A text that clients ignore.
    pub comment: Option<&'a str>,
    /// The reconnection time of the client, in milliseconds.
    pub retry: Option<u64>,
    /// The id that the client sends as `Last-Event-ID` when it reconnects. Omitted if it contains a
    /// line end or U+0000, for which clients ignore it.
    pub id: Option<&'a str>,
    /// The type of the event; `message` if there is none. Omitted if it contains a line end.
    pub event: Option<&'a str>,
    /// The data of the event. Each of its lines becomes a field.
    pub data: Option<&'a str>,
}

impl Block<'_> {
    /// Encodes the block.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let data = self.data.map_or(0, str::len);
        out.reserve_exact(data + self.id.map_or(0, str::len) + FIELD_NAMES);
        for line in self.comment.into_iter().flat_map(lines) {
            field(out, "", line);
        }
        if let Some(retry) = self.retry {
            field(out, "retry", &retry.to_string());
        }
        if let Some(id) = self.id.filter(|id| !id.contains(['\n', '\r', '\0'])) {
            field(out, "id", id);
        }
        if let Some(event) = self.event.filter(|event| !event.contains(['\n', '\r'])) {
            field(out, "event", event);
        }
        for line in self.data.into_iter().flat_map(lines) {
            field(out, "data", line);
        }
        out.push(b'\n');
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    // The client removes the space. Without it, it would remove one of the value.
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

/// Returns the lines of a text. "Lines must be separated by either a U+000D CARRIAGE RETURN U+000A
/// LINE FEED (CRLF) character pair, a single U+000A LINE FEED (LF) character, or a single U+000D
/// CARRIAGE RETURN (CR) character."
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split("\r\n").flat_map(|line| line.split(['\r', '\n']))
}

/// The approximate length of the field names of a block, in bytes.
const FIELD_NAMES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(block: &Block<'_>) -> String {
        let mut out = Vec::new();
        block.encode(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn block_has_its_fields_in_order() {
        let block = Block {
            comment: Some("mark"),
            retry: Some(1500),
            id: Some("AQ"),
            event: Some("close"),
            data: Some("{}"),
        };
        assert_eq!(
            encoded(&block),
            ": mark\nretry: 1500\nid: AQ\nevent: close\ndata: {}\n\n"
        );
        assert_eq!(encoded(&Block::default()), "\n");
    }

    // S1
    #[test]
    fn values_cannot_end_their_line_or_block() {
        let data = "a\n\nid: x\r\n\r\rb\u{2028}c\u{85}\u{0}\n";
        let block = Block {
            comment: Some("x\n\ndata: y"),
            id: Some("1\n2"),
            event: Some("e\rdata: y"),
            data: Some(data),
            ..Block::default()
        };
        assert_eq!(
            encoded(&block),
            ": x\n: \n: data: y\ndata: a\ndata: \ndata: id: x\ndata: \ndata: \ndata: b\u{2028}c\u{85}\u{0}\n\
             data: \n\n"
        );
        for id in ["\r", "\0", "a\0b", "\n"] {
            let id = Some(id);
            assert_eq!(
                encoded(&Block {
                    id,
                    ..Block::default()
                }),
                "\n"
            );
        }
    }

    /// A space after the colon belongs to the format.
    #[test]
    fn leading_space_of_data_is_kept() {
        let data = Some(" a");
        assert_eq!(
            encoded(&Block {
                data,
                ..Block::default()
            }),
            "data:  a\n\n"
        );
    }

    #[test]
    fn head_has_no_length_and_ends_the_connection() {
        let stream = EventStream::new("query").with("X-A", "b\r\nX-C: d");
        assert_eq!(stream.request(), "query");
        let mut out = Vec::new();
        stream.encode_head(784_111_777_000, &mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 200 OK\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\
             Content-Type: text/event-stream; charset=utf-8\r\nX-A: bX-C: d\r\n\
             Connection: close\r\n\r\n"
        );
    }
}
