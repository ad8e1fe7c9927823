//! The negotiation of compression, compared with a naive parser and with the responses that RFC
//! 7692 §7.1 permits.

use h_realtime_engine::http::{Head, Upgrade, check_upgrade, parse_head};
use h_realtime_engine::ws::DEFLATE_WINDOW_BITS;

/// Input: a choice, then the header fields, one per line.
pub fn extensions(input: &[u8]) {
    let &[choice, ref lines @ ..] = input else {
        return;
    };
    let lines = lines.split(|&byte| byte == b'\n').take(MAX_FIELDS);
    let fields: Vec<_> = lines.collect();
    if choice == LONG {
        // The fuzzer's timeout detects more than linear time.
        upgrade(&[&fields[0].repeat(LONG_FIELD / fields[0].len().max(1))]);
        return;
    }
    // Bytes that are invalid in a request head are rejected before negotiation.
    let Some(upgrade) = upgrade(&fields) else {
        return;
    };
    let offers = read_all(&fields).unwrap_or_default();
    let answer = answer(&upgrade);
    let expected = offers.iter().find_map(expected_answer);
    assert_eq!(answer, expected, "to {offers:?}");
    let bits = answer.as_ref().map(|answer| answer.bits("server"));
    assert_eq!(
        upgrade.deflate().map(|deflate| deflate.may_send()),
        bits.map(|bits| bits.is_none_or(|bits| bits >= DEFLATE_WINDOW_BITS)),
    );
    if let Some(answer) = &answer {
        assert!(offers.iter().any(|offer| may_answer(answer, offer)));
    }
}

/// Returns the upgrade for a handshake with these fields, which never fails because of them.
fn upgrade(fields: &[&[u8]]) -> Option<Upgrade> {
    let mut head = HANDSHAKE.to_vec();
    for field in fields {
        head.extend_from_slice(b"Sec-WebSocket-Extensions: ");
        head.extend_from_slice(field);
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    match parse_head(&head, head.len(), check_upgrade) {
        Ok(Head::Complete(upgrade)) => Some(upgrade.expect("a valid handshake")),
        Ok(Head::Partial) => panic!("an incomplete head"),
        Err(_) => None,
    }
}

/// Returns the field of our response, which is one extension.
fn answer(upgrade: &Upgrade) -> Option<Extension> {
    let mut head = Vec::new();
    upgrade.encode(&mut head);
    let head = String::from_utf8(head).expect("ASCII");
    let mut lines = head.split("\r\n");
    let field = lines.find_map(|line| line.strip_prefix("Sec-WebSocket-Extensions: "))?;
    let [extension] = &read(field.as_bytes()).expect("a list")[..] else {
        panic!("not one extension: {field}");
    };
    Some(extension.clone())
}

/// The name and the parameters of an extension.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Extension {
    name: String,
    parameters: Vec<(String, Option<String>)>,
}

impl Extension {
    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = Option<&'a str>> {
        let named = self.parameters.iter().filter(move |named| named.0 == name);
        named.map(|named| named.1.as_deref())
    }

    fn bits(&self, side: &str) -> Option<u8> {
        let name = format!("{side}_max_window_bits");
        self.all(&name).flatten().next()?.parse().ok()
    }

    /// Returns whether it is permessage-deflate with parameters that §7.1 defines, each at most
    /// once, and with permitted values.
    fn is_valid(&self) -> bool {
        let bits: Vec<_> = (8..16).map(|bits: u8| bits.to_string()).collect();
        let is_bits = |value: &Option<String>| value.as_ref().is_some_and(|v| bits.contains(v));
        let is_known = |(name, value): &(String, Option<String>)| match name.as_str() {
            "server_no_context_takeover" | "client_no_context_takeover" => value.is_none(),
            "server_max_window_bits" => is_bits(value),
            "client_max_window_bits" => value.is_none() || is_bits(value),
            _ => false,
        };
        self.name == "permessage-deflate"
            && self.parameters.iter().all(is_known)
            && KNOWN.iter().all(|name| self.all(name).count() <= 1)
    }
}

/// Returns our response to an offer, following the table of `http::extensions`.
fn expected_answer(offer: &Extension) -> Option<Extension> {
    let bits = offer.bits("server");
    if !offer.is_valid() || bits == Some(8) {
        return None;
    }
    let mut parameters = vec![
        ("server_no_context_takeover".to_owned(), None),
        ("client_no_context_takeover".to_owned(), None),
    ];
    if let Some(bits) = bits {
        let bits = bits.min(DEFLATE_WINDOW_BITS).to_string();
        parameters.push(("server_max_window_bits".to_owned(), Some(bits)));
    }
    Some(Extension {
        name: offer.name.clone(),
        parameters,
    })
}

