//! Negotiation of permessage-deflate (RFC 7692 §7.1) in `Sec-WebSocket-Extensions`.
//!
//! An offer never fails the handshake. If no offer is acceptable, compression is not used.
//!
//! An offer is declined if it contains an unknown or repeated parameter, or a parameter with a
//! missing, unexpected, or invalid value. Other offers are answered with `permessage-deflate;
//! server_no_context_takeover; client_no_context_takeover`, plus:
//!
//! | offered                        | added to the answer        | our messages      |
//! |--------------------------------|----------------------------|-------------------|
//! | `server_max_window_bits=8`     | declined                   |                   |
//! | `server_max_window_bits=9..11` | the same                   | never compressed  |
//! | `server_max_window_bits=12..15`| `server_max_window_bits=12`| may be compressed |
//! | no `server_max_window_bits`    |                            | may be compressed |
//!
//! `server_no_context_takeover`, `client_no_context_takeover`, and `client_max_window_bits`
//! (without a value, or with a value from 8 to 15) change nothing: neither side keeps a context,
//! and the decompressor uses the largest window.

use std::borrow::Cow;

use crate::ws::DEFLATE_WINDOW_BITS;

/// The negotiated compression parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deflate {
    /// The `server_max_window_bits` parameter of the answer.
    window_bits: Option<u8>,
}

impl Deflate {
    /// Returns whether messages to the client may be compressed, which requires that the client
    /// accepted our window size. §7.2.1 lets the sender decide for each message.
    pub fn may_send(self) -> bool {
        self.window_bits
            .is_none_or(|bits| bits >= DEFLATE_WINDOW_BITS)
    }

