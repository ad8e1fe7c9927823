//! The chunked transfer coding (RFC 9112 §7.1), decoded in place.
//!
//! Owns: locating the end of a chunked body, and the limits on chunk sizes, extensions, and
//! trailers. It buffers no body bytes: data is compacted to the front of the caller's buffer, and
//! the framing around it is discarded.

use std::fmt;

use super::MAX_HEADERS;
use super::extensions::is_token;

/// Maximum bytes of chunk extensions in one body. RFC 9112 §7.1.1: "A server ought to limit
/// the total length of chunk extensions received in a request to an amount reasonable for the
/// services provided".
pub const MAX_CHUNK_EXTENSIONS: usize = 4 * 1024;
/// Maximum bytes of trailer fields in one body. Their number is limited by [`MAX_HEADERS`], like
/// that of header fields.
pub const MAX_TRAILERS: usize = 8 * 1024;
/// Maximum digits of a chunk size, including leading zeros.
const MAX_SIZE_DIGITS: u8 = 16;

/// An incremental decoder for one chunked body.
#[derive(Clone, Debug)]
pub struct ChunkedDecoder {
    state: State,
    /// The current chunk: its size while the size is being parsed, then its remaining bytes.
    chunk: u64,
    /// Data bytes that later chunks may still contain.
    room: u64,
    /// Extension bytes that are still allowed.
    extensions: u16,
    /// Trailer bytes that are still allowed.
    trailers: u16,
    /// Trailer fields that are still allowed.
    fields: u8,
    /// Digits of the current chunk size parsed so far.
    digits: u8,
}

/// The progress of one [`ChunkedDecoder::decode`] call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes consumed from the input: all of it, unless the body ended earlier.
    pub read: usize,
    /// Bytes of decoded data, now at the front of the input.
    pub written: usize,
}

/// Why a chunked body is rejected. The connection must be closed, because the start of the next
/// request is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkedError {
    /// A grammar violation.
    Malformed,
    /// The chunk sizes add up to more than the limit.
    BodyTooLarge,
    /// More than [`MAX_CHUNK_EXTENSIONS`] bytes.
    ExtensionsTooLarge,
    /// More than [`MAX_TRAILERS`] bytes or [`MAX_HEADERS`] fields.
    TrailersTooLarge,
}

impl fmt::Display for ChunkedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ChunkedError::Malformed => "malformed chunk",
            ChunkedError::BodyTooLarge => "chunked body too large",
            ChunkedError::ExtensionsTooLarge => "chunk extensions too large",
            ChunkedError::TrailersTooLarge => "trailer section too large",
        })
    }
}

impl std::error::Error for ChunkedError {}

/// The grammar element that the next byte belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The first digit of a chunk size.
    SizeStart,
    Size,
    /// White space after a chunk size. Only an extension may follow.
    BeforeExtension,
    /// The name of an extension, or white space before it.
    ExtensionName,
    Extension,
    SizeLineFeed,
    Data,
    DataReturn,
    DataLineFeed,
    /// A trailer field, or the empty line that ends the body.
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLineFeed,
    LastLineFeed,
    Done,
}

impl ChunkedDecoder {
    /// Creates a decoder for a body of at most `limit` bytes of data.
    pub fn new(limit: usize) -> Self {
        ChunkedDecoder {
            state: State::SizeStart,
            chunk: 0,
            room: limit as u64,
            extensions: MAX_CHUNK_EXTENSIONS as u16,
            trailers: MAX_TRAILERS as u16,
            fields: MAX_HEADERS as u8,
            digits: 0,
        }
    }

