//! What must be true of all that clients hear, and of the API's own figures.

use std::collections::VecDeque;

use h_realtime::realtime::{self, Realtime};
use h_realtime_engine::{Counters, Interest};

use crate::sim::{Client, End, Heard};

use super::matcher::{Life, Model, State, Tally};
use super::plans::PRIVATE;
use super::says;

/// Ticks off what a client has heard.
pub fn check_heard(client: &mut Client, heard: &Heard, life: &mut Life) -> Result<(), String> {
    if client.progress.is_closed {
        return Err(format!("heard {heard:?} behind a close frame"));
    }
    let was_open = matches!(life.state, State::Open | State::Over);
    match heard {
        Heard::Open if was_open && !client.progress.is_open => {
            client.progress.is_open = true;
            Ok(())
        }
        Heard::Response { status, .. } if !client.progress.is_open && !was_open => {
            match (life.refused, *status) {
                (Some(refused), status) if refused == status => Ok(()),
                // Full, too late, or not whole in time.
                (_, 503 | 408) => Ok(()),
                (_, 400..) if client.conduct.is_wrong => Ok(()),
                _ => Err(format!("was refused with {status}: {life:?}")),
            }
        }
        _ if !client.progress.is_open => Err(format!("heard {heard:?} and is not open")),
        Heard::Text(text) if text.starts_with("{\"event\"") => next(&mut life.events, text),
        Heard::Text(text) => next(&mut life.replies, text),
        Heard::Ping(_) => Ok(()),
        Heard::Pong(payload) => {
            let at = client.pings.iter().position(|ping| ping == payload);
            at.map(|at| drop(client.pings.remove(at)))
                .ok_or_else(|| format!("a pong that answers nothing: {payload:?}"))
        }
        Heard::Close(close) => {
            client.progress.is_closed = true;
            closed(client, life, close.as_ref().map(|(code, _)| *code))
        }
        _ => Err(format!("heard {heard:?} on a WebSocket")),
    }
}

/// What is worth it is compressed for those who want it so, and what is about somebody alone is
/// not: its length could tell of it.
pub fn check_form(client: &Client, heard: &Heard, is_squeezed: bool) -> Result<(), String> {
    let is_worth_it = |text: &str| {
        text.starts_with("{\"event\"") && !text.contains(PRIVATE) && text.len() >= WORTHWHILE
    };
    let is_due = client.compresses && matches!(heard, Heard::Text(text) if is_worth_it(text));
    match is_due == is_squeezed {
        true => Ok(()),
        false => Err(format!("compressed: {is_squeezed}, and {heard:?}")),
    }
}

fn next(stream: &mut VecDeque<String>, text: &str) -> Result<(), String> {
    match stream.pop_front() {
        Some(next) if next == text => Ok(()),
        next => Err(format!("heard {text:?}, and next is {next:?}")),
    }
}

fn closed(client: &Client, life: &Life, code: Option<u16>) -> Result<(), String> {
    if life.state != State::Over {
        return Err(format!("was closed with {code:?} before on_close"));
    }
    let is_right = match (life.closed, code) {
        (Some(want), code) => code == Some(want),
        // Its own, come back.
        (None, Some(1000)) => client.conduct.has_sent_close,
        // It did not read.
        (None, Some(1013)) => true,
        // It left a message unfinished for too long, as the network did to it.
        (None, Some(1008)) => !client.conduct.is_eager,
        (None, Some(1002 | 1007 | 1009)) => client.conduct.is_wrong,
        _ => false,
    };
    if !is_right {
        return Err(format!("was closed with {code:?}: {life:?}"));
    }
    if code != Some(1013) && !life.replies.is_empty() {
        return Err(format!("was closed with {code:?} before it had heard all"));
    }
    Ok(())
}

/// A client that did nothing wrong is not left without a word.
pub fn check_end(client: &mut Client) -> Result<(), String> {
    if client.wire.state().peer_end() == End::Open || client.progress.has_ended {
        return Ok(());
    }
    client.progress.has_ended = true;
    let conduct = &client.conduct;
    let is_strict = conduct.is_eager && !conduct.is_wrong && !conduct.has_finished;
    match is_strict && client.progress.is_open && !client.progress.is_closed {
        true => Err("was left without a close frame".to_owned()),
        false => Ok(()),
    }
}

/// Nothing is on its way to or from an open client: it has heard all that there was.
pub fn check_complete(client: &Client, interest: Interest, life: &Life) -> Result<(), String> {
    if life.state != State::Open {
        return Err(format!("is open, and the API does not know: {life:?}"));
    }
    if !(life.said.is_empty() && life.replies.is_empty() && life.events.is_empty()) {
        return Err(format!("has not said or heard all: {life:?}"));
    }
    if !client.has_its_pong() {
        return Err("has no answer to its newest ping".to_owned());
    }
    match interest.is_idle || client.is_mid_word() {
        true => Ok(()),
        false => Err(format!("is idle and has buffers: {interest:?}")),
    }
}

/// The API's figures, after every turn.
pub fn check_counters(model: &Model, counters: &realtime::ApiCounters) -> Result<(), String> {
    let tally = Tally {
        matched: counters.matched,
        sent: counters.sent,
        withheld: counters.withheld,
        credentials_ended: counters.credentials_ended,
        ..model.tally
    };
    if tally != model.tally {
        return Err(format!("counted {tally:?} for {:?}", model.tally));
    }
    let mut terms: Vec<_> = model.open().flat_map(|(_, life)| &life.filter).collect();
    let subscriptions = terms.len() as u64;
    terms.sort();
    terms.dedup();
    let got = (counters.subscriptions, counters.terms);
    let want = (subscriptions, terms.len() as u64);
    if got != want {
        return Err(format!("{got:?} subscriptions and terms for {want:?}"));
    }
    Ok(())
}

/// The index and the principals, after every turn: sound in themselves, of those who are open,
/// and of the same opinion as the model about each.
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
            return Err(format!("{key:?} is {got:?}, should be {want:?}"));
        }
    }
    for term in says::all_terms() {
        let open = model.open();
        let want: Vec<_> = open
            .filter(|(_, life)| life.filter.contains(&term))
            .map(|(key, _)| *key)
            .collect();
        let got = realtime.subscribers(&term);
        if got != want {
            return Err(format!("{term:?} finds {got:?}, should find {want:?}"));
        }
    }
    Ok(())
}

/// What was handed to the engine has been sent, or counted as not.
pub fn check_accounts(model: &Model, counters: &Counters) -> Result<(), String> {
    let got = counters.messages_out + counters.undelivered;
    let want = model.tally.sent + model.tally.replies;
    match got == want {
        true => Ok(()),
        false => Err(format!(
            "{got} messages sent or not for {want}: {counters:?}"
        )),
    }
}

/// The end: nobody is left, and nothing of them.
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
        false => Err(format!("{left:?} and {counters:?} are left")),
    }
}

/// The engine's, in bytes.
const WORTHWHILE: usize = 256;
