//! The cost of the kernel alone: an epoll loop that sends fixed bytes and parses nothing.
//!
//! It is not a WebSocket server. It treats the first bytes of a connection as a request, finds the
//! key, and responds with the right `Sec-WebSocket-Accept`, which clients verify. After that it
//! counts bytes, and sends one frame of `--answer` bytes for every `--question` bytes.

use std::io::{ErrorKind, Read, Write};
use std::time::{Duration, Instant};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::{Parser, ValueEnum};
use h_realtime_peers::{Result, raise_open_files};
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use sha1::{Digest, Sha1};
use slab::Slab;

#[derive(Parser)]
struct Args {
    #[arg(default_value = "127.0.0.1:0")]
    address: std::net::SocketAddr,
    #[arg(long, default_value = "echo")]
    mode: Mode,
    /// Payload bytes of a message from a client.
    #[arg(long, default_value_t = 24)]
    question: usize,
    /// Text of the response; as many letters as the message, if not given.
    #[arg(long)]
    answer: Option<String>,
    /// In heartbeat mode: the interval of pings on each connection, in milliseconds.
    #[arg(long, default_value_t = 1000)]
    every: u64,
    /// In heartbeat mode: the time between batches of pings, in milliseconds.
    #[arg(long, default_value_t = 10)]
    beat: u64,
    /// In heartbeat mode: the most pings between two polls.
    #[arg(long, default_value_t = usize::MAX)]
    batch: usize,
    /// In heartbeat mode: the distance between two connections with successive pings.
    #[arg(long, default_value_t = 1)]
    stride: usize,
    /// Wait with a timeout of this many milliseconds, for which the kernel sets a timer.
    #[arg(long)]
    timeout: Option<u64>,
    /// Read the clock this many times in each turn.
    #[arg(long, default_value_t = 0)]
    clocks: u32,
    /// Register sockets for both directions.
    #[arg(long)]
    both: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    Echo,
    /// Each message becomes a frame to every other connection.
    Fan,
    /// Pings to all connections, spread evenly over the interval.
    Heartbeat,
}

struct Floor {
    poll: Poll,
    conns: Slab<Conn>,
    mode: Mode,
    question: usize,
    frame: Vec<u8>,
    buffer: Vec<u8>,
    both: bool,
}

struct Conn {
    stream: TcpStream,
    is_open: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    raise_open_files();
    let mut listener = TcpListener::bind(args.address)?;
    println!("listening on {}", listener.local_addr()?);
    let letters = || ('a'..='z').cycle().take(args.question).collect();
    let answer = args.answer.clone().unwrap_or_else(letters);
    let mut floor = Floor {
        poll: Poll::new()?,
        conns: Slab::new(),
        mode: args.mode,
        question: args.question + header(args.question) + 4,
        frame: match args.mode {
            Mode::Heartbeat => vec![0x89, 0],
            _ => frame(&answer),
        },
        buffer: vec![0; 64 * 1024],
        both: args.both,
    };
    let registry = floor.poll.registry();
    registry.register(&mut listener, LISTENER, Interest::READABLE)?;
    let mut events = Events::with_capacity(1024);
    let mut beat = Beat::new(&args);
    loop {
        let wait = match args.mode {
            Mode::Heartbeat if beat.left > 0 => Some(Duration::ZERO),
            Mode::Heartbeat => Some(beat.between),
            _ => args.timeout.map(Duration::from_millis),
        };
        match floor.poll.poll(&mut events, wait) {
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for _ in 0..args.clocks {
            std::hint::black_box(Instant::now());
        }
        for event in &events {
            match event.token() {
                LISTENER => floor.accept(&listener)?,
                Token(index) => floor.serve(index)?,
            }
        }
        if args.mode == Mode::Heartbeat {
            floor.beat(&mut beat)?;
        }
    }
}

impl Floor {
    fn accept(&mut self, listener: &TcpListener) -> Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            stream.set_nodelay(true)?;
            let entry = self.conns.vacant_entry();
            let registry = self.poll.registry();
            let interest = match self.both {
                true => Interest::READABLE | Interest::WRITABLE,
                false => Interest::READABLE,
            };
            registry.register(&mut stream, Token(entry.key()), interest)?;
            entry.insert(Conn {
                stream,
                is_open: false,
            });
        }
    }

    fn serve(&mut self, index: usize) -> Result<()> {
        let Some(conn) = self.conns.get_mut(index) else {
            return Ok(());
        };
        let read = match conn.stream.read(&mut self.buffer) {
            Ok(0) => {
                self.conns.remove(index);
                return Ok(());
            }
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) => {
                self.conns.remove(index);
                return Ok(());
            }
        };
        if !conn.is_open {
            let answer = upgrade(&self.buffer[..read])?;
            conn.is_open = conn.stream.write_all(&answer).is_ok();
            return Ok(());
        }
        if self.mode == Mode::Heartbeat {
            return Ok(());
        }
        let count = read / self.question;
        let bytes = self.frame.repeat(count);
        match self.mode {
            Mode::Fan => {
                let others = self.conns.iter_mut().filter(|(other, _)| *other != index);
                for (_, other) in others.filter(|(_, other)| other.is_open) {
                    other.stream.write_all(&bytes)?;
                }
                Ok(())
            }
            _ => Ok(conn.stream.write_all(&bytes)?),
        }
    }

    fn beat(&mut self, beat: &mut Beat) -> Result<()> {
        beat.advance(self.conns.len());
        let due = beat.left.min(beat.batch);
        beat.left -= due;
        for _ in 0..due {
            beat.next = (beat.next + beat.stride) % self.conns.len().max(1);
            if let Some(conn) = self.conns.get_mut(beat.next).filter(|conn| conn.is_open) {
                conn.stream.write_all(&self.frame)?;
            }
        }
        Ok(())
    }
}