    /// Encodes the header field of the answer.
    pub(super) fn encode(self, out: &mut Vec<u8>) {
        out.extend_from_slice(
            b"Sec-WebSocket-Extensions: permessage-deflate; \
              server_no_context_takeover; client_no_context_takeover",
        );
        if let Some(bits) = self.window_bits {
            out.extend_from_slice(format!("; server_max_window_bits={bits}").as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Selects the first acceptable offer from the header fields in the order in which they were
/// received; RFC 6455 §9.1 orders offers by preference. Returns `None` if any field violates the
/// grammar.
pub(super) fn negotiate<'a>(fields: impl Iterator<Item = &'a [u8]>) -> Option<Deflate> {
    let mut accepted = None;
    for field in fields {
        let mut rest = Rest(field);
        // RFC 9110 §5.6.1.2: "A recipient MUST parse and ignore a reasonable number of empty
        // list elements".
        while rest.skip_spaces() {
            if rest.take(b',') {
                continue;
            }
            let offer = read_extension(&mut rest)?;
            accepted = accepted.or(offer);
            if rest.skip_spaces() && !rest.take(b',') {
                return None;
            }
        }
    }
    accepted
}

/// Parses one extension with its parameters. The inner option is the answer to it; the outer one is
/// `None` if the extension violates the grammar.
fn read_extension(rest: &mut Rest<'_>) -> Option<Option<Deflate>> {
    let mut is_acceptable = rest.token()? == b"permessage-deflate";
    let mut offer = Offer::default();
    while rest.skip_spaces() && rest.take(b';') {
        rest.skip_spaces();
        let name = rest.token()?;
        let value = match rest.skip_spaces() && rest.take(b'=') {
            true => Some(rest.value()?),
            false => None,
        };
        is_acceptable = is_acceptable && offer.add(name, value.as_deref()).is_some();
    }
    Some(offer.answer().filter(|_| is_acceptable))
}

/// The parameters of the offer parsed so far. Each inner value is the parameter's value.
#[derive(Default)]
struct Offer {
    server_no_context: Option<()>,
    client_no_context: Option<()>,
    server_bits: Option<u8>,
    client_bits: Option<Option<u8>>,
}

impl Offer {
    /// Adds a parameter. Returns `None` if the parameter makes the offer unacceptable (§7.1).
    fn add(&mut self, name: &[u8], value: Option<&[u8]>) -> Option<()> {
        let is_new = match (name, value) {
            (b"server_no_context_takeover", None) => self.server_no_context.replace(()).is_none(),
            (b"client_no_context_takeover", None) => self.client_no_context.replace(()).is_none(),
            (b"server_max_window_bits", Some(value)) => {
                self.server_bits.replace(window_bits(value)?).is_none()
            }
            (b"client_max_window_bits", None) => self.client_bits.replace(None).is_none(),
            (b"client_max_window_bits", Some(value)) => {
                let bits = window_bits(value)?;
                self.client_bits.replace(Some(bits)).is_none()
            }
            _ => false,
        };
        is_new.then_some(())
    }

    fn answer(&self) -> Option<Deflate> {
        // Clients cannot be relied upon to support a window of 8: zlib raises it to 9.
        (self.server_bits != Some(8)).then(|| Deflate {
            window_bits: self.server_bits.map(|bits| bits.min(DEFLATE_WINDOW_BITS)),
        })
    }
}

/// §7.1.2.1: "a decimal integer value without leading zeroes between 8 to 15, inclusive".
fn window_bits(value: &[u8]) -> Option<u8> {
    match value {
        [digit @ (b'8' | b'9')] => Some(digit - b'0'),
        [b'1', digit @ b'0'..=b'5'] => Some(10 + digit - b'0'),
        _ => None,
    }
}

/// The rest of a header field. Each step consumes bytes from the front, and no byte is inspected
/// twice.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    /// Skips white space. Returns whether any input is left.
    fn skip_spaces(&mut self) -> bool {
        while let [b' ' | b'\t', rest @ ..] = self.0 {
            self.0 = rest;
        }
        !self.0.is_empty()
    }

    fn take(&mut self, byte: u8) -> bool {
        match self.0 {
            [first, rest @ ..] if *first == byte => {
                self.0 = rest;
                true
            }
            _ => false,
        }
    }

    fn token(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| !is_token(*byte));
        let (token, rest) = self.0.split_at_checked(end.unwrap_or(self.0.len()))?;
        self.0 = rest;
        (!token.is_empty()).then_some(token)
    }

    /// RFC 6455 §9.1: "When using the quoted-string syntax variant, the value after
    /// quoted-string unescaping MUST conform to the 'token' ABNF."
    fn value(&mut self) -> Option<Cow<'a, [u8]>> {
        self.skip_spaces();
        if !self.take(b'"') {
            return self.token().map(Cow::Borrowed);
        }
        let mut value = Vec::new();
        loop {
            match self.0 {
                [b'"', rest @ ..] => {
                    self.0 = rest;
                    return (!value.is_empty()).then_some(Cow::Owned(value));
                }
                [b'\\', byte, rest @ ..] | [byte, rest @ ..] if is_token(*byte) => {
                    value.push(*byte);
                    self.0 = rest;
                }
                _ => return None,
            }
        }
    }
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the parameters of the answer after the constant ones, or "-" if the offer is
    /// declined.
    fn answer(fields: &[&str]) -> String {
        let Some(deflate) = negotiate(fields.iter().map(|field| field.as_bytes())) else {
            return "-".into();
        };
        let mut out = Vec::new();
        deflate.encode(&mut out);
        let text = String::from_utf8(out).unwrap();
        let always = "Sec-WebSocket-Extensions: permessage-deflate; \
                      server_no_context_takeover; client_no_context_takeover";
        let rest = text.strip_prefix(always).unwrap();
        format!(
            "{}{}",
            rest.trim_end(),
            if deflate.may_send() { "" } else { " in" }
        )
    }

    #[test]
    fn one_offer() {
        for (parameters, want) in [
            ("", ""),
            // Chromium, Firefox.
            ("; client_max_window_bits", ""),
            ("; server_no_context_takeover", ""),
            ("; client_no_context_takeover", ""),
            (
                "; server_no_context_takeover; client_no_context_takeover",
                "",
            ),
            // Python's websockets.
            (
                "; server_max_window_bits=12; client_max_window_bits=12",
                "; server_max_window_bits=12",
            ),
            ("; server_max_window_bits=15", "; server_max_window_bits=12"),
            ("; server_max_window_bits=12", "; server_max_window_bits=12"),
            (
                "; server_max_window_bits=11",
                "; server_max_window_bits=11 in",
            ),
            (
                "; server_max_window_bits=9",
                "; server_max_window_bits=9 in",
            ),
            ("; server_max_window_bits=8", "-"),
            ("; client_max_window_bits=8", ""),
            ("; client_max_window_bits=15", ""),
            // Alternative notations of the same offer.
            (
                " ;\tserver_max_window_bits = \"1\\5\" ",
                "; server_max_window_bits=12",
            ),
            (";client_max_window_bits=\"10\"", ""),
            // Malformed parameters.
            ("; server_max_window_bits", "-"),
            ("; server_no_context_takeover=true", "-"),
            ("; client_no_context_takeover=\"true\"", "-"),
            (
                "; server_no_context_takeover; server_no_context_takeover",
                "-",
            ),
            (
                "; client_no_context_takeover; client_no_context_takeover",
                "-",
            ),
            (
                "; server_max_window_bits=12; server_max_window_bits=12",
                "-",
            ),
            ("; client_max_window_bits; client_max_window_bits=12", "-"),
            ("; client_max_window_bits; client_max_window_bits", "-"),
            ("; unheard_of", "-"),
            ("; Client_Max_Window_Bits", "-"),
        ] {
            assert_eq!(
                answer(&[&format!("permessage-deflate{parameters}")]),
                want,
                "{parameters}"
            );
        }
    }

