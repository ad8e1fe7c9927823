//! Parses an event stream (WHATWG HTML, section 9.2.6). Must not know sockets or JSON.
//!
//! Lines end with CR, LF, or CRLF, and input may be split at any byte. Invalid UTF-8 becomes U+FFFD.
//! A block that the stream does not complete is discarded, as the standard requires.

use std::mem;
use std::time::Duration;

use super::super::state_file::MAX_CURSOR;

/// A block of the stream, which an empty line ends.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Block {
    /// The type of the event. Empty for the default type, `message`.
    pub event: String,
    /// The data, without its last line break. `None` if the block has no event.
    pub data: Option<String>,
    /// The last event id, which may be that of an earlier block. Empty before the first one, and if
    /// it is too long for a position.
    pub id: String,
}

/// The stream contains a line or a block of more than [`MAX_BLOCK`] bytes.
#[derive(Debug, PartialEq)]
pub(super) struct BlockTooLarge;

/// An incremental parser of one stream.
#[derive(Default)]
pub(super) struct EventParser {
    /// The bytes of the incomplete line. Of a comment, only the first byte is kept.
    line: Vec<u8>,
    /// The last byte was a CR: a following LF belongs to the same line end.
    after_return: bool,
    /// A line has ended, so that a byte order mark has no special meaning.
    has_begun: bool,
    event: String,
    data: String,
    /// The block contains a field `data` or `id`.
    has_fields: bool,
    id: String,
    retry: Option<Duration>,
}

impl EventParser {
    /// Returns the reconnection time that the server has requested last.
    pub(super) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Consumes the front of `input` up to the end of a block, and returns it. Returns `None` if all
    /// input is consumed and the block is incomplete.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Result<Option<Block>, BlockTooLarge> {
        while let Some((&byte, rest)) = input.split_first() {
            *input = rest;
            let follows_return = mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if follows_return => {}
                b'\r' | b'\n' => {
                    if let Some(block) = self.end_line() {
                        return Ok(Some(block));
                    }
                }
                _ if self.line.first() == Some(&b':') => {}
                _ if self.line.len() + self.data.len() + self.event.len() >= MAX_BLOCK => {
                    return Err(BlockTooLarge);
                }
                _ => self.line.push(byte),
            }
        }
        Ok(None)
    }

    /// Handles a complete line. Returns the block that it ends.
    fn end_line(&mut self) -> Option<Block> {
        let line = mem::take(&mut self.line);
        let bytes = match self.has_begun {
            true => &line,
            // "… strip one leading U+FEFF BYTE ORDER MARK, if any."
            false => line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&line),
        };
        self.has_begun = true;
        let block = match bytes {
            [] => self.end_block(),
            bytes => {
                self.on_field(&String::from_utf8_lossy(bytes));
                None
            }
        };
        if line.capacity() <= KEPT_CAPACITY {
            self.line = line;
            self.line.clear();
        }
        block
    }

    fn on_field(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        // "If value starts with a U+0020 SPACE character, remove it from value."
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
                self.has_fields = true;
            }
            // "If the field value does not contain U+0000 NULL, then set the last event ID buffer to
            // the field value. Otherwise, ignore the field."
            "id" if !value.contains('\0') => {
                // Every later block repeats the id, so a huge one would be copied for each of them.
                let is_usable = value.len() <= MAX_CURSOR;
                let value = if is_usable { value } else { "" };
                value.clone_into(&mut self.id);
                self.has_fields = true;
            }
            // "If the field value consists of only ASCII digits, then interpret the field value as an
            // integer in base ten …"
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                let millis = value.parse().unwrap_or(u64::MAX);
                self.retry = Some(Duration::from_millis(millis));
            }
            // Comments, and "Otherwise: the field is ignored."
            _ => {}
        }
    }

    /// Ends a block. "If the data buffer is an empty string, set the data buffer and the event type
    /// buffer to the empty string and return." Such a block may still have an id.
    fn end_block(&mut self) -> Option<Block> {
        let event = mem::take(&mut self.event);
        let mut data = mem::take(&mut self.data);
        if !mem::take(&mut self.has_fields) {
            return None;
        }
        Some(Block {
            event,
            data: data.pop().map(|_line_break| data),
            id: self.id.clone(),
        })
    }
}

