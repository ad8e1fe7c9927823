//! 128-bit keyed hashes of values.
//!
//! A filter's values are only compared, so the index stores no strings: 16 bytes replace a URI of
//! sixty. A digest consists of two hashes with independent random seeds, so clients cannot
//! construct collisions. After a collision, a connection would be a candidate for an event that it
//! did not subscribe to, and the rules of the audience, which compare strings, would still decide.

use std::hash::{BuildHasher, Hasher};

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

use crate::model::Field;
use crate::uri::{self, split_key};

/// The digest of a text of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(u64, u64);

impl Digest {
    /// Returns one half of the digest, for a hash table.
    pub fn table_hash(self) -> u64 {
        self.0
    }

    /// Returns the digest of a client together with its user, or without one. For one client, the
    /// digests of different users differ, and vice versa.
    #[must_use]
    pub fn of_client(client: Digest, user: Option<Digest>) -> Digest {
        let user = user.unwrap_or_default();
        let mix = |client: u64, user: u64| client.rotate_left(32) ^ user;
        Digest(mix(client.0, user.0), mix(client.1, user.1))
    }

    /// Returns the two halves, for storage.
    pub fn to_words(self) -> [u64; 2] {
        [self.0, self.1]
    }

    /// Returns the digest with these halves.
    pub fn from_words([low, high]: [u64; 2]) -> Self {
        Digest(low, high)
    }
}

/// A hasher for maps by digest, which uses a half of the digest as it is: digests are keyed hashes
/// already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct DigestHasher {
    hash: u64,
}

impl Hasher for DigestHasher {
    fn finish(&self) -> u64 {
        self.hash
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.hash = self.hash.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, half: u64) {
        self.hash ^= half;
    }
}

impl BuildHasher for DigestHasher {
    type Hasher = DigestHasher;

    fn build_hasher(&self) -> DigestHasher {
        DigestHasher::default()
    }
}

/// Computes [`Digest`]s.
pub struct Digester {
    shared: [SharedSeed; 2],
    seeds: [u64; 2],
}

impl Digester {
    /// Creates a digester. `seed` should be random.
    pub fn new(seed: [u64; 4]) -> Self {
        let [a, b, c, d] = seed;
        Digester {
            shared: [SharedSeed::from_u64(a), SharedSeed::from_u64(b)],
            seeds: [c, d],
        }
    }

    /// Returns the digest of a field's value.
    #[inline]
    pub fn term(&self, field: Field, value: &str) -> Digest {
        let tag = match field {
            Field::Id => Tag::Id,
            Field::Group => Tag::Group,
            Field::Uri => {
                let (page, version) = split_key(value);
                return self.page(page).version(version);
            }
            Field::References => Tag::References,
            Field::User => Tag::User,
            Field::Tags => Tag::Tags,
        };
        self.digest(tag, value)
    }

    /// Hashes a page's address once for the scope keys of all its versions.
    pub fn page(&self, page: &str) -> PageDigest<'_> {
        PageDigest(self.hash(Tag::Uri, page))
    }

    /// Calls `visit` with the digest of each [prefix](uri::prefixes) of a page's address, and its
    /// end. Every byte is hashed once.
    #[inline(never)]
    pub fn prefixes(&self, address: &str, mut visit: impl FnMut(usize, Digest)) {
        let mut hashers = self.hash(Tag::Prefix, "");
        let mut start = 0;
        for end in uri::prefixes(address) {
            let part = &address.as_bytes()[start..end];
            hashers.iter_mut().for_each(|hasher| hasher.write(part));
            visit(end, finish(hashers.clone()));
            start = end;
        }
    }

    /// Returns the digest of the prefix that a pattern is found by.
    pub fn anchor(&self, pattern: &uri::Pattern) -> Digest {
        let (anchor, mut last) = (pattern.anchor(), Digest::default());
        self.prefixes(anchor, |_, digest| last = digest);
        last
    }

    /// Returns the digest of a client id.
    pub fn client_id(&self, value: &str) -> Digest {
        self.digest(Tag::ClientId, value)
    }

    /// Returns the digest of a userid.
    pub fn userid(&self, value: &str) -> Digest {
        self.digest(Tag::Userid, value)
    }

    /// Returns a pseudorandom number that depends only on `number`.
    pub fn pseudorandom(&self, number: u64) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seeds[0], &self.shared[0]);
        hasher.write_u64(number);
        hasher.finish()
    }

    #[inline]
    fn digest(&self, tag: Tag, value: &str) -> Digest {
        finish(self.hash(tag, value))
    }

    #[inline]
    fn hash(&self, tag: Tag, value: &str) -> [FoldHasher<'_>; 2] {
        let [shared_a, shared_b] = &self.shared;
        let [a, b] = self.seeds;
        [(a, shared_a), (b, shared_b)].map(|(seed, shared)| {
            let mut hasher = FoldHasher::with_seed(seed, shared);
            hasher.write_u8(tag as u8);
            hasher.write(value.as_bytes());
            hasher
        })
    }
}

