//! Headers of the PROXY protocol, compared with a naive parser.

use std::net::IpAddr;

use h_realtime_engine::http::{Progress, Source, parse_proxy};

/// Input: the first bytes of a connection. Read as the engine does, requesting no more bytes than
/// are known to be missing, the result equals that of a naive parser, and no byte after the header
/// is requested.
pub fn proxy_header(input: &[u8]) {
    let mut length = 0;
    let read = loop {
        match parse_proxy(&input[..length]) {
            Ok(Progress::Whole(source, whole)) => {
                assert_eq!(whole, length, "bytes after the header were requested");
                break Some((source, whole));
            }
            Ok(Progress::Missing(missing)) => {
                assert!((1..=4096).contains(&missing), "{missing}");
                length += missing;
                assert!(length <= 4096, "the parser does not finish");
                if length > input.len() {
                    return;
                }
            }
            Err(_) => break None,
        }
    };
    let naive = naive(input);
    assert_eq!(read, naive);
    // No prefix of a valid header is an error.
    for end in 0..read.map_or(0, |(_, whole)| whole) {
        assert!(
            matches!(parse_proxy(&input[..end]), Ok(Progress::Missing(_))),
            "{end}"
        );
    }
}

/// Parses all bytes at once; `None` if they are not a header.
fn naive(input: &[u8]) -> Option<(Source, usize)> {
    if let Some(rest) = input.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n") {
        let (&[command, family, high, low], rest) = rest.split_first_chunk()?;
        let length = usize::from(high) * 256 + usize::from(low);
        let behind = rest.get(..length).filter(|_| length <= 2048)?;
        let v4 = || behind.first_chunk::<4>().filter(|_| length >= 12);
        let v6 = || behind.first_chunk::<16>().filter(|_| length >= 36);
        let source = match (command, family) {
            (0x20, _) => Source::Local,
            (0x21, 0) => Source::Unknown,
            (0x21, 0x11) => Source::Client(IpAddr::from(*v4()?)),
            (0x21, 0x21) => Source::Client(IpAddr::from(*v6()?).to_canonical()),
            (0x21, 0x31) if length >= 216 => Source::Unknown,
            _ => return None,
        };
        return Some((source, 16 + length));
    }
    let end = input.windows(2).position(|pair| pair == b"\r\n")?;
    let line = std::str::from_utf8(&input[..end]).ok();
    let line = line.filter(|line| line.len() <= 105 && !line.contains('\n'))?;
    let words: Vec<&str> = line.split(' ').collect();
    let port = |text: &str| {
        text.parse::<u16>()
            .is_ok_and(|port| port.to_string() == text)
    };
    let source = match words[..] {
        ["PROXY", "UNKNOWN", ..] => Source::Unknown,
        ["PROXY", family, from, to, a, b] if port(a) && port(b) => {
            let (from, to): (IpAddr, IpAddr) = (from.parse().ok()?, to.parse().ok()?);
            let is_right = match family {
                "TCP4" => from.is_ipv4() && to.is_ipv4(),
                "TCP6" => from.is_ipv6() && to.is_ipv6(),
                _ => false,
            };
            is_right.then(|| Source::Client(from.to_canonical()))?
        }
        _ => return None,
    };
    Some((source, end + 2))
}
