//! The client's side of the wire: encodes its input, and parses the server's output.
//!
//! Independent of the crate's codec, so that an error there is not repeated here.

/// An event received by a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientEvent {
    /// A response other than 101 and 100.
    Response {
        status: u16,
        body: Vec<u8>,
    },
    /// `100 Continue`.
    Continue,
    /// `101 Switching Protocols`, with the right accept value.
    Open,
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    /// With code and reason; `None` if the frame is empty.
    Close(Option<(u16, String)>),
    /// The head of an event stream.
    StreamOpen,
    /// A block of an event stream with data.
    Block {
        event: Option<String>,
        data: String,
    },
    /// A block of an event stream without data.
    Comment,
}

/// Parses the server's output, strictly.
#[derive(Default)]
pub struct FrameReader {
    bytes: Vec<u8>,
    may_be_compressed: bool,
    /// The number of compressed messages.
    pub inflated: usize,
    is_open: bool,
    is_stream: bool,
    /// All requests have the method `HEAD`, to which a response has no content.
    pub is_head: bool,
}

impl FrameReader {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns whether the buffered output is incomplete.
    pub fn is_incomplete(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// Returns the next complete event.
    pub fn next_event(&mut self) -> Result<Option<ClientEvent>, String> {
        let parsed = match (self.is_open, self.is_stream) {
            (true, _) => self.parse_frame()?,
            (_, true) => parse_block(&self.bytes)?,
            _ => parse_response(&self.bytes, self.is_head)?,
        };
        let Some((event, length)) = parsed else {
            return Ok(None);
        };
        let taken: Vec<u8> = self.bytes.drain(..length).collect();
        if event == ClientEvent::Open {
            let extension = b"\r\nSec-WebSocket-Extensions: permessage-deflate; ";
            self.may_be_compressed = taken.windows(extension.len()).any(|at| at == extension);
        }
        self.is_open |= event == ClientEvent::Open;
        self.is_stream |= event == ClientEvent::StreamOpen;
        Ok(Some(event))
    }

    fn parse_frame(&mut self) -> Result<Option<(ClientEvent, usize)>, String> {
        let bytes = &self.bytes;
        let &[first, second, ref rest @ ..] = bytes.as_slice() else {
            return Ok(None);
        };
        let is_compressed = first & 0x40 != 0 && self.may_be_compressed;
        if first & 0xF0 != if is_compressed { 0xC0 } else { 0x80 } || second & 0x80 != 0 {
            return Err(format!(
                "invalid start of a server frame: {first:02x} {second:02x}"
            ));
        }
        let (length, header) = match (second, rest) {
            (126, [a, b, ..]) => (usize::from(u16::from_be_bytes([*a, *b])), 4),
            (127, [a, b, c, d, e, f, g, h, ..]) => {
                let length = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
                (length as usize, 10)
            }
            (126 | 127, _) => return Ok(None),
            (length, _) => (usize::from(length), 2),
        };
        let least = match header {
            2 => 0,
            4 => 126,
            _ => 65_536,
        };
        if length < least {
            return Err(format!(
                "length {length} is not minimal in a header of {header} bytes"
            ));
        }
        let Some(payload) = bytes.get(header..header + length) else {
            return Ok(None);
        };
        if is_compressed {
            if !matches!(first & 0x0F, 1 | 2) {
                return Err("a compressed control frame".to_owned());
            }
            self.inflated += 1;
            let message = inflate(payload)?;
            let event = match first & 0x0F {
                1 => {
                    ClientEvent::Text(String::from_utf8(message).map_err(|_| "text is not UTF-8")?)
                }
                _ => ClientEvent::Binary(message),
            };
            return Ok(Some((event, header + length)));
        }
        let text = |bytes: &[u8]| {
            String::from_utf8(bytes.to_vec()).map_err(|_| format!("{bytes:x?} is not UTF-8"))
        };
        let event = match (first & 0x0F, payload) {
            (1, payload) => ClientEvent::Text(text(payload)?),
            (2, payload) => ClientEvent::Binary(payload.to_vec()),
            (8.., payload) if payload.len() > 125 => {
                return Err("control frame too long".to_owned());
            }
            (8, []) => ClientEvent::Close(None),
            (8, [high, low, reason @ ..]) => {
                ClientEvent::Close(Some((u16::from_be_bytes([*high, *low]), text(reason)?)))
            }
            (9, payload) => ClientEvent::Ping(payload.to_vec()),
            (10, payload) => ClientEvent::Pong(payload.to_vec()),
            (opcode, _) => return Err(format!("opcode {opcode}")),
        };
        Ok(Some((event, header + length)))
    }
}

fn parse_response(bytes: &[u8], is_head: bool) -> Result<Option<(ClientEvent, usize)>, String> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = std::str::from_utf8(&bytes[..end]).map_err(|error| error.to_string())?;
    let status = head
        .strip_prefix("HTTP/1.1 ")
        .and_then(|rest| rest.get(..3)?.parse().ok())
        .ok_or_else(|| format!("invalid response: {head:?}"))?;
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value)
    };
    let body = end + 4;
    match status {
        100 => Ok(Some((ClientEvent::Continue, body))),
        101 if field("Sec-WebSocket-Accept") == Some(ACCEPT) => Ok(Some((ClientEvent::Open, body))),
        101 => Err(format!("wrong accept value: {head:?}")),
        200 if field("Content-Type") == Some("text/event-stream; charset=utf-8")
            && field("Content-Length").is_none() =>
        {
            Ok(Some((ClientEvent::StreamOpen, body)))
        }
        status => {
            let length = field("Content-Length").and_then(|value| value.parse::<usize>().ok());
            let length = length.ok_or_else(|| format!("no length: {head:?}"))?;
            let length = if is_head { 0 } else { length };
            Ok(bytes.get(body..body + length).map(|bytes| {
                let body = bytes.to_vec();
                (ClientEvent::Response { status, body }, end + 4 + length)
            }))
        }
    }
}

