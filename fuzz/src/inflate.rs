//! Compressed messages, compared with zlib.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use h_realtime_engine::ws::{
    CloseCode, DEFLATE_WINDOW_BITS, Deflater, Event, Inflater, Limits, OpCode, ProtocolError,
    encode_client_frame,
};

use crate::decoder::{Decoded, End, Outcome, decode};

/// Input: a choice, two positions to split at, and the client's compressed data, or data to
/// compress.
pub fn inflate(input: &[u8]) {
    let &[choice, a, b, ref bytes @ ..] = input else {
        return;
    };
    if choice & 0x80 == 0 {
        check_inflate(
            bytes,
            choice & 0x40 != 0,
            LIMITS[usize::from(choice & 7)],
            [a, b],
        );
    } else {
        let times = usize::from(choice & 0x1F) + 1;
        let message = bytes.repeat(times.min(MAX_MESSAGE / bytes.len().max(1)));
        let level = LEVELS[usize::from(choice >> 5 & 3)];
        check_deflate(&message);
        check_round_trip(&message, usize::from(a) * message.len() / 256, level);
    }
}

/// Inflates a message in three fragments, split at other positions in transit.
fn check_inflate(data: &[u8], is_text: bool, limit: usize, cuts: [u8; 2]) {
    let expected = expected(data, is_text, limit);
    let mut inflater = Inflater::default();
    let got = inflated(&mut inflater, is_text, data, limit);
    match &expected {
        Expected::Exactly(expected) => assert_eq!(got, *expected),
        Expected::Refused => assert!(got.is_err(), "{got:?}"),
    }
    // No state of one message leaks into the next.
    let hello = inflated(&mut inflater, true, HELLO, 5);
    assert_eq!(hello, Ok(Decoded::Text("Hello".to_owned())));
    assert_eq!(inflated(&mut inflater, is_text, data, limit), got, "again");

    let [a, b] = cuts.map(usize::from);
    let stream = in_fragments(data, is_text, [a, b].map(|cut| cut % (data.len() + 1)));
    for size in [stream.len(), a + 1, b + 1] {
        let outcome = decode(stream.chunks(size), &COMPRESSION);
        let (is_mid_message, data) = (false, data.to_vec());
        let end = End::Open { is_mid_message };
        let events = vec![Decoded::Compressed { is_text, data }];
        assert_eq!(outcome, Outcome { events, end }, "in pieces of {size}");
    }
}

/// Returns client frames, of which only the first is marked as compressed.
fn in_fragments(data: &[u8], is_text: bool, mut cuts: [usize; 2]) -> Vec<u8> {
    cuts.sort_unstable();
    let [a, b] = cuts;
    let opcode = if is_text {
        OpCode::Text
    } else {
        OpCode::Binary
    };
    let next = OpCode::Continuation;
    let mut stream = Vec::new();
    encode_client_frame(false, opcode, MASK, &data[..a], &mut stream);
    stream[0] |= RSV1;
    encode_client_frame(false, next, MASK, &data[a..b], &mut stream);
    encode_client_frame(true, next, MASK, &data[b..], &mut stream);
    stream
}

fn inflated(
    inflater: &mut Inflater,
    is_text: bool,
    data: &[u8],
    limit: usize,
) -> Result<Decoded, ProtocolError> {
    let event = match inflater.inflate(is_text, data, limit)? {
        Event::Text(text) if is_text => Decoded::Text(text.to_owned()),
        Event::Binary(data) if !is_text => Decoded::Binary(data.to_vec()),
        other => panic!("{other:?}"),
    };
    Ok(event)
}

#[derive(Debug)]
enum Expected {
    Exactly(Result<Decoded, ProtocolError>),
    /// Data after the limit is invalid. The inflater may detect that before it stops, or stop
    /// before.
    Refused,
}

fn expected(data: &[u8], is_text: bool, limit: usize) -> Expected {
    let (out, is_whole) = zlib(data, limit);
    let error = |code, reason| Err(ProtocolError { code, reason });
    Expected::Exactly(match out.len() {
        length if length == limit + 1 && !is_whole => return Expected::Refused,
        length if length > limit => error(CloseCode::TOO_BIG, "message is too big"),
        _ if !is_whole => error(CloseCode::INVALID_DATA, "compressed data is corrupt"),
        _ if !is_text => Ok(Decoded::Binary(out)),
        _ => match String::from_utf8(out) {
            Ok(text) => Ok(Decoded::Text(text)),
            Err(_) => error(CloseCode::INVALID_DATA, "text is not UTF-8"),
        },
    })
}

