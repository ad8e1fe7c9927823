//! The invariants: for each received event, whenever the simulation is at rest, and at the end.

use h_realtime_engine::{ConnKey, Interest};

use crate::app::{Life, Log, Payload};
use crate::client::Client;
use crate::frames::ClientEvent;
use crate::socket::End;

/// Matches an event that a client has received with its expectations.
pub fn check_event(client: &mut Client, event: &ClientEvent, log: &Log) -> Result<(), String> {
    let mut log = log.get();
    let life = client.key.and_then(|key| log.lives.get_mut(&key));
    if client.progress.is_closed {
        return Err(format!("received {event:?} after a close frame"));
    }
    match (event, life) {
        (
            ClientEvent::Response { .. }
            | ClientEvent::Continue
            | ClientEvent::Open
            | ClientEvent::StreamOpen,
            _,
        ) => answered(client, event),
        (_, None) => Err(format!("received {event:?} without having been open")),
        (ClientEvent::Text(text), Some(life)) => {
            check_message(client, life, &Payload::Text(text.clone()))
        }
        (ClientEvent::Binary(data), Some(life)) => {
            check_message(client, life, &Payload::Binary(data.clone()))
        }
        (ClientEvent::Ping(_) | ClientEvent::Comment, Some(_)) => Ok(()),
        (ClientEvent::Block { event: None, data }, Some(life)) => {
            check_message(client, life, &Payload::Text(data.clone()))
        }
        (ClientEvent::Block { data, .. }, Some(life)) => closed(client, life, data.parse().ok()),
        (ClientEvent::Pong(payload), Some(_)) => {
            let at = client.pings.iter().position(|ping| ping == payload);
            // Older ones may stay unanswered (RFC 6455 §5.5.3).
            at.map(|at| drop(client.pings.remove(at)))
                .ok_or_else(|| format!("received a pong without a ping: {payload:?}"))
        }
        (ClientEvent::Close(close), Some(life)) => {
            closed(client, life, close.as_ref().map(|c| c.0))
        }
    }
}

fn answered(client: &mut Client, event: &ClientEvent) -> Result<(), String> {
    let status = match event {
        ClientEvent::Response { status, .. } => *status,
        ClientEvent::Open => 101,
        ClientEvent::StreamOpen => 200,
        _ => return Ok(()),
    };
    if client.progress.is_open {
        return Err(format!("received {event:?} on a WebSocket"));
    }
    client.progress.is_open = matches!(event, ClientEvent::Open | ClientEvent::StreamOpen);
    match client.expected.pop_front() {
        Some(right) if right.contains(&status) || matches!(status, 408 | 503) => Ok(()),
        None if status >= 400 => Ok(()),
        _ if client.behavior.is_wrong && status >= 400 => Ok(()),
        right => Err(format!("received {status}, expected {right:?}")),
    }
}

/// Each message is the next of its stream.
fn check_message(client: &mut Client, life: &Life, message: &Payload) -> Result<(), String> {
    let progress = &mut client.progress;
    let (stream, seen) = match message {
        Payload::Text(text) if text.starts_with("event ") => {
            (&life.deliveries, &mut progress.deliveries)
        }
        _ => (&life.replies, &mut progress.replies),
    };
    if stream.get(*seen) != Some(message) {
        let next = stream.get(*seen);
        return Err(format!("received {message:.60?}, expected {next:.60?}"));
    }
    *seen += 1;
    Ok(())
}

fn closed(client: &mut Client, life: &Life, code: Option<u16>) -> Result<(), String> {
    let progress = &mut client.progress;
    progress.is_closed = true;
    if !life.is_over {
        return Err(format!("was closed with {code:?} before on_close"));
    }
    if !client.behavior.is_wrong && matches!(code, Some(1002 | 1007 | 1009)) {
        return Err(format!("was closed with {code:?} without a reason"));
    }
    // All earlier messages come first, except for a client that does not read.
    if code != Some(1013) && progress.replies != life.replies.len() {
        return Err(format!("was closed with {code:?} before all output"));
    }
    Ok(())
}

