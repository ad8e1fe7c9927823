//! `h-realtime explain`: asks a running server whether a connection is notified of an event, and why
//! not.
//!
//! Owns: the command line, and the request. The server evaluates it against its own state. The
//! presentation of the answer is in `render`.

mod render;

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::publish::admin_client::AdminClient;
use crate::config::{KEY_VARIABLE, data_directory};
use crate::exit::Exit;

/// Arguments of `explain`.
#[derive(clap::Args)]
#[command(
    after_help = EXAMPLES,
    group = clap::ArgGroup::new("connection").required(true).args(["user", "anonymous", "client"]),
)]
pub(super) struct ExplainArgs {
    /// The user of the connection, such as acct:joe@example.org
    #[arg(long, value_name = "USERID")]
    user: Option<String>,

    /// A connection without a token
    #[arg(long)]
    anonymous: bool,

    /// The filter of the connection: the JSON of "filter" in the client's message, or a file with it
    #[arg(long, value_name = "JSON|FILE", value_hint = clap::ValueHint::FilePath)]
    filter: Option<String>,

    /// A filter on this document, instead of --filter (may be repeated)
    #[arg(long, value_name = "URI", conflicts_with = "filter")]
    uri: Vec<String>,

    /// The client id of the connection, which is not notified of its own events
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,

    /// The annotation: its id, or a file that contains an annotation or an event as JSON, or - for
    /// standard input
    // An id may begin with a hyphen: it is base64 in its URL-safe alphabet.
    #[arg(
        long,
        value_name = "ID|FILE",
        allow_hyphen_values = true,
        required_unless_present = "client",
        value_hint = clap::ValueHint::FilePath,
    )]
    annotation: Option<String>,

    /// The action of the event: create, update, or delete
    ///
    /// The default is that of the newest known event on the annotation, and otherwise create.
    #[arg(long, value_enum, value_name = "ACTION", requires = "annotation")]
    action: Option<Action>,

    /// The open connections with this client id, and the outcomes of the last 100 events that
    /// concerned each
    #[arg(
        long,
        value_name = "ID",
        conflicts_with_all = ["filter", "uri", "client_id"],
    )]
    client: Option<String>,

    /// Print the answer of the server as JSON
    #[arg(long)]
    json: bool,

    /// The data directory of the server, instead of the configured one
    ///
    /// The command reads the admin address and the publish key from its files admin.address and
    /// publish.key. The environment variable H_REALTIME_PUBLISH_KEY takes precedence over that key.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,

    /// The admin address, instead of the one in the data directory: http://HOST:PORT/ or
    /// unix:/path/to.sock
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
}

/// The action of an event.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Action {
    Create,
    Update,
    Delete,
}

/// Asks the server, and prints the answer: see [`ExplainArgs`].
///
/// # Errors
/// 1 if the connection would not be notified, or no connection has the client id. 65 and 66 for an
/// invalid or unreadable file; the others as for `publish`.
pub(super) fn run(args: ExplainArgs) -> Result<(), Exit> {
    let request = request(&args)?;
    let key = std::env::var(KEY_VARIABLE).ok();
    let data = data_directory(args.data)?;
    let admin = AdminClient::find(&data, args.admin.as_deref(), key)?;
    let answer = admin.explain(&request.to_string())?;
    let text = match args.json {
        true => format!("{answer:#}\n"),
        false => render::text(&answer),
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())?;
    match is_positive(&answer) {
        true => Ok(()),
        false => Err(Exit::silent(Exit::NOT_NOTIFIED)),
    }
}

/// Returns whether the answer is yes: the connection would be notified, or it exists if no event was
/// named.
fn is_positive(answer: &Value) -> bool {
    match answer.get("would_notify") {
        Some(would_notify) => would_notify == true,
        None => answer["open_connections"]
            .as_u64()
            .is_some_and(|count| count > 0),
    }
}

fn request(args: &ExplainArgs) -> Result<Value, Exit> {
    let mut request = Map::new();
    let mut set = |key: &str, value: Value| {
        request.insert(key.to_owned(), value);
    };
    match &args.client {
        Some(client) => set("client", client.as_str().into()),
        None => set("user", args.user.as_deref().into()),
    }
    if let Some(filter) = filter(args)? {
        set("filter", filter);
    }
    if let Some(client_id) = &args.client_id {
        set("client_id", client_id.as_str().into());
    }
    if let Some(annotation) = &args.annotation {
        set("annotation", subject(annotation)?);
    }
    if let Some(action) = args.action {
        let name = match action {
            Action::Create => "create",
            Action::Update => "update",
            Action::Delete => "delete",
        };
        set("action", name.into());
    }
    Ok(Value::Object(request))
}

fn filter(args: &ExplainArgs) -> Result<Option<Value>, Exit> {
    let Some(filter) = &args.filter else {
        let clause = json!({"field": "/uri", "operator": "one_of", "value": args.uri});
        return Ok((!args.uri.is_empty()).then(|| {
            json!({
                "match_policy": "include_any",
                "clauses": [clause],
                "actions": {"create": true, "update": true, "delete": true},
            })
        }));
    };
    match filter.trim_start().starts_with('{') {
        true => parsed("--filter", filter).map(Some),
        false => read(Path::new(filter)).map(Some),
    }
}

