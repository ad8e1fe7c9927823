//! Compression, tested against the examples of the RFC and another implementation.

use flate2::{Compress, Compression, FlushCompress};

use super::*;

const LIMIT: usize = 64 * 1024;

fn inflate(data: &[u8], limit: usize) -> Result<Vec<u8>, u16> {
    match Inflater::default().inflate(false, data, limit) {
        Ok(Event::Binary(message)) => Ok(message.to_vec()),
        Ok(other) => panic!("{other:?}"),
        Err(error) => Err(error.code.0),
    }
}

/// Compresses with another implementation, including the tail.
fn flushed(message: &[u8], level: u32, flush: FlushCompress) -> Vec<u8> {
    let mut out = Vec::with_capacity(2 * message.len() + 1024);
    let mut stream = Compress::new(Compression::new(level), false);
    stream.compress_vec(message, &mut out, flush).unwrap();
    assert_eq!(stream.total_in() as usize, message.len());
    out
}

fn other_deflate(message: &[u8], level: u32) -> Vec<u8> {
    let out = flushed(message, level, FlushCompress::Sync);
    out.strip_suffix(TAIL).unwrap().to_vec()
}

fn messages() -> Vec<Vec<u8>> {
    let mut state = 1_u32;
    let noise = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    });
    let text = r#"{"type": "annotation-notification", "options": {"action": "create"}}"#;
    vec![
        vec![],
        b"Hello".to_vec(),
        text.repeat(20).into_bytes(),
        vec![0; LIMIT],
        noise.take(40_000).collect(),
    ]
}

#[test]
fn large_output_buffers_are_released() {
    let message = vec![0; 4 * KEPT_OUTPUT];
    let (mut deflater, mut inflater) = (Deflater::default(), Inflater::default());
    let data = deflater.deflate(&message, message.len()).unwrap().to_vec();
    let inflated = inflater.inflate(false, &data, message.len());
    assert_eq!(inflated, Ok(Event::Binary(&message)));
    deflater.shrink();
    inflater.shrink();
    assert_eq!((deflater.out.capacity(), inflater.out.capacity()), (0, 0));
    let again = deflater.deflate(&message, message.len());
    assert_eq!(again, Some(&data[..]));
    let inflated = inflater.inflate(false, &data, message.len());
    assert_eq!(inflated, Ok(Event::Binary(&message)));
}

#[test]
fn rfc_7692_section_7_2_3_examples() {
    for data in [
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..],
        // An uncompressed block.
        &[
            0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00,
        ],
        // A final block.
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
        // Two blocks.
        &[
            0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00,
        ],
    ] {
        assert_eq!(inflate(data, LIMIT).unwrap(), b"Hello", "{data:x?}");
    }
    // §7.2.3.6: an empty message.
    assert_eq!(Deflater::default().deflate(b"", 100), Some(&[0][..]));
    assert_eq!(inflate(&[0], LIMIT).unwrap(), b"");
    assert_eq!(inflate(&[2, 0], LIMIT).unwrap(), b"");
}

#[test]
fn messages_are_independent() {
    let mut deflater = Deflater::default();
    let mut inflater = Inflater::default();
    for _ in 0..2 {
        for message in messages() {
            let data = deflater.deflate(&message, 2 * LIMIT).unwrap().to_vec();
            let same = Deflater::default();
            assert_eq!({ same }.deflate(&message, 2 * LIMIT).unwrap(), data);
            let back = inflater.inflate(false, &data, LIMIT).unwrap();
            assert_eq!(back, Event::Binary(&message));
            assert!(inflater.inflate(false, &[6], LIMIT).is_err());
        }
    }
}

#[test]
fn agrees_with_another_implementation() {
    for message in messages() {
        for level in [0, 1, 6, 9] {
            assert_eq!(
                inflate(&other_deflate(&message, level), LIMIT).unwrap(),
                message
            );
        }
        let mut data = Deflater::default()
            .deflate(&message, 2 * LIMIT)
            .unwrap()
            .to_vec();
        data.extend_from_slice(TAIL);
        // The agreed window is sufficient.
        let mut out = Vec::with_capacity(message.len() + 1);
        let mut stream = flate2::Decompress::new(false);
        stream
            .decompress_vec(&data, &mut out, flate2::FlushDecompress::Sync)
            .unwrap();
        assert_eq!(out, message);
    }
}

/// §7.1.2.1: our compressed data never refers back beyond the agreed window.
#[test]
fn back_references_stay_within_the_window() {
    // Incompressible data, repeated at a distance.
    let noise = &messages()[4][..300];
    let twice = |distance: usize| {
        let mut message = noise.to_vec();
        message.extend_from_slice(&messages()[4][1000..][..distance - noise.len()]);
        message.extend_from_slice(noise);
        Deflater::default().deflate(&message, LIMIT).unwrap().len() as isize - distance as isize
    };
    assert!(twice(3_000) < 100, "a near one is found");
    assert!(twice(4_097) > 250, "a far one is not");
}