/// Returns whether §7.1 permits this response to that offer.
fn may_answer(answer: &Extension, offer: &Extension) -> bool {
    // Offered window bits are upper bounds. The server's must be confirmed and may be sent without
    // an offer (§7.1.2.1); the client's need not be confirmed, and must not be sent without an
    // offer (§7.1.2.2).
    let is_within = |side| match (answer.bits(side), offer.bits(side)) {
        (Some(ours), Some(theirs)) => ours <= theirs,
        (None, Some(_)) => side == "client",
        (Some(_), None) => side == "server" || has(offer, "client_max_window_bits"),
        (None, None) => true,
    };
    answer.is_valid()
        && offer.is_valid()
        && is_within("server")
        && is_within("client")
        // §7.1.1: the server may send its own no_context_takeover without an offer, and must
        // confirm an offered one.
        && (!has(offer, "server_no_context_takeover") || has(answer, "server_no_context_takeover"))
        // Only an offer may leave the value out.
        && answer.all("client_max_window_bits").all(|value| value.is_some())
}

fn has(extension: &Extension, name: &str) -> bool {
    extension.all(name).next().is_some()
}

/// Returns all offers, in order; `None` if any field violates the grammar of RFC 6455 §9.1.
fn read_all(fields: &[&[u8]]) -> Option<Vec<Extension>> {
    let lists: Option<Vec<_>> = fields.iter().map(|field| read(field)).collect();
    Some(lists?.concat())
}

/// Tokenizes a list without its whitespace, then splits it.
fn read(field: &[u8]) -> Option<Vec<Extension>> {
    let lexemes = lexemes(field)?;
    let elements = lexemes.split(|lexeme| *lexeme == Lexeme::Mark(b','));
    let elements = elements.filter(|element| !element.is_empty());
    elements.map(read_extension).collect()
}

fn read_extension(element: &[Lexeme]) -> Option<Extension> {
    let mut parts = element.split(|lexeme| *lexeme == Lexeme::Mark(b';'));
    let Some([Lexeme::Word(name)]) = parts.next() else {
        return None;
    };
    let parameter = |part: &[Lexeme]| match part {
        [Lexeme::Word(name)] => Some((name.clone(), None)),
        [Lexeme::Word(name), Lexeme::Mark(b'='), value] => match value {
            Lexeme::Word(value) | Lexeme::Quoted(value) => {
                Some((name.clone(), Some(value.clone())))
            }
            Lexeme::Mark(_) => None,
        },
        _ => None,
    };
    let parameters: Option<Vec<_>> = parts.map(parameter).collect();
    Some(Extension {
        name: name.clone(),
        parameters: parameters?,
    })
}

#[derive(Debug, PartialEq, Eq)]
enum Lexeme {
    Word(String),
    Quoted(String),
    Mark(u8),
}

/// Returns `None` for input that is neither a word nor a separator, or for a quoted string that is
/// not a valid word.
fn lexemes(field: &[u8]) -> Option<Vec<Lexeme>> {
    let mut lexemes = Vec::new();
    let mut bytes = field.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        lexemes.push(match byte {
            b' ' | b'\t' => continue,
            b',' | b';' | b'=' => Lexeme::Mark(byte),
            b'"' => {
                let mut quoted = Vec::new();
                loop {
                    match bytes.next()? {
                        b'"' => break,
                        b'\\' => quoted.push(bytes.next()?),
                        byte => quoted.push(byte),
                    }
                }
                Lexeme::Quoted(word(quoted)?)
            }
            byte => {
                let mut plain = vec![byte];
                while let Some(byte) = bytes.next_if(|byte| !b" \t,;=\"".contains(byte)) {
                    plain.push(byte);
                }
                Lexeme::Word(word(plain)?)
            }
        });
    }
    Some(lexemes)
}

/// A token of RFC 9110 §5.6.2: printable characters without delimiters.
fn word(bytes: Vec<u8>) -> Option<String> {
    let is_fit = |byte: &u8| byte.is_ascii_graphic() && !b"\"(),/:;<=>?@[\\]{}".contains(byte);
    let is_word = !bytes.is_empty() && bytes.iter().all(is_fit);
    String::from_utf8(bytes).ok().filter(|_| is_word)
}

const HANDSHAKE: &[u8] = b"GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Version: 13\r\n";
const KNOWN: [&str; 4] = [
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
];
const MAX_FIELDS: usize = 16;
/// Selects a repetition of the first line's field up to a length that no request head could have.
const LONG: u8 = 0xFF;
const LONG_FIELD: usize = 64 * 1024;
