//! Masking (RFC 6455 §5.3).

/// Masks or unmasks `data` in place. `offset` is the position of `data` within the payload of its
/// frame.
///
/// §5.3: "Octet i of the transformed data … is the XOR of octet i of the original data … with
/// octet at index i modulo 4 of the masking key".
pub fn apply_mask(data: &mut [u8], key: [u8; 4], offset: usize) {
    let key = u32::from_le_bytes(key).rotate_right(8 * (offset % 4) as u32);
    // Eight bytes at a time: the compiler vectorizes this loop.
    let wide = u64::from(key) | u64::from(key) << 32;
    let (chunks, rest) = data.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_le_bytes(*chunk) ^ wide).to_le_bytes();
    }
    let (chunks, rest) = rest.as_chunks_mut::<4>();
    for chunk in chunks {
        *chunk = (u32::from_le_bytes(*chunk) ^ key).to_le_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.to_le_bytes()) {
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
            for len in (0..40).chain([127, 128, 129, 143, 200]) {
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
