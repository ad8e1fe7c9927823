//! Parses the messages of clients.
//!
//! Owns: the recognition of messages in JSON, including the untyped forms of old clients, which the
//! official client still sends. Must not know: the handling of messages.

use super::json;

/// A message, borrowed from its text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClientMessage<'a> {
    /// The text of the number to repeat in the reply. Without one there is no reply.
    pub id: Option<&'a str>,
    /// The kind of message.
    pub kind: MessageKind<'a>,
}

/// The kind of message. The members are JSON texts, or `None` if missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MessageKind<'a> {
    Ping,
    Whoami,
    ClientId {
        value: Option<&'a str>,
    },
    Filter {
        filter: Option<&'a str>,
        /// The cursor from which to resume.
        since: Option<&'a str>,
        /// Whether the client requests the server's interpretation of the filter.
        ack: bool,
    },
    /// The JSON text of an unknown type; `null` if the type is missing.
    Unknown {
        type_: &'a str,
    },
}

impl MessageKind<'_> {
    /// Returns the name in the log.
    pub(super) fn as_str(&self) -> &'static str {
        match self {
            MessageKind::Ping => "ping",
            MessageKind::Whoami => "whoami",
            MessageKind::ClientId { .. } => "client_id",
            MessageKind::Filter { .. } => "filter",
            MessageKind::Unknown { .. } => "unknown",
        }
    }
}

/// The reason why a text is not a valid message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ParseError {
    /// Not JSON.
    NotJson,
    /// JSON, but not an object.
    NotAnObject,
    /// An `id` that is a number of more than [`MAX_ID_LEN`] bytes.
    LongId,
}

/// Parses a message. Members that its type does not use are ignored.
///
/// # Errors
/// [`ParseError`]. `NaN` and `Infinity`, which h's parser accepts, are not valid JSON here.
pub(super) fn parse(text: &str) -> Result<ClientMessage<'_>, ParseError> {
    if let Some(id) = plain_ping(text) {
        return Ok(ClientMessage {
            id: Some(id),
            kind: MessageKind::Ping,
        });
    }
    let mut members = Members::default();
    // As in Python, the last of duplicate keys wins.
    let object = json::members(text, |key, value| match key {
        "type" => members.type_ = Some(value),
        "id" => members.id = Some(value),
        "messageType" => members.message_type = Some(value),
        "value" => members.value = Some(value),
        "filter" => members.filter = Some(value),
        "since" => members.since = Some(value),
        "ack" => members.ack = value == "true",
        _ => {}
    });
    match object {
        Ok(()) => members.message(),
        Err(json::JsonError) if json::is_json(text) => Err(ParseError::NotAnObject),
        Err(json::JsonError) => Err(ParseError::NotJson),
    }
}

/// Returns the id of a ping in the form in which JavaScript and Python serialize it, if its id is a
/// short natural number. This is the most frequent message by far: parsing all of it takes four times
/// the instructions. Any other text is left to the parser.
fn plain_ping(text: &str) -> Option<&str> {
    let javascript = text.strip_prefix(r#"{"type":"ping","id":"#);
    let rest = javascript.or_else(|| text.strip_prefix(r#"{"type": "ping", "id": "#))?;
    let id = rest.strip_suffix('}')?;
    let is_natural = match id.as_bytes() {
        [b'1'..=b'9', digits @ ..] if digits.len() < PLAIN_DIGITS => {
            digits.iter().all(u8::is_ascii_digit)
        }
        _ => false,
    };
    is_natural.then_some(id)
}

/// The members that are used, as JSON texts.
#[derive(Default)]
struct Members<'a> {
    type_: Option<&'a str>,
    id: Option<&'a str>,
    message_type: Option<&'a str>,
    value: Option<&'a str>,
    filter: Option<&'a str>,
    since: Option<&'a str>,
    ack: bool,
}

impl<'a> Members<'a> {
    fn message(self) -> Result<ClientMessage<'a>, ParseError> {
        // h also repeats booleans, which are numbers in Python.
        let id = self.id.filter(|id| json::is_number(id));
        if id.is_some_and(|id| id.len() > MAX_ID_LEN) {
            return Err(ParseError::LongId);
        }
        Ok(ClientMessage {
            id,
            kind: self.kind(),
        })
    }

    fn kind(&self) -> MessageKind<'a> {
        let client_id = MessageKind::ClientId { value: self.value };
        let filter = MessageKind::Filter {
            filter: self.filter,
            since: self.since,
            ack: self.ack,
        };
        let type_ = self.type_.unwrap_or("null");
        if type_ == "null" {
            let message_type = self.message_type.and_then(json::string);
            return match message_type.as_deref() {
                // As in h, a filter takes precedence over `messageType`.
                _ if self.filter.is_some() => filter,
                Some("client_id") => client_id,
                _ => MessageKind::Unknown { type_ },
            };
        }
        match json::string(type_).as_deref() {
            Some("ping") => MessageKind::Ping,
            Some("whoami") => MessageKind::Whoami,
            Some("client_id") => client_id,
            Some("filter") => filter,
            _ => MessageKind::Unknown { type_ },
        }
    }
}