#[test]
fn final_blocks_are_not_the_end_of_a_message() {
    let first = flushed(b"one ", 6, FlushCompress::Finish);
    let second = flushed(b"two", 6, FlushCompress::Finish);
    let both = [&first[..], &second].concat();
    for data in [
        both.clone(),
        [&both[..], &[0]].concat(),
        [&first[..], &other_deflate(b"two", 6)].concat(),
    ] {
        assert_eq!(inflate(&data, LIMIT).unwrap(), b"one two");
    }
    // Many empty blocks are processed quickly.
    assert_eq!(inflate(&[3, 0].repeat(LIMIT / 2), LIMIT).unwrap(), b"");
    assert_eq!(inflate(&both, 6), Err(1009));
}

#[test]
fn invalid_compressed_data_is_rejected() {
    let whole = other_deflate(&messages()[2], 6);
    for end in 0..whole.len() {
        assert_eq!(inflate(&whole[..end], LIMIT), Err(1007), "cut at {end}");
    }
    for data in [
        // A reserved block type; a length that does not match its complement; a distance beyond the
        // start; a tail, which must be stripped.
        &[0x06][..],
        &[0x00, 0x05, 0x00, 0xfa, 0xfe],
        &[0x02, 0x02, 0x00],
        TAIL,
        &[0xff; 20],
        // A block that the appended tail would complete.
        &[0x01, 0x09, 0x00, 0xf6, 0xff],
        &[0x00, 0x09, 0x00, 0xf6, 0xff],
    ] {
        assert_eq!(inflate(data, LIMIT), Err(1007), "{data:x?}");
    }
    let latin = other_deflate(b"caf\xe9", 6);
    let error = Inflater::default()
        .inflate(true, &latin, LIMIT)
        .unwrap_err();
    assert_eq!(error.code, CloseCode::INVALID_DATA);
    let text = other_deflate("café".as_bytes(), 6);
    let mut inflater = Inflater::default();
    assert_eq!(
        inflater.inflate(true, &text, LIMIT),
        Ok(Event::Text("café"))
    );
}

// CVE-2018-1000518, CVE-2026-27571, CVE-2026-39804.
#[test]
fn decompression_bomb_stops_at_the_limit() {
    let bomb = other_deflate(&vec![0; 1 << 20], 9);
    assert!(bomb.len() < 1200, "a thousand to one");
    let mut inflater = Inflater::default();
    for _ in 0..100 {
        let error = inflater.inflate(false, &bomb, LIMIT).unwrap_err();
        assert_eq!(error.code, CloseCode::TOO_BIG);
        // Decompression stops at the limit, instead of being checked afterwards.
        assert_eq!(
            inflater.stream.as_ref().unwrap().total_out() as usize,
            LIMIT + 1
        );
    }
    assert_eq!(inflater.out.len(), LIMIT + 1);
    assert!(inflater.out.capacity() <= 2 * LIMIT);
    // A lower limit applies even in a buffer that a higher limit has enlarged.
    let error = inflater.inflate(false, &bomb, 10).unwrap_err();
    assert_eq!(error.code, CloseCode::TOO_BIG);
    assert_eq!(inflater.stream.as_ref().unwrap().total_out(), 11);
    // Several bombs in sequence.
    let bombs = [
        &flushed(&vec![0; 1 << 20], 9, FlushCompress::Finish)[..],
        &bomb,
    ]
    .concat();
    assert_eq!(inflate(&bombs, LIMIT), Err(1009));
}

#[test]
fn message_of_exactly_the_limit_is_accepted() {
    for limit in [0, 1, 1000, FIRST_OUTPUT, FIRST_OUTPUT + 1, LIMIT] {
        for level in [0, 9] {
            let data = other_deflate(&vec![7; limit], level);
            assert_eq!(inflate(&data, limit).unwrap().len(), limit);
            let data = other_deflate(&vec![7; limit + 1], level);
            assert_eq!(inflate(&data, limit), Err(1009));
        }
    }
}

#[test]
fn compression_over_the_limit_returns_none() {
    let message = &messages()[2];
    let size = Deflater::default().deflate(message, LIMIT).unwrap().len();
    let mut deflater = Deflater::default();
    assert_eq!(deflater.deflate(message, size - 1), None);
    assert!(deflater.deflate(message, size).is_some());
    assert_eq!(deflater.deflate(message, 0), None);
    assert_eq!(deflater.deflate(b"Hello", 5), None);
}

/// Output that did not fit is discarded: it takes no capacity from later messages and does not
/// change them.
// K6
#[test]
fn failed_compression_leaves_no_state() {
    let noise = &messages()[4];
    let mut deflater = Deflater::default();
    for n in 0..300 {
        let message = &noise[n..][..256 + 13 * n];
        let limit = message.len() / 10 * 9;
        assert_eq!(deflater.deflate(message, limit), None, "{n}");
        if n % 20 == 0 {
            let text = &messages()[2];
            let data = deflater.deflate(text, LIMIT).unwrap();
            assert_eq!(inflate(data, LIMIT).as_ref(), Ok(text));
            assert_eq!(data, Deflater::default().deflate(text, LIMIT).unwrap());
        }
    }
}
