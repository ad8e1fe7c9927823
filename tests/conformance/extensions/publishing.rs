//! Checks that publish annotations. Each uses its own document, and deletes its annotations.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::super::client::Failure;
use super::super::session::{Events, Publisher, Session, described};
use super::{Check, Context, Support, acknowledged, clause, encoded, filter};

pub(super) fn all() -> Vec<Check> {
    let check = |name, run| Check { name, run };
    vec![
        check("delivery of published events", delivery),
        check("replay after a cursor", replay),
        check("delivery if all clauses match", all_clauses),
        check("delivery by user, tag, and pattern", by_field),
        check("excluding clauses", exclusion),
        check("suppressed actions", suppressed_actions),
        check("delivery as Server-Sent Events", stream_delivery),
    ]
}

/// Annotations of one document.
struct Document<'a> {
    publisher: &'a Publisher,
    uri: String,
    published: Vec<Value>,
}

impl<'a> Document<'a> {
    fn new(context: &'a Context<'_>) -> Result<Option<Document<'a>>, Failure> {
        let Some(publisher) = &context.publisher else {
            return Ok(None);
        };
        let uri = format!("https://conformance.example/{}", random_id()?);
        Ok(Some(Document {
            publisher,
            uri,
            published: Vec::new(),
        }))
    }

    /// Publishes a new annotation. Returns its id.
    fn create(&mut self, user: &str, tag: &str) -> Result<String, Failure> {
        let id = random_id()?;
        let annotation = json!({"id": id, "user": format!("acct:{user}@conformance.example"),
            "uri": self.uri, "text": "A check of the API.", "tags": [tag],
            "permissions": {"read": ["group:__world__"]}});
        self.publisher.publish("create", &annotation)?;
        self.published.push(annotation);
        Ok(id)
    }

    fn delete_all(&mut self) -> Result<(), Failure> {
        for annotation in self.published.drain(..) {
            self.publisher.publish("delete", &annotation)?;
        }
        Ok(())
    }
}

impl Drop for Document<'_> {
    fn drop(&mut self) {
        let _ = self.delete_all();
    }
}

/// Returns an id in the format of h's: 16 random bytes.
fn random_id() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

const UNCHECKED: Support = Support::Unchecked("--admin and --publish-key are needed");

fn expect(found: &str, expected: &str) -> Result<(), Failure> {
    match found == expected {
        true => Ok(()),
        false => Err(format!("received {found:?} instead of {expected:?}")),
    }
}

fn delivery(context: &Context<'_>) -> Result<Support, Failure> {
    let Some(mut document) = Document::new(context)? else {
        return Ok(UNCHECKED);
    };
    let mut session = Session::anonymous(context.target)?;
    session.subscribe(&filter("include_any", &[clause("/uri", &document.uri)]))?;
    let mut other = Session::anonymous(context.target)?;
    other.subscribe(&filter(
        "include_any",
        &[clause("/uri", "https://other.example/")],
    ))?;
    let id = document.create("alice", "x")?;
    expect(&session.notification()?.0, &format!("create {id}"))?;
    document.delete_all()?;
    expect(&session.notification()?.0, &format!("delete {id}"))?;
    match other.ask(&json!({"type": "ping"}))?.first() {
        None => Ok(Support::Supported),
        Some(message) => Err(format!("a client of another document received {message}")),
    }
}

fn replay(context: &Context<'_>) -> Result<Support, Failure> {
    let Some(mut document) = Document::new(context)? else {
        return Ok(UNCHECKED);
    };
    let filter = filter("include_any", &[clause("/uri", &document.uri)]);
    let message =
        |since: &str| json!({"type": "filter", "id": 1, "filter": filter, "since": since});
    let replies = Session::anonymous(context.target)?.ask(&message("now"))?;
    let Some(cursor) = replies.first().and_then(|reply| reply["cursor"].as_str()) else {
        return Ok(Support::NotSupported);
    };
    let id = document.create("alice", "x")?;
    let mut session = Session::anonymous(context.target)?;
    session.send(&message(cursor));
    let reply = session.next()?;
    if reply["recovered"] != true {
        return Err(format!("the cursor was answered with {reply}"));
    }
    let (found, message) = session.notification()?;
    expect(&found, &format!("create {id}"))?;
    match message["cursor"].is_string() {
        true => Ok(Support::Supported),
        false => Err(format!("the event has no cursor: {message}")),
    }
}

