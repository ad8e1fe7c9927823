//! The PROXY protocol header, which a proxy sends first on a connection to report the client's
//! address. Versions 1 (text) and 2 (binary).
//!
//! Owns: its grammar, according to HAProxy's `proxy-protocol.txt`, whose sections are cited.
//! Sans-I/O: the parser returns a lower bound for the number of missing bytes that never extends
//! beyond the header, so that the bytes after it (TLS, HTTP) stay in the socket.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The source reported by a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The connection is proxied for a client with this address.
    Client(IpAddr),
    /// The client's address is unusable: a Unix socket, or an unknown address family.
    Unknown,
    /// The connection is the proxy's own, such as a health check.
    Local,
}

/// The result of parsing a prefix of a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The header is complete and has this length in bytes.
    Whole(Source, usize),
    /// At least this many bytes are missing.
    Missing(usize),
}

/// The input is not a valid header, or the header is too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(
    /// The reason, for logging.
    pub &'static str,
);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid PROXY protocol header: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Parses the header at the start of a connection.
///
/// # Errors
/// [`Malformed`], after which the connection must be closed. §2: "the receiver … must not try to
/// guess whether the protocol header is present or not".
pub fn parse_proxy(bytes: &[u8]) -> Result<Progress, Malformed> {
    let is_like = |start: &[u8]| bytes.iter().zip(start).all(|(byte, other)| byte == other);
    if bytes.is_empty() {
        return Ok(Progress::Missing(SHORTEST_LINE));
    }
    match is_like(SIGNATURE) {
        true if bytes.len() < FIXED => Ok(Progress::Missing(FIXED - bytes.len())),
        true => parse_binary(bytes),
        false if is_like(LINE_START) => parse_line(bytes),
        false => Err(Malformed("it begins with no header of the PROXY protocol")),
    }
}

/// Parses a version 2 header. §2.2: signature, version and command, family and protocol, the length
/// of the rest in network byte order, then the addresses. TLVs after the addresses are skipped.
fn parse_binary(bytes: &[u8]) -> Result<Progress, Malformed> {
    let [version, family] = [bytes[12], bytes[13]];
    // "The highest four bits contains the version. … it must always be sent as \x2 and the
    // receiver must only accept this value."
    if version >> 4 != 2 {
        return Err(Malformed("another version than 2"));
    }
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length > MAX_BEHIND {
        return Err(Malformed("the header is too long"));
    }
    let whole = FIXED + length;
    if bytes.len() < whole {
        return Ok(Progress::Missing(whole - bytes.len()));
    }
    let behind = &bytes[FIXED..whole];
    let source = match version & 0x0F {
        // "\x0 : LOCAL … The receiver must accept this connection as valid and must use the real
        // connection endpoints and discard the protocol block including the family which is
        // ignored."
        0 => Source::Local,
        1 => client(family, behind)?,
        // "Receivers must drop connections presenting unexpected values here."
        _ => return Err(Malformed("an unknown command")),
    };
    Ok(Progress::Whole(source, whole))
}

/// Parses the addresses. "The highest 4 bits contain the address family, the lowest 4 bits contain
/// the protocol."
fn client(family: u8, behind: &[u8]) -> Result<Source, Malformed> {
    let short = Malformed("the addresses are cut short");
    match family {
        // AF_UNSPEC: "the receiver should ignore address information".
        0x00 => Ok(Source::Unknown),
        // AF_INET, SOCK_STREAM: two addresses of 4 bytes, two ports.
        0x11 if behind.len() >= 12 => {
            let address: [u8; 4] = behind[..4].try_into().map_err(|_| short)?;
            Ok(Source::Client(Ipv4Addr::from(address).into()))
        }
        0x21 if behind.len() >= 36 => {
            let address: [u8; 16] = behind[..16].try_into().map_err(|_| short)?;
            Ok(Source::Client(Ipv6Addr::from(address).to_canonical()))
        }
        // AF_UNIX: two paths of 108 bytes.
        0x31 if behind.len() >= 216 => Ok(Source::Unknown),
        0x11 | 0x21 | 0x31 => Err(short),
        // SOCK_DGRAM, and "other values … MUST be rejected as invalid by receivers".
        _ => Err(Malformed("an unknown family or protocol")),
    }
}

