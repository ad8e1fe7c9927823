//! The log of clients: the records from which the remembered clients are restored after a restart or
//! a crash.
//!
//! Owns: the format of the log, and the meaning of its records. Must not know: files, or when records
//! are written, which is in `clients`.
//!
//! A log is a header followed by records of [`RECORD`] bytes, each with a checksum. Decoding stops
//! at the first invalid record, because every prefix of a log is safe: a client that resumes from
//! it receives some events again, but misses none. Records must therefore never be omitted between
//! others.
//!
//! Clients are stored as keyed digests. The key is part of the header, and so is the digest of a
//! fixed text, which reveals a change of the hash function.

use std::fmt;

use super::digest::{Digest, Digester};
use super::history::Cursor;
use super::remembered::Remembered;

/// A change of the state of clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Record {
    /// A client has connected, and has received everything up to this position.
    Connected(Digest, Cursor),
    /// A client has disconnected, and has received everything up to this position.
    Closed(Digest, Cursor),
    /// Every client that is connected now, by the preceding records, has received everything up to
    /// this position.
    Alive(Cursor),
}

/// The contents of a log.
#[derive(Debug, Default)]
pub struct Loaded {
    /// The key of the digests. `None` if the log is empty or unusable.
    pub seed: Option<[u64; 4]>,
    /// The clients with their positions, those with the oldest record first.
    pub clients: Vec<(Digest, Cursor)>,
    /// The reason why the log, or the end of it, was ignored.
    pub damage: Option<Damage>,
}

/// The reason why a log, or the end of it, is unusable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// The header is invalid.
    Header,
    /// The format has a different version.
    Version(u32),
    /// The digests were computed by a different hash function.
    HashFunction,
    /// The record at this offset is incomplete or invalid.
    Record(u64),
}

/// Decodes a log that is read in pieces.
pub struct Decoder {
    /// Input that does not complete a unit.
    pending: Vec<u8>,
    /// The offset of the next unit.
    offset: u64,
    loaded: Loaded,
    /// The clients by their last record, each with the number of the record if it is connected, and
    /// [`DISCONNECTED`] otherwise.
    clients: Remembered,
    /// The numbers and positions of [`Record::Alive`], except those after which there is a later
    /// position.
    alive: Vec<(u32, Cursor)>,
    /// The number of the next record. All records from the 2^32nd on have the same number: clients that
    /// connect then have the position of that time.
    number: u32,
}

/// Appends the header of a log.
pub fn start(seed: [u64; 4], out: &mut Vec<u8>) {
    let check = check_value(seed).to_words();
    let words = [seed[0], seed[1], seed[2], seed[3], check[0], check[1]];
    out.extend(MAGIC);
    out.extend(VERSION.to_le_bytes());
    out.extend(checksum(&words).to_le_bytes());
    words.iter().for_each(|word| out.extend(word.to_le_bytes()));
}

/// Returns the shortest log of clients that are disconnected.
pub fn encode(seed: [u64; 4], clients: impl ExactSizeIterator<Item = (Digest, Cursor)>) -> Vec<u8> {
    let mut log = Vec::with_capacity(HEADER + clients.len() * RECORD);
    start(seed, &mut log);
    clients.for_each(|(client, received)| Record::Closed(client, received).encode(&mut log));
    log
}

impl Record {
    /// Appends the record to a log.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, client, received) = match *self {
            Record::Connected(client, received) => (CONNECTED, client, received),
            Record::Closed(client, received) => (CLOSED, client, received),
            Record::Alive(received) => (ALIVE, Digest::default(), received),
        };
        let [low, high] = client.to_words();
        let Cursor {
            epoch,
            position,
            time,
        } = received;
        let words = [u64::from(kind), low, high, epoch, position, time];
        out.extend(kind.to_le_bytes());
        out.extend(checksum(&words).to_le_bytes());
        let words = words.iter().skip(1);
        words.for_each(|word| out.extend(word.to_le_bytes()));
    }

    /// Decodes a record of [`RECORD`] bytes.
    fn decode(bytes: &[u8]) -> Option<Record> {
        let (first, rest) = bytes.split_at_checked(8)?;
        let (kind, sum) = halves(first)?;
        let [low, high, epoch, position, time] = words(rest)?;
        let received = Cursor {
            epoch,
            position,
            time,
        };
        let words = [u64::from(kind), low, high, epoch, position, time];
        let client = Digest::from_words([low, high]);
        match kind {
            _ if sum != checksum(&words) => None,
            CONNECTED => Some(Record::Connected(client, received)),
            CLOSED => Some(Record::Closed(client, received)),
            ALIVE if client == Digest::default() => Some(Record::Alive(received)),
            _ => None,
        }
    }
}

/// Decodes a log, and keeps the `limit` clients with the newest records.
pub fn decode(log: &[u8], limit: usize) -> Loaded {
    let mut decoder = Decoder::new(limit);
    decoder.feed(log);
    decoder.finish()
}

impl Decoder {
    /// Creates a decoder that keeps the `limit` clients with the newest records.
    pub fn new(limit: usize) -> Self {
        Decoder {
            pending: Vec::new(),
            offset: 0,
            loaded: Loaded::default(),
            clients: Remembered::new(limit),
            alive: Vec::new(),
            number: 0,
        }
    }

