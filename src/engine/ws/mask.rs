//! Masking (RFC 6455 §5.3).

/// Masks or unmasks `data` in place. `offset` is the position of `data` within the payload of its
/// frame.
///
/// §5.3: "Octet i of the transformed data … is the XOR of octet i of the original data … with
/// octet at index i modulo 4 of the masking key".
pub fn apply_mask(data: &mut [u8], mut key: [u8; 4], offset: usize) {
    key.rotate_left(offset % 4);
    // Eight bytes at a time: the compiler vectorizes this loop.
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, rest) = data.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    let (chunks, rest) = rest.as_chunks_mut::<4>();
    for chunk in chunks {
        *chunk = (u32::from_ne_bytes(*chunk) ^ u32::from_ne_bytes(key)).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masking_matches_the_rfc_at_any_length_and_offset() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        for offset in 0..9 {
            for len in 0..40 {
                let plain: Vec<u8> = (0..len).map(|i: u8| i.wrapping_mul(7)).collect();
                let mut got = plain.clone();
                apply_mask(&mut got, key, offset);
                for (at, byte) in plain.iter().enumerate() {
                    assert_eq!(got[at], byte ^ key[(offset + at) % 4], "{offset} {len}");
                }
            }
        }
    }
}