/// The maximum length of a number in `id`, in bytes, since a reply repeats it. h repeats integers
/// of up to 4,300 digits.
pub(super) const MAX_ID_LEN: usize = 256;
/// Digits of an id in a ping that is recognized without parsing it.
const PLAIN_DIGITS: usize = 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_kinds_have_the_names_of_their_types() {
        for name in ["ping", "whoami", "client_id", "filter"] {
            let text = format!(r#"{{"type":"{name}"}}"#);
            assert_eq!(parse(&text).map(|message| message.kind.as_str()), Ok(name));
        }
        let other = parse(r#"{"type":"pong"}"#);
        assert_eq!(other.map(|message| message.kind.as_str()), Ok("unknown"));
    }

    #[test]
    fn message_kinds_are_recognized() {
        let unknown = |type_| MessageKind::Unknown { type_ };
        let client_id = |value| MessageKind::ClientId { value };
        let filter = |filter| MessageKind::Filter {
            filter,
            since: None,
            ack: false,
        };
        for (text, expected) in [
            (r#"{"type":"ping"}"#, MessageKind::Ping),
            (r#"{"type":"p\u0069ng"}"#, MessageKind::Ping),
            (r#"{"\u0074ype":"ping"}"#, MessageKind::Ping),
            (r#"{"type":"x","type":"ping"}"#, MessageKind::Ping),
            (r#"{"type":"ping","filter":{}}"#, MessageKind::Ping),
            (r#"{"type":"whoami","x":[[]]}"#, MessageKind::Whoami),
            (r#"{"type":"client_id"}"#, client_id(None)),
            (r#"{"type":"client_id","value":{}}"#, client_id(Some("{}"))),
            (r#"{"type":"filter"}"#, filter(None)),
            (r#"{"type":"filter","filter":null}"#, filter(Some("null"))),
            (r#"{"filter":1}"#, filter(Some("1"))),
            (r#"{"type":null,"filter":1}"#, filter(Some("1"))),
            (
                r#"{"messageType":"client_id","value":"a"}"#,
                client_id(Some(r#""a""#)),
            ),
            (
                r#"{"type":null,"messageType":"client_id"}"#,
                client_id(None),
            ),
            (
                r#"{"messageType":"client_id","filter":1}"#,
                filter(Some("1")),
            ),
            (r#"{"messageType":"ping"}"#, unknown("null")),
            (r#"{"messageType":"filter"}"#, unknown("null")),
            (r#"{}"#, unknown("null")),
            (r#"{"TYPE":"ping"}"#, unknown("null")),
            (r#"{"type":"PING"}"#, unknown(r#""PING""#)),
            (r#"{"type":"ping "}"#, unknown(r#""ping ""#)),
            (r#"{"type":"\ud800"}"#, unknown(r#""\ud800""#)),
            (r#"{"type":1.0}"#, unknown("1.0")),
            (r#"{"type":["ping"]}"#, unknown(r#"["ping"]"#)),
        ] {
            assert_eq!(
                parse(text).map(|message| message.kind),
                Ok(expected),
                "{text}"
            );
        }
    }

    #[test]
    fn ids_are_numbers_kept_verbatim() {
        let long = "9".repeat(MAX_ID_LEN);
        for (id, expected) in [
            ("1", true),
            ("-0", true),
            ("1e400", true),
            ("1.50", true),
            (long.as_str(), true),
            ("true", false),
            ("null", false),
            ("\"1\"", false),
            ("[1]", false),
        ] {
            let text = format!(r#"{{"id":{id}}}"#);
            let actual = parse(&text).map(|message| message.id);
            assert_eq!(actual, Ok(expected.then_some(id)), "{id}");
        }
    }

    #[test]
    fn plain_pings_are_recognized_like_all_others() {
        let parsed = |text: &str| {
            // A space before the text prevents the shortcut.
            let (plain, padded) = (parse(text), format!(" {text}"));
            let full = parse(&padded)
                .map(|message| (message.id.map(str::to_owned), message.kind.as_str()));
            let plain = plain.map(|message| (message.id.map(str::to_owned), message.kind.as_str()));
            assert_eq!(plain, full, "{text}");
        };
        let ids = [
            "1",
            "10",
            "12345678901234567890",
            "123456789012345678901",
            "0",
            "01",
            "-1",
            "1.0",
            "1e3",
            "",
            "1 ",
            " 1",
            "1,",
            "1}",
            "x",
            "1x",
            "\"1\"",
            "null",
            "1,\"id\":2",
            "1,\"type\":\"whoami\"",
            "\u{661}",
        ];
        for id in ids {
            for start in [r#"{"type":"ping","id":"#, r#"{"type": "ping", "id": "#] {
                for end in ["}", "", "}}", "} ", "}x", ","] {
                    parsed(&format!("{start}{id}{end}"));
                }
            }
        }
        let plain = [
            r#"{"type":"ping","id":42}"#,
            r#"{"type": "ping", "id": 42}"#,
        ];
        assert_eq!(plain.map(plain_ping), [Some("42"); 2]);
        assert_eq!(plain_ping(r#"{"type":"ping","id":0}"#), None);
    }

    #[test]
    fn overlong_ids_are_refused() {
        for id in [
            "9".repeat(MAX_ID_LEN + 1),
            format!("0.{}", "0".repeat(30_000)),
        ] {
            let text = format!(r#"{{"type":"ping","id":{id}}}"#);
            assert_eq!(parse(&text), Err(ParseError::LongId));
            // The last of duplicate keys wins.
            let text = format!(r#"{{"id":{id},"id":1}}"#);
            assert_eq!(parse(&text).map(|message| message.id), Ok(Some("1")));
            let text = format!(r#"{{"id":"{id}"}}"#);
            assert_eq!(parse(&text).map(|message| message.id), Ok(None));
        }
        assert_eq!(parse(r#"{"ID":1}"#).map(|message| message.id), Ok(None));
    }

    #[test]
    fn invalid_messages_are_unreadable() {
        use ParseError::{NotAnObject, NotJson};
        for (text, expected) in [
            ("", NotJson),
            ("  \n ", NotJson),
            ("hello", NotJson),
            ("NaN", NotJson),
            (r#"{"id":NaN}"#, NotJson),
            (r#"{"id":01}"#, NotJson),
            (r#"{"type":"#, NotJson),
            (r#"{"type":"ping"} // x"#, NotJson),
            ("null", NotAnObject),
            (" true", NotAnObject),
            ("1", NotAnObject),
            ("\"{}\"", NotAnObject),
            (r#"[{"type":"ping","id":1}]"#, NotAnObject),
        ] {
            assert_eq!(parse(text), Err(expected), "{text}");
        }
    }
}
