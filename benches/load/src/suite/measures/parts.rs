//! Building blocks of measures: servers, load commands, and messages.

use super::super::servers::{Program, Spec};
use super::{Arm, Measure};

pub(super) fn fast() -> impl Iterator<Item = (&'static str, Program)> {
    super::super::servers::PEERS.into_iter().take(4)
}

pub(super) fn slow() -> impl Iterator<Item = (&'static str, Program)> {
    super::super::servers::PEERS.into_iter().skip(4)
}

pub(super) fn measure(
    id: &str,
    title: String,
    figures: impl Into<Vec<(&'static str, &'static str)>>,
    arms: Vec<Arm>,
) -> Measure {
    Measure {
        id: id.to_owned(),
        title,
        figures: figures.into(),
        arms,
    }
}

pub(super) fn arm(name: &'static str, server: Spec, load: Vec<String>) -> Arm {
    Arm {
        name,
        server,
        load,
        rare: false,
    }
}

pub(super) fn rare(name: &'static str, server: Spec, load: Vec<String>) -> Arm {
    Arm {
        rare: true,
        ..arm(name, server, load)
    }
}

pub(super) fn program(program: Program) -> Spec {
    Spec {
        program,
        ..Spec::default()
    }
}

pub(super) fn with_tls(kind: Program) -> Spec {
    Spec {
        tls: true,
        ..program(kind)
    }
}

pub(super) fn floor(args: &str, question: usize, answer: &str) -> Spec {
    let mut args = split_args(&format!("{args} --question {question}"));
    if !answer.is_empty() {
        args.extend(["--answer".to_owned(), answer.to_owned()]);
    }
    Spec {
        args,
        ..program(Program::Floor)
    }
}

/// Messages that subscribe to a page. The response to `whoami` shows that the filter has been
/// processed.
pub(super) fn subscribe(page: &str) -> Vec<String> {
    let filter = FILTER.replace("{uri}", page);
    let whoami = r#"{"type":"whoami","id":1}"#.to_owned();
    let hello = "--hello".to_owned();
    vec![
        hello.clone(),
        filter,
        hello,
        whoami,
        "--hello-answers".into(),
        "1".into(),
    ]
}

pub(super) fn publish(event: &str) -> Vec<String> {
    let mut words = split_args("--publish {admin}/events --key {key} --event");
    words.push(event.to_owned());
    words
}

pub(super) fn split_args(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

pub(super) fn per(total: &'static str, user: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![(total, "µs"), (user, "of it user")]
}

pub(super) const BYTES: [(&str, &str); 1] = [("bytes_per_connection", "bytes each")];

pub(super) const PING: &str = r#"{"type":"ping","id":1}"#;

pub(super) const PONG: &str = r#"{"type": "pong", "ok": true, "reply_to": 1}"#;

/// The length of a message in the fan-out measures, in bytes.
pub(super) const MESSAGE: usize = 600;

pub(super) const SHARED: &str = "https://example.org/a";

pub(super) const FILTER: &str = r#"{"filter":{"match_policy":"include_any","clauses":[{"field":"/uri","operator":"one_of","value":["{uri}"],"case_sensitive":false}],"actions":{"create":true,"update":true,"delete":true}}}"#;

pub(super) const EVENT: &str = r#"{"topic":"annotation","action":"create","annotation":{"id":"AAAAAREREeaAAAAAAAAAAQ","created":"2024-01-02T03:04:05.678901+00:00","updated":"2024-01-02T03:04:05.678901+00:00","user":"acct:a@example.org","uri":"{uri}","text":"{text}","permissions":{"read":["group:__world__"]}}}"#;

/// Text that extends an annotation to its intended length.
pub(super) const FILLER: &str = "The quick brown fox jumps over the lazy dog, and reads on. ";
