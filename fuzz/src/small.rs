//! Masking and UTF-8 validation, compared with their definitions.

use h_realtime_engine::ws::{Utf8, apply_mask};

/// Input: the four bytes of the mask, an offset, a position to split at, and data. The result
/// equals masking byte by byte (RFC 6455 §5.3), at once or in two pieces, and masking again
/// restores the data.
pub fn mask(input: &[u8]) {
    let &[a, b, c, d, offset, cut, ref plain @ ..] = input else {
        return;
    };
    let (key, offset) = ([a, b, c, d], usize::from(offset));
    let expected: Vec<u8> = (plain.iter().enumerate())
        .map(|(at, byte)| byte ^ key[(offset + at) % 4])
        .collect();
    let mut whole = plain.to_vec();
    apply_mask(&mut whole, key, offset);
    assert_eq!(whole, expected, "at once");

    let cut = usize::from(cut).min(plain.len());
    let mut pieces = plain.to_vec();
    let (first, second) = pieces.split_at_mut(cut);
    apply_mask(first, key, offset);
    apply_mask(second, key, offset + cut);
    assert_eq!(pieces, expected, "in two pieces");

    apply_mask(&mut whole, key, offset);
    assert_eq!(whole, plain, "twice");
}

/// Input: sizes of pieces, then a text. Incremental validation agrees with `std` on the whole, and
/// fails in the piece with the first byte that makes the text invalid.
pub fn utf8(input: &[u8]) {
    let &[sizes, ref text @ ..] = input else {
        return;
    };
    let sizes = [usize::from(sizes & 15) + 1, usize::from(sizes >> 4) + 1];
    let certain = first_invalid(text);
    let mut checker = Utf8::default();
    let mut fed = 0;
    for size in sizes.into_iter().cycle() {
        let end = text.len().min(fed + size);
        let failed = checker.feed(&text[fed..end]).is_err();
        fed = end;
        assert_eq!(failed, certain.is_some_and(|at| at <= fed), "{fed}");
        if failed {
            return;
        }
        if fed == text.len() {
            break;
        }
    }
    let is_whole = std::str::from_utf8(text).is_ok();
    assert_eq!(checker.is_complete(), is_whole, "at the end");
}

/// Returns the number of bytes after which the text is certainly invalid.
fn first_invalid(text: &[u8]) -> Option<usize> {
    let start = std::str::from_utf8(text).err()?.valid_up_to();
    (start + 1..=text.len()).find(|&end| {
        let error = std::str::from_utf8(&text[start..end]).err();
        error.is_some_and(|error| error.error_len().is_some())
    })
}
