//! Echoes every message, with the limits that conformance suites and load tests need.
//!
//! ```text
//! cargo run --release --example conformance -- 127.0.0.1:9001 [--tls-cert FILE --tls-key FILE]
//! ```

use std::error::Error;
use std::path::PathBuf;

use clap::Parser;
use h_realtime_engine::http::{Request, Response, check_upgrade};
use h_realtime_engine::tls::TlsConfig;
use h_realtime_engine::{
    Address, Config, ConnCx, Frame, Handler, Listener, Message, Reactor, RequestCx, Verdict,
    most_connections, raise_open_files,
};

struct Echo;

impl Handler for Echo {
    type Session = ();
    type Command = ();

    fn on_request(&mut self, _: &mut RequestCx<'_, ()>, request: &Request<'_>) -> Verdict<()> {
        match check_upgrade(request) {
            Ok(upgrade) => Verdict::Upgrade(upgrade, ()),
            Err(refused) => {
                Verdict::Respond(Response::new(400, "text/plain", refused.0.as_bytes()))
            }
        }
    }

    fn on_message(&mut self, cx: &mut ConnCx<'_, ()>, message: Message<'_>) {
        let key = cx.key();
        // Replies leave in one write, but never compressed; a frame is compressed where it is
        // long and the client has agreed.
        match message {
            Message::Text(text) if text.len() >= LONG => cx.send(key, Frame::text(text)),
            Message::Binary(data) if data.len() >= LONG => cx.send(key, Frame::binary(data)),
            short => cx.reply(short),
        }
    }
}

/// Bytes from which on a message may be worth compressing.
const LONG: usize = 256;

#[derive(Parser)]
struct Args {
    /// Where to listen.
    #[arg(default_value = "127.0.0.1:9001")]
    address: std::net::SocketAddr,
    /// A PEM file with the certificate chain: serves wss:// instead of ws://.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// A PEM file with its private key.
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let tls = match (args.tls_cert, args.tls_key) {
        (Some(cert), Some(key)) => Some(TlsConfig::from_pem_files(&cert, &key)?),
        _ => None,
    };
    // Conformance suites send messages of 16 MiB and want them back.
    let config = Config::default()
        .max_connections(most_connections(raise_open_files()))
        .max_message(64 << 20)
        .max_fragments(u32::MAX)
        .queue_soft(64 << 20)
        .queue_hard(128 << 20)
        .queue_total(1 << 30);
    let listener = Listener::open(&Address::Tcp(args.address), tls)?;
    println!("listening on {}", listener.address()?);
    let mut reactor = Reactor::new(config, Echo)?;
    reactor.listen(listener)?;
    reactor.run()?;
    Ok(())
}