/// Returns an id as it is, and otherwise the contents of the file.
fn subject(annotation: &str) -> Result<Value, Exit> {
    let path = Path::new(annotation);
    let is_file = annotation == "-"
        || annotation.contains('/')
        || path.extension().is_some()
        || path.is_file();
    match is_file {
        true => read(path),
        false => Ok(annotation.into()),
    }
}

fn read(path: &Path) -> Result<Value, Exit> {
    let name = path.display().to_string();
    let mut text = String::new();
    let result = match path == Path::new("-") {
        true => io::stdin().lock().read_to_string(&mut text).map(drop),
        false => fs::read_to_string(path).map(|read| text = read),
    };
    result.map_err(|error| Exit::new(Exit::NO_INPUT, format!("{name}: {error}")))?;
    parsed(&name, &text)
}

fn parsed(name: &str, text: &str) -> Result<Value, Exit> {
    let value: Value = serde_json::from_str(text)
        .map_err(|error| Exit::new(Exit::DATA, format!("{name}: not valid JSON: {error}")))?;
    match value.is_object() {
        true => Ok(value),
        false => Err(Exit::new(
            Exit::DATA,
            format!("{name}: must be a JSON object"),
        )),
    }
}

const EXAMPLES: &str = "\
Examples:
  Is Joe notified of an annotation, with a filter on the page?
    h-realtime explain --user acct:joe@example.org --uri https://example.org/page \\
        --annotation AAAAAREREeaAAAAAAAAAAQ
  With the filter and the event of a test:
    h-realtime explain --anonymous --filter filter.json --annotation event.json
  The open connections of a client, and the outcomes of their last events:
    h-realtime explain --client 5c0c6c5e-9d0a-4c5f-8f7c-7a3f1b2d4e6f

Exit codes: 0 notified (or, without --annotation, the client is connected), 1 not notified (or not
connected), 64 usage error, 65 input invalid, 66 input unreadable, 69 server unavailable,
77 permission denied.";

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Test {
        #[command(flatten)]
        args: ExplainArgs,
    }

    fn parsed_args(line: &[&str]) -> Result<Value, u8> {
        let words = std::iter::once(&"explain").chain(line);
        let test = Test::try_parse_from(words).map_err(|_| Exit::USAGE)?;
        request(&test.args).map_err(|exit| exit.code)
    }

    #[test]
    fn arguments_become_a_request() {
        let folder = tempfile::tempdir().expect("a directory");
        let file = folder.path().join("event");
        fs::write(&file, r#"{"id":"A"}"#).expect("a file");
        let file = file.display().to_string();
        let uri = json!({
            "match_policy": "include_any",
            "clauses": [{"field": "/uri", "operator": "one_of", "value": ["http://a/"]}],
            "actions": {"create": true, "update": true, "delete": true},
        });
        for (line, expected) in [
            (
                &[
                    "--user",
                    "acct:a@b",
                    "--annotation",
                    "-A",
                    "--action",
                    "delete",
                ][..],
                json!({"user": "acct:a@b", "annotation": "-A", "action": "delete"}),
            ),
            (
                &["--anonymous", "--uri", "http://a/", "--annotation", &file],
                json!({"user": null, "filter": uri, "annotation": {"id": "A"}}),
            ),
            (
                &[
                    "--anonymous",
                    "--filter",
                    " {}",
                    "--client-id",
                    "c",
                    "--annotation",
                    "A",
                ],
                json!({"user": null, "filter": {}, "client_id": "c", "annotation": "A"}),
            ),
            (&["--client", "c"], json!({"client": "c"})),
            (
                &["--client", "c", "--annotation", "A"],
                json!({"client": "c", "annotation": "A"}),
            ),
        ] {
            assert_eq!(parsed_args(line), Ok(expected), "{line:?}");
        }
        for (line, code) in [
            (&[][..], Exit::USAGE),
            (&["--anonymous"], Exit::USAGE),
            (
                &["--user", "u", "--anonymous", "--annotation", "A"],
                Exit::USAGE,
            ),
            (&["--client", "c", "--user", "u"], Exit::USAGE),
            (&["--client", "c", "--action", "create"], Exit::USAGE),
            (
                &["--anonymous", "--annotation", "missing.json"],
                Exit::NO_INPUT,
            ),
            (
                &["--anonymous", "--filter", "missing", "--annotation", "A"],
                Exit::NO_INPUT,
            ),
            (
                &["--anonymous", "--filter", "{", "--annotation", "A"],
                Exit::DATA,
            ),
        ] {
            assert_eq!(parsed_args(line), Err(code), "{line:?}");
        }
    }

    #[test]
    fn answer_determines_the_exit_code() {
        for (answer, expected) in [
            (json!({"would_notify": true}), true),
            (json!({"would_notify": false, "open_connections": 1}), false),
            (json!({"open_connections": 1}), true),
            (json!({"open_connections": 0}), false),
            (json!({}), false),
        ] {
            assert_eq!(is_positive(&answer), expected, "{answer}");
        }
    }
}