    /// Returns whether the body has ended.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes the next bytes of the body. The decoded data is moved to the front of `input`; the
    /// bytes between the data and [`Decoded::read`] are unspecified.
    ///
    /// # Errors
    /// [`ChunkedError`]. A chunk whose announced size exceeds the limit is rejected before any of
    /// its data arrives.
    pub fn decode(&mut self, input: &mut [u8]) -> Result<Decoded, ChunkedError> {
        let (mut read, mut written) = (0, 0);
        while self.state != State::Done
            && let Some(&byte) = input.get(read)
        {
            if self.state != State::Data {
                self.state = self.next(byte)?;
                read += 1;
                continue;
            }
            let missing = usize::try_from(self.chunk).unwrap_or(usize::MAX);
            let count = missing.min(input.len() - read);
            input.copy_within(read..read + count, written);
            read += count;
            written += count;
            self.chunk -= count as u64;
            if self.chunk == 0 {
                self.state = State::DataReturn;
            }
        }
        Ok(Decoded { read, written })
    }

    /// Returns the state after a framing byte. A bare CR or LF never ends a line, because parsers
    /// disagree about bare line terminators.
    fn next(&mut self, byte: u8) -> Result<State, ChunkedError> {
        use State::*;
        let is_space = matches!(byte, b' ' | b'\t');
        // VCHAR, obs-text, and white space (RFC 9110 §5.5).
        let is_text = is_space || (byte > b' ' && byte != 0x7f);
        let next = match (self.state, byte) {
            (SizeStart | Size, _) if byte.is_ascii_hexdigit() => {
                self.add_digit(byte)?;
                Size
            }
            (Size | Extension, b'\r') => SizeLineFeed,
            (Size | BeforeExtension, b';') => ExtensionName,
            // BWS (RFC 9112 §7.1.1).
            (Size | BeforeExtension, _) if is_space => BeforeExtension,
            (ExtensionName, _) if is_space => ExtensionName,
            (ExtensionName, _) if is_token(byte) => Extension,
            (Extension, _) if is_text => Extension,
            (SizeLineFeed, b'\n') => self.end_size(),
            (DataReturn, b'\r') => DataLineFeed,
            (DataLineFeed, b'\n') => SizeStart,
            (TrailerStart, b'\r') => LastLineFeed,
            (TrailerStart, _) if is_token(byte) => {
                let left = self.fields.checked_sub(1);
                self.fields = left.ok_or(ChunkedError::TrailersTooLarge)?;
                TrailerName
            }
            (TrailerName, b':') => TrailerValue,
            (TrailerName, _) if is_token(byte) => TrailerName,
            (TrailerValue, b'\r') => TrailerLineFeed,
            (TrailerValue, _) if is_text => TrailerValue,
            (TrailerLineFeed, b'\n') => TrailerStart,
            (LastLineFeed, b'\n') => Done,
            _ => return Err(ChunkedError::Malformed),
        };
        match next {
            BeforeExtension | ExtensionName | Extension => {
                let left = self.extensions.checked_sub(1);
                self.extensions = left.ok_or(ChunkedError::ExtensionsTooLarge)?;
            }
            TrailerName | TrailerValue => {
                let left = self.trailers.checked_sub(1);
                self.trailers = left.ok_or(ChunkedError::TrailersTooLarge)?;
            }
            _ => {}
        }
        Ok(next)
    }

    /// Appends a hexadecimal digit to the chunk size. RFC 9112 §7.1: "recipients MUST anticipate
    /// potentially large hexadecimal numerals and
    /// prevent parsing errors due to integer conversion overflows or precision loss".
    fn add_digit(&mut self, byte: u8) -> Result<(), ChunkedError> {
        if self.digits == MAX_SIZE_DIGITS {
            return Err(ChunkedError::Malformed);
        }
        self.digits += 1;
        let digit = char::from(byte).to_digit(16).unwrap_or(0);
        // The previous value did not exceed `room`; otherwise it would have been rejected.
        self.chunk = self.chunk.saturating_mul(16).saturating_add(digit.into());
        match self.chunk > self.room {
            true => Err(ChunkedError::BodyTooLarge),
            false => Ok(()),
        }
    }

