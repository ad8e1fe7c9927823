//! The invariants of all messages that clients receive, and of the API's own counters.

use std::collections::VecDeque;

use h_realtime::realtime::{self, Realtime};
use h_realtime_engine::{Counters, Interest};

use crate::sim::{Client, ClientEvent, End};

use super::client_messages;
use super::model::{Connection, ExpectedCounters, Model, State};
use super::plans::PRIVATE;

/// Matches an event that a client has received with its expectations.
pub fn check_event(
    client: &mut Client,
    event: &ClientEvent,
    life: &mut Connection,
) -> Result<(), String> {
    if client.progress.is_closed {
        return Err(format!("received {event:?} after a close frame"));
    }
    let was_open = matches!(life.state, State::Open | State::Over);
    match event {
        ClientEvent::Open if was_open && !client.progress.is_open => {
            client.progress.is_open = true;
            Ok(())
        }
        ClientEvent::Response { status, .. } if !client.progress.is_open && !was_open => {
            match (life.refused, *status) {
                (Some(refused), status) if refused == status => Ok(()),
                // At capacity, too late, or incomplete at the deadline.
                (_, 503 | 408) => Ok(()),
                (_, 400..) if client.behavior.is_wrong => Ok(()),
                _ => Err(format!("was refused with {status}: {life:?}")),
            }
        }
        _ if !client.progress.is_open => Err(format!("received {event:?} without being open")),
        ClientEvent::Text(text) if text.starts_with("{\"event\"") => next(&mut life.events, text),
        ClientEvent::Text(text) => next(&mut life.replies, text),
        ClientEvent::Ping(_) => Ok(()),
        ClientEvent::Pong(payload) => {
            let at = client.pings.iter().position(|ping| ping == payload);
            at.map(|at| drop(client.pings.remove(at)))
                .ok_or_else(|| format!("received a pong without a ping: {payload:?}"))
        }
        ClientEvent::Close(close) => {
            client.progress.is_closed = true;
            closed(client, life, close.as_ref().map(|(code, _)| *code))
        }
        _ => Err(format!("received {event:?} on a WebSocket")),
    }
}

/// Messages above the threshold are compressed for clients that negotiated compression, except
/// messages about a single user, whose length could leak their content.
pub fn check_form(client: &Client, event: &ClientEvent, is_compressed: bool) -> Result<(), String> {
    let is_compressible = |text: &str| {
        text.starts_with("{\"event\"") && !text.contains(PRIVATE) && text.len() >= WORTHWHILE
    };
    let is_due =
        client.compresses && matches!(event, ClientEvent::Text(text) if is_compressible(text));
    match is_due == is_compressed {
        true => Ok(()),
        false => Err(format!("compressed: {is_compressed}, for {event:?}")),
    }
}

fn next(stream: &mut VecDeque<String>, text: &str) -> Result<(), String> {
    match stream.pop_front() {
        Some(next) if next == text => Ok(()),
        next => Err(format!("received {text:?}, expected {next:?}")),
    }
}

fn closed(client: &Client, life: &Connection, code: Option<u16>) -> Result<(), String> {
    if life.state != State::Over {
        return Err(format!("was closed with {code:?} before on_close"));
    }
    let is_right = match (life.closed, code) {
        (Some(want), code) => code == Some(want),
        // Its own close, confirmed.
        (None, Some(1000)) => client.behavior.has_sent_close,
        // It did not read.
        (None, Some(1013)) => true,
        // It left a message incomplete for too long, because of a slow network.
        (None, Some(1008)) => !client.behavior.is_eager,
        (None, Some(1002 | 1007 | 1009)) => client.behavior.is_wrong,
        _ => false,
    };
    if !is_right {
        return Err(format!("was closed with {code:?}: {life:?}"));
    }
    if code != Some(1013) && !life.replies.is_empty() {
        return Err(format!("was closed with {code:?} before all output"));
    }
    Ok(())
}

