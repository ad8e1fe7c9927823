//! Checks of the extensions to h's API, and of the delivery of published events.
//!
//! A server that ignores or rejects an extension does not support it. A server that claims to
//! support it, but behaves otherwise, is wrong.

mod publishing;

use std::time::Duration;

use serde_json::{Value, json};

use super::client::Failure;
use super::program::Arguments;
use super::session::{Events, Publisher, Session, get};
use super::target::Target;

/// The result of a check.
#[derive(Debug, PartialEq)]
pub enum Support {
    Supported,
    NotSupported,
    /// A description of the failure.
    Wrong(Failure),
    /// The reason why the check was skipped.
    Unchecked(&'static str),
}

pub struct Check {
    pub name: &'static str,
    run: fn(&Context<'_>) -> Result<Support, Failure>,
}

impl Check {
    pub fn run(&self, arguments: &Arguments, target: &Target) -> Support {
        let publisher = match (&arguments.admin, &arguments.publish_key) {
            (Some(url), Some(key)) => {
                let patience = Duration::from_secs(arguments.timeout);
                match Publisher::new(url, key, patience) {
                    Ok(publisher) => Some(publisher),
                    Err(failure) => return Support::Wrong(failure),
                }
            }
            _ => None,
        };
        let context = Context {
            target,
            token: arguments.token.as_deref(),
            publisher,
        };
        (self.run)(&context).unwrap_or_else(Support::Wrong)
    }
}

/// The server, and the data that is available for the checks.
struct Context<'a> {
    target: &'a Target,
    token: Option<&'a str>,
    publisher: Option<Publisher>,
}

/// Returns all checks, in the order of their reports.
pub fn all() -> Vec<Check> {
    let check = |name, run| Check { name, run };
    let mut all = vec![
        check("identity of a token", identity),
        check("compression", compression),
        check("description of the server at /ws", description),
        check("description of the API at /asyncapi.yaml", api_document),
        check("acknowledged filters", acknowledgement),
        check("cursors", cursors),
        check("filters whose clauses must all match", include_all),
        check("the fields /user, /tags, and /wildcard_uri", fields),
        check("Server-Sent Events at /sse", event_stream),
    ];
    all.extend(publishing::all());
    all
}

/// The part of h's API that needs a token.
fn identity(context: &Context<'_>) -> Result<Support, Failure> {
    let Some(token) = context.token else {
        return Ok(Support::Unchecked("--token is needed"));
    };
    let field = format!("Authorization: Bearer {token}\r\n");
    let query = format!("?access_token={}", encoded(token));
    for (query, field) in [("", field.as_str()), (&query, "")] {
        let (mut session, _) = Session::open(context.target, query, field)?;
        session.send(&json!({"type": "whoami", "id": 1}));
        let reply = session.next()?;
        if !reply["userid"].is_string() {
            return Err(format!("the token is not accepted: {reply}"));
        }
    }
    Ok(Support::Supported)
}

fn compression(context: &Context<'_>) -> Result<Support, Failure> {
    let offer = "Sec-WebSocket-Extensions: permessage-deflate\r\n";
    let (_, answer) = Session::open(context.target, "", offer)?;
    match answer.field("Sec-WebSocket-Extensions") {
        None => Ok(Support::NotSupported),
        Some(accepted) if accepted.starts_with("permessage-deflate") => Ok(Support::Supported),
        Some(other) => Err(format!("an extension that was not offered: {other}")),
    }
}

fn description(context: &Context<'_>) -> Result<Support, Failure> {
    let (_, answer) = get(context.target, "/ws", "Accept: application/json\r\n")?;
    if answer.status()? != 200 {
        return Ok(Support::NotSupported);
    }
    let described: Value =
        serde_json::from_str(&answer.body).map_err(|_| "the description is not JSON".to_owned())?;
    for (name, is_valid) in [
        ("name", described["name"].is_string()),
        ("version", described["version"].is_string()),
        ("transports", described["transports"].is_object()),
        ("fields", described["fields"].is_array()),
        ("limits", described["limits"].is_object()),
    ] {
        if !is_valid {
            return Err(format!("the description has no {name}"));
        }
    }
    Ok(Support::Supported)
}

fn api_document(context: &Context<'_>) -> Result<Support, Failure> {
    let (_, answer) = get(context.target, "/asyncapi.yaml", "")?;
    match answer.status()? {
        200 if answer.body.contains("\nasyncapi: 3.") => Ok(Support::Supported),
        200 => Err("the document is not an AsyncAPI document".to_owned()),
        _ => Ok(Support::NotSupported),
    }
}

/// Returns a filter message with an id, and the acknowledgement or another reply to it, if any.
fn acknowledged(context: &Context<'_>, filter: &Value) -> Result<Option<Value>, Failure> {
    let message = json!({"type": "filter", "id": 7, "ack": true, "filter": filter});
    let replies = Session::anonymous(context.target)?.ask(&message)?;
    match replies.as_slice() {
        [] => Ok(None),
        [reply] if reply["reply_to"] == 7 => Ok(Some(reply.clone())),
        replies => Err(format!("unexpected replies: {replies:?}")),
    }
}

fn filter(policy: &str, clauses: &[Value]) -> Value {
    json!({"match_policy": policy, "clauses": clauses,
        "actions": {"create": true, "update": true, "delete": true}})
}

fn clause(field: &str, value: &str) -> Value {
    json!({"field": field, "operator": "one_of", "value": [value]})
}

fn acknowledgement(context: &Context<'_>) -> Result<Support, Failure> {
    let clauses = [clause("/id", "none"), clause("/nope", "none")];
    let Some(reply) = acknowledged(context, &filter("include_any", &clauses))? else {
        return Ok(Support::NotSupported);
    };
    if reply["type"] != "filter" || reply["ok"] != true {
        return Err(format!("a valid filter was answered with {reply}"));
    }
    let known = &reply["filter"]["clauses"];
    if known[0]["field"] != "/id" || known[0]["value"] != json!(["none"]) {
        return Err(format!(
            "the acknowledgement does not repeat the filter: {reply}"
        ));
    }
    match reply["ignored"][0]["field"] == "/nope" {
        true => Ok(Support::Supported),
        false => Err(format!(
            "the acknowledgement does not report the unknown field: {reply}"
        )),
    }
}

fn cursors(context: &Context<'_>) -> Result<Support, Failure> {
    let filter = filter("include_any", &[clause("/id", "none")]);
    let message =
        |since: &str| json!({"type": "filter", "id": 1, "filter": filter, "since": since});
    let Some(first) = reply(context, &message("now"))? else {
        return Ok(Support::NotSupported);
    };
    let Some(cursor) = first["cursor"].as_str() else {
        return Err(format!("the reply to \"now\" has no cursor: {first}"));
    };
    let again = reply(context, &message(cursor))?.unwrap_or_default();
    if again["recovered"] != true || !again["cursor"].is_string() {
        return Err(format!("a cursor of the server was answered with {again}"));
    }
    let invalid = reply(context, &message("neither"))?.unwrap_or_default();
    match invalid["error"]["type"] == "invalid_cursor" {
        true => Ok(Support::Supported),
        false => Err(format!("an invalid cursor was answered with {invalid}")),
    }
}

/// Sends a message on a new connection. Returns its reply, which may arrive once the server has
/// loaded its history.
fn reply(context: &Context<'_>, message: &Value) -> Result<Option<Value>, Failure> {
    Ok(Session::anonymous(context.target)?.ask(message)?.pop())
}

fn include_all(context: &Context<'_>) -> Result<Support, Failure> {
    let clauses = [clause("/id", "none"), clause("/group", "none")];
    let message = json!({"type": "filter", "id": 7, "filter": filter("include_all", &clauses)});
    match Session::anonymous(context.target)?.ask(&message)?.first() {
        None => Ok(Support::Supported),
        Some(reply) if reply["type"] == "error" => Ok(Support::NotSupported),
        Some(reply) => Err(format!("a filter was answered with {reply}")),
    }
}

fn fields(context: &Context<'_>) -> Result<Support, Failure> {
    let clauses = [
        clause("/user", "acct:nobody@example.org"),
        clause("/tags", "none"),
        clause("/wildcard_uri", "https://example.org/*"),
    ];
    let Some(reply) = acknowledged(context, &filter("include_any", &clauses))? else {
        return Ok(Support::NotSupported);
    };
    match reply["ignored"].as_array().map(Vec::len) {
        Some(0) | None if reply["type"] == "filter" => Ok(Support::Supported),
        Some(3) => Ok(Support::NotSupported),
        _ => Err(format!("the filter was answered with {reply}")),
    }
}

fn event_stream(context: &Context<'_>) -> Result<Support, Failure> {
    let mut events = match Events::open(context.target, "id=none", "")? {
        Ok(events) => events,
        Err(404) => return Ok(Support::NotSupported),
        Err(status) => return Err(format!("a valid request was answered with {status}")),
    };
    let first = events.next()?;
    let id = first.id.filter(|id| !id.is_empty());
    let id = id.ok_or("the first block has no id")?;
    let resuming = format!("Last-Event-ID: {id}\r\n");
    for (query, fields, expected) in [
        ("id=none", resuming.as_str(), None),
        ("", "", Some(400)),
        ("nope=none", "", Some(400)),
        ("id=none", "Last-Event-ID: neither\r\n", Some(400)),
        ("id=none&access_token=unknown", "", Some(401)),
    ] {
        let status = Events::open(context.target, query, fields)?.err();
        if status != expected {
            return Err(format!(
                "{query:?} was answered with {status:?}, not {expected:?}"
            ));
        }
    }
    let Some(token) = context.token else {
        return Ok(Support::Supported);
    };
    let field = format!("Authorization: Bearer {token}\r\n");
    match Events::open(context.target, "id=none", &field)? {
        Ok(_) => Ok(Support::Supported),
        Err(status) => Err(format!("the token was answered with {status}")),
    }
}

/// Returns a value for the query of a URL.
fn encoded(value: &str) -> String {
    let byte = |byte: u8| match byte {
        _ if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    value.bytes().map(byte).collect()
}
