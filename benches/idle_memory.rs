//! The memory cost of idle connections: the resident memory of a server process as a slope over
//! their number.
//!
//! ```text
//! cargo bench --bench idle_memory [-- CONNECTIONS]
//! ```
//!
//! The last column is the growth of the process over its size before the first connection, after
//! all clients have disconnected. Each row is a separate server process. All pages that the process
//! has touched count; the kernel's own memory for a socket does not. On a busy machine a row may
//! take longer than the server's ping timeout, so all clients send a pong now and then.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use h_realtime_engine::ws::{OpCode, encode_client_frame};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let wanted = std::env::args().find_map(|arg| arg.parse().ok());
    let wanted = wanted.unwrap_or(19_000);
    let folder = tempfile::tempdir()?;
    let (cert, key) = certificate(folder.path())?;
    println!(
        "{:<44} {:>11} {:>16} {:>18}",
        "server", "connections", "bytes each", "KiB after close"
    );

    let plain = |address: SocketAddr, _: usize| open(TcpStream::connect(address)?);
    row("echo, plain", wanted, &mut echo(&[])?, plain)?;
    let large = |address: SocketAddr, number: usize| exchange_large(plain(address, number)?);
    let name = "echo, plain, once a large message both ways";
    row(name, wanted, &mut echo(&[])?, large)?;
    row(
        "h-realtime, plain, no filter",
        wanted,
        &mut api(folder.path(), "a")?,
        plain,
    )?;
    let subscribed = |address: SocketAddr, number: usize| {
        let mut stream = open(TcpStream::connect(address)?)?;
        subscribe(&mut stream, number)?;
        Ok(stream)
    };
    let name = "h-realtime, plain, client id and own /uri";
    row(name, wanted, &mut api(folder.path(), "b")?, subscribed)?;

    let flags = ["--tls-cert", path(&cert), "--tls-key", path(&key)];
    let config = client_config(&cert)?;
    let encrypted = |address: SocketAddr, _: usize| {
        let name = ServerName::try_from("localhost")?;
        let session = rustls::ClientConnection::new(Arc::clone(&config), name)?;
        open(rustls::StreamOwned::new(
            session,
            TcpStream::connect(address)?,
        ))
    };
    row("echo, TLS 1.3", wanted, &mut echo(&flags)?, encrypted)?;
    let large = |address: SocketAddr, number: usize| exchange_large(encrypted(address, number)?);
    let name = "echo, TLS 1.3, once a large message both ways";
    row(name, wanted, &mut echo(&flags)?, large)
}

/// A server process, terminated on drop.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn row<S: Write>(
    name: &str,
    count: usize,
    server: &mut Server,
    connect: impl Fn(SocketAddr, usize) -> Result<S>,
) -> Result<()> {
    let start = resident(server)?;
    // The first connections pay for one-time costs: pages of code, buffers, tables.
    let warm = count / 10;
    let mut crowd = Clients {
        streams: Vec::with_capacity(count),
        last_sent: Instant::now(),
    };
    for number in 0..warm {
        crowd.add(connect(server.address, number)?)?;
    }
    let before = resident(server)?;
    for number in warm..count {
        crowd.add(connect(server.address, number)?)?;
    }
    let each = (resident(server)? - before) / (count - warm) as f64;
    drop(crowd);
    std::thread::sleep(SETTLE);
    let left = (resident(server)? - start) / 1024.0;
    println!("{name:<44} {count:>11} {each:>16.0} {left:>18.0}");
    Ok(())
}

/// The open connections.
struct Clients<S> {
    streams: Vec<S>,
    /// When they last sent a sign of life.
    last_sent: Instant,
}

impl<S: Write> Clients<S> {
    fn add(&mut self, stream: S) -> Result<()> {
        self.streams.push(stream);
        if self.last_sent.elapsed() < SIGN_OF_LIFE {
            return Ok(());
        }
        self.last_sent = Instant::now();
        let mut pong = Vec::new();
        encode_client_frame(true, OpCode::Pong, [1, 2, 3, 4], &[], &mut pong);
        for stream in &mut self.streams {
            stream.write_all(&pong)?;
        }
        Ok(())
    }
}

/// Half of the silence after which a server sends pings, which these clients do not answer.
const SIGN_OF_LIFE: Duration = Duration::from_secs(15);

/// Time for the server to notice closed connections and release their memory.
const SETTLE: Duration = Duration::from_secs(5);

