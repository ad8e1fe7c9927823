//! `h-realtime publish`: sends events to a running server, one request for each.
//!
//! Owns: the command line, input parsing, and the messages about each event. The server validates
//! the events, and this command prints its reasons. Access to the admin listener is in
//! `admin_client`, and HTTP over Unix sockets in `unix`.

pub(super) mod admin_client;
mod unix;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::StreamDeserializer;
use serde_json::de::IoRead;
use serde_json::value::RawValue;

use self::admin_client::AdminClient;
use super::sanitize::printable;
use crate::config::{KEY_VARIABLE, data_directory};
use crate::exit::Exit;

/// Arguments of `publish`.
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct PublishArgs {
    /// The file that contains the events, or - for standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// The data directory of the server, instead of the configured one
    ///
    /// The command reads the admin address and the publish key from its files admin.address and
    /// publish.key. The environment variable H_REALTIME_PUBLISH_KEY takes precedence over that key.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,

    /// The admin address, instead of the one in the data directory: http://HOST:PORT/ or
    /// unix:/path/to.sock
    #[arg(long, value_name = "URL")]
    pub admin: Option<String>,
}

/// Publishes all events of the input: see [`PublishArgs`].
///
/// # Errors
/// 66 for unreadable input, 65 for an event that is not valid JSON or that the server rejects, 77
/// for a key that is missing, unreadable, or wrong, 69 for a server that is unavailable or responds
/// unexpectedly, 64 and 78 for an invalid address.
pub(super) fn run(args: PublishArgs) -> Result<(), Exit> {
    let input = open(&args.file)?;
    let key = std::env::var(KEY_VARIABLE).ok();
    let data = data_directory(args.data)?;
    let admin = AdminClient::find(&data, args.admin.as_deref(), key)?;
    publish(input, |event| admin.send(event), &mut io::stdout().lock())
}

fn open(file: &Path) -> Result<Box<dyn Read>, Exit> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    match File::open(file) {
        Ok(file) => Ok(Box::new(io::BufReader::new(file))),
        Err(error) => {
            let message = format!("{}: {error}", file.display());
            Err(Exit::new(Exit::NO_INPUT, message))
        }
    }
}

/// Sends each event of `input` with `send`, which returns the number of connections that it
/// matched.
fn publish(
    input: impl Read,
    mut send: impl FnMut(String) -> Result<u64, Exit>,
    out: &mut dyn Write,
) -> Result<(), Exit> {
    let events = StreamDeserializer::<_, Box<RawValue>>::new(IoRead::new(input));
    for (done, event) in events.enumerate() {
        let event = event.map_err(|error| unreadable(done, &error))?;
        let label = label(event.get());
        let matched = send(compact(event.get())).map_err(|exit| after(done, exit))?;
        writeln!(out, "{label} matched {matched}")
            .and_then(|()| out.flush())
            .map_err(|error| {
                after(
                    done + 1,
                    Exit::new(Exit::IO, format!("standard output: {error}")),
                )
            })?;
    }
    Ok(())
}

fn unreadable(done: usize, error: &serde_json::Error) -> Exit {
    if error.is_io() {
        return after(
            done,
            Exit::new(Exit::NO_INPUT, format!("cannot read the input: {error}")),
        );
    }
    after(
        done,
        Exit::new(Exit::DATA, format!("not valid JSON: {error}")),
    )
}

/// Adds to a failure the number of events that were published, so that the user can resume.
fn after(done: usize, exit: Exit) -> Exit {
    let event = match exit.code {
        Exit::DATA => format!("event {}: ", done + 1),
        _ => String::new(),
    };
    let before = match (exit.code, done) {
        (Exit::DATA, 0) => " (no event was published)".to_owned(),
        (_, 0) => String::new(),
        (_, 1) => " (1 event was published before it)".to_owned(),
        (_, done) => format!(" ({done} events were published before it)"),
    };
    let message = format!("{event}{}{before}", exit.message);
    Exit::new(exit.code, message)
}

/// Returns the label of an event in the output: its action, and the id or the user it concerns.
fn label(event: &str) -> String {
    #[derive(Default, Deserialize)]
    struct Label {
        action: Option<String>,
        annotation_id: Option<String>,
        annotation: Option<Annotation>,
        #[serde(rename = "type")]
        kind: Option<String>,
        userid: Option<String>,
    }
    #[derive(Deserialize)]
    struct Annotation {
        id: Option<String>,
    }
    let label: Label = serde_json::from_str(event).unwrap_or_default();
    let action = label.action.or(label.kind);
    let own_id = label.annotation.and_then(|annotation| annotation.id);
    let subject = label.annotation_id.or(own_id).or(label.userid);
    printable(&format!(
        "{} {}",
        action.as_deref().unwrap_or("event"),
        subject.as_deref().unwrap_or("-")
    ))
}

/// Removes white space between the tokens of `json`, so that it is on one line. Number formats,
/// escapes, and repeated keys are sent unchanged.
fn compact(json: &str) -> String {
    let mut short = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = c == '\\' && !escaped;
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            in_string = c == '"';
        }
        short.push(c);
    }
    short
}

const EXAMPLES: &str = "\
Examples:
  One event from a file:
    h-realtime publish event.json
  Events from another program as they occur, one per line:
    my-program | h-realtime publish - --data /var/lib/h-realtime

