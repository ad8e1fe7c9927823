//! Webhooks and feeds of `forward` with the libraries of others: the official library of Standard
//! Webhooks, and a parser of feeds. The scripts are in `tests/clients`.

use std::fs;
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Hook, PATIENCE, PROGRAM, Program, Server, event, eventually, python};

/// Texts that are difficult for formats.
const TEXTS: [&str; 6] = [
    "Hello",
    "<b>&amp;</b> ]]> <!-- \u{1} \u{7f} \u{85} \u{fffe} -->",
    "äöü 漢字 🎉 \u{202e}",
    "line\r\nline\n\n\nparagraph\t.",
    "\"quotes\" 'single' `code` \\ \u{0}",
    "",
];

fn publish(server: &Server, action: &str, more: Value) {
    let (status, answer) = server.publish(&event(action, more).to_string());
    assert_eq!(status, 202, "{answer}");
}

fn forward(server: &Server, args: &[&str]) -> Program {
    let mut command = Command::new(PROGRAM);
    let url = &server.listeners[0];
    let program = Program::start(
        command
            .args(["forward", url, "--group", "__world__"])
            .args(args),
    );
    program.wait_for_error_line("connected");
    program
}

#[test]
#[ignore = "needs python3 with standardwebhooks: run tests/run"]
fn official_library_verifies_signatures_of_all_secrets() {
    let (server, folder) = (Server::start(), TempDir::new().unwrap());
    let secrets = [
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
    ];
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("secret"), secrets.join("\n")).unwrap();
    let hook = Hook::accepting();
    let (url, state, secret) = (hook.url(), path("state"), path("secret"));
    let args = ["--url", &url, "--state", &state, "--secret", &secret];
    let _program = forward(&server, &args);
    let mut requests = Vec::new();
    for (number, text) in TEXTS.iter().enumerate() {
        for action in ["create", "update", "delete"] {
            publish(
                &server,
                action,
                json!({"id": format!("A{number}"), "text": text}),
            );
            let request = hook.next();
            requests.push(json!({"fields": request.fields, "body": request.body}));
        }
    }
    python(
        "webhooks.py",
        &json!({"secrets": secrets, "requests": requests}),
    );
}

#[test]
#[ignore = "needs python3 with feedparser: run tests/run"]
fn feeds_of_difficult_texts_are_valid() {
    let (server, folder) = (Server::start(), TempDir::new().unwrap());
    let out = folder.path().join("feed.atom");
    let own = "https://example.org/feed.atom?a=1&b=2";
    let args = [
        "--format",
        "atom",
        "--out",
        out.to_str().unwrap(),
        "--self-url",
        own,
    ];
    let title = ["--title", "A & <B> \u{1}"];
    let _program = forward(&server, &[&args[..], &title].concat());
    // A feed without entries is valid, too.
    python("feed.py", &json!({"file": out, "entries": 0, "self": own}));
    for (number, text) in TEXTS.iter().enumerate() {
        let annotation = json!({
            "id": format!("A{number}"), "text": text, "tags": [text, "", "tag"],
            "uri": format!("https://example.org/{number}?a=\"b\"&c={{d}}|e"),
            "document": {"title": [text]}, "user_info": {"display_name": text},
            "links": {"html": format!("https://h.example/a/{number}")},
            "target": [{"source": "https://example.org/",
                "selector": [{"type": "TextQuoteSelector", "exact": text}]}],
        });
        publish(&server, "create", annotation);
    }
    eventually(PATIENCE, || {
        let text = fs::read_to_string(&out).unwrap();
        (text.matches("<entry>").count() == TEXTS.len()).then_some(())
    });
    python(
        "feed.py",
        &json!({"file": out, "entries": TEXTS.len(), "self": own}),
    );
}
