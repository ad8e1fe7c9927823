//! Waiting for the admin address of a server that is shutting down: it keeps the address until its
//! last client is closed.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::Duration;

use crate::net::{Address, Listener};

/// Whether binding the address failed because a server that is shutting down has it.
pub(super) fn is_held(error: &io::Error, address: &Address) -> bool {
    error.kind() == ErrorKind::AddrInUse && is_draining(address).unwrap_or(false)
}

/// Opens the admin listener, by `open`, as soon as the server that has its address is gone.
///
/// # Errors
/// Those of binding and listening, where the address is in use otherwise.
pub(super) fn open_when_free(
    address: &Address,
    open: impl Fn() -> io::Result<Listener>,
) -> io::Result<Listener> {
    log::info!(
        "waiting for the admin address {address}: the server that has it is shutting down; \
         clients are served after that (a second SIGTERM ends it at once)"
    );
    let mut unanswered = 0;
    loop {
        let error = match open() {
            Err(error) if error.kind() == ErrorKind::AddrInUse => error,
            result => return result,
        };
        // It may be closing the address right now.
        unanswered = match is_draining(address) {
            Ok(true) => 0,
            _ => unanswered + 1,
        };
        if unanswered > MOST_UNANSWERED {
            return Err(error);
        }
        thread::sleep(RETRY);
    }
}

/// Asks the server at the address whether it is shutting down.
fn is_draining(address: &Address) -> io::Result<bool> {
    match address {
        Address::Tcp(address) => {
            let stream = TcpStream::connect_timeout(address, PATIENCE)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            ask(stream, &address.to_string())
        }
        Address::Unix(path) => {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            ask(stream, "localhost")
        }
    }
}

fn ask(mut stream: impl Read + Write, host: &str) -> io::Result<bool> {
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.take(LONGEST_ANSWER).read_to_string(&mut answer)?;
    Ok(answer.starts_with("HTTP/1.1 503 ") && answer.contains(r#""error":"draining""#))
}

/// Between two tries to bind the address.
const RETRY: Duration = Duration::from_millis(100);
/// Tries, one behind the other, in which the address was in use and nothing said that the server
/// there is shutting down: two seconds of them, since it needs one for its last requests.
const MOST_UNANSWERED: u32 = 20;
/// How long the server at the address may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// In bytes.
const LONGEST_ANSWER: u64 = 4096;
