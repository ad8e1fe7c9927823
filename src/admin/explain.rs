//! Explanations over HTTP, from the request to the response.
//!
//! Owns: the syntax of requests for explanations, and those in progress at the backend. Must not know:
//! filters, or the evaluation. The answers contain annotations regardless of their readers, so every
//! request needs the publish key.

use serde_json::{Map, Value, json};

use crate::http::{Request, Response};
use crate::model::{
    BackendRequest, ExplainError, ExplainRequest, ExplainedConnection, ExplainedEvent, Lookup,
    RequestId,
};
use crate::net::{ConnKey, Cx, Verdict};

use super::Admin;
use super::response::{error, reject, uncached};

impl Admin {
    /// Handles a request for an explanation. If the backend must look up facts, the request is
    /// deferred. Otherwise, [`Admin::take_immediate`] returns it.
    pub(super) fn explain<C>(
        &mut self,
        cx: &mut Cx<'_, C>,
        key: ConnKey,
        request: &Request<'_>,
    ) -> Verdict<C> {
        if let Err(response) = self.check_key(cx, key, request) {
            return response;
        }
        let Some(body) = request.body else {
            return Verdict::ReadBody {
                limit: MAX_EXPLAIN_BODY,
            };
        };
        let parsed = match parse(body) {
            Ok(parsed) => parsed,
            Err(reason) => return reject(400, "invalid_request", &reason),
        };
        let request_id = RequestId(key.to_u64());
        let Some(lookup) = parsed.lookup.clone() else {
            self.immediate = Some((request_id, parsed));
            return Verdict::Defer;
        };
        if self.explaining.len() >= MAX_EXPLAINING
            || self
                .backend
                .send(BackendRequest::LookUp { request_id, lookup })
                .is_err()
        {
            self.counters.busy += 1;
            let reason = "The backend's request queue is full; try again later.";
            return Verdict::Respond(error(503, "busy", reason).with("Retry-After", "1"));
        }
        self.explaining.insert(request_id, parsed);
        Verdict::Defer
    }

    /// Returns the request for an explanation that [`Admin::on_request`] has just deferred, if it needs
    /// no facts of the backend.
    pub fn take_immediate(&mut self) -> Option<(RequestId, ExplainRequest)> {
        self.immediate.take()
    }

    /// Returns a request whose facts the backend has looked up. `None` if it is no longer waiting.
    pub fn take_explaining(&mut self, request_id: RequestId) -> Option<ExplainRequest> {
        self.explaining.remove(&request_id)
    }

    /// Counts an explanation, and returns the response with it.
    pub fn explained(&mut self, answer: Result<String, ExplainError>) -> Response {
        uncached(match answer {
            Ok(answer) => {
                self.counters.explanations += 1;
                Response::json(200, answer)
            }
            Err(ExplainError::Invalid(reason)) => error(400, "invalid_event", &reason),
            Err(ExplainError::Unavailable(reason)) => {
                error(503, "unavailable", &reason).with("Retry-After", "5")
            }
        })
    }
}

/// Parses the body of a request. The error is the reason for the operator.
fn parse(body: &[u8]) -> Result<ExplainRequest, String> {
    let body: Value =
        serde_json::from_slice(body).map_err(|error| format!("the body is not JSON: {error}"))?;
    let Value::Object(mut members) = body else {
        return Err("the body must be a JSON object".to_owned());
    };
    let client = text(&mut members, "client")?;
    let user = text(&mut members, "user")?;
    let client_id = text(&mut members, "client_id")?;
    let filter = match members.remove("filter").unwrap_or_default() {
        Value::Null => None,
        filter => Some(filter.to_string().into()),
    };
    let event = event(&mut members)?;
    if let Some(unknown) = members.keys().next() {
        let quoted = Value::from(unknown.chars().take(64).collect::<String>());
        return Err(format!(
            "{quoted} is unknown; known are user, filter, client_id, annotation, action, and client"
        ));
    }
    let connection = match client {
        Some(_) if user.is_some() || filter.is_some() || client_id.is_some() => {
            return Err(
                "client selects open connections, which have a user, a filter, and a client id of \
                 their own: omit user, filter, and client_id"
                    .to_owned(),
            );
        }
        Some(client) => ExplainedConnection::Open { client },
        None => ExplainedConnection::Supposed {
            filter,
            client: client_id,
        },
    };
    let is_open = matches!(connection, ExplainedConnection::Open { .. });
    if event.is_none() && !is_open {
        return Err("annotation is missing: an id, an annotation, or an event".to_owned());
    }
    let lookup = match (user, event) {
        (None, None) => None,
        (user, event) => Some(Lookup { user, event }),
    };
    Ok(ExplainRequest { connection, lookup })
}

