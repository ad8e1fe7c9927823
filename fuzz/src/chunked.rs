//! Bodies in the chunked transfer coding, compared with a naive line parser.

use h_realtime_engine::http::{
    ChunkedDecoder, ChunkedError, MAX_CHUNK_EXTENSIONS, MAX_HEADERS, MAX_TRAILERS,
};

/// Input: sizes of pieces, then the bytes of a body. The data, the end, and any error are the same
/// for every fragmentation, and the data and the end match the naive parser.
pub fn chunked_body(input: &[u8]) {
    let &[sizes, ref body @ ..] = input else {
        return;
    };
    let sizes = [usize::from(sizes & 15) + 1, usize::from(sizes >> 4) + 1];
    let whole = decode(body, &[body.len().max(1)]);
    assert_eq!(decode(body, &sizes), whole, "in pieces");
    let found = match &whole {
        Ok(Some(found)) => Some(found.clone()),
        _ => None,
    };
    assert_eq!(found, naive(body));
    if let Some((_, used)) = found {
        let early = decode(&body[..used - 1], &sizes);
        assert_eq!(early, Ok(None), "without its last byte");
    }
}

/// The data and the length of the body; `None` if it is incomplete.
type Decoded = Option<(Vec<u8>, usize)>;

/// Decodes a body that arrives in pieces of these sizes.
fn decode(body: &[u8], sizes: &[usize]) -> Result<Decoded, ChunkedError> {
    let mut decoder = ChunkedDecoder::new(LIMIT);
    let (mut data, mut at) = (Vec::new(), 0);
    for size in sizes.iter().cycle() {
        let mut piece = body[at..body.len().min(at + size)].to_vec();
        let decoded = decoder.decode(&mut piece)?;
        assert!(decoded.written <= decoded.read && decoded.read <= piece.len());
        data.extend_from_slice(&piece[..decoded.written]);
        assert!(data.len() <= LIMIT);
        at += decoded.read;
        if decoder.is_done() {
            return Ok(Some((data, at)));
        }
        assert_eq!(decoded.read, piece.len(), "stopped before the end");
        if at == body.len() {
            return Ok(None);
        }
    }
    unreachable!("at least one size");
}

/// Parses a complete, valid body line by line.
fn naive(body: &[u8]) -> Decoded {
    let (mut data, mut at) = (Vec::new(), 0);
    let mut extensions = 0;
    loop {
        let line = line(body, &mut at)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit());
        let (size, extension) = line.split_at(digits.count());
        if size.len() > 16 || !is_extension(extension) {
            return None;
        }
        extensions += extension.len();
        let size = u64::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size > (LIMIT - data.len()) as u64 || extensions > MAX_CHUNK_EXTENSIONS {
            return None;
        }
        if size == 0 {
            break;
        }
        let end = at + size as usize;
        data.extend_from_slice(body.get(at..end)?);
        if body.get(end..end + 2)? != b"\r\n" {
            return None;
        }
        at = end + 2;
    }
    let (mut bytes, mut fields) = (0, 0);
    loop {
        let line = line(body, &mut at)?;
        if line.is_empty() {
            return Some((data, at));
        }
        let colon = line.iter().position(|&byte| byte == b':')?;
        if colon == 0 || !line[..colon].iter().all(|&byte| is_token(byte)) {
            return None;
        }
        bytes += line.len();
        fields += 1;
        if bytes > MAX_TRAILERS || fields > MAX_HEADERS {
            return None;
        }
    }
}

/// Returns the next line without its end. It contains no control characters except tabs.
fn line<'a>(body: &'a [u8], at: &mut usize) -> Option<&'a [u8]> {
    let rest = &body[*at..];
    let length = rest.windows(2).position(|window| window == b"\r\n")?;
    *at += length + 2;
    let line = &rest[..length];
    let is_text = |&byte: &u8| byte == b'\t' || !byte.is_ascii_control();
    line.iter().all(is_text).then_some(line)
}

/// Returns whether `text` may follow a size: nothing, or an extension that begins with its name.
fn is_extension(text: &[u8]) -> bool {
    let name = text.trim_ascii_start().strip_prefix(b";");
    let first = name.and_then(|name| name.trim_ascii_start().first());
    text.is_empty() || first.is_some_and(|&byte| is_token(byte))
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// In bytes of data.
const LIMIT: usize = 300;