/// Parses a version 1 header. §2.1: "the string "PROXY" …, exactly one space, … the protocol family
/// …, source address,
/// destination address, … ports, … the CRLF sequence".
fn parse_line(bytes: &[u8]) -> Result<Progress, Malformed> {
    let end = bytes.iter().position(|&byte| byte == b'\n');
    let Some(end) = end else {
        return match LONGEST_LINE.checked_sub(bytes.len()) {
            None | Some(0) => Err(Malformed("the line is too long")),
            Some(left) => Ok(Progress::Missing(missing_of_line(bytes).min(left))),
        };
    };
    if end >= LONGEST_LINE || end == 0 || bytes[end - 1] != b'\r' {
        return Err(Malformed("the line is too long, or does not end in CRLF"));
    }
    let line = bytes.get(LINE_START.len()..end - 1).unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| Malformed("the line is no text"))?;
    let source = line_source(line).ok_or(Malformed("the line is no header"))?;
    Ok(Progress::Whole(source, end + 1))
}

fn line_source(line: &str) -> Option<Source> {
    // "the receiver must ignore anything presented before the CRLF is found".
    if line == "UNKNOWN" || line.starts_with("UNKNOWN ") {
        return Some(Source::Unknown);
    }
    let mut words = line.split(' ');
    let mut next = || words.next();
    let family = next()?;
    let [source, destination] = [next()?, next()?];
    let ports = [next()?, next()?];
    let address = match family {
        "TCP4" => [source, destination].map(|word| word.parse().ok().map(IpAddr::V4)),
        "TCP6" => [source, destination].map(|word| word.parse().ok().map(IpAddr::V6)),
        _ => return None,
    };
    let are_ports = ports.iter().all(|port| is_port(port));
    match (address, words.next()) {
        ([Some(source), Some(_)], None) if are_ports => Some(Source::Client(source.to_canonical())),
        _ => None,
    }
}

/// Returns whether `text` is a port: "TCP source port represented as a decimal number …, in the
/// range [0..65535]"; without leading zeros.
fn is_port(text: &str) -> bool {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    is_number && (text == "0" || !text.starts_with('0')) && text.parse::<u16>().is_ok()
}

/// Returns a lower bound for the missing bytes of an unterminated line.
fn missing_of_line(bytes: &[u8]) -> usize {
    if bytes.len() < SHORTEST_LINE - 1 {
        return SHORTEST_LINE - bytes.len();
    }
    let behind = &bytes[LINE_START.len()..];
    let spaces = behind.iter().filter(|&&byte| byte == b' ').count();
    let end = if bytes.ends_with(b"\r") { 1 } else { 2 };
    match behind.starts_with(b"UNKNOWN") || end == 1 {
        true => end,
        // A space and a character for each word that has not begun, then CRLF.
        false => 4_usize.saturating_sub(spaces) * 2 + 2,
    }
}

