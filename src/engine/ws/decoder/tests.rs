//! Tests of the decoder with whole input and with input split at every offset.

use super::super::frame::encode_client_frame;
use super::*;

const LIMITS: Limits = Limits {
    max_message: 1000,
    max_fragments: 4,
    deflate: false,
};

#[derive(Debug, PartialEq)]
enum Decoded {
    Text(String),
    Binary(Vec<u8>),
    Compressed(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    Failed(u16),
}

impl From<Event<'_>> for Decoded {
    fn from(event: Event<'_>) -> Self {
        match event {
            Event::Text(text) => Decoded::Text(text.into()),
            Event::Binary(data) => Decoded::Binary(data.into()),
            Event::Compressed { is_text, data } => Decoded::Compressed(is_text, data.into()),
            Event::Ping(data) => Decoded::Ping(data.into()),
            Event::Pong(data) => Decoded::Pong(data.into()),
            Event::Close(close) => Decoded::Close(close.map(|c| (c.code.0, c.reason.into()))),
        }
    }
}

const COMPRESSION: Limits = Limits {
    deflate: true,
    ..LIMITS
};

/// Returns the decoded events for input in pieces of these sizes (the last one repeats).
fn decode(bytes: &[u8], sizes: &[usize]) -> (Vec<Decoded>, Decoder) {
    decode_within(&LIMITS, bytes, sizes)
}

fn decode_within(limits: &Limits, bytes: &[u8], sizes: &[usize]) -> (Vec<Decoded>, Decoder) {
    let mut decoder = Decoder::default();
    let mut decoded = Vec::new();
    let mut rest = bytes.to_vec();
    let mut sizes = sizes.iter().chain(sizes.last());
    let mut size = sizes.next().copied().unwrap_or(1);
    while !rest.is_empty() {
        let mut piece: Vec<u8> = rest.drain(..size.min(rest.len())).collect();
        let mut at = 0;
        loop {
            match decoder.next(&mut piece[at..], limits) {
                Ok((taken, Some(event))) => {
                    at += taken;
                    decoded.push(event.into());
                }
                Ok((taken, None)) => {
                    at += taken;
                    if at == piece.len() {
                        break;
                    }
                    assert!(taken > 0, "neither an event nor a fragment");
                }
                Err(error) => {
                    decoded.push(Decoded::Failed(error.code.0));
                    return (decoded, decoder);
                }
            }
        }
        size = sizes.next().copied().unwrap_or(size);
    }
    (decoded, decoder)
}

/// FIN, opcode, payload.
type FrameParts<'a> = (bool, OpCode, &'a [u8]);