/// A well-behaved client receives a close frame.
pub fn check_end(client: &mut Client) -> Result<(), String> {
    if client.wire.state().peer_end() == End::Open || client.progress.has_ended {
        return Ok(());
    }
    client.progress.has_ended = true;
    let behavior = &client.behavior;
    let is_strict = behavior.is_eager && !behavior.is_wrong && !behavior.has_finished;
    match is_strict && client.progress.is_open && !client.progress.is_closed {
        true => Err("was left without a close frame".to_owned()),
        false => Ok(()),
    }
}

/// Nothing is in flight to or from an open client: it must have received everything.
pub fn check_complete(
    client: &Client,
    interest: Interest,
    life: &Connection,
) -> Result<(), String> {
    if life.state != State::Open {
        return Err(format!("is open, but unknown to the API: {life:?}"));
    }
    if !(life.sent_messages.is_empty() && life.replies.is_empty() && life.events.is_empty()) {
        return Err(format!("has messages in flight: {life:?}"));
    }
    if !client.has_newest_pong() {
        return Err("has no pong for its newest ping".to_owned());
    }
    match interest.is_idle || client.is_incomplete() {
        true => Ok(()),
        false => Err(format!("is idle but holds buffers: {interest:?}")),
    }
}

/// The API's counters, after every turn.
pub fn check_counters(model: &Model, counters: &realtime::ApiCounters) -> Result<(), String> {
    let counted = ExpectedCounters {
        matched: counters.matched,
        sent: counters.sent,
        withheld: counters.withheld,
        credentials_ended: counters.credentials_ended,
        ..model.expected
    };
    if counted != model.expected {
        return Err(format!(
            "counted {counted:?}, expected {:?}",
            model.expected
        ));
    }
    let mut terms: Vec<_> = model.open().flat_map(|(_, life)| &life.filter).collect();
    let subscriptions = terms.len() as u64;
    terms.sort();
    terms.dedup();
    let got = (counters.subscriptions, counters.terms);
    let want = (subscriptions, terms.len() as u64);
    if got != want {
        return Err(format!(
            "{got:?} subscriptions and terms, expected {want:?}"
        ));
    }
    Ok(())
}

/// The index and the principals after every turn: consistent, limited to open connections, and
/// equal to the model for each.
pub fn check_tables(model: &Model, realtime: &Realtime) -> Result<(), String> {
    let is_open = |key| {
        let life = model.lives.get(&key);
        life.is_some_and(|life| life.state == State::Open)
    };
    realtime.check_invariants(is_open)?;
    for (key, life) in model.open() {
        let login = life.login.as_ref();
        let (got, want) = (realtime.userid(*key), login.map(|login| &*login.userid));
        if got != want {
            return Err(format!("{key:?} is {got:?}, expected {want:?}"));
        }
    }
    for term in client_messages::all_terms() {
        let open = model.open();
        let want: Vec<_> = open
            .filter(|(_, life)| life.filter.contains(&term))
            .map(|(key, _)| *key)
            .collect();
        let got = realtime.subscribers(&term);
        if got != want {
            return Err(format!("{term:?} finds {got:?}, expected {want:?}"));
        }
    }
    Ok(())
}

/// Every message passed to the engine has been sent, or counted as dropped.
pub fn check_accounts(model: &Model, counters: &Counters) -> Result<(), String> {
    let got = counters.messages_out + counters.undelivered;
    let want = model.expected.sent + model.expected.replies;
    match got == want {
        true => Ok(()),
        false => Err(format!(
            "{got} messages sent or dropped, expected {want}: {counters:?}"
        )),
    }
}

/// At the end, no connection and no state is left.
pub fn check_over(model: &Model, counters: &realtime::ApiCounters) -> Result<(), String> {
    let left: Vec<_> = model.open().map(|(key, _)| key).collect();
    let held = [
        counters.subscriptions,
        counters.terms,
        counters.logins,
        counters.principals,
    ];
    match left.is_empty() && held == [0; 4] {
        true => Ok(()),
        false => Err(format!("left: {left:?} and {counters:?}")),
    }
}

/// The engine's threshold, in bytes.
const WORTHWHILE: usize = 256;