/// Inflates a message with zlib, byte by byte, up to slightly more than the limit, and returns
/// whether it ends as RFC 7692 §7.2.2 specifies: with a final block, or as if one followed the
/// omitted tail.
fn zlib(data: &[u8], limit: usize) -> (Vec<u8>, bool) {
    let mut out = Vec::with_capacity(limit + 2 + MAX_OUTPUT_PER_BYTE);
    let mut stream = Decompress::new(false);
    let mut is_whole = false;
    let mut length = None;
    for (at, &byte) in data.iter().chain(&TAIL_AND_END).enumerate() {
        if at == data.len() {
            if is_whole {
                break;
            }
            length = Some(out.len());
        }
        let result = stream.decompress_vec(&[byte], &mut out, FlushDecompress::None);
        let Ok(status) = result else {
            return (out, false);
        };
        is_whole = status == Status::StreamEnd;
        if is_whole {
            stream.reset(false);
        }
        if out.len() > limit + 1 {
            break;
        }
    }
    // The tail only ends the stream.
    let is_whole = is_whole && length.is_none_or(|length| out.len() == length);
    (out, is_whole)
}

/// Our compressed output can be inflated with the negotiated window and has the announced length.
fn check_deflate(message: &[u8]) {
    let mut deflater = Deflater::default();
    let room = message.len() + message.len() / 16 + 64;
    let data = deflater.deflate(message, room).expect("room").to_vec();
    assert_eq!(deflater.deflate(message, data.len() - 1), None);
    assert_eq!(deflater.deflate(message, data.len()), Some(&data[..]));

    let tailed = [&data[..], &TAIL].concat();
    let mut stream = Decompress::new_with_window_bits(false, DEFLATE_WINDOW_BITS);
    let mut out = Vec::with_capacity(message.len() + SMALL);
    let mut piece = [0; SMALL];
    loop {
        let (taken, before) = (stream.total_in() as usize, stream.total_out());
        // In small pieces, so that zlib can only look back within its window.
        let rest = &tailed[taken..];
        let result = stream.decompress(rest, &mut piece, FlushDecompress::None);
        result.expect("zlib can inflate it");
        let written = (stream.total_out() - before) as usize;
        out.extend_from_slice(&piece[..written]);
        if written < piece.len() {
            break;
        }
    }
    assert_eq!(out, message);
    check_message(&data, message);
}

/// We can inflate output of zlib, with or without a final block in the middle.
fn check_round_trip(message: &[u8], cut: usize, level: u32) {
    let (first, second) = message.split_at(cut);
    let mut data = flushed(first, level, FlushCompress::Finish);
    data.extend(flushed(second, level, FlushCompress::Sync));
    check_message(data.strip_suffix(&TAIL).expect("the flush tail"), message);
}

fn flushed(message: &[u8], level: u32, flush: FlushCompress) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * message.len() + 64);
    let mut stream = Compress::new(Compression::new(level), false);
    stream.compress_vec(message, &mut out, flush).expect("room");
    assert_eq!(stream.total_in() as usize, message.len());
    out
}

fn check_message(data: &[u8], message: &[u8]) {
    let mut inflater = Inflater::default();
    let event = inflated(&mut inflater, false, data, message.len());
    assert_eq!(event, Ok(Decoded::Binary(message.to_vec())));
    if let Some(less) = message.len().checked_sub(1) {
        let error = inflated(&mut inflater, false, data, less).unwrap_err();
        assert_eq!(error.code, CloseCode::TOO_BIG);
    }
}

const LIMITS: [usize; 8] = [0, 1, 5, 100, 257, 4095, 4096, 65_536];
/// Levels of compression.
const LEVELS: [u32; 4] = [0, 1, 6, 9];
/// The longest message that is compressed.
const MAX_MESSAGE: usize = 16 * 1024;
/// Matches of 258 bytes in two bits each, one of which had begun before.
const MAX_OUTPUT_PER_BYTE: usize = 5 * 258;
const SMALL: usize = 64;
const COMPRESSION: Limits = Limits {
    max_message: usize::MAX,
    max_fragments: 3,
    deflate: true,
};
const RSV1: u8 = 0x40;
const MASK: [u8; 4] = [0x37, 0xFA, 0x21, 0x3D];
/// RFC 7692 §7.2.3.1.
const HELLO: &[u8] = &[0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];
/// §7.2.1: the bytes that end every flush and are therefore not sent.
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];
/// The same, followed by an empty final block.
const TAIL_AND_END: [u8; 9] = [0x00, 0x00, 0xFF, 0xFF, 0x01, 0x00, 0x00, 0xFF, 0xFF];