An event has the format of h's message queue, with the annotation included:
  {\"topic\":\"annotation\",\"action\":\"create\",\"annotation_id\":\"ID\",\"src_client_id\":null,
   \"annotation\":{\"id\":\"ID\",\"user\":\"acct:joe@example.org\",\"uri\":\"https://example.org/\",
                 \"group\":\"__world__\",\"permissions\":{\"read\":[\"group:__world__\"]}}}
  {\"topic\":\"user\",\"type\":\"group-join\",\"userid\":\"acct:joe@example.org\",\"session_model\":{…}}

Exit codes: 0 all events published, 64 usage error, 65 event rejected, 66 input unreadable,
69 server unavailable, 77 permission denied.";

#[cfg(test)]
mod tests {
    use super::*;

    fn published(
        input: &str,
        answers: &mut dyn FnMut(&str) -> Result<u64, Exit>,
    ) -> (Vec<String>, String, Option<Exit>) {
        let (mut sent, mut out) = (Vec::new(), Vec::new());
        let send = |event: String| {
            let answer = answers(&event);
            sent.push(event);
            answer
        };
        let exit = publish(input.as_bytes(), send, &mut out).err();
        (sent, String::from_utf8(out).expect("text"), exit)
    }

    #[test]
    fn events_are_compacted_sent_separately_and_labeled() {
        let input = "\u{20}{ \"topic\": \"annotation\",\n  \"action\": \"create\", \"annotation_id\": \"A b\",\r\n \"n\": 1.50e3 }\n\
            {\"type\":\"group-join\",\"userid\":\"acct:joe@example.org\"}{\"action\":1}\n\n[ 1 ]\n\
            {\"action\":\"update\",\"annotation\":{\"id\":\"C\",\"x\":{}}}";
        let mut count = 0;
        let (sent, out, exit) = published(input, &mut |_| {
            count += 1;
            Ok(count)
        });
        assert_eq!(
            sent,
            [
                r#"{"topic":"annotation","action":"create","annotation_id":"A b","n":1.50e3}"#,
                r#"{"type":"group-join","userid":"acct:joe@example.org"}"#,
                r#"{"action":1}"#,
                "[1]",
                r#"{"action":"update","annotation":{"id":"C","x":{}}}"#,
            ]
        );
        assert_eq!(
            out,
            "create A b matched 1\ngroup-join acct:joe@example.org matched 2\n\
             event - matched 3\nevent - matched 4\nupdate C matched 5\n"
        );
        assert!(exit.is_none());
    }

    #[test]
    fn first_failure_stops_and_is_numbered() {
        let refuse = |code, at: usize| {
            let mut calls = 0;
            move |_: &str| {
                calls += 1;
                if calls == at {
                    Err(Exit::new(code, "why"))
                } else {
                    Ok(0)
                }
            }
        };
        for (input, code, at, sent, message) in [
            (
                "{} {} {}",
                Exit::DATA,
                2,
                2,
                "event 2: why (1 event was published before it)",
            ),
            (
                "{} {} {}",
                Exit::DATA,
                1,
                1,
                "event 1: why (no event was published)",
            ),
            ("{} {} {}", Exit::UNAVAILABLE, 1, 1, "why"),
            (
                "{} {} {}",
                Exit::UNAVAILABLE,
                2,
                2,
                "why (1 event was published before it)",
            ),
            (
                "{} {} {}",
                Exit::NO_PERMISSION,
                3,
                3,
                "why (2 events were published before it)",
            ),
            ("{} {", Exit::DATA, 9, 1, "event 2: not valid JSON: "),
            ("{}\n{a:1}", Exit::DATA, 9, 1, "event 2: not valid JSON: "),
        ] {
            let found = published(input, &mut refuse(code, at));
            let exit = found.2.expect(input);
            assert_eq!((exit.code, found.0.len()), (code, sent), "{input}");
            assert!(exit.message.starts_with(message), "{}", exit.message);
            let done = sent - usize::from(found.0.len() == at);
            let counted = match done {
                0 => exit.code != Exit::DATA || exit.message.ends_with("(no event was published)"),
                1 => exit.message.ends_with("(1 event was published before it)"),
                _ => exit.message.ends_with("events were published before it)"),
            };
            assert!(counted, "{input}: {}", exit.message);
        }
        assert!(published("", &mut |_| Ok(0)).2.is_none());
    }

    #[test]
    fn event_is_sent_before_the_next_is_read() {
        struct Endless<'a>(&'a [u8]);
        impl Read for Endless<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                match self.0 {
                    [] => Err(io::Error::other("waits for ever")),
                    bytes => {
                        let n = bytes.len().min(buffer.len());
                        buffer[..n].copy_from_slice(&bytes[..n]);
                        self.0 = &bytes[n..];
                        Ok(n)
                    }
                }
            }
        }
        let mut out = Vec::new();
        let exit = publish(Endless(b"{\"action\":\"create\"}\n"), |_| Ok(1), &mut out);
        assert_eq!(exit.expect_err("the input fails").code, Exit::NO_INPUT);
        assert_eq!(out, b"create - matched 1\n");
    }

    #[test]
    fn only_white_space_between_tokens_is_removed() {
        for (json, short) in [
            ("{ \"a b\" : [ 1 , 2 ] }", r#"{"a b":[1,2]}"#),
            ("[\"\\\" x\", \"\\\\\" , 1]", r#"["\" x","\\",1]"#),
            (
                "{\"\u{a0}\":\t-0.0,\r\n\"\u{a0}\":\"\\ud800\"}",
                "{\"\u{a0}\":-0.0,\"\u{a0}\":\"\\ud800\"}",
            ),
        ] {
            assert_eq!(compact(json), short);
        }
    }
}
