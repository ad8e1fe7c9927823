//! The frame decoder against itself: however the bytes are cut, the same comes out.

use h_realtime_engine::ws::{Decoder, Event, Limits, ProtocolError};

/// What comes of a stream: its events, and its end.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    pub said: Vec<Said>,
    pub end: End,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    Text(String),
    Binary(Vec<u8>),
    Compressed { is_text: bool, data: Vec<u8> },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
}

#[derive(Debug, PartialEq, Eq)]
pub enum End {
    /// More could come; whether something had begun.
    Open {
        is_mid_message: bool,
    },
    /// A close frame, behind which nothing is read.
    Closed,
    Failed(ProtocolError),
}

/// A choice of limits, three places to cut at, and a client's bytes.
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
    if bytes.len() <= EVERYWHERE {
        for cut in 0..=bytes.len() {
            same(vec![&bytes[..cut], &bytes[cut..]]);
        }
    }
}

/// Decodes a stream that arrives in these pieces, up to a close frame or an error.
pub fn decode<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &Limits) -> Outcome {
    let mut decoder = Decoder::default();
    let mut said = Vec::new();
    for piece in pieces {
        let mut piece = piece.to_vec();
        let mut rest = &mut piece[..];
        loop {
            let length = rest.len();
            let (taken, event) = match decoder.next(rest, limits) {
                Ok((taken, event)) => (taken, event.map(owned)),
                Err(error) => {
                    let end = End::Failed(error);
                    return Outcome { said, end };
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
            let is_close = matches!(event, Said::Close(_));
            said.push(event);
            if is_close {
                let end = End::Closed;
                return Outcome { said, end };
            }
            rest = &mut rest[taken..];
        }
    }
    // What was handed out last is let go with the next call.
    assert!(matches!(decoder.next(&mut [], limits), Ok((0, None))));
    let is_mid_message = decoder.is_mid_message();
    let end = End::Open { is_mid_message };
    Outcome { said, end }
}

fn owned(event: Event<'_>) -> Said {
    match event {
        Event::Text(text) => Said::Text(text.to_owned()),
        Event::Binary(data) => Said::Binary(data.to_vec()),
        Event::Ping(data) => Said::Ping(data.to_vec()),
        Event::Pong(data) => Said::Pong(data.to_vec()),
        Event::Compressed { is_text, data } => {
            let data = data.to_vec();
            Said::Compressed { is_text, data }
        }
        Event::Close(close) => {
            Said::Close(close.map(|close| (close.code.0, close.reason.to_owned())))
        }
    }
}

fn check_size(event: &Said, limits: &Limits) {
    let (length, most) = match event {
        Said::Text(text) => (text.len(), limits.max_message),
        Said::Compressed { .. } if !limits.deflate => panic!("compression was not agreed on"),
        Said::Binary(data) | Said::Compressed { data, .. } => (data.len(), limits.max_message),
        Said::Ping(data) | Said::Pong(data) => (data.len(), 125),
        Said::Close(close) => (close.as_ref().map_or(0, |close| close.1.len()), 123),
    };
    assert!(length <= most, "{length} bytes, and {most} are allowed");
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

/// Streams up to this length are cut everywhere.
const EVERYWHERE: usize = 64;
