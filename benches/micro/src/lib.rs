//! What the parts of the server cost, without a network.
//!
//! The engine and the Real Time API are whole and as they run in the server; only the sockets and
//! the clock are not real. Everything is the same from run to run: the keys of the hashes, the
//! bytes, the time. So two runs of a program differ in nothing but what was built.
//!
//! | file | holds |
//! |---|---|
//! | `line` | a socket whose peer says what it is told to and counts what it gets |
//! | `api` | the API as the engine's handler; the tests' own |
//! | `stage` | the engine, its connections and the clock |
//! | `words` | what clients and back ends say |
//! | `timers` | the engine's timer wheel alone |
//! | `operations` | what instructions are counted of |

// As the tests have it.
#[path = "../../../tests/sim/api.rs"]
pub mod api;
pub mod line;
pub mod operations;
pub mod stage;
pub mod timers;
pub mod words;
