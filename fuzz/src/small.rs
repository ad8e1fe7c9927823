//! Masking and UTF-8, held against their definitions.

use h_realtime_engine::ws::{Utf8, apply_mask};

/// The mask's four bytes, an offset, a place to cut at, and data: the same as byte by byte
/// (RFC 6455 §5.3), at once or in two pieces, and undone by itself.
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

/// Sizes of pieces, and a text: incremental checking says what `std` says of the whole, and
/// fails with the piece that has the first byte after which nothing could make it right.
pub fn utf8(input: &[u8]) {
    let &[sizes, ref text @ ..] = input else {
        return;
    };
    let sizes = [usize::from(sizes & 15) + 1, usize::from(sizes >> 4) + 1];
    let certain = certainly_wrong_after(text);
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

/// After how many bytes it is certain that the text is wrong.
fn certainly_wrong_after(text: &[u8]) -> Option<usize> {
    let start = std::str::from_utf8(text).err()?.valid_up_to();
    (start + 1..=text.len()).find(|&end| {
        let error = std::str::from_utf8(&text[start..end]).err();
        error.is_some_and(|error| error.error_len().is_some())
    })
}