    // CVE-2026-2229.
    #[test]
    fn window_bits_out_of_range() {
        for side in ["server", "client"] {
            for value in [
                "",
                "0",
                "7",
                "08",
                "16",
                "15.0",
                "99",
                "999",
                "-9",
                "+9",
                "0x9",
                "x",
                "\"\"",
                "\"x\"",
                "4294967305",
                "18446744073709551625",
                "9 9",
                "\u{661}\u{665}",
            ] {
                let offer = format!("permessage-deflate; {side}_max_window_bits={value}");
                assert_eq!(answer(&[&offer]), "-", "{offer}");
            }
        }
    }

    #[test]
    fn multiple_fields_form_one_offer_list() {
        const BAD: &str = "permessage-deflate; server_max_window_bits=7";
        const GOOD: &str = "permessage-deflate; server_max_window_bits=10";
        for (fields, want) in [
            (&[][..], "-"),
            (&[""], "-"),
            (&[", ,\t,"], "-"),
            (&["x-webkit-deflate-frame"], "-"),
            (&["permessage-bzip2, permessage-deflate"], ""),
            (&["permessage-deflate-frame"], "-"),
            (&["Permessage-Deflate"], "-"),
            (
                &["permessage-deflate, permessage-deflate; server_max_window_bits=10"],
                "",
            ),
            (
                &[BAD, GOOD, "permessage-deflate"],
                "; server_max_window_bits=10 in",
            ),
            (&[",permessage-deflate,"], ""),
            // A grammar violation anywhere discards all offers.
            (&["permessage-deflate permessage-deflate"], "-"),
            (&["permessage-deflate;"], "-"),
            (&["permessage-deflate; ; client_max_window_bits"], "-"),
            (&["permessage-deflate; =9"], "-"),
            (&["permessage-deflate, x=1"], "-"),
            (&["permessage-deflate, x; y=\"1"], "-"),
            (&["permessage-deflate, x; y=\"1\\"], "-"),
            (&["permessage-deflate, x; y=\"a b\""], "-"),
            (&["permessage-deflate", "\u{e9}"], "-"),
            (&["\"permessage-deflate\""], "-"),
        ] {
            assert_eq!(answer(fields), want, "{fields:?}");
        }
    }

    // CVE-2020-7662, CVE-2020-7663: each byte is inspected a bounded number of times, so that
    // parsing time is linear in the field length.
    #[test]
    fn long_fields_take_linear_time() {
        // Miri is about a thousand times slower.
        let most = if cfg!(miri) { 256 } else { 65_536 };
        let long = |part: &str| format!("permessage-deflate{}", part.repeat(most / part.len()));
        let started = std::time::Instant::now();
        for (field, want) in [
            (long("; a=\"\\a\\a\\a\""), "-"),
            (long(" "), ""),
            (long(", permessage-deflate"), ""),
            (long(","), ""),
            (long("; a"), "-"),
            (
                format!("permessage-deflate; a=\"{}", "\\a".repeat(most / 2)),
                "-",
            ),
            (
                format!("permessage-deflate; a=\"{}", "\\\\".repeat(most / 2)),
                "-",
            ),
            ("a".repeat(most), "-"),
        ] {
            for _ in 0..10 {
                assert_eq!(answer(&[&field]), want);
            }
        }
        // 5 MB; a quadratic parser would take minutes.
        assert!(started.elapsed() < std::time::Duration::from_secs(10));
    }
}