/// §2.2: "a 12 bytes signature".
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The signature, and four bytes for version, family, and length.
const FIXED: usize = 16;
const LINE_START: &[u8; 6] = b"PROXY ";
/// The length of `PROXY UNKNOWN` and CRLF.
const SHORTEST_LINE: usize = 15;
/// §2.1: "a 108-byte buffer is always enough to store all the line and a trailing zero".
const LONGEST_LINE: usize = 107;
/// Maximum bytes after the fixed part. Addresses take at most 216 bytes. The largest TLVs in use
/// carry client certificate details.
const MAX_BEHIND: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    fn binary(version: u8, family: u8, behind: &[u8]) -> Vec<u8> {
        let length = (behind.len() as u16).to_be_bytes();
        [&SIGNATURE[..], &[version, family], &length, behind].concat()
    }

    /// Parses as the engine does, requesting no more than the missing bytes, and returns the source
    /// and the header length. Bytes after the header must not be consumed.
    fn read(bytes: &[u8]) -> Result<(Source, usize), Malformed> {
        let mut length = 0;
        loop {
            match parse_proxy(&bytes[..length])? {
                Progress::Whole(source, whole) => {
                    assert_eq!(whole, length, "more was asked for than belongs to it");
                    return Ok((source, whole));
                }
                Progress::Missing(missing) => {
                    assert!(missing > 0);
                    length += missing;
                    assert!(length <= bytes.len(), "more was asked for than there is");
                }
            }
        }
    }

    fn v4(address: [u8; 4]) -> Source {
        Source::Client(IpAddr::from(address))
    }

    /// Valid headers and the sources they report.
    fn good() -> Vec<(Vec<u8>, Source)> {
        let inet = [203, 0, 113, 7, 10, 0, 0, 1, 0x12, 0x67, 0x01, 0xBB];
        let mut inet6 = [0; 36];
        inet6[..4].copy_from_slice(&[0x20, 0x01, 0x0D, 0xB8]);
        inet6[15] = 2;
        let mapped = [&[0; 10][..], &[0xFF, 0xFF, 203, 0, 113, 7], &[0; 20]].concat();
        let with_tlv = [&inet[..], &[0x03, 0, 4, 1, 2, 3, 4], &[0x04, 0, 0]].concat();
        let ipv6 = Source::Client("2001:db8::2".parse().unwrap());
        let line = |text: &str| text.as_bytes().to_vec();
        vec![
            (binary(0x21, 0x11, &inet), v4([203, 0, 113, 7])),
            (binary(0x21, 0x11, &with_tlv), v4([203, 0, 113, 7])),
            (binary(0x21, 0x21, &inet6), ipv6),
            (binary(0x21, 0x21, &mapped), v4([203, 0, 113, 7])),
            (binary(0x21, 0x31, &[b'/'; 216]), Source::Unknown),
            (binary(0x21, 0x00, &[]), Source::Unknown),
            (binary(0x21, 0x00, &[1, 2, 3]), Source::Unknown),
            (binary(0x20, 0x00, &[]), Source::Local),
            (binary(0x20, 0xFF, &inet), Source::Local),
            (binary(0x21, 0x11, &[7; MAX_BEHIND]), v4([7; 4])),
            (line("PROXY UNKNOWN\r\n"), Source::Unknown),
            (line("PROXY UNKNOWN ffff:f\rf f 1 2\r\n"), Source::Unknown),
            (line("PROXY TCP4 1.2.3.4 5.6.7.8 0 1\r\n"), v4([1, 2, 3, 4])),
            (
                line("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"),
                v4([255; 4]),
            ),
            (line("PROXY TCP6 2001:db8::2 ::1 1 65535\r\n"), ipv6),
            (
                line("PROXY TCP6 ::ffff:1.2.3.4 ::1 1 2\r\n"),
                v4([1, 2, 3, 4]),
            ),
        ]
    }

    #[test]
    fn headers_parse_at_any_split_without_consuming_later_bytes() {
        for (header, want) in good() {
            let behind = [&header[..], b"GET /ws HTTP/1.1\r\n"].concat();
            assert_eq!(read(&behind), Ok((want, header.len())), "{header:x?}");
            for end in 0..header.len() {
                let Ok(Progress::Missing(missing)) = parse_proxy(&header[..end]) else {
                    panic!("{end} bytes of {header:x?}");
                };
                assert!(
                    (1..=header.len() - end).contains(&missing),
                    "{end}: {header:x?}"
                );
            }
        }
    }

    #[test]
    fn as_many_bytes_are_requested_as_are_certain() {
        let header = binary(0x21, 0x11, &[7; 100]);
        for (bytes, missing) in [
            (&header[..16], 100),
            (b"PROXY ", 9),
            (b"PROXY TCP4 1.2", 8),
            (b"PROXY UNKNOWN x", 2),
        ] {
            let got = parse_proxy(bytes);
            assert_eq!(got, Ok(Progress::Missing(missing)), "{bytes:x?}");
        }
    }

    // P2
    #[test]
    fn malformed_headers_are_rejected() {
        let mut bad: Vec<Vec<u8>> = vec![
            binary(0x11, 0x11, &[0; 12]),
            binary(0x22, 0x11, &[0; 12]),
            binary(0x21, 0x11, &[0; 11]),
            binary(0x21, 0x21, &[0; 35]),
            binary(0x21, 0x31, &[0; 215]),
            binary(0x21, 0x12, &[0; 12]),
            binary(0x21, 0x41, &[0; 216]),
            binary(0x21, 0x11, &[0; MAX_BEHIND + 1]),
        ];
        for text in [
            "GET / HTTP/1.1\r\n\r\n",
            "proxy TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY  TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            "PROXY TCP4 ::1 ::2 1 2\r\n",
            "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
            "PROXY UDP4 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\r\n",
            "\u{16}\u{3}\u{1}\u{2}",
            "\r\n\r\n\0\r\nQUIT\r",
        ] {
            bad.push(text.into());
        }
        bad.push(format!("PROXY UNKNOWN {}\r\n", "x".repeat(93)).into());
        bad.push(vec![b'\n'; 20]);
        for bytes in bad {
            assert!(parse_proxy(&bytes).is_err(), "{bytes:x?}");
        }
    }

    // P3
    #[test]
    fn unterminated_header_is_rejected() {
        let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
        assert!(matches!(
            parse_proxy(&long.as_bytes()[..106]),
            Ok(Progress::Missing(1))
        ));
        assert!(parse_proxy(&long.as_bytes()[..107]).is_err());
    }

    #[test]
    fn error_gives_the_reason() {
        let text = Malformed("too long").to_string();
        assert_eq!(text, "invalid PROXY protocol header: too long");
    }
}
