//! The conformance program against this server, against recorded h, and against a server that is
//! wrong.

use clap::Parser;

use super::{add_users, recorded};
use crate::kit::program::{Arguments, run};
use crate::support::{Server, TlsServer};

#[derive(clap::Parser)]
struct Cli {
    #[command(flatten)]
    arguments: Arguments,
}

/// Runs the program. Returns whether nothing was wrong, and the output.
fn conformance(url: &str, arguments: &[&str]) -> (bool, String) {
    let cli = Cli::try_parse_from([&["api_conformance", url], arguments].concat()).unwrap();
    let mut out = Vec::new();
    let is_conforming = run(&cli.arguments, &mut out).unwrap();
    (is_conforming, String::from_utf8(out).unwrap())
}

fn counts(output: &str) -> Vec<&str> {
    let last: Vec<_> = output.lines().rev().take(2).collect();
    last.into_iter().rev().collect()
}

#[test]
fn recorded_h_has_no_difference_and_no_extension() {
    let address = recorded::start(|_| ());
    let url = format!("ws://{address}/ws");
    let (is_conforming, output) = conformance(&url, &["--like", "h", "--seeded"]);
    println!("{output}");
    assert!(is_conforming, "{output}");
    let [recordings, extensions] = counts(&output)[..] else {
        panic!("{output}");
    };
    assert!(
        recordings.contains(" 0 intended differences, 0 wrong,"),
        "{output}"
    );
    assert!(extensions.contains(": 0 supported, "), "{output}");
}

#[test]
fn this_server_has_exactly_the_listed_differences() {
    let server = Server::start();
    add_users(&server);
    let (url, admin, key) = (
        format!("ws://{}/ws", server.address()),
        format!("http://{}/", server.admin),
        server.publish_key(),
    );
    let (is_conforming, output) = conformance(
        &url,
        &[
            "--like",
            "h-realtime",
            "--seeded",
            "--admin",
            &admin,
            "--publish-key",
            &key,
            "--token",
            "6879-alice-developer-token",
        ],
    );
    println!("{output}");
    assert!(is_conforming, "{output}");
    assert!(
        output.contains(" supported, 0 not supported, 0 wrong, 0 not checked"),
        "{output}"
    );
    // Without the options, the transcripts and checks that need them are skipped.
    let (is_conforming, output) = conformance(&url, &[]);
    assert!(is_conforming, "{output}");
    assert!(
        output.contains("(--seeded)") && output.contains("--token is needed"),
        "{output}"
    );
}

#[test]
fn servers_behind_tls_are_checked() {
    let tls = TlsServer::start();
    let url = tls.server.listeners[0].replace("127.0.0.1", "localhost");
    let cert = tls.cert.to_str().unwrap();
    let (is_conforming, output) = conformance(&url, &["--ca-cert", cert]);
    assert!(is_conforming, "{output}");
    let (is_conforming, output) = conformance(&url, &[]);
    assert!(!is_conforming, "{output}");
}

#[test]
fn falsified_server_is_reported() {
    let address = recorded::start(|transcripts| {
        for transcript in transcripts {
            for step in &mut transcript.steps {
                for event in step.expected.values_mut().flatten() {
                    let text = event["text"].as_str().unwrap_or("");
                    if text.contains("\"pong\"") {
                        *event = serde_json::json!({"text": text.replace("true", "false")});
                    }
                }
            }
        }
    });
    let (is_conforming, output) = conformance(&format!("ws://{address}/ws"), &[]);
    assert!(!is_conforming, "{output}");
    assert!(output.contains("\nWRONG: ping"), "{output}");
    let (is_conforming, output) = conformance("ws://127.0.0.1:1/ws", &[]);
    assert!(
        !is_conforming && output.starts_with("not a server of the API: cannot connect to"),
        "{output}"
    );
}