fn frames(list: &[FrameParts<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (at, (fin, opcode, payload)) in list.iter().enumerate() {
        encode_client_frame(
            *fin,
            *opcode,
            [at as u8, 0x80, 3, 0xFF],
            payload,
            &mut bytes,
        );
    }
    bytes
}

/// Asserts the events for the input split in two at every offset, and into pieces of every size.
fn assert_decodes(bytes: &[u8], want: &[Decoded]) {
    assert_decodes_within(&LIMITS, bytes, want);
}

fn assert_decodes_within(limits: &Limits, bytes: &[u8], want: &[Decoded]) {
    // Miri is slow; one combination is enough.
    let (first, step) = match cfg!(miri) {
        true => (bytes.len().min(7), bytes.len()),
        false => (1, 1),
    };
    for cut in (first..=bytes.len()).step_by(step) {
        for sizes in [&[cut][..], &[cut, bytes.len()][..]] {
            let (decoded, decoder) = decode_within(limits, bytes, sizes);
            assert_eq!(decoded, want, "cut {sizes:?}");
            let ended = matches!(want.last(), Some(Decoded::Failed(_)));
            assert!(
                ended || !decoder.is_mid_message(),
                "kept something, cut {sizes:?}"
            );
        }
    }
}

// R11
#[test]
fn each_call_decodes_one_frame() {
    let fragment = frames(&[
        (false, OpCode::Text, b"a"),
        (false, OpCode::Continuation, b"b"),
    ]);
    let size = fragment.len() / 2;
    let mut bytes = [fragment, frames(&[(true, OpCode::Continuation, b"c")])].concat();
    let mut decoder = Decoder::default();
    for _ in 0..2 {
        assert_eq!(decoder.next(&mut bytes, &LIMITS), Ok((size, None)));
        bytes.drain(..size);
    }
    let last = decoder.next(&mut bytes, &LIMITS);
    assert_eq!(last, Ok((size, Some(Event::Text("abc")))));
}

#[test]
fn messages_and_control_frames_between_their_fragments() {
    let bytes = frames(&[
        (true, OpCode::Text, "a κ".as_bytes()),
        (true, OpCode::Text, b""),
        (false, OpCode::Text, b"\xce"),
        (true, OpCode::Ping, b"hey"),
        (false, OpCode::Continuation, b""),
        (true, OpCode::Pong, b""),
        (true, OpCode::Continuation, b"\xbab"),
        (true, OpCode::Binary, &[0xFF; 300]),
        (false, OpCode::Binary, b""),
        (true, OpCode::Continuation, b""),
        (true, OpCode::Close, b"\x03\xe8bye"),
    ]);
    let want = [
        Decoded::Text("a κ".into()),
        Decoded::Text(String::new()),
        Decoded::Ping(b"hey".to_vec()),
        Decoded::Pong(vec![]),
        Decoded::Text("κb".into()),
        Decoded::Binary(vec![0xFF; 300]),
        Decoded::Binary(vec![]),
        Decoded::Close(Some((1000, "bye".into()))),
    ];
    assert_decodes(&bytes, &want);
}

#[test]
fn protocol_violations_fail_the_connection() {
    use OpCode::{Binary, Close, Continuation, Ping, Text};
    let big = vec![0; 1001];
    let half = vec![0; 600];
    let table: [(&[FrameParts<'_>], u16); 9] = [
        (&[(true, Continuation, b"")], 1002),
        (&[(false, Text, b"a"), (true, Text, b"b")], 1002),
        (&[(false, Text, b"a"), (true, Binary, b"b")], 1002),
        (&[(true, Binary, &big)], 1009),
        (&[(false, Binary, &half), (true, Continuation, &half)], 1009),
        (&[(true, Text, b"\xff")], 1007),
        (&[(true, Text, b"\xce")], 1007),
        (&[(false, Text, b"\xce"), (true, Continuation, b"a")], 1007),
        (&[(true, Close, b"\x03\xed")], 1002),
    ];
    for (list, code) in table {
        let mut bytes = frames(list);
        assert_decodes(&bytes, &[Decoded::Failed(code)]);
        // Events before the violation are still delivered.
        bytes.splice(0..0, frames(&[(true, Ping, b"x")]));
        assert_decodes(
            &bytes,
            &[Decoded::Ping(b"x".to_vec()), Decoded::Failed(code)],
        );
    }
}

// CVE-2026-48779, CVE-2026-62389
#[test]
fn empty_fragments_are_counted() {
    let mut list = vec![(false, OpCode::Text, &b""[..])];
    list.extend([(false, OpCode::Continuation, &b""[..]); 3]);
    let (decoded, _) = decode(&frames(&list), &[1]);
    assert_eq!(decoded, []);
    list.push((false, OpCode::Continuation, b""));
    assert_decodes(&frames(&list), &[Decoded::Failed(1009)]);
}

#[test]
fn invalid_text_fails_before_its_frame_is_complete() {
    let whole = frames(&[(true, OpCode::Text, b"ab\xf4\x90cdefgh")]);
    let header = whole.len() - 10;
    assert_eq!(decode(&whole[..header + 3], &[64]).0, []);
    assert_eq!(
        decode(&whole[..header + 4], &[64]).0,
        [Decoded::Failed(1007)]
    );
}

// CVE-2022-35922
#[test]
fn announced_length_reserves_no_memory() {
    let mut head = vec![0x82, 0xFF];
    head.extend_from_slice(&(1_u64 << 40).to_be_bytes());
    head.extend_from_slice(&[1, 2, 3, 4]);
    assert_decodes(&head, &[Decoded::Failed(1009)]);
    for len in [u64::MAX >> 1, (u64::MAX >> 1) - 5] {
        head[2..10].copy_from_slice(&len.to_be_bytes());
        assert_decodes(&head, &[Decoded::Failed(1009)]);
    }
}

// CVE-2022-35922: below the limit, too, memory grows with the received bytes.
#[test]
fn header_of_a_large_message_reserves_no_memory() {
    const SIZE: usize = 1 << 16;
    let limits = Limits {
        max_message: SIZE,
        ..LIMITS
    };
    let mut first = vec![0x82, 0xFF];
    first.extend_from_slice(&(SIZE as u64).to_be_bytes());
    first.extend_from_slice(&[1, 2, 3, 4]);
    let fragment = frames(&[(false, OpCode::Binary, b"a")]);
    let next = [&[0x80, 0xFE, 0xFF, 0xFF], &[1, 2, 3, 4][..]].concat();
    for mut parts in [vec![first], vec![fragment, next]] {
        let mut decoder = Decoder::default();
        for part in &mut parts {
            let size = part.len();
            assert_eq!(decoder.next(part, &limits), Ok((size, None)));
        }
        assert!(decoder.buffered() < 256, "{} bytes", decoder.buffered());
    }
}

#[test]
fn idle_decoder_is_a_null_pointer() {
    assert_eq!(size_of::<Decoder>(), size_of::<usize>());
}

/// Encodes frames, and sets RSV1 on those with the given indices.
fn with_rsv1(list: &[FrameParts<'_>], marked: &[usize]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for at in 0..list.len() {
        let start = bytes.len();
        bytes.extend(frames(&list[at..=at]));
        if marked.contains(&at) {
            bytes[start] |= 0x40;
        }
    }
    bytes
}

#[test]
fn compressed_messages_are_returned_unchanged() {
    let list: [FrameParts<'_>; 10] = [
        (true, OpCode::Text, b"\xf2\x48\xff"),
        (true, OpCode::Text, b"plain"),
        (false, OpCode::Text, b"\xff"),
        (true, OpCode::Ping, b"hey"),
        (false, OpCode::Continuation, b""),
        (true, OpCode::Pong, b""),
        (true, OpCode::Continuation, b"\xfe"),
        (true, OpCode::Binary, &[0xFF; 300]),
        (true, OpCode::Binary, b""),
        (true, OpCode::Close, b""),
    ];
    let want = [
        Decoded::Compressed(true, b"\xf2\x48\xff".to_vec()),
        Decoded::Text("plain".into()),
        Decoded::Ping(b"hey".to_vec()),
        Decoded::Pong(vec![]),
        Decoded::Compressed(true, b"\xff\xfe".to_vec()),
        Decoded::Compressed(false, vec![0xFF; 300]),
        Decoded::Compressed(false, vec![]),
        Decoded::Close(None),
    ];
    let bytes = with_rsv1(&list, &[0, 2, 7, 8]);
    assert_decodes_within(&COMPRESSION, &bytes, &want);
    assert_decodes(&bytes, &[Decoded::Failed(1002)]);
}

#[test]
fn misplaced_rsv1_fails_the_connection() {
    use OpCode::{Binary, Close, Continuation, Ping, Pong, Text};
    let first: FrameParts<'_> = (false, Text, b"a");
    for second in [
        (true, Continuation, &b"b"[..]),
        (false, Continuation, b""),
        (true, Ping, b""),
        (true, Pong, b""),
        (true, Close, b""),
        (true, Binary, b""),
    ] {
        // Regardless of whether the message in progress is compressed.
        for marked in [&[0, 1][..], &[1]] {
            let bytes = with_rsv1(&[first, second], marked);
            assert_decodes_within(&COMPRESSION, &bytes, &[Decoded::Failed(1002)]);
        }
    }
    // The other reserved bits still have no meaning.
    for bits in [0x20, 0x10, 0x60, 0x50, 0x70] {
        let mut bytes = frames(&[(true, Text, b"a")]);
        bytes[0] |= bits;
        assert_decodes_within(&COMPRESSION, &bytes, &[Decoded::Failed(1002)]);
    }
}

#[test]
fn limits_apply_to_compressed_messages_as_received() {
    use OpCode::{Binary, Continuation};
    let half = vec![0; 600];
    let whole = vec![0; 1000];
    let want = Decoded::Compressed(false, whole.clone());
    let bytes = with_rsv1(&[(true, Binary, &whole)], &[0]);
    assert_decodes_within(&COMPRESSION, &bytes, &[want]);
    let bytes = with_rsv1(&[(false, Binary, &half), (true, Continuation, &half)], &[0]);
    assert_decodes_within(&COMPRESSION, &bytes, &[Decoded::Failed(1009)]);
    let mut list = vec![(false, Binary, &b""[..])];
    list.extend([(false, Continuation, &b""[..]); 4]);
    assert_decodes_within(
        &COMPRESSION,
        &with_rsv1(&list, &[0]),
        &[Decoded::Failed(1009)],
    );
}

#[test]
fn plain_text_fails_early_with_deflate_negotiated() {
    let whole = frames(&[(true, OpCode::Text, b"ab\xf4\x90cdefgh")]);
    let cut = whole.len() - 10 + 4;
    let (decoded, _) = decode_within(&COMPRESSION, &whole[..cut], &[64]);
    assert_eq!(decoded, [Decoded::Failed(1007)]);
}

#[test]
fn encoded_messages_decode_to_the_same_event() {
    for len in [0, 1, 125, 126, 300, 65_536] {
        let text = "x".repeat(len);
        let data = text.as_bytes();
        let limits = Limits {
            max_message: len,
            ..COMPRESSION
        };
        let compressed = |is_text| Event::Compressed { is_text, data };
        for event in [
            Event::Text(&text),
            Event::Binary(data),
            compressed(true),
            compressed(false),
        ] {
            assert_eq!(event.size(), len);
            let mut bytes = Vec::new();
            event.encode_again(&mut bytes);
            let size = bytes.len();
            let mut decoder = Decoder::default();
            assert_eq!(decoder.next(&mut bytes, &limits), Ok((size, Some(event))));
        }
    }
}

#[test]
fn control_frames_have_no_size_and_are_not_encoded_again() {
    for event in [Event::Ping(b"a"), Event::Pong(b"a"), Event::Close(None)] {
        let mut bytes = Vec::new();
        event.encode_again(&mut bytes);
        assert_eq!((event.size(), bytes.len()), (0, 0), "{event:?}");
    }
}

#[test]
fn missing_is_the_rest_of_the_payload() {
    let mut bytes = frames(&[(true, OpCode::Binary, &[7; 100])]);
    let mut decoder = Decoder::default();
    assert_eq!(decoder.missing(), 0);
    for (at, byte) in bytes.chunks_mut(1).enumerate() {
        let (_, event) = decoder.next(byte, &LIMITS).unwrap();
        assert_eq!(event.is_some(), at == 105);
        let want = if at < 5 { 0 } else { 105 - at as u64 };
        assert_eq!(decoder.missing(), want, "after byte {at}");
        assert!(decoder.is_mid_message());
    }
}

#[test]
fn unread_input_changes_no_event() {
    let bytes = frames(&[
        (false, OpCode::Text, b"a"),
        (true, OpCode::Ping, b"b"),
        (false, OpCode::Continuation, b""),
        (true, OpCode::Continuation, b"c"),
        (true, OpCode::Pong, b"d"),
    ]);
    let want = decode(&bytes, &[1]).0;
    assert_eq!(want.len(), 3);
    let mut decoder = Decoder::default();
    let mut decoded: Vec<Decoded> = Vec::new();
    for byte in &bytes {
        let mut input = [*byte];
        let (_, event) = decoder.next(&mut input, &LIMITS).unwrap();
        decoded.extend(event.map(Decoded::from));
        let (was_empty, before) = (decoder.is_empty(), decoder.buffered());
        decoder.keep_unread(Unread {
            bytes: vec![1, 2, 3],
            at: 1,
        });
        assert!(decoder.has_unread() && !decoder.is_empty());
        assert!(decoder.buffered() >= before + 3);
        let unread = decoder.take_unread().unwrap();
        assert_eq!((unread.bytes.as_slice(), unread.at), (&[1, 2, 3][..], 1));
        assert!(!decoder.has_unread() && decoder.take_unread().is_none());
        assert_eq!(
            (decoder.is_empty(), decoder.buffered()),
            (was_empty, before)
        );
    }
    assert_eq!(decoded, want);
}

#[test]
fn unread_input_is_kept_when_a_delivered_event_is_freed() {
    let mut decoder = Decoder::default();
    for byte in frames(&[(true, OpCode::Ping, b"a")]) {
        decoder.next(&mut [byte], &LIMITS).unwrap();
    }
    let unread = |at| Unread {
        bytes: vec![1, 2],
        at,
    };
    // Nothing is left to decode.
    decoder.keep_unread(unread(2));
    assert!(!decoder.has_unread());
    decoder.keep_unread(unread(1));
    assert_eq!(decoder.next(&mut [], &LIMITS), Ok((0, None)));
    assert!(decoder.has_unread());
    assert_eq!(decoder.take_unread().map(|unread| unread.at), Some(1));
    assert!(decoder.is_empty());
}

#[test]
fn buffered_counts_all_incomplete_input() {
    let mut decoder = Decoder::default();
    assert_eq!(decoder.buffered(), 0);
    let mut bytes = frames(&[
        (false, OpCode::Binary, &[7; 900]),
        (true, OpCode::Ping, &[7; 100]),
    ]);
    let size = bytes.len() - 1;
    let mut at = 0;
    while at < size {
        at += decoder.next(&mut bytes[at..size], &LIMITS).unwrap().0;
    }
    decoder.keep_unread(Unread {
        bytes: vec![0; 1000],
        at: 0,
    });
    let least = 900 + 99 + 1000 + size_of::<Partial>();
    let buffered = decoder.buffered();
    assert!((least..least + 500).contains(&buffered), "{buffered}");
}
