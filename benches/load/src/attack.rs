//! The byte sequences that hostile clients send, prepared once and repeated by every attacker.
//!
//! Each is valid enough to be processed by the server and is chosen for the work, memory, or output
//! it causes per byte on the wire.

use std::sync::Arc;

use clap::ValueEnum;
use flate2::{Compress, Compression, FlushCompress};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::Result;
use crate::frames;

/// A kind of hostile traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attack {
    /// Open connections that send nothing: the baseline
    None,
    /// Compressed filters of 16,000 equal /uri values
    FiltersEqual,
    /// Compressed filters of 200 versions of one long URI
    FiltersVersions,
    /// Compressed filters of 200 different long URIs
    FiltersDistinct,
    /// Compressed messages of an unknown type of 65,000 control characters
    UnknownType,
    /// Compressed messages of 65,000 nested arrays
    JsonDeep,
    /// Compressed messages of thousands of members with escaped keys
    JsonMembers,
    /// Pipelined requests of /_status
    PipelinedStatus,
    /// Pipelined requests with 60 header fields
    HttpFields,
    /// Frames with valid headers and random payloads
    RandomFrames,
    /// JSON messages of nearly 64 KiB
    LargeMessages,
    /// The same, compressed to some hundred bytes each
    LargeCompressed,
    /// Compressed messages of 60 MiB, over the limit on messages
    Bombs,
    /// Ping frames without a payload
    Pings,
    /// JSON pings
    JsonPings,
    /// Messages in fragments of one byte
    Fragments,
    /// WebSocket handshakes, each followed by a reset
    Handshakes,
    /// First messages of TLS handshakes, each followed by a reset
    TlsHandshakes,
    /// All of the above, one kind for each connection
    Mixed,
}

/// How a connection of an attacker begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// With a WebSocket handshake.
    WebSocket { deflate: bool },
    /// With a TCP connection only.
    Tcp,
    /// With a TCP connection to the TLS listener.
    TcpToTls,
}

/// One attack, ready to be sent.
pub struct Plan {
    pub attack: Attack,
    pub opening: Opening,
    /// Sent over and over. Empty for attackers that only connect.
    pub bytes: Vec<u8>,
    /// Offsets in `bytes` at which a new connection may begin.
    pub starts: Vec<usize>,
    /// Whether the first answer ends the connection, with a reset, and another one is opened.
    pub reconnects: bool,
}

/// Returns the plans of an attack: one, or all of them for [`Attack::Mixed`].
///
/// # Errors
///
/// Returns an error if the attack needs a TLS listener and there is none, or if the system has no
/// randomness.
pub fn plans(attack: Attack, has_tls: bool) -> Result<Vec<Plan>> {
    match attack {
        Attack::TlsHandshakes if !has_tls => Err("tls-handshakes needs --tls-url wss://…".into()),
        Attack::Mixed => {
            let all = Attack::value_variants().iter().copied();
            let usable = all.filter(|kind| match kind {
                Attack::None | Attack::Mixed => false,
                Attack::TlsHandshakes => has_tls,
                _ => true,
            });
            usable.map(plan).collect()
        }
        attack => Ok(vec![plan(attack)?]),
    }
}