fn echo(flags: &[&str]) -> Result<Server> {
    let mut target = std::env::current_exe()?;
    while !target.ends_with("release") {
        if !target.pop() {
            return Err("not built by cargo bench".into());
        }
    }
    let built = Command::new(env!("CARGO"))
        .args(["build", "--release", "--quiet", "--example", "conformance"])
        .status()?;
    if !built.success() {
        return Err("the echo example does not build".into());
    }
    let mut command = Command::new(target.join("examples/conformance"));
    command.arg("127.0.0.1:0").args(flags);
    start(command, "listening on ")
}

fn api(folder: &Path, data: &str) -> Result<Server> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_h-realtime"));
    command
        .args([
            "--listen",
            "ws://127.0.0.1:0",
            "--admin",
            "127.0.0.1:0",
            "--data",
        ])
        .arg(folder.join(data));
    start(command, "Real Time API")
}

/// Starts a server and reads its address from the line that begins with `word`.
fn start(mut command: Command, word: &str) -> Result<Server> {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = child.stdout.take().ok_or("no output")?;
    for line in BufReader::new(output).lines() {
        if let Some(rest) = line?.trim().strip_prefix(word) {
            let address = rest
                .trim()
                .trim_start_matches("ws://")
                .trim_end_matches("/ws");
            let address = address.parse()?;
            return Ok(Server { child, address });
        }
    }
    Err("the server did not start".into())
}

fn open<S: Read + Write>(mut stream: S) -> Result<S> {
    stream.write_all(
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
    )?;
    let mut answer = [0; 512];
    let read = stream.read(&mut answer)?;
    match answer[..read].starts_with(b"HTTP/1.1 101") {
        true => Ok(stream),
        false => Err(format!("{:?}", String::from_utf8_lossy(&answer[..read])).into()),
    }
}

/// Sends the messages of the official client. The response to `whoami` shows that the filter has
/// been processed.
fn subscribe(stream: &mut TcpStream, number: usize) -> Result<()> {
    let client_id = format!(r#"{{"messageType":"client_id","value":"{number:032x}"}}"#);
    let filter = format!(
        r#"{{"filter":{{"match_policy":"include_any","clauses":[{{"field":"/uri","operator":"one_of",
           "value":["https://example.org/a/page/of/its/own/{number}"],"case_sensitive":false}}],
           "actions":{{"create":true,"update":true,"delete":true}}}}}}"#
    );
    let mut bytes = Vec::new();
    for message in [&client_id, &filter, r#"{"type":"whoami","id":1}"#] {
        encode_client_frame(
            true,
            OpCode::Text,
            [1, 2, 3, 4],
            message.as_bytes(),
            &mut bytes,
        );
    }
    stream.write_all(&bytes)?;
    let mut answer = [0; 256];
    let read = stream.read(&mut answer)?;
    match String::from_utf8_lossy(&answer[..read]).contains("whoyouare") {
        true => Ok(()),
        false => Err("no answer to whoami".into()),
    }
}

/// Sends a message that takes several reads and writes, and receives its echo.
fn exchange_large<S: Read + Write>(mut stream: S) -> Result<S> {
    let payload = vec![b'x'; 60_000];
    let mut bytes = Vec::new();
    encode_client_frame(true, OpCode::Binary, [1, 2, 3, 4], &payload, &mut bytes);
    stream.write_all(&bytes)?;
    let mut echoed = vec![0; HEADER + payload.len()];
    stream.read_exact(&mut echoed)?;
    match echoed.ends_with(&payload) {
        true => Ok(stream),
        false => Err("an unexpected echo".into()),
    }
}

/// The header length of a frame of that size.
const HEADER: usize = 4;

fn resident(server: &Server) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", server.child.id()))?;
    let line = text.lines().find(|line| line.starts_with("Rss:"));
    let figure = line.and_then(|line| line.split_whitespace().nth(1));
    let kilobytes: f64 = figure.ok_or("no Rss")?.parse()?;
    Ok(kilobytes * 1024.0)
}

fn certificate(folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
    let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
    std::fs::write(&cert, made.cert.pem())?;
    std::fs::write(&key, made.signing_key.serialize_pem())?;
    Ok((cert, key))
}

fn client_config(cert: &Path) -> Result<Arc<rustls::ClientConfig>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(cert)?)?;
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}
