//! Look-ups for explanations, and the answers to requests that are not possible.

use log::debug;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{Worker, send};
use crate::backend::h::database::Queries;
use crate::backend::h::event::{AnnotationEvent, user_plan};
use crate::backend::{DropReason, EventSink, SinkClosed};
use crate::model::{
    AuthReply, BackendEvent, BackendRequest, ExplainError, ExplainedEvent, Findings, Lookup, Plan,
    PublishError, RequestId,
};

impl<D, S> Worker<D, S>
where
    D: Queries,
    S: EventSink,
{
    /// Answers the next look-up. The queries are those for logins and events.
    pub(super) async fn answer_lookup(&mut self) -> Result<(), SinkClosed> {
        let Some((request_id, lookup)) = self.lookups.pop_front() else {
            return Ok(());
        };
        let found = self.look_up(&lookup).await;
        let result = found.unwrap_or_else(|| Err(database_unavailable()));
        let result = result.map(Box::new);
        send(&self.sink, BackendEvent::Found { request_id, result }).await
    }

    /// Returns `None` if the database is unavailable.
    async fn look_up(&mut self, lookup: &Lookup) -> Option<Result<Findings, ExplainError>> {
        let mut findings = Findings::default();
        if let Some(userid) = &lookup.user {
            let read_at = Instant::now();
            findings.user = self
                .database
                .query(async |data| data.user(userid).await)
                .await?;
            if let Some(user) = &mut findings.user {
                self.pending
                    .apply(&user.userid, &mut user.memberships, read_at);
            }
        }
        match &lookup.event {
            None => {}
            Some(ExplainedEvent::Annotation { id, action }) => {
                let event = event_on(id, action.as_deref().unwrap_or("create"), None);
                findings.plan = match event {
                    Ok(event) => self.plan_now(&event).await?,
                    // h has no annotation with such an id.
                    Err(_) => None,
                };
            }
            Some(ExplainedEvent::Published(text)) => match self.published(text).await? {
                Ok(plan) => findings.plan = plan,
                Err(reason) => return Some(Err(ExplainError::Invalid(reason))),
            },
        }
        Some(Ok(findings))
    }

    /// Returns the plan of an event as publishers send it. Of an annotation, only the id counts: the
    /// rest is read from the database, as for every event.
    async fn published(&mut self, text: &str) -> Option<Result<Option<Plan>, String>> {
        let Ok(event) = serde_json::from_str::<Map<String, Value>>(text) else {
            return Some(Err("the event is not a JSON object".to_owned()));
        };
        let text = |key: &str| event.get(key).and_then(Value::as_str);
        if text("topic") == Some("user") {
            let planned = user_plan(&event).map(|(_, plan)| Some(plan));
            return Some(planned.map_err(|_| {
                "the event on a user needs type, userid, and session_model".to_owned()
            }));
        }
        let own = event.get("annotation").and_then(|own| own.get("id"));
        let id = text("annotation_id").or(own.and_then(Value::as_str));
        let Some(id) = id else {
            return Some(Err("the annotation has no id".to_owned()));
        };
        let action = text("action").unwrap_or("create");
        match event_on(id, action, text("src_client_id")) {
            Ok(event) => self.plan_now(&event).await.map(Ok),
            Err(_) => Some(Ok(None)),
        }
    }

    /// Returns the plan of an event with the data of now, without recording it. `None` in the inner
    /// option if there is no such annotation.
    async fn plan_now(&mut self, event: &AnnotationEvent) -> Option<Option<Plan>> {
        let pending = &self.pending;
        let planned = self
            .database
            .query(async |data| data.annotation(event, pending).await)
            .await?;
        if let Err(reason) = &planned {
            debug!("cannot explain an annotation: {reason:?}");
        }
        Some(planned.ok().map(|planned| planned.plan))
    }
}

fn event_on(id: &str, action: &str, client: Option<&str>) -> Result<AnnotationEvent, DropReason> {
    let text = |text: &str| Value::from(text);
    let members = [
        ("action", text(action)),
        ("annotation_id", text(id)),
        ("src_client_id", client.map_or(Value::Null, text)),
    ];
    let members = members.map(|(key, value)| (key.to_owned(), value));
    AnnotationEvent::parse(&Map::from_iter(members))
}

/// Answers a request that is not supported, or not possible now.
pub(super) async fn reject<S: EventSink>(
    sink: &S,
    request: BackendRequest,
) -> Result<(), SinkClosed> {
    match request {
        BackendRequest::Authenticate { request_id, .. } => {
            send(sink, unavailable(request_id)).await
        }
        BackendRequest::Publish { request_id, .. } => {
            let reason = "events come from the message queue here".to_owned();
            let result = Err(PublishError::Unavailable(reason));
            send(sink, BackendEvent::Published { request_id, result }).await
        }
        BackendRequest::LookUp { request_id, .. } => {
            let result = Err(database_unavailable());
            send(sink, BackendEvent::Found { request_id, result }).await
        }
        BackendRequest::QueueEvent { .. } | BackendRequest::Sweep { .. } => Ok(()),
    }
}

pub(super) fn unavailable(request_id: RequestId) -> BackendEvent {
    BackendEvent::Authenticated {
        request_id,
        reply: AuthReply::Unavailable,
    }
}

fn database_unavailable() -> ExplainError {
    ExplainError::Unavailable("the database is unavailable".to_owned())
}