/// Publishes an annotation of mallory with the tag `x` that the filter must not match, and one of
/// alice with the tag `y` that it must match.
fn selects(context: &Context<'_>, selecting: &dyn Fn(&str) -> Value) -> Result<Support, Failure> {
    let Some(mut document) = Document::new(context)? else {
        return Ok(UNCHECKED);
    };
    let filter = selecting(&document.uri);
    let reply = acknowledged(context, &filter)?;
    if !reply.is_some_and(|reply| reply["type"] == "filter") {
        return Ok(Support::NotSupported);
    }
    let mut session = Session::anonymous(context.target)?;
    session.subscribe(&filter)?;
    document.create("mallory", "x")?;
    let id = document.create("alice", "y")?;
    expect(&session.notification()?.0, &format!("create {id}"))?;
    Ok(Support::Supported)
}

fn all_clauses(context: &Context<'_>) -> Result<Support, Failure> {
    selects(context, &|uri| {
        let by_alice = clause("/user", "acct:alice@conformance.example");
        filter("include_all", &[clause("/uri", uri), by_alice])
    })
}

fn by_field(context: &Context<'_>) -> Result<Support, Failure> {
    selects(context, &|uri| {
        let pattern = format!("{uri}*");
        let clauses = [clause("/wildcard_uri", &pattern), clause("/tags", "Y")];
        filter("include_all", &clauses)
    })
}

fn exclusion(context: &Context<'_>) -> Result<Support, Failure> {
    selects(context, &|uri| {
        let not = json!({"field": "/user", "operator": "not_one_of",
            "value": ["acct:mallory@conformance.example"]});
        filter("include_any", &[clause("/uri", uri), not])
    })
}

fn suppressed_actions(context: &Context<'_>) -> Result<Support, Failure> {
    let Some(mut document) = Document::new(context)? else {
        return Ok(UNCHECKED);
    };
    let mut filter = filter("include_any", &[clause("/uri", &document.uri)]);
    filter["actions"]["create"] = false.into();
    if acknowledged(context, &filter)?.is_none() {
        return Ok(Support::NotSupported);
    }
    let mut session = Session::anonymous(context.target)?;
    session.subscribe(&filter)?;
    let id = document.create("alice", "x")?;
    document.delete_all()?;
    expect(&session.notification()?.0, &format!("delete {id}"))?;
    Ok(Support::Supported)
}

fn stream_delivery(context: &Context<'_>) -> Result<Support, Failure> {
    let Some(mut document) = Document::new(context)? else {
        return Ok(UNCHECKED);
    };
    let query = format!("uri={}", encoded(&document.uri));
    let Ok(mut events) = Events::open(context.target, &query, "")? else {
        return Ok(Support::NotSupported);
    };
    let position = events.next()?.id.ok_or("the first block has no id")?;
    let id = document.create("alice", "x")?;
    let resuming = format!("Last-Event-ID: {position}\r\n");
    let resumed = Events::open(context.target, &query, &resuming)?;
    let mut resumed =
        resumed.map_err(|status| format!("Last-Event-ID was answered with {status}"))?;
    for events in [&mut events, &mut resumed] {
        let block = loop {
            let block = events.next()?;
            if !block.data.is_empty() {
                break block;
            }
        };
        let message = serde_json::from_str(&block.data);
        let message: Value = message.map_err(|_| format!("not JSON: {block:?}"))?;
        expect(&described(&message)?, &format!("create {id}"))?;
        if block.event.is_some() || block.id.is_none() {
            return Err(format!("a notification has a type, or no id: {block:?}"));
        }
    }
    Ok(Support::Supported)
}
