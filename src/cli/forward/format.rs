//! The bodies of requests: JSON for programs, in two forms. Those for chats are in `chat`.

use serde::Serialize;
use serde_json::value::RawValue;

use super::chat;
use super::event::{Action, ForwardEvent, batch_id};
use crate::exit::Exit;

/// A form of the requests, or a feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(in crate::cli) enum ForwardFormat {
    /// The payload of Standard Webhooks: type, timestamp, and data
    Standard,
    /// The notification as the server sends it
    Json,
    /// A message for an incoming webhook of Slack
    Slack,
    /// A message for a webhook of Discord
    Discord,
    /// An Atom feed in a file, instead of requests
    Atom,
}

impl ForwardFormat {
    /// Returns the maximum number of events in one request.
    pub(super) fn max_batch(self) -> usize {
        match self {
            ForwardFormat::Standard | ForwardFormat::Json => MAX_BATCH,
            ForwardFormat::Slack => chat::MAX_SLACK_EVENTS,
            ForwardFormat::Discord => chat::MAX_DISCORD_EVENTS,
            ForwardFormat::Atom => 1,
        }
    }

    /// Returns the default number of simultaneous requests. Messages in a chat have an order.
    pub(super) fn parallel(self) -> usize {
        match self {
            ForwardFormat::Standard | ForwardFormat::Json => 4,
            ForwardFormat::Slack | ForwardFormat::Discord | ForwardFormat::Atom => 1,
        }
    }
}

/// A request to be made: its id, and its body.
pub(super) struct Rendered {
    pub id: String,
    pub body: Vec<u8>,
}

/// Renders events as the body of one request: an array if `is_batch`, even for one event.
///
/// # Errors
/// 71 if the body cannot be rendered, which is not expected.
pub(super) fn render(
    format: ForwardFormat,
    events: &[ForwardEvent],
    is_batch: bool,
) -> Result<Rendered, Exit> {
    let ids: Vec<String> = events.iter().map(ForwardEvent::webhook_id).collect();
    let body = match format {
        ForwardFormat::Standard | ForwardFormat::Atom => {
            let payloads = events
                .iter()
                .zip(&ids)
                .map(|(event, id)| payload(event, id));
            let payloads: Vec<Payload<'_>> = payloads.collect();
            match payloads.as_slice() {
                [payload] if !is_batch => serde_json::to_vec(payload),
                payloads => serde_json::to_vec(payloads),
            }
        }
        ForwardFormat::Json => {
            let lines: Vec<&str> = events.iter().map(|event| event.line.as_str()).collect();
            Ok(match lines.as_slice() {
                [line] if !is_batch => line.as_bytes().to_vec(),
                lines => format!("[{}]", lines.join(",")).into_bytes(),
            })
        }
        ForwardFormat::Slack => serde_json::to_vec(&chat::slack(events)),
        ForwardFormat::Discord => serde_json::to_vec(&chat::discord(events)),
    };
    let body =
        body.map_err(|error| Exit::new(Exit::OS, format!("cannot render an event: {error}")))?;
    let id = match ids.as_slice() {
        [id] if !is_batch => id.clone(),
        ids => batch_id(ids),
    };
    Ok(Rendered { id, body })
}

#[derive(Serialize)]
struct Payload<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    timestamp: String,
    id: &'a str,
    data: &'a RawValue,
}

fn payload<'a>(event: &'a ForwardEvent, id: &'a str) -> Payload<'a> {
    let millis = i64::try_from(event.received).unwrap_or_default();
    let time = jiff::Timestamp::from_millisecond(millis).unwrap_or_default();
    Payload {
        kind: match event.action {
            Action::Create => "annotation.created",
            Action::Update => "annotation.updated",
            Action::Delete => "annotation.deleted",
        },
        timestamp: time.to_string(),
        id,
        data: event.annotation(),
    }
}

/// The maximum number of events in one request, for JSON.
const MAX_BATCH: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str) -> ForwardEvent {
        let line = format!(
            r#"{{"type":"annotation-notification","options":{{"action":"{action}"}},"payload":[{{"id":"A","n":1.50}}],"cursor":"c"}}"#
        );
        ForwardEvent::parse(&line, "c", 1_700_000_000_123).unwrap_or_else(|_| panic!("an event"))
    }

    fn body(format: ForwardFormat, events: &[ForwardEvent], is_batch: bool) -> String {
        let rendered = render(format, events, is_batch).unwrap_or_else(|_| panic!("a body"));
        String::from_utf8(rendered.body).expect("text")
    }

    #[test]
    fn standard_payload_has_type_timestamp_and_data() {
        let event = event("delete");
        let id = event.webhook_id();
        let expected = format!(
            r#"{{"type":"annotation.deleted","timestamp":"2023-11-14T22:13:20.123Z","id":"{id}","data":{{"id":"A","n":1.50}}}}"#
        );
        let events = [event];
        assert_eq!(body(ForwardFormat::Standard, &events, false), expected);
        let batch = body(ForwardFormat::Standard, &events, true);
        assert_eq!(batch, format!("[{expected}]"));
    }

    #[test]
    fn json_is_the_notification_as_received() {
        let events = [event("create"), event("update")];
        let [first, second] = [&events[0].line, &events[1].line];
        assert_eq!(&body(ForwardFormat::Json, &events[..1], false), first);
        assert_eq!(
            body(ForwardFormat::Json, &events, true),
            format!("[{first},{second}]")
        );
    }

    #[test]
    fn request_id_is_that_of_the_event_or_depends_on_all_events() {
        let events = [event("create"), event("update")];
        let id = |events: &[ForwardEvent], is_batch| {
            render(ForwardFormat::Json, events, is_batch)
                .unwrap_or_else(|_| panic!("a body"))
                .id
        };
        assert_eq!(id(&events[..1], false), events[0].webhook_id());
        assert_eq!(id(&events, true), id(&events, true));
        assert_ne!(id(&events, true), id(&events[..1], true));
    }
}