/// Removes a member that is a string, null, or absent.
fn text(members: &mut Map<String, Value>, key: &str) -> Result<Option<Box<str>>, String> {
    match members.remove(key).unwrap_or_default() {
        Value::Null => Ok(None),
        Value::String(text) if text.is_empty() => Err(format!("{key} is empty")),
        Value::String(text) => Ok(Some(text.into())),
        _ => Err(format!("{key} must be a string")),
    }
}

/// Removes the members that describe the event.
fn event(members: &mut Map<String, Value>) -> Result<Option<ExplainedEvent>, String> {
    let action = text(members, "action")?;
    if let Some(action) = &action
        && !ACTIONS.contains(&&**action)
    {
        return Err(format!("action must be {}", ACTIONS.join(", ")));
    }
    match members.remove("annotation").unwrap_or_default() {
        Value::Null if action.is_some() => Err("action needs an annotation".to_owned()),
        Value::Null => Ok(None),
        Value::String(id) if id.is_empty() => Err("annotation is empty".to_owned()),
        Value::String(id) => Ok(Some(ExplainedEvent::Annotation {
            id: id.into(),
            action,
        })),
        Value::Object(event) if event.contains_key("topic") => match action {
            Some(_) => Err("action is a member of the event already: omit it".to_owned()),
            None => Ok(Some(ExplainedEvent::Published(
                Value::Object(event).to_string().into(),
            ))),
        },
        Value::Object(annotation) => {
            let event = json!({
                "topic": "annotation",
                "action": action.as_deref().unwrap_or("create"),
                "src_client_id": null,
                "annotation": annotation,
            });
            Ok(Some(ExplainedEvent::Published(event.to_string().into())))
        }
        _ => Err("annotation must be an id, an annotation, or an event".to_owned()),
    }
}

const ACTIONS: [&str; 3] = ["create", "update", "delete"];
/// The maximum size of a request for an explanation, in bytes.
const MAX_EXPLAIN_BODY: usize = 64 * 1024;
/// The maximum number of requests for explanations in progress at the backend.
const MAX_EXPLAINING: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(body: &Value) -> Result<ExplainRequest, String> {
        parse(body.to_string().as_bytes())
    }

    #[test]
    fn request_names_an_open_or_a_supposed_connection() {
        let open = parsed(&json!({"client": "c"})).unwrap();
        assert_eq!(open.lookup, None);
        assert_eq!(
            open.connection,
            ExplainedConnection::Open { client: "c".into() }
        );
        let body = json!({"user": null, "filter": {"a": 1}, "client_id": "c", "annotation": "A"});
        let supposed = parsed(&body).unwrap();
        assert_eq!(
            supposed.connection,
            ExplainedConnection::Supposed {
                filter: Some(r#"{"a":1}"#.into()),
                client: Some("c".into())
            }
        );
        let lookup = supposed.lookup.unwrap();
        let event = ExplainedEvent::Annotation {
            id: "A".into(),
            action: None,
        };
        assert_eq!((lookup.user, lookup.event), (None, Some(event)));
    }

    #[test]
    fn annotation_becomes_an_event_and_event_is_kept() {
        let event = |body: Value| match parsed(&body).unwrap().lookup.unwrap().event {
            Some(ExplainedEvent::Published(event)) => {
                serde_json::from_str::<Value>(&event).unwrap()
            }
            other => panic!("{other:?}"),
        };
        let body = json!({"annotation": {"id": "A"}, "action": "update"});
        let expected = json!({"topic": "annotation", "action": "update", "src_client_id": null,
            "annotation": {"id": "A"}});
        assert_eq!(event(body), expected);
        let own = json!({"topic": "user", "type": "group-join"});
        assert_eq!(event(json!({"annotation": own})), own);
    }

    #[test]
    fn invalid_requests_are_refused_with_the_reason() {
        for (body, reason) in [
            (json!([]), "must be a JSON object"),
            (json!({}), "annotation is missing"),
            (
                json!({"user": 5, "annotation": "A"}),
                "user must be a string",
            ),
            (json!({"user": "", "annotation": "A"}), "user is empty"),
            (json!({"annotation": 5}), "annotation must be an id"),
            (json!({"annotation": ""}), "annotation is empty"),
            (
                json!({"annotation": "A", "action": "x"}),
                "action must be create",
            ),
            (json!({"client": "c", "action": "create"}), "action needs"),
            (
                json!({"annotation": {"topic": "user"}, "action": "create"}),
                "omit it",
            ),
            (
                json!({"annotation": "A", "users": "x"}),
                "\"users\" is unknown",
            ),
            (json!({"client": "c", "user": "acct:a@b"}), "omit user"),
        ] {
            let actual = parsed(&body).unwrap_err();
            assert!(actual.contains(reason), "{body}: {actual}");
        }
        assert!(parse(b"{").unwrap_err().contains("not JSON"));
    }
}