/// Parses a block of an event stream as this server writes it: fields with a space after the colon,
/// and line feeds only.
fn parse_block(bytes: &[u8]) -> Result<Option<(ClientEvent, usize)>, String> {
    let Some(end) = bytes.windows(2).position(|window| window == b"\n\n") else {
        return Ok(None);
    };
    let block = std::str::from_utf8(&bytes[..end]).map_err(|error| error.to_string())?;
    let (mut event, mut data) = (None, None::<String>);
    for line in block.split('\n') {
        match line.split_once(": ") {
            _ if line == ":" => {}
            Some(("", _) | ("id" | "retry", _)) => {}
            Some(("event", name)) => event = Some(name.to_owned()),
            Some(("data", value)) => match &mut data {
                None => data = Some(value.to_owned()),
                Some(data) => data.extend(["\n", value]),
            },
            _ => return Err(format!("invalid line of an event stream: {line:.60?}")),
        }
    }
    let event = match data {
        Some(data) => ClientEvent::Block { event, data },
        None => ClientEvent::Comment,
    };
    Ok(Some((event, end + 2)))
}

/// Encodes a client's frame with any first byte.
pub fn client_frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut out = vec![first];
    match payload.len() {
        length @ 0..126 => out.push(0x80 | length as u8),
        length @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend((length as u16).to_be_bytes());
        }
        length => {
            out.push(0x80 | 127);
            out.extend((length as u64).to_be_bytes());
        }
    }
    out.extend(mask);
    out.extend(
        payload
            .iter()
            .zip(mask.iter().cycle())
            .map(|(byte, mask)| byte ^ mask),
    );
    out
}

/// Returns a handshake as browsers send it.
pub fn handshake(path: &str) -> Vec<u8> {
    handshake_with(path, "")
}

/// The offer of compression that browsers send.
pub const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

/// Returns a handshake with additional fields, each with its CRLF.
pub fn handshake_with(path: &str, fields: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: sim\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
    .into_bytes()
}

/// The example of RFC 6455 §1.3.
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// Returns the payload of a compressed message (RFC 7692 §7.2.1).
pub fn deflate(message: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * message.len() + 1024);
    let mut stream = flate2::Compress::new(flate2::Compression::best(), false);
    let flush = flate2::FlushCompress::Sync;
    stream.compress_vec(message, &mut out, flush).unwrap();
    out.truncate(out.len() - 4);
    out
}

fn inflate(payload: &[u8]) -> Result<Vec<u8>, String> {
    let data = [payload, &[0, 0, 0xFF, 0xFF]].concat();
    let mut out = Vec::with_capacity(1 << 20);
    let mut stream = flate2::Decompress::new(false);
    let flush = flate2::FlushDecompress::Sync;
    let result = stream.decompress_vec(&data, &mut out, flush);
    result.map(|_| out).map_err(|error| error.to_string())
}
