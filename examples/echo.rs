//! Echoes every message: the smallest use of the engine.
//!
//! ```text
//! cargo run --example echo
//! ```

use std::error::Error;

use h_realtime_engine::http::{Request, Response, check_upgrade};
use h_realtime_engine::{
    Address, Config, ConnCx, Handler, Listener, Message, Reactor, RequestCx, Verdict,
};

struct Echo;

impl Handler for Echo {
    type Session = ();
    type Command = ();

    fn on_request(&mut self, _: &mut RequestCx<'_, ()>, request: &Request<'_>) -> Verdict {
        match check_upgrade(request) {
            Ok(upgrade) => Verdict::Upgrade(upgrade, ()),
            Err(refused) => {
                Verdict::Respond(Response::new(400, "text/plain", refused.0.as_bytes()))
            }
        }
    }

    fn on_message(&mut self, cx: &mut ConnCx<'_, ()>, message: Message<'_>) {
        cx.reply(message);
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let listener = Listener::open(&Address::Tcp("127.0.0.1:9001".parse()?), None)?;
    println!("listening on {}", listener.address()?);
    let mut reactor = Reactor::new(Config::default(), Echo)?;
    reactor.listen(listener)?;
    Ok(reactor.run()?)
}