/// The application has received exactly the messages that the client sent.
pub fn check_inbox(client: &mut Client, log: &Log) -> Result<(), String> {
    let log = log.get();
    let Some(life) = client.key.and_then(|key| log.lives.get(&key)) else {
        return Ok(());
    };
    let seen = client.progress.inbox;
    client.progress.inbox = life.inbox.len();
    if life.inbox.get(seen..) != client.sent_messages.get(seen..life.inbox.len()) {
        let (got, sent) = (life.inbox.get(seen..), client.sent_messages.get(seen..));
        return Err(format!(
            "the application received {got:.80?} of {sent:.80?}"
        ));
    }
    Ok(())
}

/// A well-behaved client receives a close frame.
pub fn check_end(client: &mut Client, may_shed: bool) -> Result<(), String> {
    let progress = &mut client.progress;
    if client.wire.state().peer_end() == End::Open || progress.has_ended {
        return Ok(());
    }
    progress.has_ended = true;
    let behavior = &client.behavior;
    let is_strict = behavior.is_eager && !behavior.is_wrong && !behavior.has_finished && !may_shed;
    if is_strict && progress.is_open && !progress.is_closed {
        return Err("was left without a close frame".to_owned());
    }
    // A connection with a close frame is only reset if it has unread input.
    if is_strict && behavior.has_sent_close && client.end() == End::Reset {
        return Err("was reset although it has replied to the close frame".to_owned());
    }
    Ok(())
}

/// Detects lost wake-ups: no edge is outstanding and the engine wants to sleep, so it must not owe
/// this socket a read or a write.
pub fn check_quiet(client: &Client, interest: Interest) -> Result<(), String> {
    let state = client.wire.state();
    if interest.is_scheduled {
        return Err(format!(
            "is scheduled although the engine sleeps: {interest:?}"
        ));
    }
    if state.is_unread() && !interest.is_deferred && !interest.is_choked {
        return Err(format!("has unread input: {interest:?}"));
    }
    if state.has_room() && interest.queued > 0 {
        return Err(format!(
            "has unwritten output and room for it: {interest:?}"
        ));
    }
    if interest.queued == 0 && interest.is_to_be_shut {
        return Err(format!(
            "has received all output without being shut down: {interest:?}"
        ));
    }
    Ok(())
}

/// Nothing is in flight to or from this client, and its WebSocket is open: it must have received
/// all output, and must hold no buffers.
pub fn check_complete(client: &Client, interest: Interest, log: &Log) -> Result<(), String> {
    let mut log = log.get();
    let life = client.key.and_then(|key| log.open_life(key));
    let Some(life) = life else {
        return Err("is open, but unknown to the application".to_owned());
    };
    let progress = &client.progress;
    let seen = (progress.replies, progress.deliveries);
    let all = (life.replies.len(), life.deliveries.len());
    if seen != all {
        return Err(format!(
            "received {seen:?} of {all:?} replies and deliveries"
        ));
    }
    if life.inbox.len() != client.sent_messages.len() {
        let (got, sent) = (life.inbox.len(), client.sent_messages.len());
        return Err(format!("the application received {got} of {sent} messages"));
    }
    if !client.has_newest_pong() {
        return Err("has no pong for its newest ping".to_owned());
    }
    if client.is_incomplete() {
        return Ok(());
    }
    match interest.is_idle {
        true => Ok(()),
        false => Err(format!("is idle but holds buffers: {interest:?}")),
    }
}

/// Every opened connection has been closed once; [`Life::is_over`] is only set once.
pub fn check_over(log: &Log) -> Result<(), String> {
    let log = log.get();
    let left: Vec<ConnKey> = log.open.clone();
    match left.is_empty() {
        true => Ok(()),
        false => Err(format!("{left:?} were never closed")),
    }
}