/// The schedule of pings: the next connection, and the number of pings that are due.
struct Beat {
    every: Duration,
    /// The interval at which pings become due: timer wheels of servers use slots, too.
    between: Duration,
    batch: usize,
    stride: usize,
    last: Instant,
    next: usize,
    left: usize,
}

impl Beat {
    fn new(args: &Args) -> Beat {
        Beat {
            every: Duration::from_millis(args.every),
            between: Duration::from_millis(args.beat),
            batch: args.batch,
            stride: args.stride,
            last: Instant::now(),
            next: 0,
            left: 0,
        }
    }

    fn advance(&mut self, conns: usize) {
        if self.last.elapsed() < self.between {
            return;
        }
        let share = self.last.elapsed().as_secs_f64() / self.every.as_secs_f64();
        self.last = Instant::now();
        self.left += (share.min(1.0) * conns as f64).round() as usize;
    }
}

/// Returns the response to a request, which always arrives complete over loopback.
fn upgrade(request: &[u8]) -> Result<Vec<u8>> {
    const FIELD: &[u8] = b"Sec-WebSocket-Key: ";
    let at = request.windows(FIELD.len()).position(|part| part == FIELD);
    let key = &request[at.ok_or("no key")? + FIELD.len()..];
    let key = key.get(..24).ok_or("a truncated key")?;
    let mut digest = Sha1::new();
    digest.update(key);
    digest.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let mut answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
        Connection: Upgrade\r\nSec-WebSocket-Accept: "
        .to_vec();
    answer.extend(BASE64_STANDARD.encode(digest.finalize()).as_bytes());
    answer.extend(b"\r\n\r\n");
    Ok(answer)
}

/// Returns a text frame.
fn frame(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81];
    match u16::try_from(text.len()) {
        Ok(short @ 0..126) => bytes.push(short.to_le_bytes()[0]),
        Ok(length) => {
            bytes.push(126);
            bytes.extend(length.to_be_bytes());
        }
        Err(_) => {
            bytes.push(127);
            bytes.extend((text.len() as u64).to_be_bytes());
        }
    }
    bytes.extend(text.as_bytes());
    bytes
}

/// Returns the length of a frame header without the mask.
fn header(payload: usize) -> usize {
    match payload {
        0..126 => 2,
        126..65_536 => 4,
        _ => 10,
    }
}

const LISTENER: Token = Token(usize::MAX);