/// The maximum size of a line, and of the data of one block, in bytes: that of a WebSocket message.
pub(super) const MAX_BLOCK: usize = super::super::meter::MAX_MESSAGE;
/// The buffer of a longer line is freed after its end.
const KEPT_CAPACITY: usize = 64 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the blocks of a stream that arrives in the given pieces, and the requested
    /// reconnection time in milliseconds.
    fn parsed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Block>, Option<u128>) {
        let mut parser = EventParser::default();
        let mut blocks = Vec::new();
        for piece in pieces {
            let mut input = piece;
            while let Some(block) = parser.next(&mut input).expect("a small block") {
                blocks.push(block);
            }
            assert!(input.is_empty());
        }
        (blocks, parser.retry().map(|retry| retry.as_millis()))
    }

    fn block(event: &str, data: Option<&str>, id: &str) -> Block {
        Block {
            event: event.to_owned(),
            data: data.map(str::to_owned),
            id: id.to_owned(),
        }
    }

    /// Each stream, and its blocks, with LF as line end.
    fn cases() -> Vec<(&'static str, Vec<Block>)> {
        vec![
            ("", vec![]),
            ("data: a", vec![]),
            ("data: a\n", vec![]),
            ("data: a\n\n", vec![block("", Some("a"), "")]),
            (
                "data:a\ndata:\ndata:  b\n\n",
                vec![block("", Some("a\n\n b"), "")],
            ),
            // Examples of the standard.
            (
                "data: YHOO\ndata: +2\ndata: 10\n\n",
                vec![block("", Some("YHOO\n+2\n10"), "")],
            ),
            (
                ": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
                vec![
                    block("", Some("first event"), "1"),
                    block("", Some("second event"), ""),
                    block("", Some(" third event"), ""),
                ],
            ),
            (
                "data\n\ndata\ndata\n\ndata:",
                vec![block("", Some(""), ""), block("", Some("\n"), "")],
            ),
            (
                "data:test\n\ndata: test\n\n",
                vec![block("", Some("test"), ""), block("", Some("test"), "")],
            ),
            // The type is that of one block, and the id remains.
            (
                "event: x\nid: 7\n\nevent: y\ndata: a\n\ndata: b\n\n",
                vec![
                    block("x", None, "7"),
                    block("y", Some("a"), "7"),
                    block("", Some("b"), "7"),
                ],
            ),
            ("event: x\n\n\n\n", vec![]),
            ("id: a\nid: b\0c\n\n", vec![block("", None, "a")]),
            ("id: \0\n\n", vec![]),
            ("Data: a\n data: b\ndata : c\nother\n:\n\n", vec![]),
            (
                "data: a:b\n: c\ndata: d\n\n",
                vec![block("", Some("a:b\nd"), "")],
            ),
            ("\u{feff}data: a\n\n", vec![block("", Some("a"), "")]),
            (
                "\u{feff}: comment\n\ndata: a\n\n",
                vec![block("", Some("a"), "")],
            ),
            ("\u{feff}\u{feff}data: a\n\n", vec![]),
            ("\n\u{feff}data: a\n\n", vec![]),
            ("data: é€😀\nid: ü\n\n", vec![block("", Some("é€😀"), "ü")]),
        ]
    }

    #[test]
    fn streams_are_parsed_with_each_line_end_and_at_each_split() {
        for (text, expected) in cases() {
            for line_end in ["\n", "\r", "\r\n"] {
                let text = text.replace('\n', line_end);
                let bytes = text.as_bytes();
                for at in 0..=bytes.len() {
                    let (left, right) = bytes.split_at(at);
                    assert_eq!(parsed([left, right]).0, expected, "{text:?} at {at}");
                }
                assert_eq!(parsed(bytes.chunks(1)).0, expected, "{text:?} bytewise");
            }
        }
    }

    #[test]
    fn line_ends_may_be_mixed() {
        let text = b"data: a\r\rdata: b\n\r\n\r\ndata: c\r\n\n";
        let blocks = parsed([&text[..]]).0;
        let data: Vec<_> = blocks.iter().map(|block| block.data.as_deref()).collect();
        assert_eq!(data, [Some("a"), Some("b"), Some("c")]);
    }

    #[test]
    fn block_is_complete_at_a_return_without_waiting_for_its_line_feed() {
        let mut parser = EventParser::default();
        let mut input = &b"data: a\r\n\r"[..];
        assert_eq!(parser.next(&mut input), Ok(Some(block("", Some("a"), ""))));
        let mut input = &b"\ndata: b\r\n\r\n"[..];
        assert_eq!(parser.next(&mut input), Ok(Some(block("", Some("b"), ""))));
    }

    #[test]
    fn id_that_is_too_long_for_a_position_is_not_kept() {
        let (longest, longer) = ("a".repeat(MAX_CURSOR), "a".repeat(MAX_CURSOR + 1));
        let text = format!("id: {longest}\n\ndata: b\n\nid: {longer}\n\ndata: c\n\n");
        let (blocks, _) = parsed([text.as_bytes()]);
        let ids: Vec<_> = blocks.iter().map(|block| block.id.as_str()).collect();
        assert_eq!(ids, [&*longest, &*longest, "", ""]);
    }

    #[test]
    fn retry_consists_of_digits() {
        for (text, expected) in [
            ("retry: 1500\n", Some(1500)),
            ("retry:007\n", Some(7)),
            ("retry: 0\n", Some(0)),
            ("retry: 99999999999999999999999\n", Some(u64::MAX.into())),
            ("retry: 5\nretry: x\n", Some(5)),
            ("retry: -1\n", None),
            ("retry: 1.5\n", None),
            ("retry: 1 \n", None),
            ("retry\n", None),
            ("retry: 5", None),
        ] {
            assert_eq!(parsed([text.as_bytes()]).1, expected, "{text:?}");
        }
    }

    #[test]
    fn invalid_utf8_is_replaced() {
        let blocks = parsed([&b"data: a\xff\xe2\x82\ndata: \xf0\x9f\n\n"[..]]).0;
        assert_eq!(blocks, [block("", Some("a\u{fffd}\u{fffd}\n\u{fffd}"), "")]);
    }

    #[test]
    fn size_of_a_block_is_bounded_and_that_of_comments_is_not() {
        let long = vec![b'a'; MAX_BLOCK + 1];
        let mut parser = EventParser::default();
        assert_eq!(parser.next(&mut &long[..]), Err(BlockTooLarge));

        let lines = b"data: 0123456789\n".repeat(MAX_BLOCK / 8);
        let mut parser = EventParser::default();
        assert_eq!(parser.next(&mut &lines[..]), Err(BlockTooLarge));

        let mut parser = EventParser::default();
        assert_eq!(parser.next(&mut &b":"[..]), Ok(None));
        assert_eq!(parser.next(&mut &long[..]), Ok(None));
        assert!(parser.line.capacity() < 100);
    }
}
