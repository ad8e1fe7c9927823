//! `examples/importer.py`: the folder equals the annotations that its user may read, whatever is
//! killed and restarted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    PATIENCE, Program, Server, Subscribed, event, eventually, interpreter, serve_pages, subscribed,
};

/// The files of a folder that the importer has written, without the cursor: names and texts.
type Folder = BTreeMap<String, String>;

fn folder() -> (TempDir, PathBuf) {
    let parent = TempDir::new().unwrap();
    let folder = parent.path().join("notes");
    (parent, folder)
}

fn start(url: &str, folder: &Path, args: &[&str]) -> Program {
    start_as(None, url, folder, args)
}

fn start_as(token: Option<&str>, url: &str, folder: &Path, args: &[&str]) -> Program {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(interpreter());
    command.arg(root.join("examples/importer.py")).arg(url);
    command
        .arg(folder)
        .args(["--group", "__world__"])
        .args(args);
    if let Some(token) = token {
        command.env("H_REALTIME_TOKEN", token);
    }
    Program::start(&mut command)
}

/// Returns the value of a key in each JSON file.
fn texts(folder: &Path) -> Folder {
    let file = |entry: fs::DirEntry| {
        let name = entry.file_name().into_string().unwrap();
        let id = name.strip_suffix(".json")?.to_owned();
        let annotation: Value = serde_json::from_slice(&fs::read(entry.path()).ok()?).ok()?;
        Some((id, annotation["text"].as_str()?.to_owned()))
    };
    let Ok(entries) = fs::read_dir(folder) else {
        return Folder::new();
    };
    entries.map_while(Result::ok).filter_map(file).collect()
}

fn wait_for(folder: &Path, expected: &[(&str, &str)]) {
    let expected: Folder = expected
        .iter()
        .map(|&(id, text)| (id.to_owned(), text.to_owned()))
        .collect();
    eventually(PATIENCE, || (texts(folder) == expected).then_some(()));
}

fn cursor(folder: &Path) -> String {
    fs::read_to_string(folder.join(".cursor")).unwrap_or_default()
}

fn notification(action: &str, annotation: Value, cursor: &str) -> Value {
    json!({"type": "annotation-notification", "options": {"action": action},
        "payload": [annotation], "cursor": cursor})
}

#[test]
#[ignore = "needs python3 with websockets: run tests/run"]
fn importer_replaces_and_removes_files_by_id_and_resumes() {
    let (_parent, folder) = folder();
    let (url, since) = subscribed::<fn(&mut Subscribed)>(vec![
        |client| {
            client.accept("c0");
            client.say(&notification(
                "create",
                json!({"id": "A", "text": "1"}),
                "c1",
            ));
            client.say(&notification(
                "create",
                json!({"id": "../B", "text": "2"}),
                "c2",
            ));
            client.say(&notification(
                "update",
                json!({"id": "A", "text": "3"}),
                "c3",
            ));
            client.say(&json!({"type": "cursor", "cursor": "c4"}));
        },
        |client| {
            client.accept("c4");
            client.say(&notification("delete", json!({"id": "A"}), "c5"));
            client.say(&notification("delete", json!({"id": "unknown"}), "c6"));
            client.restart();
        },
        |client| client.accept("c6"),
    ]);
    let mut importer = start(&url, &folder, &[]);
    importer.wait_for_error_line("first start; without --api");
    wait_for(&folder, &[("..%2FB", "2"), ("A", "3")]);
    eventually(PATIENCE, || (cursor(&folder) == "c4").then_some(()));
    importer.child.kill().unwrap();
    importer.wait();
    let _importer = start(&url, &folder, &[]);
    for expected in ["now", "c4", "c6"] {
        assert_eq!(since.recv_timeout(PATIENCE).unwrap(), expected);
    }
    wait_for(&folder, &[("..%2FB", "2")]);
}