    /// Decodes the next bytes of the log.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while self.loaded.damage.is_none() {
            let missing = self.unit().saturating_sub(self.pending.len());
            let Some((head, rest)) = bytes.split_at_checked(missing) else {
                self.pending.extend(bytes);
                return;
            };
            bytes = rest;
            if self.pending.is_empty() {
                self.apply_unit(head);
            } else {
                let mut unit = std::mem::take(&mut self.pending);
                unit.extend(head);
                self.apply_unit(&unit);
            }
        }
    }

    /// Returns the contents of the log.
    pub fn finish(mut self) -> Loaded {
        if !self.pending.is_empty() && self.loaded.damage.is_none() {
            let is_header = self.loaded.seed.is_none();
            self.loaded.damage = Some(match is_header {
                true => Damage::Header,
                false => Damage::Record(self.offset),
            });
        }
        let clients = self.clients.iter_with();
        let clients = clients.map(|(client, at, since)| (client, self.current(at, since)));
        let clients = clients.collect();
        Loaded {
            clients,
            ..self.loaded
        }
    }

    /// Returns the key of the digests, if the header has been decoded.
    pub fn seed(&self) -> Option<[u64; 4]> {
        self.loaded.seed
    }

    /// Returns the position of a client by the records so far.
    pub fn position(&self, client: Digest) -> Option<Cursor> {
        let (received, since) = self.clients.get_with(client)?;
        Some(self.current(received, since))
    }

    /// Returns the allocated bytes.
    pub fn bytes(&self) -> usize {
        self.clients.bytes() + self.alive.capacity() * size_of::<(u32, Cursor)>()
    }

    /// Returns the position of a client whose last record has this position and this number.
    fn current(&self, received: Cursor, since: u32) -> Cursor {
        let later = self.alive.iter().find(|(number, _)| *number > since);
        let later = later.filter(|_| since != DISCONNECTED);
        later.map_or(received, |(_, alive)| received.or_later(*alive))
    }

    /// Returns the size of the next unit: the header, or a record.
    fn unit(&self) -> usize {
        match self.loaded.seed {
            None => HEADER,
            Some(_) => RECORD,
        }
    }

    fn apply_unit(&mut self, unit: &[u8]) {
        if self.loaded.seed.is_none() {
            match decode_header(unit) {
                Ok(seed) => self.loaded.seed = Some(seed),
                Err(damage) => self.loaded.damage = Some(damage),
            }
        } else {
            match Record::decode(unit) {
                Some(record) => self.apply(record),
                None => self.loaded.damage = Some(Damage::Record(self.offset)),
            }
        }
        self.offset += unit.len() as u64;
    }

    fn apply(&mut self, record: Record) {
        self.number = self.number.saturating_add(1);
        match record {
            Record::Connected(client, received) => {
                self.clients.insert_with(client, received, self.number);
            }
            Record::Closed(client, received) => {
                self.clients.insert_with(client, received, DISCONNECTED);
            }
            Record::Alive(received) => {
                let is_earlier = |(_, alive): &(u32, Cursor)| !alive.is_later_than(&received);
                while self.alive.last().is_some_and(is_earlier) {
                    self.alive.pop();
                }
                self.alive.push((self.number, received));
            }
        }
    }
}

fn decode_header(bytes: &[u8]) -> Result<[u64; 4], Damage> {
    let bytes = bytes.strip_prefix(&MAGIC).ok_or(Damage::Header)?;
    let (first, rest) = bytes.split_at_checked(8).ok_or(Damage::Header)?;
    let (version, sum) = halves(first).ok_or(Damage::Header)?;
    let [a, b, c, d, low, high] = words(rest).ok_or(Damage::Header)?;
    let seed = [a, b, c, d];
    if version != VERSION {
        Err(Damage::Version(version))
    } else if sum != checksum(&[a, b, c, d, low, high]) {
        Err(Damage::Header)
    } else if check_value(seed) != Digest::from_words([low, high]) {
        Err(Damage::HashFunction)
    } else {
        Ok(seed)
    }
}

/// Returns the digest of a fixed text.
fn check_value(seed: [u64; 4]) -> Digest {
    Digester::new(seed).client_id(CHECK_TEXT)
}

/// Returns the two numbers in a word.
fn halves(bytes: &[u8]) -> Option<(u32, u32)> {
    let (low, high) = bytes.split_first_chunk()?;
    let high = high.first_chunk()?;
    Some((u32::from_le_bytes(*low), u32::from_le_bytes(*high)))
}

/// Returns the words of which the bytes consist.
fn words<const N: usize>(bytes: &[u8]) -> Option<[u64; N]> {
    let (chunks, rest) = bytes.as_chunks();
    let chunks: &[[u8; 8]; N] = chunks.try_into().ok()?;
    rest.is_empty().then(|| chunks.map(u64::from_le_bytes))
}

/// Returns a checksum that detects random damage. It must not change, unlike the hash function of
/// the digests.
fn checksum(words: &[u64]) -> u32 {
    let mix = |sum: u64, word: &u64| {
        let product = (sum ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        product ^ (product >> 32)
    };
    let sum = words.iter().fold(0x5bd1_e995, mix);
    (sum >> 16) as u32
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Damage::Header => f.write_str("the header is invalid"),
            Damage::Version(version) => {
                write!(f, "the format has version {version} instead of {VERSION}")
            }
            Damage::HashFunction => f.write_str("the digests are of a different hash function"),
            Damage::Record(offset) => write!(f, "invalid from byte {offset}"),
        }
    }
}

/// The first bytes of a log.
const MAGIC: [u8; 8] = *b"hrt-clnt";
/// The version of the format.
const VERSION: u32 = 1;
/// The text with the digest in the header.
const CHECK_TEXT: &str = "h-realtime";
/// The size of the header: the magic number, the version, the checksum, and six words.
pub const HEADER: usize = 64;
/// The size of a record: the kind, the checksum, and five words.
pub const RECORD: usize = 48;
const CONNECTED: u32 = 1;
const CLOSED: u32 = 2;
const ALIVE: u32 = 3;
/// The number of no record: that of the first is 1.
const DISCONNECTED: u32 = 0;

#[cfg(test)]
mod tests;