    /// Ends the line with a chunk size. Size 0 marks the last chunk.
    fn end_size(&mut self) -> State {
        self.digits = 0;
        self.room -= self.chunk;
        match self.chunk {
            0 => State::TrailerStart,
            _ => State::Data,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 100;

    /// Decodes input that is split at the given offsets. Returns the data and the number of bytes
    /// after the body, or `None` if the body has not ended.
    fn decode(input: &[u8], ends: &[usize]) -> Result<Option<(Vec<u8>, usize)>, ChunkedError> {
        let mut decoder = ChunkedDecoder::new(LIMIT);
        let (mut data, mut at) = (Vec::new(), 0);
        for &end in ends.iter().chain([&input.len()]) {
            let mut piece = input[at..end].to_vec();
            let decoded = decoder.decode(&mut piece)?;
            data.extend_from_slice(&piece[..decoded.written]);
            at += decoded.read;
            if decoder.is_done() {
                return Ok(Some((data, input.len() - at)));
            }
            assert_eq!(at, end, "all input is processed until the body ends");
        }
        Ok(None)
    }

    fn at_once(input: &str) -> Result<Option<(Vec<u8>, usize)>, ChunkedError> {
        decode(input.as_bytes(), &[])
    }

    #[test]
    fn bodies_are_decoded_with_extensions_and_trailers() {
        for (input, want) in [
            ("0\r\n\r\n", ""),
            ("000\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "hello"),
            ("0005\r\nhello\r\n1\r\n!\r\n0\r\n\r\n", "hello!"),
            ("A\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
            ("a\r\n0123456789\r\n0\r\n\r\n", "0123456789"),
            ("4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n"),
            ("1;a\r\nx\r\n0;b=c;d=\"e ; \\\" f\"\r\n\r\n", "x"),
            ("1 \t; a = b\r\nx\r\n0\r\n\r\n", "x"),
            ("1\r\nx\r\n0\r\nA: b\r\nContent-Length:\r\n\r\n", "x"),
            ("1\r\nx\r\n0\r\nA:\tb \u{e9}\r\n\r\n", "x"),
        ] {
            let whole = Ok(Some((want.as_bytes().to_vec(), 0)));
            assert_eq!(at_once(input), whole, "{input:?}");
            let behind = Ok(Some((want.as_bytes().to_vec(), 5)));
            assert_eq!(at_once(&format!("{input}GET /")), behind, "{input:?}");
        }
    }

    #[test]
    fn body_decodes_at_any_split() {
        let input = b"1;a=\"b\"\r\nx\r\n0000c ;c\r\nhello, world\r\n2\r\n\r\n\r\n0;z\r\nA: b\r\nC:\r\n\r\nrest";
        let want = Ok(Some((b"xhello, world\r\n".to_vec(), 4)));
        for first in 0..input.len() {
            for second in first..input.len() {
                assert_eq!(decode(input, &[first, second]), want, "{first} {second}");
            }
        }
        let every: Vec<_> = (0..input.len()).collect();
        assert_eq!(decode(input, &every), want);
        let end = input.len() - "rest".len();
        for end in 0..end {
            assert_eq!(decode(&input[..end], &[]), Ok(None), "{end}");
        }
    }

    // CVE-2025-22871, CVE-2025-43859
    #[test]
    fn malformed_framing_is_rejected() {
        for input in [
            "\r\n",
            " 1\r\nx\r\n0\r\n\r\n",
            "+1\r\nx\r\n0\r\n\r\n",
            "-1\r\nx\r\n0\r\n\r\n",
            "0x1\r\nx\r\n0\r\n\r\n",
            "g\r\n",
            "1_0\r\n",
            "1\nx\r\n0\r\n\r\n",
            "1\rx\r\n0\r\n\r\n",
            "1\r\r\nx\r\n0\r\n\r\n",
            "1 \r\nx\r\n0\r\n\r\n",
            "1 1\r\nx\r\n0\r\n\r\n",
            "1;\r\nx\r\n0\r\n\r\n",
            "1;;a\r\nx\r\n0\r\n\r\n",
            "1;a\nx\r\n0\r\n\r\n",
            "1;a\rb\r\nx\r\n0\r\n\r\n",
            "1;a\0\r\nx\r\n0\r\n\r\n",
            "1;\"a\r\n\"\r\nx\r\n0\r\n\r\n",
            // Data longer or shorter than its size, or with a wrong terminator.
            "1\r\nxy\r\n0\r\n\r\n",
            "2\r\nx\r\n0\r\n\r\n",
            "1\r\nx\n0\r\n\r\n",
            "1\r\nx0\r\n\r\n",
            "1\r\nx\rZ0\r\n\r\n",
            "1\r\nx\r\n\r\n0\r\n\r\n",
            // A malformed end of the body.
            "0\n\n",
            "0\r\n\n",
            "0\r\n\rX",
            "0\r\nX\r\n\r\n",
            "0\r\nA : b\r\n\r\n",
            "0\r\n: b\r\n\r\n",
            "0\r\nA: b\r\n c\r\n\r\n",
            "0\r\nA: b\n\r\n",
            "0\r\nA: b\rc\r\n\r\n",
            "0\r\nA: b\0c\r\n\r\n",
            "0\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(at_once(input), Err(ChunkedError::Malformed), "{input:?}");
            let every: Vec<_> = (0..input.len()).collect();
            let cut = decode(input.as_bytes(), &every);
            assert_eq!(cut, Err(ChunkedError::Malformed), "{input:?}");
        }
    }

    // CVE-2021-32714
    #[test]
    fn chunk_size_over_limit_is_rejected_before_its_data_arrives() {
        let too_large = Err(ChunkedError::BodyTooLarge);
        for size in [
            "65",
            "fff",
            "7fffffffffffffff",
            "8000000000000000",
            "ffffffffffffffff",
            "f0000000000000001",
            "100000000000000001",
        ] {
            assert_eq!(at_once(size), too_large, "{size}");
        }
        assert_eq!(at_once("64"), Ok(None));
        // The limit applies to all chunks together.
        let most = format!("40\r\n{}\r\n24\r\n", "x".repeat(64));
        assert_eq!(at_once(&most), Ok(None));
        let more = format!("40\r\n{}\r\n25\r\n", "x".repeat(64));
        assert_eq!(at_once(&more), too_large);
        // Endless leading zeros.
        assert_eq!(at_once(&"0".repeat(16)), Ok(None));
        assert_eq!(at_once(&"0".repeat(17)), Err(ChunkedError::Malformed));
    }

    // CVE-2023-39326
    #[test]
    fn chunk_extensions_and_trailers_are_limited() {
        let extension = |length: usize| format!("1;{}", "a".repeat(length - 1));
        assert_eq!(at_once(&extension(MAX_CHUNK_EXTENSIONS)), Ok(None));
        assert_eq!(
            at_once(&extension(MAX_CHUNK_EXTENSIONS + 1)),
            Err(ChunkedError::ExtensionsTooLarge)
        );
        // The limit applies to all chunks together, and includes the white space between
        // extensions.
        let chunks = format!("1 ;{}\r\nx\r\n", "a".repeat(98)).repeat(41);
        assert_eq!(at_once(&chunks), Err(ChunkedError::ExtensionsTooLarge));

        let trailer = |length: usize| format!("0\r\nA:{}", "b".repeat(length - 2));
        assert_eq!(at_once(&trailer(MAX_TRAILERS)), Ok(None));
        assert_eq!(
            at_once(&trailer(MAX_TRAILERS + 1)),
            Err(ChunkedError::TrailersTooLarge)
        );
        let fields = |count: usize| format!("0\r\n{}\r\n", "A:\r\n".repeat(count));
        assert!(matches!(at_once(&fields(MAX_HEADERS)), Ok(Some(_))));
        assert_eq!(
            at_once(&fields(MAX_HEADERS + 1)),
            Err(ChunkedError::TrailersTooLarge)
        );
    }

    #[test]
    fn error_names_the_part_that_is_too_large() {
        let text = ChunkedError::TrailersTooLarge.to_string();
        assert_eq!(text, "trailer section too large");
    }
}
