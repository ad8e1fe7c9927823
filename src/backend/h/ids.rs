//! The two forms of an annotation's id: the `uuid` of the database, and the text of the API.
//!
//! In the API, an id is the unpadded URL-safe base64 of its 16 bytes: 22 characters. Annotations
//! from h's first years have ids of 15 bytes, or 20 characters. To make a `uuid` of one, h inserts
//! two nibbles that no real UUID has in these places: the version `e` and the variant `5`.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

/// A `uuid` of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Uuid(pub [u8; 16]);

impl Uuid {
    /// Decodes an id of the API. As in h, the standard base64 alphabet is accepted as well, and
    /// excess bits of the last character are ignored, so that several texts denote the same id.
    pub(super) fn from_url_safe(text: &str) -> Option<Uuid> {
        let text = text.replace('+', "-").replace('/', "_");
        let bytes = LAX.decode(text).ok()?;
        if let Ok(bytes) = <[u8; 16]>::try_from(&*bytes) {
            return Some(Uuid(bytes));
        }
        let flake = <[u8; 15]>::try_from(&*bytes).ok()?;
        let mut nibbles = flake.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let mut uuid = [0; 32];
        for (place, nibble) in uuid.iter_mut().enumerate() {
            *nibble = match place {
                VERSION => FLAKE_VERSION,
                VARIANT => FLAKE_VARIANT,
                _ => nibbles.next()?,
            };
        }
        Some(Uuid(std::array::from_fn(|at| {
            uuid[2 * at] << 4 | uuid[2 * at + 1]
        })))
    }

    /// Encodes the id for the API.
    pub(super) fn to_url_safe(self) -> String {
        let nibbles = self.0.iter().flat_map(|byte| [byte >> 4, byte & 15]);
        let nibbles: Vec<u8> = nibbles.collect();
        if (nibbles[VERSION], nibbles[VARIANT]) != (FLAKE_VERSION, FLAKE_VARIANT) {
            return LAX.encode(self.0);
        }
        let flake: Vec<u8> = (0..32)
            .filter(|place| ![VERSION, VARIANT].contains(place))
            .map(|place| nibbles[place])
            .collect();
        let bytes: Vec<u8> = flake
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect();
        LAX.encode(bytes)
    }

    /// Returns the 32 hexadecimal digits, which PostgreSQL parses as a `uuid`.
    pub(super) fn to_hex(self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.0))
    }
}

const LAX: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_allow_trailing_bits(true)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The indices of nibbles in a UUID.
const VERSION: usize = 12;
const VARIANT: usize = 16;
const FLAKE_VERSION: u8 = 0xe;
const FLAKE_VARIANT: u8 = 0x5;

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const TO_HEX: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/vectors/id_to_hex.json"
    ));
    const FROM_HEX: &str = include_str!(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/vectors/hex_to_id.json"
    ));

    fn uuid(hex: &str) -> Uuid {
        let hex = hex.replace('-', "");
        Uuid(u128::from_str_radix(&hex, 16).unwrap().to_be_bytes())
    }

    #[test]
    fn reads_ids_as_h_does() {
        let vectors: Vec<Value> = serde_json::from_str(TO_HEX).unwrap();
        assert_eq!(vectors.len(), 22);
        // Values other than strings are rejected earlier.
        for vector in vectors.iter().filter(|vector| vector["in"].is_string()) {
            let read = Uuid::from_url_safe(vector["in"].as_str().unwrap());
            let expected = vector.get("ok").and_then(Value::as_str);
            assert_eq!(read.map(Uuid::to_hex).as_deref(), expected, "{vector}");
        }
    }

    #[test]
    fn writes_ids_as_h_does() {
        let vectors: Vec<Value> = serde_json::from_str(FROM_HEX).unwrap();
        assert_eq!(vectors.len(), 6);
        for vector in vectors {
            let uuid = uuid(vector["in"].as_str().unwrap());
            let text = uuid.to_url_safe();
            assert_eq!(text, vector["ok"], "{vector}");
            assert_eq!(Uuid::from_url_safe(&text), Some(uuid));
        }
    }
}
