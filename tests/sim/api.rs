//! The whole Real Time API as the engine's handler, with nobody behind it: all clients are
//! anonymous, and events come as commands.

use h_realtime::http::Request;
use h_realtime::model::{Ask, Asks, Busy, MonoMillis, Plan};
use h_realtime::net::{ConnKey, Cx, Handler, ListenerId, Message, Verdict};
use h_realtime::realtime::{Realtime, Session, Settings};

/// The API, with hashes of a fixed key.
pub struct Api(Realtime);

/// What happens besides what sockets bring.
pub enum Command {
    /// An event.
    Event(Plan),
    /// A client's message, as if its frame had been decoded just now.
    Said(ConnKey, &'static str),
}

impl Api {
    pub fn new(settings: Settings) -> Self {
        Api(Realtime::new(Box::new(Nobody), settings, [1, 2, 3, 4]))
    }
}

impl Handler for Api {
    type Session = Session;
    type Command = Command;

    fn on_request(
        &mut self,
        cx: &mut Cx<'_, Session>,
        key: ConnKey,
        _: ListenerId,
        request: &Request<'_>,
    ) -> Verdict {
        self.0.on_request(cx, key, request)
    }

    fn on_open(&mut self, cx: &mut Cx<'_, Session>, key: ConnKey) {
        self.0.on_open(cx, key);
    }

    fn on_message(&mut self, cx: &mut Cx<'_, Session>, key: ConnKey, message: Message<'_>) {
        self.0.on_message(cx, key, message);
    }

    fn on_close(&mut self, cx: &mut Cx<'_, Session>, key: ConnKey, session: Session) {
        self.0.on_close(cx, key, session);
    }

    fn on_command(&mut self, cx: &mut Cx<'_, Session>, command: Command) {
        match command {
            Command::Event(plan) => {
                let now = MonoMillis(cx.now().mono);
                self.0.deliver(cx, &[plan], now);
            }
            Command::Said(key, text) => self.0.on_message(cx, key, Message::Text(text)),
        }
    }

    fn on_tick(&mut self, cx: &mut Cx<'_, Session>) {
        self.0.on_tick(cx);
    }
}

/// A back end that nobody needs: all clients are anonymous.
struct Nobody;

impl Asks for Nobody {
    fn ask(&self, _: Ask) -> Result<(), Busy> {
        Err(Busy)
    }
}
