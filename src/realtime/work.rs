//! The work that messages cause, in the units of [`Cx::charge`](crate::net::Cx::charge): about a
//! nanosecond each.
//!
//! Owns: one constant for each kind of work. The engine charges for its own work: bytes read
//! and decompressed, messages, and output. The constants are rounded up from the time that the
//! worst inputs took; no input took more than twice its charge.

/// A byte of a message: JSON is read in several passes, one for each level of a filter, and more
/// where keys are spelled with escapes. Usually it takes a fifth of this.
pub const MESSAGE_BYTE: u64 = 10;
/// A clause of a filter: its members are compared with the known keys.
pub const CLAUSE: u64 = 200;
/// A value of a filter, without its bytes.
pub const VALUE: u64 = 300;
/// A byte of a value: unescaping, the normal form of a URI, and two hashes.
pub const VALUE_BYTE: u64 = 5;
/// A parameter of a URI's query: parameters are decoded and sorted one by one.
pub const PARAMETER: u64 = 150;
/// A term: its hashes, its place in the index, and taking it out of there some day.
pub const TERM: u64 = 400;
/// Looking up the identity of a connection.
pub const LOOKUP: u64 = 200;
/// A token: a request to the back end and its answer, the user's memberships, and the deadline of
/// the token.
pub const LOGIN: u64 = 20_000;
