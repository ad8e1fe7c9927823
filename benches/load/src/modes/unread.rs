//! Connections that leave data with the server: replies that they do not read completely, and TLS
//! records that they never complete.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustls::{ClientConnection, StreamOwned};
use socket2::{Domain, Socket, Type};

use super::hold::{Outcome, Senders};
use super::measured::target;
use crate::Result;
use crate::attack::PING;
use crate::cli::Hold;
use crate::conn::Script;
use crate::frames;
use crate::poster::Endpoint;
use crate::sampler;
use crate::target::Target;

/// A blocking connection, with or without TLS.
enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

/// Makes each connection cause a few hundred kilobytes of replies at once and read all but a small
/// remainder, to measure the memory that the server holds for that remainder.
pub(super) fn replies(args: &Hold, endpoint: Option<&Endpoint>) -> Result<Outcome> {
    let common = &args.common;
    let endpoint = endpoint.ok_or("unread-replies needs --publish, for the metrics")?;
    let target = target(common, &common.url)?;
    let script = Script::new(&target, false)?;
    if target.tls.is_some() {
        return tls_replies(args, endpoint, &target, &script);
    }
    let calibrated = calibrate(&target, &script, endpoint)?;
    let Calibrated {
        stream: first,
        burst,
        bursts,
        length,
    } = calibrated;
    let mut held = vec![first];
    let end = Instant::now() + Duration::from_secs(args.seconds);
    while held.len() < usize::try_from(common.connections)? && Instant::now() < end {
        let others = queued_bytes(endpoint)?;
        let mut stream = Stream::open(&target, &script)?;
        for _ in 0..bursts {
            stream.send(&burst)?;
            thread::sleep(PAUSE);
        }
        // The jump of this connection may come some kilobytes earlier or later.
        stream.skip(length.saturating_sub(MARGIN))?;
        for _ in 0..2 * MARGIN / STEP {
            thread::sleep(STEP_PAUSE);
            if queued_bytes(endpoint)? - others <= MAX_REMAINDER {
                break;
            }
            stream.skip(STEP)?;
        }
        held.push(stream);
    }
    thread::sleep(Duration::from_secs(1));
    let outcome = Outcome {
        missing: common.connections.saturating_sub(held.len() as u64),
        ..Outcome::default()
    };
    Ok(outcome)
}

/// Lets each connection read nothing until the server has queued output: over TLS, earlier records
/// are inside the session.
fn tls_replies(
    args: &Hold,
    endpoint: &Endpoint,
    target: &Target,
    script: &Script,
) -> Result<Outcome> {
    let burst = pings();
    let mut held = Vec::new();
    let end = Instant::now() + Duration::from_secs(args.seconds);
    while held.len() < usize::try_from(args.common.connections)? && Instant::now() < end {
        let others = queued_bytes(endpoint)?;
        let mut stream = Stream::open(target, script)?;
        for _ in 0..MAX_BURSTS {
            stream.send(&burst)?;
            thread::sleep(PAUSE);
            if queued_bytes(endpoint)? > others {
                break;
            }
        }
        held.push(stream);
    }
    thread::sleep(Duration::from_secs(1));
    Ok(Outcome {
        missing: args.common.connections.saturating_sub(held.len() as u64),
        ..Outcome::default()
    })
}

/// A connection that leaves a small remainder, and the parameters that produce it.
struct Calibrated {
    stream: Stream,
    burst: Vec<u8>,
    /// The number of bursts until the kernel accepts no more replies.
    bursts: usize,
    /// The number of reply bytes to read.
    length: usize,
}

/// The server's socket accepts replies in jumps of tens of kilobytes. A first connection therefore
/// measures these jumps, and a second one requests replies that end shortly after one of them.
fn calibrate(target: &Target, script: &Script, endpoint: &Endpoint) -> Result<Calibrated> {
    let mut stream = Stream::open(target, script)?;
    let burst = burst(0);
    let (bursts, queued) = fill(&mut stream, &burst, endpoint)?;
    let mut left = queued;
    while left == queued {
        stream.skip(STEP)?;
        thread::sleep(STEP_PAUSE);
        left = queued_bytes(endpoint)?;
    }
    drop(stream);
    thread::sleep(PAUSE);
    let jump = queued - left;
    let burst = self::burst((jump - (queued - MAX_REMAINDER / 2.0).rem_euclid(jump)) as usize);
    let mut stream = Stream::open(target, script)?;
    for _ in 0..bursts {
        stream.send(&burst)?;
        thread::sleep(PAUSE);
    }
    let mut length = 0;
    while queued_bytes(endpoint)? > MAX_REMAINDER {
        stream.skip(STEP)?;
        length += STEP;
        thread::sleep(STEP_PAUSE);
    }
    Ok(Calibrated {
        stream,
        burst,
        bursts,
        length,
    })
}

/// Sends bursts until the kernel accepts no more replies. Returns the number of bursts and the
/// bytes queued by the server.
fn fill(stream: &mut Stream, burst: &[u8], endpoint: &Endpoint) -> Result<(usize, f64)> {
    for bursts in 1..=MAX_BURSTS {
        stream.send(burst)?;
        thread::sleep(PAUSE);
        let queued = queued_bytes(endpoint)?;
        if queued > MIN_QUEUED {
            return Ok((bursts, queued));
        }
    }
    Err("the kernel accepts all replies: the server has queued none".into())
}