fn plan(attack: Attack) -> Result<Plan> {
    let plain = Opening::WebSocket { deflate: false };
    let deflate = Opening::WebSocket { deflate: true };
    let (opening, unit) = match attack {
        Attack::None | Attack::Handshakes | Attack::Mixed => (plain, Vec::new()),
        Attack::FiltersEqual => (deflate, compressed(&filter(&vec!["a".into(); 16_000]))),
        Attack::FiltersVersions => (deflate, compressed(&filter(&versions()))),
        Attack::FiltersDistinct => (deflate, compressed(&filter(&distinct()))),
        Attack::UnknownType => {
            let text = format!(r#"{{"id":1,"type":"{}"}}"#, "\u{7f}".repeat(65_000));
            (deflate, compressed(&text))
        }
        Attack::JsonDeep => {
            let (open, close) = ("[".repeat(32_000), "]".repeat(32_000));
            (
                deflate,
                compressed(&format!(r#"{{"id":1,"x":{open}{close}}}"#)),
            )
        }
        Attack::JsonMembers => {
            let members = vec![r#""\u0061b":1"#; 5_400].join(",");
            (deflate, compressed(&format!("{{{members}}}")))
        }
        Attack::PipelinedStatus => {
            let request = "GET /_status HTTP/1.1\r\nHost: localhost\r\n\r\n";
            (Opening::Tcp, request.into())
        }
        Attack::HttpFields => {
            let fields: String = (0..60)
                .map(|n| format!("X-Field-{n}: {}\r\n", "v".repeat(100)))
                .collect();
            let request = format!("GET /_status HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
            (Opening::Tcp, request.into_bytes())
        }
        Attack::RandomFrames => return random_frames(),
        Attack::LargeMessages => (plain, text_frame(&large())),
        Attack::LargeCompressed => (deflate, compressed(&large())),
        Attack::Bombs => (deflate, bomb()),
        Attack::Pings => (plain, frames::encode(frames::PING, b"", MASK)),
        Attack::JsonPings => (plain, text_frame(PING)),
        Attack::Fragments => (plain, fragments(PING)),
        Attack::TlsHandshakes => (Opening::TcpToTls, client_hello()?),
    };
    let reconnects = matches!(attack, Attack::Handshakes | Attack::TlsHandshakes);
    let bytes = match reconnects {
        true => unit,
        false => repeated(&unit),
    };
    Ok(Plan {
        attack,
        opening,
        bytes,
        starts: vec![0],
        reconnects,
    })
}

/// Returns a filter message with these `/uri` values.
pub fn filter(values: &[String]) -> String {
    let values = values.join("\",\"");
    format!(
        r#"{{"filter":{{"match_policy":"include_any","actions":{{}},"clauses":[{{"field":"/uri","operator":"one_of","value":["{values}"]}}]}}}}"#
    )
}

fn versions() -> Vec<String> {
    let uri = format!("https://example.org/{}", "path/".repeat(58));
    (0..200).map(|n| format!("{uri}:v{n}")).collect()
}

fn distinct() -> Vec<String> {
    let pad = "p".repeat(280);
    (0..200)
        .map(|n| format!("https://example.org/{n}/{pad}"))
        .collect()
}

fn large() -> String {
    format!(r#"{{"type":"ping","x":"{}"}}"#, "x".repeat(65_000))
}

fn text_frame(text: &str) -> Vec<u8> {
    frames::encode(frames::TEXT, text.as_bytes(), MASK)
}

/// Returns a message of one compressed frame.
pub fn compressed(text: &str) -> Vec<u8> {
    rsv1(frames::encode(
        frames::TEXT,
        &deflate(text.as_bytes()),
        MASK,
    ))
}

fn rsv1(mut frame: Vec<u8>) -> Vec<u8> {
    if let Some(first) = frame.first_mut() {
        *first |= 0x40;
    }
    frame
}

/// Returns a message that takes about 60 KB compressed and 60 MiB decompressed.
fn bomb() -> Vec<u8> {
    let part = deflate(&vec![b'0'; 1 << 20]);
    // Senders omit this tail at the end of a message, so it has to be restored between the parts.
    let parts = vec![part; 60].join(&b"\0\0\xff\xff"[..]);
    rsv1(frames::encode(frames::TEXT, &parts, MASK))
}

/// Compresses a message as specified in RFC 7692, section 7.2.1.
fn deflate(message: &[u8]) -> Vec<u8> {
    let mut compress = Compress::new(Compression::best(), false);
    let mut out = Vec::with_capacity(message.len() / 2 + 64);
    // Compression into a vector with sufficient capacity cannot fail.
    let _ = compress.compress_vec(message, &mut out, FlushCompress::Sync);
    out.truncate(out.len().saturating_sub(4));
    out
}

fn fragments(text: &str) -> Vec<u8> {
    let last = text.len().saturating_sub(1);
    let parts = text.bytes().enumerate().map(|(at, byte)| {
        let opcode = if at == 0 {
            frames::TEXT
        } else {
            frames::CONTINUATION
        };
        let mut frame = frames::encode(opcode, &[byte], MASK);
        if at < last {
            frame[0] &= 0x7F;
        }
        frame
    });
    parts.flatten().collect()
}

/// Returns frames of all kinds and lengths with random payloads.
fn random_frames() -> Result<Plan> {
    let opcodes = [frames::TEXT, frames::BINARY, frames::PING, frames::PONG];
    let (mut bytes, mut starts) = (Vec::new(), Vec::new());
    for number in 0..200 {
        let opcode = opcodes[number % opcodes.len()];
        let length = match opcode {
            frames::PING | frames::PONG => number % 126,
            _ => 1 + number * number % 4000,
        };
        let mut payload = vec![0; length];
        getrandom::fill(&mut payload)?;
        starts.push(bytes.len());
        bytes.extend(frames::encode(opcode, &payload, MASK));
    }
    Ok(Plan {
        attack: Attack::RandomFrames,
        opening: Opening::WebSocket { deflate: false },
        bytes,
        starts,
        reconnects: false,
    })
}

/// Returns the first flight of a TLS client.
fn client_hello() -> Result<Vec<u8>> {
    let config = ClientConfig::builder()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from("localhost")?;
    let mut hello = Vec::new();
    ClientConnection::new(Arc::new(config), name)?.write_tls(&mut hello)?;
    Ok(hello)
}

/// Repeats a sequence so that one write can take as many bytes as allowed.
fn repeated(unit: &[u8]) -> Vec<u8> {
    match unit.len() {
        0 => Vec::new(),
        length => unit.repeat(MIN_LENGTH.div_ceil(length)),
    }
}

/// A JSON ping.
pub const PING: &str = r#"{"type":"ping","id":1}"#;

/// A server must accept any mask, so zeros suffice.
const MASK: [u8; 4] = [0; 4];

/// The minimum length of a repeated sequence.
const MIN_LENGTH: usize = 32 * 1024;

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::DeflateDecoder;

    use super::*;

    /// Returns the decompressed text of the first frame of a plan.
    fn first_message(plan: &Plan) -> Vec<u8> {
        let mut bytes = plan.bytes.clone();
        let compressed = bytes[0] & 0x40 != 0;
        let header = match bytes[1] & 0x7F {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        // `decode` reads frames from a server, which are not masked.
        bytes.drain(header..header + 4);
        bytes[1] &= 0x7F;
        bytes[0] &= !0x40;
        let (frame, _) = frames::decode(&bytes).unwrap().unwrap();
        if !compressed {
            return frame.payload.to_vec();
        }
        let tail: &[u8] = &[0, 0, 0xFF, 0xFF, 1, 0, 0, 0xFF, 0xFF];
        let mut text = Vec::new();
        let mut decoder = DeflateDecoder::new(frame.payload.chain(tail));
        decoder.read_to_end(&mut text).unwrap();
        text
    }

    #[test]
    fn messages_are_json_within_the_default_limit() {
        for attack in [
            Attack::FiltersEqual,
            Attack::FiltersVersions,
            Attack::FiltersDistinct,
            Attack::UnknownType,
            Attack::JsonMembers,
            Attack::LargeMessages,
            Attack::LargeCompressed,
            Attack::JsonPings,
        ] {
            let text = first_message(&plan(attack).unwrap());
            assert!(text.len() <= 65_536, "{attack:?}: {} bytes", text.len());
            serde_json::from_slice::<serde_json::Value>(&text).unwrap();
        }
        let deep = first_message(&plan(Attack::JsonDeep).unwrap());
        assert!((60_000..=65_536).contains(&deep.len()));
    }

    #[test]
    fn decompression_bomb_is_small_on_the_wire_and_exceeds_the_limit() {
        let plan = plan(Attack::Bombs).unwrap();
        assert!(plan.bytes.len() < 128 << 10);
        assert_eq!(first_message(&plan).len(), 60 << 20);
    }

    #[test]
    fn fragments_add_up_to_the_message() {
        let bytes = fragments(PING);
        let payload: Vec<u8> = bytes.chunks(7).map(|frame| frame[6]).collect();
        assert_eq!(payload, PING.as_bytes());
        let finals = bytes.chunks(7).filter(|frame| frame[0] & 0x80 != 0).count();
        assert_eq!((finals, bytes[0]), (1, frames::TEXT));
    }

    #[test]
    fn mixed_has_every_attack_once() {
        assert_eq!(
            plans(Attack::Mixed, true).unwrap().len(),
            Attack::value_variants().len() - 2
        );
        assert!(plans(Attack::TlsHandshakes, false).is_err());
    }
}
