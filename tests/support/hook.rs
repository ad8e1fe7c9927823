//! A receiver of webhooks, which can fail in every way.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::PATIENCE;

/// A request that has arrived completely.
#[derive(Clone, Debug)]
pub struct HookRequest {
    pub target: String,
    /// The header fields, with names in lower case.
    pub fields: Vec<(String, String)>,
    pub body: String,
    pub time: Instant,
}

impl HookRequest {
    /// Returns the value of a header field, or an empty string.
    pub fn field(&self, name: &str) -> &str {
        let mut fields = self.fields.iter();
        let field = fields.find(|(field, _)| field == name);
        field.map_or("", |(_, value)| value)
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// Returns the annotation's id and the type of a payload of Standard Webhooks.
    pub fn id_and_type(&self) -> (String, String) {
        let payload = self.json();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        (text(&payload["data"]["id"]), text(&payload["type"]))
    }
}

/// A response, or a failure.
#[derive(Clone, Debug)]
pub enum HookReply {
    /// A status, and further header fields.
    Status(u16, &'static str),
    /// A connection reset instead of a response.
    Reset,
    /// The end of the connection instead of a response.
    End,
    /// No response.
    Hang,
    /// A status with a body that never ends.
    EndlessBody(u16),
    /// A head that never ends.
    EndlessHead,
    /// Bytes that are not HTTP.
    Garbage,
}

/// A running receiver. It stops when dropped.
pub struct Hook {
    pub address: SocketAddr,
    requests: Receiver<HookRequest>,
    is_stopped: Arc<AtomicBool>,
}

impl Hook {
    /// Starts a receiver that replies to each request by a function of its number and itself.
    pub fn start(reply: impl FnMut(usize, &HookRequest) -> HookReply + Send + 'static) -> Hook {
        Hook::on(&TcpListener::bind("127.0.0.1:0").unwrap(), reply)
    }

    /// Starts a receiver at an address that was used before.
    pub fn at(
        address: SocketAddr,
        reply: impl FnMut(usize, &HookRequest) -> HookReply + Send + 'static,
    ) -> Hook {
        Hook::on(&TcpListener::bind(address).unwrap(), reply)
    }

    fn on(
        listener: &TcpListener,
        reply: impl FnMut(usize, &HookRequest) -> HookReply + Send + 'static,
    ) -> Hook {
        let listener = listener.try_clone().unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = channel();
        let is_stopped = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&is_stopped);
        let reply = Arc::new(Mutex::new((0, reply)));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (sender, reply) = (sender.clone(), Arc::clone(&reply));
                thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    let answer = {
                        let mut reply = reply.lock().unwrap();
                        let number = reply.0;
                        reply.0 += 1;
                        reply.1(number, &request)
                    };
                    // Not every test reads it.
                    let _ = sender.send(request);
                    respond(stream, &answer);
                });
            }
        });
        Hook {
            address,
            requests,
            is_stopped,
        }
    }

    /// Starts a receiver that acknowledges everything.
    pub fn accepting() -> Hook {
        Hook::start(|_, _| HookReply::Status(204, ""))
    }

    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Returns the next request.
    pub fn next(&self) -> HookRequest {
        self.requests.recv_timeout(PATIENCE).unwrap()
    }

    /// Returns the next request within a time.
    pub fn next_within(&self, time: Duration) -> Result<HookRequest, RecvTimeoutError> {
        self.requests.recv_timeout(time)
    }
}

impl Drop for Hook {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::SeqCst);
        // Ends the wait for the next connection.
        let _ = TcpStream::connect(self.address);
    }
}

fn read(stream: &TcpStream) -> Option<HookRequest> {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let target = line.split(' ').nth(1)?.to_owned();
    let mut fields = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        match line.trim_end().split_once(": ") {
            Some((name, value)) => fields.push((name.to_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let length = fields.iter().find(|(name, _)| name == "content-length")?;
    let mut body = vec![0; length.1.parse().ok()?];
    reader.read_exact(&mut body).ok()?;
    Some(HookRequest {
        target,
        fields,
        body: String::from_utf8(body).unwrap(),
        time: Instant::now(),
    })
}

fn respond(mut stream: TcpStream, reply: &HookReply) {
    let status = |status: u16, more: &str| format!("HTTP/1.1 {status} Text\r\n{more}\r\n");
    let sent = match reply {
        HookReply::Status(code, more) => stream.write_all(status(*code, more).as_bytes()),
        HookReply::EndlessBody(code) => stream
            .write_all(status(*code, "").as_bytes())
            .and_then(|()| endless(&mut stream)),
        HookReply::EndlessHead => stream
            .write_all(b"HTTP/1.1 200 OK\r\n")
            .and_then(|()| endless(&mut stream)),
        HookReply::Garbage => stream.write_all(b"\0\x01garbage\r\n\r\n"),
        HookReply::Reset => {
            let zero = Some(Duration::ZERO);
            socket2::SockRef::from(&stream).set_linger(zero).map(drop)
        }
        HookReply::End => stream.shutdown(Shutdown::Both),
        HookReply::Hang => {
            // Until the client closes the connection.
            let _ = stream.read(&mut [0]);
            Ok(())
        }
    };
    // The client may have closed the connection.
    let _ = sent;
}

fn endless(stream: &mut TcpStream) -> std::io::Result<()> {
    loop {
        stream.write_all(b"x")?;
        thread::sleep(Duration::from_millis(20));
    }
}