fn queued_bytes(endpoint: &Endpoint) -> Result<f64> {
    let metrics = sampler::metrics(endpoint)?;
    let queued = metrics.get("h_realtime_queued_bytes").copied();
    queued.ok_or_else(|| "the server has no h_realtime_queued_bytes".into())
}

/// Returns pings whose replies add up to 63 KB.
fn pings() -> Vec<u8> {
    frames::encode(frames::TEXT, PING.as_bytes(), [0; 4]).repeat(1_400)
}

/// Returns messages that fit one read of the server and cause the longest possible reply, extended
/// by `more` bytes.
fn burst(more: usize) -> Vec<u8> {
    let mut burst = pings();
    // Each of these bytes becomes seven bytes of the reply.
    let unknown = "\u{7f}".repeat(12_000 + more.min(90_000) / 7);
    let unknown = format!(r#"{{"id":1,"type":"{unknown}"}}"#);
    burst.extend(frames::encode(frames::TEXT, unknown.as_bytes(), [0; 4]));
    burst
}

/// Opens connections that send only most of a TLS record, while other clients send messages in
/// parts.
pub(super) fn records(args: &Hold) -> Result<Outcome> {
    let common = &args.common;
    let target = target(common, &common.url)?;
    if target.tls.is_none() {
        return Err("partial-records needs wss:// and --ca".into());
    }
    let mut outcome = Outcome::default();
    let mut senders = Senders::open(common, WELL_BEHAVED)?;
    // A handshake record of maximum length without its end.
    let mut record = vec![0x16, 3, 1, 0x40, 0];
    record.extend(vec![1; 16_000]);
    let mut held = Vec::new();
    let end = Instant::now() + Duration::from_secs(args.seconds);
    while held.len() < usize::try_from(common.connections)? && Instant::now() < end {
        for _ in 0..BATCH {
            let mut stream = connect(&target, None)?;
            // A server at its limit may reset the connection.
            let _ = stream.write_all(&record);
            held.push(stream);
        }
        senders.turn(&mut outcome)?;
    }
    let rest = Instant::now() + Duration::from_secs(3);
    while Instant::now() < rest {
        senders.turn(&mut outcome)?;
    }
    Ok(outcome)
}

impl Stream {
    /// Connects and completes the handshakes.
    fn open(target: &Target, script: &Script) -> Result<Stream> {
        let stream = connect(target, Some(RECEIVE_BUFFER))?;
        let mut stream = match &target.tls {
            None => Stream::Plain(stream),
            Some(tls) => {
                let session = ClientConnection::new(tls.config.clone(), tls.name.clone())?;
                Stream::Tls(Box::new(StreamOwned::new(session, stream)))
            }
        };
        stream.send(script.request())?;
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            head.extend(byte);
        }
        match head.starts_with(b"HTTP/1.1 101 ") {
            true => Ok(stream),
            false => Err(String::from_utf8_lossy(&head).into_owned().into()),
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<()> {
        match self {
            Stream::Plain(stream) => stream.write_all(bytes)?,
            Stream::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()?;
            }
        }
        Ok(())
    }

    /// Reads and discards `length` bytes.
    fn skip(&mut self, length: usize) -> Result<()> {
        let mut buffer = [0; STEP];
        let mut left = length;
        while left > 0 {
            let most = left.min(STEP);
            self.read_exact(&mut buffer[..most])?;
            left -= most;
        }
        Ok(())
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.read_exact(buffer),
            Stream::Tls(stream) => stream.read_exact(buffer),
        }
    }
}

/// Opens a blocking connection with timeouts.
fn connect(target: &Target, receive_buffer: Option<usize>) -> Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(target.address), Type::STREAM, None)?;
    if let Some(size) = receive_buffer {
        socket.set_recv_buffer_size(size)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.connect_timeout(&target.address.into(), TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_write_timeout(Some(TIMEOUT))?;
    Ok(socket.into())
}

/// The number of connections served together.
const BATCH: usize = 40;

/// The number of well-behaved clients beside the partial records.
const WELL_BEHAVED: u64 = 20;

/// A small buffer, so that the kernel holds little unread output.
const RECEIVE_BUFFER: usize = 8 * 1024;

const TIMEOUT: Duration = Duration::from_secs(10);

/// The pause for the server to process a burst.
const PAUSE: Duration = Duration::from_millis(30);

/// The pause after a read, in which the server fills the kernel's buffers again.
const STEP_PAUSE: Duration = Duration::from_millis(5);

/// How many bytes before the calibrated position a connection begins to read in small steps.
const MARGIN: usize = 8192;

/// The maximum number of bursts for one connection.
const MAX_BURSTS: usize = 64;

/// The number of queued bytes above which the kernel is assumed to accept no more.
const MIN_QUEUED: f64 = 64_000.0;

/// The resolution of the calibration, in bytes.
const STEP: usize = 512;

/// The maximum remainder that is left queued.
const MAX_REMAINDER: f64 = 4096.0;
