//! The frame decoder compared with itself: its output does not depend on how the bytes are
//! fragmented.

use h_realtime_engine::ws::{Decoder, Event, Limits, ProtocolError};

/// The result of a stream: its events, and its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub events: Vec<Decoded>,
    pub end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decoded {
    Text(String),
    Binary(Vec<u8>),
    Compressed { is_text: bool, data: Vec<u8> },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// More input could follow; whether a frame or message is incomplete.
    Open {
        is_mid_message: bool,
    },
    /// A close frame, after which nothing is read.
    Closed,
    Failed(ProtocolError),
}

/// Input: a choice of limits, three positions to split at, and a client's bytes.
pub fn frame_decoder(input: &[u8]) {
    let &[choice, a, b, c, ref bytes @ ..] = input else {
        return;
    };
    let limits = limits(choice);
    let whole = decode([bytes], &limits);
    let same = |pieces: Vec<&[u8]>| {
        let sizes: Vec<_> = pieces.iter().map(|piece| piece.len()).collect();
        assert_eq!(decode(pieces, &limits), whole, "in pieces of {sizes:?}");
    };
    same(bytes.chunks(1).collect());
    same(bytes.chunks(usize::from(a) + 1).collect());
    let mut cuts = [a, b, c].map(|cut| usize::from(cut) % (bytes.len() + 1));
    cuts.sort_unstable();
    let [a, b, c] = cuts;
    same(vec![&bytes[..a], &bytes[a..b], &bytes[b..c], &bytes[c..]]);
    if bytes.len() <= SPLIT_ALL {
        for cut in 0..=bytes.len() {
            same(vec![&bytes[..cut], &bytes[cut..]]);
        }
    }
}

/// Decodes a stream that arrives in these pieces, up to a close frame or an error.
pub fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Outcome {
    let mut decoder = Decoder::default();
    let mut events = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut rest = &mut piece[..];
        loop {
            let length = rest.len();
            let (taken, event) = match decoder.next(rest, limits) {
                Ok((taken, event)) => (taken, event.map(owned)),
                Err(error) => {
                    let end = End::Failed(error);
                    return Outcome { events, end };
                }
            };
            let Some(event) = event else {
                if taken == length {
                    break;
                }
                assert!(taken > 0, "neither an event nor a fragment");
                rest = &mut rest[taken..];
                continue;
            };
            check_size(&event, limits);
            let is_close = matches!(event, Decoded::Close(_));
            events.push(event);
            if is_close {
                let end = End::Closed;
                return Outcome { events, end };
            }
            rest = &mut rest[taken..];
        }
    }
    // The next call releases the event returned last.
    assert!(matches!(decoder.next(&mut [], limits), Ok((0, None))));
    let is_mid_message = decoder.is_mid_message();
    let end = End::Open { is_mid_message };
    Outcome { events, end }
}

fn owned(event: Event<'_>) -> Decoded {
    match event {
        Event::Text(text) => Decoded::Text(text.to_owned()),
        Event::Binary(data) => Decoded::Binary(data.to_vec()),
        Event::Ping(data) => Decoded::Ping(data.to_vec()),
        Event::Pong(data) => Decoded::Pong(data.to_vec()),
        Event::Compressed { is_text, data } => {
            let data = data.to_vec();
            Decoded::Compressed { is_text, data }
        }
        Event::Close(close) => {
            Decoded::Close(close.map(|close| (close.code.0, close.reason.to_owned())))
        }
    }
}

fn check_size(event: &Decoded, limits: &Limits) {
    let (length, most) = match event {
        Decoded::Text(text) => (text.len(), limits.max_message),
        Decoded::Compressed { .. } if !limits.deflate => panic!("compression was not negotiated"),
        Decoded::Binary(data) | Decoded::Compressed { data, .. } => {
            (data.len(), limits.max_message)
        }
        Decoded::Ping(data) | Decoded::Pong(data) => (data.len(), 125),
        Decoded::Close(close) => (close.as_ref().map_or(0, |close| close.1.len()), 123),
    };
    assert!(length <= most, "{length} bytes exceed the limit of {most}");
}

fn limits(choice: u8) -> Limits {
    let sizes = [4, 125, 1000, 65_536];
    let fragments = [1, 2, 5, 1024];
    Limits {
        max_message: sizes[usize::from(choice & 3)],
        max_fragments: fragments[usize::from(choice >> 2 & 3)],
        deflate: choice & 0x10 != 0,
    }
}

/// Streams up to this length are split at every position.
const SPLIT_ALL: usize = 64;
