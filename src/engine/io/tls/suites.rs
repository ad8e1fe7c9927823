//! TLS 1.3 cipher suites whose keys take little memory while a connection is idle.
//!
//! Owns: the key storage of connections. A key expanded by ring (AES round keys, GHASH table) takes
//! 560 bytes, and a connection has two for its lifetime. Here, the derived key is stored and
//! expanded for each record (0.2 µs for AES-GCM), a small part of the cost of a record's system
//! calls. All cryptography is ring's. Key changes, record layout, and sequence numbers remain with
//! the TLS library.

use ring::aead::{self, Aad, LessSafeKey, UnboundKey};
use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, MessageDecrypter, MessageEncrypter,
    Nonce, OutboundOpaqueMessage, OutboundPlainMessage, PrefixedPayload, Tls13AeadAlgorithm,
    UnsupportedOperationError, make_tls13_aad,
};
use rustls::crypto::ring::cipher_suite::{
    TLS13_AES_128_GCM_SHA256, TLS13_AES_256_GCM_SHA384, TLS13_CHACHA20_POLY1305_SHA256,
};
use rustls::crypto::{CipherSuiteCommon, CryptoProvider, ring as library};
use rustls::{
    ConnectionTrafficSecrets, ContentType, Error, ProtocolVersion, SupportedCipherSuite,
    Tls13CipherSuite,
};

/// Returns the library's default provider, with its TLS 1.3 suites replaced.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = library::default_provider();
    for suite in &mut provider.cipher_suites {
        let ours = SUITES
            .iter()
            .find(|ours| ours.common.suite == suite.suite());
        if let Some(ours) = ours {
            *suite = SupportedCipherSuite::Tls13(ours);
        }
    }
    provider
}

static SUITES: [Tls13CipherSuite; 3] = [
    suite(&TLS13_AES_256_GCM_SHA384, &Aead(&aead::AES_256_GCM)),
    suite(&TLS13_AES_128_GCM_SHA256, &Aead(&aead::AES_128_GCM)),
    suite(
        &TLS13_CHACHA20_POLY1305_SHA256,
        &Aead(&aead::CHACHA20_POLY1305),
    ),
];

/// Returns a suite of the library with another AEAD implementation.
const fn suite(of: &'static SupportedCipherSuite, aead_alg: &'static Aead) -> Tls13CipherSuite {
    let Some(suite) = of.tls13() else {
        panic!("a suite of TLS 1.3")
    };
    Tls13CipherSuite {
        common: CipherSuiteCommon {
            suite: suite.common.suite,
            hash_provider: suite.common.hash_provider,
            confidentiality_limit: suite.common.confidentiality_limit,
        },
        hkdf_provider: suite.hkdf_provider,
        aead_alg,
        quic: None,
    }
}

struct Aead(&'static aead::Algorithm);

impl Tls13AeadAlgorithm for Aead {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        let algorithm = self.0;
        Box::new(RecordKey { algorithm, key, iv })
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        let algorithm = self.0;
        Box::new(RecordKey { algorithm, key, iv })
    }

    fn key_len(&self) -> usize {
        self.0.key_len()
    }

    /// For kernel TLS and the like, which this server does not use.
    fn extract_keys(
        &self,
        _key: AeadKey,
        _iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        Err(UnsupportedOperationError)
    }
}

/// The traffic key and IV of one direction (RFC 8446 §7.3). The library zeroizes the key when it is
/// dropped.
struct RecordKey {
    algorithm: &'static aead::Algorithm,
    key: AeadKey,
    iv: Iv,
}

impl RecordKey {
    /// Returns the expanded key, and the nonce for a sequence number (§5.3).
    fn ready(&self, number: u64) -> Option<(LessSafeKey, aead::Nonce)> {
        let key = UnboundKey::new(self.algorithm, self.key.as_ref()).ok()?;
        let nonce = Nonce::new(&self.iv, number);
        let nonce = aead::Nonce::assume_unique_for_key(nonce.0);
        Some((LessSafeKey::new(key), nonce))
    }
}

impl MessageEncrypter for RecordKey {
    fn encrypt(
        &mut self,
        message: OutboundPlainMessage<'_>,
        number: u64,
    ) -> Result<OutboundOpaqueMessage, Error> {
        let (key, nonce) = self.ready(number).ok_or(Error::EncryptError)?;
        let size = self.encrypted_payload_len(message.payload.len());
        // §5.2: TLSInnerPlaintext is the content and its type; no padding is added.
        let mut payload = PrefixedPayload::with_capacity(size);
        payload.extend_from_chunks(&message.payload);
        payload.extend_from_slice(&[u8::from(message.typ)]);
        key.seal_in_place_append_tag(nonce, Aad::from(make_tls13_aad(size)), &mut payload)
            .map_err(|_| Error::EncryptError)?;
        // §5.2: "The outer opaque_type field of a TLSCiphertext record is always set to the
        // value 23 (application_data)"; "legacy_record_version … is always 0x0303."
        Ok(OutboundOpaqueMessage::new(
            ContentType::ApplicationData,
            ProtocolVersion::TLSv1_2,
            payload,
        ))
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        payload_len + TYPE_LEN + self.algorithm.tag_len()
    }
}

impl MessageDecrypter for RecordKey {
    fn decrypt<'a>(
        &mut self,
        mut message: InboundOpaqueMessage<'a>,
        number: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        let (key, nonce) = self.ready(number).ok_or(Error::DecryptError)?;
        let aad = Aad::from(make_tls13_aad(message.payload.len()));
        // §5.2: "If the decryption fails, the receiver MUST terminate the connection with a
        // "bad_record_mac" alert". A record too short for a tag is treated the same.
        let size = key
            .open_in_place(nonce, aad, &mut message.payload)
            .map_err(|_| Error::DecryptError)?
            .len();
        message.payload.truncate(size);
        message.into_tls13_unpadded_message()
    }
}

/// The content type after the content (§5.2).
const TYPE_LEN: usize = 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_suites_of_the_library_are_offered_in_its_order() {
        let suites = |provider: CryptoProvider| -> Vec<_> {
            let suites = provider.cipher_suites.iter();
            suites.map(SupportedCipherSuite::suite).collect()
        };
        assert_eq!(suites(provider()), suites(library::default_provider()));
    }

    // Otherwise, a suite added to the library would store large keys unnoticed.
    #[test]
    fn every_suite_of_tls_1_3_keeps_small_keys() {
        let suites = provider().cipher_suites;
        let newer: Vec<_> = suites
            .iter()
            .filter_map(SupportedCipherSuite::tls13)
            .collect();
        assert_eq!(newer.len(), SUITES.len());
        for suite in newer {
            let is_ours = SUITES.iter().any(|ours| std::ptr::eq(ours, suite));
            assert!(is_ours, "{:?}", suite.common.suite);
        }
        assert!(size_of::<RecordKey>() <= 64, "{}", size_of::<RecordKey>());
    }
}