/// The hash state after a page's address.
pub struct PageDigest<'a>([FoldHasher<'a>; 2]);

impl PageDigest<'_> {
    /// Returns the digest of the page's scope key for the version with this suffix. It equals
    /// [`Digester::term`] of the whole key, provided that the key is split at this position.
    pub fn version(&self, suffix: &str) -> Digest {
        finish(self.0.clone().map(|mut hasher| {
            if !suffix.is_empty() {
                hasher.write(suffix.as_bytes());
            }
            hasher
        }))
    }
}

fn finish([a, b]: [FoldHasher<'_>; 2]) -> Digest {
    Digest(a.finish(), b.finish())
}

/// The kind of a text. It is hashed with the text, so that equal texts of different kinds differ.
#[derive(Clone, Copy)]
enum Tag {
    Id,
    Group,
    Uri,
    References,
    ClientId,
    Userid,
    User,
    Tags,
    Prefix,
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn digest_of_client_depends_on_client_and_user() {
        let digester = Digester::new([1, 2, 3, 4]);
        let clients = ["", "a", "b"].map(|client| digester.client_id(client));
        let users = ["", "a", "b"].map(|user| Some(digester.userid(user)));
        let mut seen = HashSet::new();
        for client in clients {
            for user in users.into_iter().chain([None]) {
                let digest = Digest::of_client(client, user);
                assert!(seen.insert(digest));
                assert_eq!(Digest::from_words(digest.to_words()), digest);
            }
        }
    }

    #[test]
    fn version_of_a_hashed_page_has_the_digest_of_its_whole_key() {
        let digester = Digester::new([1, 2, 3, 4]);
        let long = format!("httpx://a/{}", "b".repeat(1000));
        for page in ["", "httpx://a", "httpx://a__", &long] {
            for version in ["", "__v2", "__v30", "__vall"] {
                let key = format!("{page}{version}");
                let digest = digester.page(page).version(version);
                assert_eq!(digest, digester.term(Field::Uri, &key), "{key}");
            }
        }
    }

    #[test]
    fn anchor_of_a_pattern_is_a_prefix_of_matching_addresses() {
        let digester = Digester::new([1, 2, 3, 4]);
        let address = "httpx://a.com/docs/b/c?d=1";
        let mut prefixes = Vec::new();
        digester.prefixes(address, |end, digest| {
            prefixes.push((&address[..end], digest))
        });
        let mut seen = HashSet::new();
        assert!(prefixes.iter().all(|(_, digest)| seen.insert(*digest)));
        for (pattern, anchor) in [
            ("http://a.com/*", "httpx://a.com"),
            ("http://a.com/docs/*", "httpx://a.com/docs"),
            ("http://a.com/docs/b/c?d=*", "httpx://a.com/docs/b/c"),
        ] {
            let pattern = uri::Pattern::parse(pattern).unwrap();
            let digest = digester.anchor(&pattern);
            assert!(prefixes.contains(&(anchor, digest)), "{pattern}");
        }
        let other = uri::Pattern::parse("http://a.com/doc/*").unwrap();
        assert!(!seen.contains(&digester.anchor(&other)));
    }

    // CVE-2026-39972, M9
    #[test]
    fn digests_differ_by_value_by_kind_and_by_seed() {
        let digester = Digester::new([1, 2, 3, 4]);
        let mut seen = HashSet::new();
        // Includes values that would collide if kind and value were concatenated as text.
        let joined = ["a:b", "b:c", "a:b:c", "ab", "\u{1}a", "\u{2}a", "1a"];
        let others = ["", "a", "b", "a\0", "\0a", &"a".repeat(100)];
        for value in others.into_iter().chain(joined) {
            for field in Field::ALL {
                assert!(seen.insert(digester.term(field, value)), "{value}");
            }
            assert!(seen.insert(digester.client_id(value)));
            assert!(seen.insert(digester.userid(value)));
        }
        let same = Digester::new([1, 2, 3, 4]);
        let Digest(low, high) = same.userid("a");
        assert!(seen.contains(&same.userid("a")));
        for seed in [[9, 2, 3, 4], [1, 9, 3, 4], [1, 2, 9, 4], [1, 2, 3, 9]] {
            let Digest(other_low, other_high) = Digester::new(seed).userid("a");
            assert_ne!((low, high), (other_low, other_high));
            assert!(
                low == other_low || high == other_high,
                "halves are independent"
            );
        }
    }
}
