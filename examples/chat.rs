//! A chat server with rooms and nicknames: a tour of the engine.
//!
//! ```text
//! cargo run --release --example chat -- 127.0.0.1:9002 [--tls-cert FILE --tls-key FILE]
//! ```
//!
//! A client connects to `/ROOM?nick=NAME` with the subprotocol `chat.v1`. Each message is sent to the
//! room; lines on standard input are sent to all rooms; Ctrl-C shuts down gracefully.

use std::collections::HashMap;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use h_realtime_engine::http::{Request, Response, check_upgrade};
use h_realtime_engine::tls::TlsConfig;
use h_realtime_engine::ws::CloseCode;
use h_realtime_engine::{
    Address, Config, ConnCx, ConnKey, ConnSet, Cx, Frame, Handler, Listener, Message, Reactor,
    RequestCx, Verdict,
};

/// The application: the rooms, by name.
#[derive(Default)]
struct Chat {
    rooms: HashMap<String, Room>,
}

#[derive(Default)]
struct Room {
    /// All members.
    members: ConnSet,
    /// The members that keep up: messages are sent to these.
    receivers: ConnSet,
}

/// The state of one connection. It is created with the handshake.
struct Member {
    nick: String,
    room: String,
    /// Messages that were not sent because the member reads too slowly.
    missed: u64,
}

impl Handler for Chat {
    type Session = Member;
    /// An announcement from another thread.
    type Command = String;

    fn on_request(
        &mut self,
        _: &mut RequestCx<'_, Member>,
        request: &Request<'_>,
    ) -> Verdict<Member> {
        let nick = request.last_param("nick").filter(|nick| is_name(nick));
        let room = request.path.trim_start_matches('/');
        let (Some(nick), true) = (nick, is_name(room)) else {
            return refuse("connect to /ROOM?nick=NAME, with letters and digits");
        };
        let mut upgrade = match check_upgrade(request) {
            Ok(upgrade) => upgrade,
            Err(error) => return refuse(error.0),
        };
        if upgrade.select_protocol(request, &["chat.v1"]).is_none() {
            return refuse("the subprotocol chat.v1 is required");
        }
        let (nick, room) = (nick.into_owned(), room.to_owned());
        let upgrade = upgrade.with("X-Chat-Room", room.clone());
        Verdict::Upgrade(
            upgrade,
            Member {
                nick,
                room,
                missed: 0,
            },
        )
    }

    fn on_open(&mut self, cx: &mut ConnCx<'_, Member>) {
        let key = cx.key();
        let Member { nick, room, .. } = cx.session_mut();
        let (text, name) = (format!("* {nick} joins"), room.clone());
        let room = self.rooms.entry(name.clone()).or_default();
        room.members.insert(key);
        room.receivers.insert(key);
        let welcome = format!("* welcome to {name}; members: {}", room.members.len());
        cx.reply(Message::Text(&welcome));
        self.say(cx, &name, &text);
    }

    fn on_message(&mut self, cx: &mut ConnCx<'_, Member>, message: Message<'_>) {
        let key = cx.key();
        let Message::Text(text) = message else {
            return cx.close(key, CloseCode(1003), "this is a chat of text");
        };
        let Member { nick, room, .. } = cx.session_mut();
        let (text, room) = (format!("{nick}: {text}"), room.clone());
        self.say(cx, &room, &text);
    }

    /// A slow reader has read everything: it takes part again, and is told what it missed.
    fn on_drain(&mut self, cx: &mut ConnCx<'_, Member>) {
        let key = cx.key();
        let member = cx.session_mut();
        let missed = std::mem::take(&mut member.missed);
        if missed > 0
            && let Some(room) = self.rooms.get_mut(&member.room)
        {
            room.receivers.insert(key);
            cx.reply(Message::Text(&format!("* you missed {missed} messages")));
        }
    }

    fn on_close(&mut self, cx: &mut Cx<'_, Member>, key: ConnKey, member: Member) {
        if let Some(room) = self.rooms.get_mut(&member.room) {
            room.members.remove(key);
            room.receivers.remove(key);
        }
        self.rooms.retain(|_, room| !room.members.is_empty());
        let how = cx.close_info().map_or("", |info| info.cause);
        let text = format!("* {} leaves ({how})", member.nick);
        self.say(cx, &member.room, &text);
    }

    fn on_command(&mut self, cx: &mut Cx<'_, Member>, text: String) {
        for name in self.rooms.keys().cloned().collect::<Vec<_>>() {
            self.say(cx, &name, &format!("! {text}"));
        }
    }
}

impl Chat {
    /// Sends a message to a room. Members with too much unread output miss it, instead of being
    /// disconnected when their queue reaches the engine's limit.
    fn say(&mut self, cx: &mut Cx<'_, Member>, name: &str, text: &str) {
        let Some(room) = self.rooms.get_mut(name) else {
            return;
        };
        for key in room.members.iter() {
            let keeps_up = room.receivers.contains(key) && cx.buffered(key) <= MAX_BUFFERED;
            if !keeps_up && let Some(member) = cx.session(key) {
                member.missed += 1;
                room.receivers.remove(key);
            }
        }
        cx.broadcast(&room.receivers, Frame::text(text));
    }
}

fn refuse(reason: &'static str) -> Verdict<Member> {
    Verdict::Respond(Response::new(400, "text/plain", reason.as_bytes()))
}

fn is_name(text: &str) -> bool {
    (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Bytes of unread output from which on a member misses messages.
const MAX_BUFFERED: usize = 32 * 1024;

#[derive(Parser)]
struct Args {
    /// Where to listen.
    #[arg(default_value = "127.0.0.1:9002")]
    address: SocketAddr,
    /// A PEM file with the certificate chain: serves wss:// instead of ws://.
    #[arg(long, requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// A PEM file with its private key.
    #[arg(long, requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let files = args.tls_cert.zip(args.tls_key);
    let tls = files.map(|(cert, key)| TlsConfig::from_pem_files(&cert, &key));
    let listener = Listener::open(&Address::Tcp(args.address), tls.transpose()?)?;
    println!("listening on {}", listener.address()?);
    let mut reactor = Reactor::new(Config::default(), Chat::default())?;
    reactor.listen(listener)?;
    let (announcer, stopper) = (reactor.mailbox(), reactor.mailbox());
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            // Blocks while the mailbox is full. Fails once the reactor has ended.
            let _ = announcer.send(line);
        }
    });
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGINT])?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            // Clients are told to reconnect, spread over five seconds; the second signal ends it.
            let _ = stopper.shut_down(Duration::from_secs(5));
        }
    });
    Ok(reactor.run()?)
}
