//! Incremental UTF-8 validation.

/// Validates text in pieces. Fails at the first byte that no continuation can make valid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Utf8 {
    /// The start of an incomplete character.
    pending: [u8; 4],
    len: u8,
}

/// The text is not valid UTF-8, regardless of later input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidUtf8;

impl Utf8 {
    /// Feeds the next piece.
    ///
    /// # Errors
    /// [`InvalidUtf8`] as early as possible.
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<(), InvalidUtf8> {
        while self.len > 0 {
            let Some((&byte, rest)) = piece.split_first() else {
                return Ok(());
            };
            piece = rest;
            self.pending[usize::from(self.len)] = byte;
            self.len += 1;
            match std::str::from_utf8(&self.pending[..usize::from(self.len)]) {
                Ok(_) => self.len = 0,
                Err(error) if error.error_len().is_none() => {}
                Err(_) => return Err(InvalidUtf8),
            }
        }
        let Err(error) = std::str::from_utf8(piece) else {
            return Ok(());
        };
        if error.error_len().is_some() {
            return Err(InvalidUtf8);
        }
        // `error_len` is `None` only for one to three bytes that start a character.
        let tail = &piece[error.valid_up_to()..];
        self.pending[..tail.len()].copy_from_slice(tail);
        self.len = tail.len() as u8;
        Ok(())
    }

    /// Returns whether the text may end here.
    pub fn is_complete(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` in pieces of `size`. Returns the number of bytes after which validation
    /// failed.
    fn fails_after(bytes: &[u8], size: usize) -> Option<usize> {
        let mut utf8 = Utf8::default();
        let mut fed = 0;
        for piece in bytes.chunks(size) {
            fed += piece.len();
            if utf8.feed(piece).is_err() {
                return Some(fed);
            }
        }
        (!utf8.is_complete()).then_some(fed + 1)
    }

    #[test]
    fn matches_std_at_any_split() {
        let texts: [&[u8]; 12] = [
            b"plain",
            "κόσμε".as_bytes(),
            "\u{10ffff}\u{800}\u{7ff}a".as_bytes(),
            b"\xce\xba\xe1\xbd",
            b"\xed\xa0\x80",
            b"\xf4\x90\x80\x80",
            b"\xc0\xaf",
            b"\xf0\x8f\xbf\xbf",
            b"a\x80",
            b"\xff",
            b"\xf0\x9f\x98",
            b"",
        ];
        for text in texts {
            let valid = std::str::from_utf8(text).is_ok();
            for size in 1..=5 {
                assert_eq!(fails_after(text, size).is_none(), valid, "{text:x?} {size}");
            }
        }
    }

    #[test]
    fn fails_at_the_earliest_byte() {
        assert_eq!(fails_after(b"\xf4\x90\x80\x80", 1), Some(2));
        assert_eq!(fails_after(b"\xed\xa0\x80", 1), Some(2));
        assert_eq!(fails_after(b"ab\xc0\xaf", 1), Some(3));
    }
}
