//! What must be true whatever happens: of each thing a client hears, of each moment when all
//! is quiet, and of the end.

use h_realtime_engine::{ConnKey, Interest};

use super::app::{Life, Log, Said};
use super::client::Client;
use super::frames::Heard;
use super::socket::End;

/// Ticks off what a client has heard.
pub fn check_heard(client: &mut Client, heard: &Heard, log: &Log) -> Result<(), String> {
    let mut log = log.get();
    let life = client.key.and_then(|key| log.lives.get_mut(&key));
    if client.progress.is_closed {
        return Err(format!("heard {heard:?} behind a close frame"));
    }
    match (heard, life) {
        (Heard::Response { .. } | Heard::Continue | Heard::Open, _) => answered(client, heard),
        (_, None) => Err(format!("heard {heard:?} and was never open")),
        (Heard::Text(text), Some(life)) => said(client, life, &Said::Text(text.clone())),
        (Heard::Binary(data), Some(life)) => said(client, life, &Said::Binary(data.clone())),
        (Heard::Ping(_), Some(_)) => Ok(()),
        (Heard::Pong(payload), Some(_)) => {
            let at = client.pings.iter().position(|ping| ping == payload);
            // Older ones may stay unanswered (RFC 6455 §5.5.3).
            at.map(|at| drop(client.pings.remove(at)))
                .ok_or_else(|| format!("a pong that answers nothing: {payload:?}"))
        }
        (Heard::Close(close), Some(life)) => closed(client, life, close.as_ref().map(|c| c.0)),
    }
}

fn answered(client: &mut Client, heard: &Heard) -> Result<(), String> {
    let status = match heard {
        Heard::Response { status, .. } => *status,
        Heard::Open => 101,
        _ => return Ok(()),
    };
    if client.progress.is_open {
        return Err(format!("heard {heard:?} on a WebSocket"));
    }
    client.progress.is_open = status == 101;
    match client.expected.pop_front() {
        Some(right) if right.contains(&status) || matches!(status, 408 | 503) => Ok(()),
        None if status >= 400 => Ok(()),
        _ if client.conduct.is_wrong && status >= 400 => Ok(()),
        right => Err(format!("heard {status} and expected {right:?}")),
    }
}

/// Each message is the next of its stream.
fn said(client: &mut Client, life: &Life, message: &Said) -> Result<(), String> {
    let progress = &mut client.progress;
    let (stream, seen) = match message {
        Said::Text(text) if text.starts_with("event ") => {
            (&life.deliveries, &mut progress.deliveries)
        }
        _ => (&life.replies, &mut progress.replies),
    };
    if stream.get(*seen) != Some(message) {
        let next = stream.get(*seen);
        return Err(format!("heard {message:.60?}, and next is {next:.60?}"));
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
    if !client.conduct.is_wrong && matches!(code, Some(1002 | 1007 | 1009)) {
        return Err(format!("was closed with {code:?} for nothing"));
    }
    // Everything that was said before comes before, save to one that does not read.
    if code != Some(1013) && progress.replies != life.replies.len() {
        return Err(format!("was closed with {code:?} before it had heard all"));
    }
    Ok(())
}

/// What the application got is what the client said.
pub fn check_inbox(client: &mut Client, log: &Log) -> Result<(), String> {
    let log = log.get();
    let Some(life) = client.key.and_then(|key| log.lives.get(&key)) else {
        return Ok(());
    };
    let seen = client.progress.inbox;
    client.progress.inbox = life.inbox.len();
    if life.inbox.get(seen..) != client.said.get(seen..life.inbox.len()) {
        let (got, said) = (life.inbox.get(seen..), client.said.get(seen..));
        return Err(format!("the application got {got:.80?} of {said:.80?}"));
    }
    Ok(())
}

/// A client that did nothing wrong is not left without a word.
pub fn check_end(client: &mut Client, may_shed: bool) -> Result<(), String> {
    let progress = &mut client.progress;
    if client.wire.state().peer_end() == End::Open || progress.has_ended {
        return Ok(());
    }
    progress.has_ended = true;
    let conduct = &client.conduct;
    let is_strict = conduct.is_eager && !conduct.is_wrong && !conduct.has_finished && !may_shed;
    if is_strict && progress.is_open && !progress.is_closed {
        return Err("was left without a close frame".to_owned());
    }
    // Only a client that gets a close frame is cut with unread input.
    if is_strict && conduct.has_sent_close && client.end() == End::Reset {
        return Err("was reset although it has answered the close frame".to_owned());
    }
    Ok(())
}

/// The lost-wake-up detector: no edge is outstanding and the engine wants to sleep, so it must
/// not owe this socket a read or a write.
pub fn check_quiet(client: &Client, interest: Interest) -> Result<(), String> {
    let state = client.wire.state();
    if interest.is_scheduled {
        return Err(format!("is scheduled, and nobody is awake: {interest:?}"));
    }
    if state.is_unread() && !interest.is_deferred && !interest.is_choked {
        return Err(format!(
            "has something to read that is not read: {interest:?}"
        ));
    }
    if state.has_room() && interest.queued > 0 {
        return Err(format!("has room for what is not written: {interest:?}"));
    }
    if interest.queued == 0 && interest.is_to_be_shut {
        return Err(format!("has all, and is not told so: {interest:?}"));
    }
    Ok(())
}

/// Nothing is on its way to or from this client, and its WebSocket is open: it has all that
/// there was, and costs nothing.
pub fn check_complete(client: &Client, interest: Interest, log: &Log) -> Result<(), String> {
    let mut log = log.get();
    let life = client.key.and_then(|key| log.living(key));
    let Some(life) = life else {
        return Err("is open, and the application does not know".to_owned());
    };
    let progress = &client.progress;
    let seen = (progress.replies, progress.deliveries);
    let all = (life.replies.len(), life.deliveries.len());
    if seen != all {
        return Err(format!("heard {seen:?} of {all:?} replies and deliveries"));
    }
    if life.inbox.len() != client.said.len() {
        let (got, said) = (life.inbox.len(), client.said.len());
        return Err(format!("the application got {got} of {said} messages"));
    }
    if !client.has_its_pong() {
        return Err("has no answer to its newest ping".to_owned());
    }
    if client.is_mid_word() {
        return Ok(());
    }
    match interest.is_idle {
        true => Ok(()),
        false => Err(format!("is idle and has buffers: {interest:?}")),
    }
}

/// Everybody who opened has closed, once; [`Life::is_over`] is set once only.
pub fn check_over(log: &Log) -> Result<(), String> {
    let log = log.get();
    let left: Vec<ConnKey> = log.open.clone();
    match left.is_empty() {
        true => Ok(()),
        false => Err(format!("{left:?} were never closed")),
    }
}