#[test]
#[ignore = "needs python3 with websockets: run tests/run"]
fn importer_fetches_all_annotations_after_a_gap() {
    let (_parent, folder) = folder();
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join(".cursor"), "c1").unwrap();
    for id in ["deleted", "changed"] {
        fs::write(folder.join(id).with_extension("json"), r#"{"text": "old"}"#).unwrap();
    }
    let (url, since) = subscribed::<fn(&mut Subscribed)>(vec![|client| {
        client.accept_with_gap("c8", "c5");
        client.say(&notification(
            "create",
            json!({"id": "later", "text": "1"}),
            "c9",
        ));
    }]);
    // The second request must ask for later ids.
    let api = serve_pages(|request| match request.contains("search_after=new") {
        true => r#"{"rows": []}"#.to_owned(),
        false => {
            let rows = json!([{"id": "changed", "text": "2"}, {"id": "new", "text": "3"}]);
            json!({"rows": rows}).to_string()
        }
    });
    let importer = start(&url, &folder, &["--api", &format!("http://{api}/api")]);
    assert_eq!(since.recv_timeout(PATIENCE).unwrap(), "c1");
    importer.wait_for_error_line("gap: some events after c1 are no longer available");
    importer.wait_for_error_line("fetched 2 annotations");
    wait_for(&folder, &[("changed", "2"), ("later", "1"), ("new", "3")]);
    eventually(PATIENCE, || (cursor(&folder) == "c9").then_some(()));
}

#[test]
#[ignore = "needs python3 with websockets: run tests/run"]
fn importer_writes_markdown_with_front_matter() {
    let (_parent, folder) = folder();
    let (url, _) = subscribed::<fn(&mut Subscribed)>(vec![|client| {
        client.accept("c0");
        let selectors = json!([{"type": "RangeSelector"},
            {"type": "TextQuoteSelector", "exact": "two\n words"}]);
        let annotation = json!({"id": "A", "uri": "https://example.org/#:~", "tags": ["a: b"],
            "text": "Hello", "target": [{"selector": selectors}]});
        client.say(&notification("create", annotation, "c1"));
    }]);
    let _importer = start(&url, &folder, &["--format", "md"]);
    let file = folder.join("A.md");
    let text = eventually(PATIENCE, || fs::read_to_string(&file).ok());
    assert_eq!(
        text,
        "---\nid: \"A\"\nuri: \"https://example.org/#:~\"\ntags: [\"a: b\"]\n---\n> two words\n\nHello\n"
    );
}

#[test]
#[ignore = "needs python3 with websockets: run tests/run"]
fn importer_mirrors_the_server_across_kills_and_restarts() {
    let mut server = Server::start();
    let token = server.user("acct:alice@example.org");
    let url = server.listeners[0].clone();
    let (_parent, folder) = folder();
    let import = || start_as(Some(&token), &url, &folder, &[]);
    let publish = |server: &Server, action: &str, more: Value| {
        let (status, answer) = server.publish(&event(action, more).to_string());
        assert_eq!(status, 202, "{answer}");
    };
    let mut importer = import();
    importer.wait_for_error_line("first start");
    eventually(PATIENCE, || (!cursor(&folder).is_empty()).then_some(()));
    for id in ["A", "B", "P"] {
        publish(&server, "create", json!({"id": id, "text": "1"}));
    }
    publish(&server, "update", json!({"id": "A", "text": "2"}));
    publish(&server, "delete", json!({"id": "B"}));
    wait_for(&folder, &[("A", "2"), ("P", "1")]);

    // While the importer is down: an edit, a new annotation, and one that becomes private.
    importer.child.kill().unwrap();
    importer.wait();
    let private = json!({"read": ["acct:author@example.org"]});
    publish(&server, "update", json!({"id": "A", "text": "3"}));
    publish(&server, "create", json!({"id": "C", "text": "1"}));
    publish(
        &server,
        "update",
        json!({"id": "P", "text": "2", "permissions": private}),
    );
    server.restart();
    let mut importer = import();
    wait_for(&folder, &[("A", "3"), ("C", "1")]);

    // Before the importer has reconnected, and after it.
    server.restart();
    publish(&server, "create", json!({"id": "D", "text": "1"}));
    wait_for(&folder, &[("A", "3"), ("C", "1"), ("D", "1")]);
    publish(&server, "delete", json!({"id": "D"}));
    wait_for(&folder, &[("A", "3"), ("C", "1")]);
    importer.child.kill().unwrap();
    let lines: Vec<String> = std::iter::from_fn(|| importer.error_line()).collect();
    assert!(!lines.iter().any(|line| line.contains("gap")), "{lines:?}");
}
