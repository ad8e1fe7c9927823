//! Unit tests of handlers: a context without an engine, which records the effects of calls.
//!
//! ```
//! use h_realtime_engine::testing::{Effect, Recorder};
//! use h_realtime_engine::ws::CloseCode;
//! use h_realtime_engine::{ConnKey, Now, Sessions};
//!
//! struct NoSessions;
//!
//! impl Sessions<()> for NoSessions {
//!     fn session(&mut self, _: ConnKey) -> Option<&mut ()> {
//!         None
//!     }
//! }
//!
//! let mut recorder = Recorder::default();
//! let key = ConnKey::new(0, 1);
//! let mut sessions = NoSessions;
//! recorder.cx(Now::default(), &mut sessions).close(key, CloseCode::NORMAL, "bye");
//! assert!(matches!(recorder.take_effects()[..], [Effect::Close(..)]));
//! ```

use std::mem;

use crate::counters::Counters;
pub use crate::cx::Effect;
use crate::cx::{CloseInfo, ConnCx, Cx, Outbox, RequestCx, Sessions};
use crate::{ConnKey, ListenerId, Now};

/// Records the effects of handler calls instead of applying them.
#[derive(Default)]
pub struct Recorder {
    outbox: Outbox,
    /// The counters that [`Cx::counters`] returns.
    pub counters: Counters,
}

impl Recorder {
    /// Returns a context for one call of a handler.
    pub fn cx<'a, C>(&'a mut self, now: Now, sessions: &'a mut dyn Sessions<C>) -> Cx<'a, C> {
        self.outbox.backlog = 0;
        self.outbox.serving = None;
        self.outbox.serves_stream = false;
        Cx::new(now, sessions, &mut self.outbox, &self.counters)
    }

    /// Returns a context for one call about the open connection `key`.
    pub fn conn_cx<'a, C>(
        &'a mut self,
        now: Now,
        sessions: &'a mut dyn Sessions<C>,
        key: ConnKey,
    ) -> ConnCx<'a, C> {
        let cx = self.cx(now, sessions);
        cx.outbox.serving = Some(key);
        ConnCx { cx, key }
    }

    /// Returns a context for one call about the open event stream `key`.
    pub fn stream_cx<'a, C>(
        &'a mut self,
        now: Now,
        sessions: &'a mut dyn Sessions<C>,
        key: ConnKey,
    ) -> ConnCx<'a, C> {
        let mut cx = self.conn_cx(now, sessions, key);
        cx.outbox.serves_stream = true;
        cx
    }

    /// Returns a context for one call about a request.
    pub fn request_cx<'a, C>(
        &'a mut self,
        now: Now,
        sessions: &'a mut dyn Sessions<C>,
        key: ConnKey,
        listener: ListenerId,
    ) -> RequestCx<'a, C> {
        let cx = self.cx(now, sessions);
        RequestCx { cx, key, listener }
    }

    /// Sets the result of [`Cx::close_info`] for the next calls: a connection that was lost, with the
    /// last sign of life at this time.
    pub fn set_lost(&mut self, last_received: u64) {
        self.outbox.close_info = Some(CloseInfo {
            code: 1006,
            cause: "lost",
            reason: "".into(),
            last_received,
        });
    }

    /// Returns the replies since the last call: concatenated WebSocket frames, or blocks.
    pub fn take_replies(&mut self) -> Vec<u8> {
        mem::take(&mut self.outbox.cork)
    }

    /// Returns the other effects since the last call, in order.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        mem::take(&mut self.outbox.effects)
    }

    /// Returns the work charged by [`Cx::charge`] since the last call, in its units.
    pub fn take_work(&mut self) -> u64 {
        mem::take(&mut self.outbox.work)
    }
}
