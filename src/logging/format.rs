//! The formats of log lines.

use std::fmt::Write;
use std::io::{self, IsTerminal};

use jiff::Timestamp;
use log::{Level, Record};

/// A log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Format {
    /// Time, level, module, and message, for people.
    Text,
    /// The priority as `<6>`, and the message. The journal adds the rest (sd-daemon(3)).
    Journal,
    /// A JSON object.
    Json,
}

impl Format {
    /// Returns the format that suits standard error: the journal's format if systemd says that
    /// standard error is connected to the journal, otherwise text.
    pub fn detected() -> Format {
        let stream = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        match is_journal(&stream) && !io::stderr().is_terminal() {
            true => Format::Journal,
            false => Format::Text,
        }
    }

    pub(super) fn from_number(number: u8) -> Format {
        match number {
            number if number == Format::Journal as u8 => Format::Journal,
            number if number == Format::Json as u8 => Format::Json,
            _ => Format::Text,
        }
    }

    /// Formats a record as a line with its newline.
    pub(super) fn line(self, now: Timestamp, record: &Record<'_>) -> String {
        let message = record.args().to_string();
        let (level, target) = (record.level(), record.target());
        let mut line = String::new();
        let _ = match self {
            Format::Text => {
                let time = now.strftime("%Y-%m-%dT%H:%M:%SZ");
                write!(line, "[{time} {level:<5} {target}] ")
            }
            Format::Journal if level > Level::Info => write!(line, "<7>{target}: "),
            Format::Journal => write!(line, "<{}>", priority(level)),
            Format::Json => {
                let object = serde_json::json!({
                    "time": now.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
                    "level": level.as_str().to_lowercase(),
                    "target": target,
                    "message": cut(&message).0,
                });
                return format!("{object}\n");
            }
        };
        escape(&message, &mut line);
        line.push('\n');
        line
    }
}

/// Returns the syslog priority of a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// Returns whether standard error is the stream that systemd names, as `device:inode`.
fn is_journal(stream: &str) -> bool {
    let numbers = stream.split_once(':');
    let numbers =
        numbers.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    let (Some(named), Ok(file)) = (numbers, rustix::fs::fstat(io::stderr())) else {
        return false;
    };
    named == (file.st_dev, file.st_ino)
}

/// Escapes a message, so that text from a peer can neither forge a line nor move the cursor of a
/// terminal.
fn escape(message: &str, line: &mut String) {
    let (message, is_cut) = cut(message);
    for c in message.chars() {
        match c {
            _ if c.is_control() => line.extend(c.escape_default()),
            // Other line separators, and characters that change the text direction.
            '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => line.extend(c.escape_unicode()),
            _ => line.push(c),
        }
    }
    if is_cut {
        line.push('…');
    }
}

/// Truncates a message that is too long for a line.
fn cut(message: &str) -> (&str, bool) {
    if message.len() <= MAX_MESSAGE {
        return (message, false);
    }
    let end = (0..=MAX_MESSAGE)
        .rev()
        .find(|&end| message.is_char_boundary(end));
    (&message[..end.unwrap_or(0)], true)
}

/// The maximum length of a message in bytes.
const MAX_MESSAGE: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: Format, level: Level, message: &str) -> String {
        let now = Timestamp::from_millisecond(1_700_000_000_123).unwrap();
        let arguments = format_args!("{message}");
        let record = Record::builder()
            .args(arguments)
            .level(level)
            .target("a::b")
            .build();
        format.line(now, &record)
    }

    #[test]
    fn each_record_is_one_line() {
        for (format, level, want) in [
            (
                Format::Text,
                Level::Info,
                "[2023-11-14T22:13:20Z INFO  a::b] so\n",
            ),
            (
                Format::Text,
                Level::Error,
                "[2023-11-14T22:13:20Z ERROR a::b] so\n",
            ),
            (Format::Journal, Level::Error, "<3>so\n"),
            (Format::Journal, Level::Warn, "<4>so\n"),
            (Format::Journal, Level::Info, "<6>so\n"),
            (Format::Journal, Level::Debug, "<7>a::b: so\n"),
            (
                Format::Json,
                Level::Warn,
                "{\"time\":\"2023-11-14T22:13:20.123Z\",\"level\":\"warn\",\"target\":\"a::b\",\"message\":\"so\"}\n",
            ),
        ] {
            assert_eq!(line(format, level, "so"), want);
            assert_eq!(Format::from_number(format as u8), format);
        }
    }

    // RUSTSEC-2025-0055
    #[test]
    fn messages_cannot_forge_lines_and_are_truncated() {
        let evil = "a\nb\r\u{1b}[2J\u{9b}\0\u{202e}\u{2028}é";
        let escaped = r"a\nb\r\u{1b}[2J\u{9b}\u{0}\u{202e}\u{2028}é";
        assert_eq!(
            line(Format::Journal, Level::Info, evil),
            format!("<6>{escaped}\n")
        );
        let json = line(Format::Json, Level::Info, evil);
        assert_eq!(json.matches('\n').count(), 1);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["message"], evil);
        let long = "é".repeat(3000);
        assert_eq!(
            line(Format::Journal, Level::Info, &long).chars().count(),
            3 + 2048 + 2
        );
    }

    #[test]
    fn journal_is_detected_by_device_and_inode() {
        let file = rustix::fs::fstat(io::stderr()).unwrap();
        assert!(is_journal(&format!("{}:{}", file.st_dev, file.st_ino)));
        assert!(!is_journal(&format!("{}:{}", file.st_dev, file.st_ino + 1)));
        for text in ["", "1", ":", "a:b"] {
            assert!(!is_journal(text), "{text}");
        }
    }
}
