//! The cost of messages, in the units of [`Cx::charge`](crate::net::Cx::charge): about a nanosecond
//! each.
//!
//! Owns: one constant for each kind of work. The engine charges for its own work: bytes read and
//! decompressed, messages, and output. The constants are rounded up from the time measured for the
//! worst inputs; no input took more than twice its charge.

/// A byte of a message. JSON is parsed in several passes, one for each level of a filter, and more
/// if keys contain escapes. A typical message takes a fifth of this.
pub(super) const MESSAGE_BYTE: u64 = 10;
/// A clause of a filter, whose members are compared with the known keys.
pub(super) const CLAUSE: u64 = 200;
/// A value of a filter, without its bytes.
pub(super) const VALUE: u64 = 300;
/// A byte of a value: unescaping, normalization of a URI, and two hashes.
pub(super) const VALUE_BYTE: u64 = 5;
/// A parameter in the query of a URI, which is decoded and sorted.
pub(super) const PARAMETER: u64 = 150;
/// A term: its hashes, its insertion into the index, and its later removal.
pub(super) const TERM: u64 = 400;
/// A byte of a filter's interpretation in a reply.
pub(super) const ECHO_BYTE: u64 = 10;
/// An entry of the history that is compared with a filter with wildcards.
pub(super) const SCANNED_ENTRY: u64 = 200;
/// A lookup of a connection's identity.
pub(super) const LOOKUP: u64 = 200;
/// A token: a request to the backend and its answer, the user's memberships, and the token's
/// deadline.
pub(super) const LOGIN: u64 = 20_000;
/// A cursor: its look-up in the history, and the start of a replay.
pub(super) const RESUME: u64 = 5_000;
/// A connection that is examined to find the open connection of a client.
pub(super) const LIVE_CLIENT: u64 = 200;
/// A connection with cursors that is examined to find the mark of another one.
pub(super) const LISTED_MARK: u64 = 2;
