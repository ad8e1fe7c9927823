//! Idle connections with heartbeats: memory, and the CPU to keep them open.

use super::super::servers::{Program, Spec};
use super::parts::{
    BYTES, arm, fast, floor, measure, program, rare, slow, split_args, subscribe, with_tls,
};
use super::{Measure, Scale};

pub(super) fn idle(scale: &Scale) -> Measure {
    let load = |path, n| split_args(&format!("idle ws://{{address}}{path} -n {n}"));
    let few = 5000.min(scale.most);
    let mut arms = vec![arm(
        "engine",
        program(Program::Engine),
        load("/echo", scale.most),
    )];
    arms.push(arm(
        "h-realtime",
        program(Program::Api),
        load("/ws", scale.most),
    ));
    arms.extend(fast().map(|(name, kind)| arm(name, program(kind), load("/echo", scale.most))));
    arms.extend(slow().map(|(name, kind)| rare(name, program(kind), load("/echo", few))));
    measure(
        "idle",
        format!("{} idle connections", scale.most),
        BYTES,
        arms,
    )
}

pub(super) fn idle_subscribed(scale: &Scale) -> Measure {
    let n = scale.most;
    let hello = subscribe("https://example.org/a/page/of/its/own/{n}");
    let client_id = r#"{"messageType":"client_id","value":"00000000000000000000000000{n}"}"#;
    let ours = [
        split_args(&format!(
            "idle ws://{{address}}/ws -n {n} --leave --settle 10 --hello"
        )),
        vec![client_id.to_owned()],
        hello,
    ];
    let theirs = split_args(&format!(
        "idle ws://{{address}}/fan -n {n} --leave --settle 10"
    ));
    let arms = vec![
        arm("h-realtime", program(Program::Api), ours.concat()),
        arm("uWebSockets", program(Program::UWebSockets), theirs),
    ];
    let figures = vec![
        ("bytes_per_connection", "bytes each"),
        ("resident_growth", "bytes more after all left"),
    ];
    let title =
        format!("{n} idle, each with a client id and a /uri of its own (uWebSockets: one topic)");
    measure("idle-subscribed", title, figures, arms)
}

pub(super) fn idle_tls(scale: &Scale) -> Measure {
    let load = split_args(&format!(
        "idle wss://{{address}}/echo -n {} --ca {{ca}}",
        scale.most
    ));
    let mut arms = vec![arm("engine", with_tls(Program::Engine), load.clone())];
    let peers = fast().filter(|(name, _)| *name != "floor");
    arms.extend(peers.map(|(name, kind)| arm(name, with_tls(kind), load.clone())));
    measure(
        "idle-tls",
        format!("{} idle connections over TLS 1.3", scale.most),
        BYTES,
        arms,
    )
}

pub(super) fn idle_large(scale: &Scale, tls: bool) -> Measure {
    let n = scale.most;
    let mut arms = Vec::new();
    if tls {
        let load = split_args(&format!(
            "idle wss://{{address}}/echo -n {n} --ca {{ca}} --large 60000"
        ));
        arms.push(arm("engine", with_tls(Program::Engine), load));
    } else {
        let load = split_args(&format!("idle ws://{{address}}/echo -n {n} --large 60000"));
        arms.push(arm("engine", program(Program::Engine), load.clone()));
        arms.push(arm("uWebSockets", program(Program::UWebSockets), load));
    }
    let (id, over) = if tls {
        ("idle-large-tls", " over TLS 1.3")
    } else {
        ("idle-large", "")
    };
    let title = format!("{n} idle{over}, each after a message of 60,000 bytes both ways");
    measure(id, title, BYTES, arms)
}

/// The interval is two seconds instead of thirty, for enough heartbeats to measure.
pub(super) fn heartbeats(scale: &Scale) -> Measure {
    let n = scale.most;
    let hold = if scale.quick { 8 } else { 30 };
    let load =
        |path: &str| split_args(&format!("idle ws://{{address}}{path} -n {n} --hold {hold}"));
    let ours = Spec {
        settings: "[timeouts]\nping = \"2s\"\npong = \"2s\"\n".into(),
        ..program(Program::Api)
    };
    let arms = vec![
        arm("h-realtime", ours, load("/ws")),
        arm(
            "floor",
            floor("--mode heartbeat --every 2000", 24, ""),
            load("/"),
        ),
    ];
    let figures = vec![
        ("server_cpu_us_per_ping", "µs per ping"),
        ("server_user_us_per_ping", "of it user"),
    ];
    let title = format!("{n} connections, each sent a ping every 2 s (default: every 30 s)");
    measure("heartbeats", title, figures, arms)
}

/// Only used by a plot.
pub(super) fn idle_growth(n: u64) -> Measure {
    let load = |path| split_args(&format!("idle ws://{{address}}{path} -n {n}"));
    let mut arms = vec![
        rare("engine", program(Program::Engine), load("/echo")),
        rare("h-realtime", program(Program::Api), load("/ws")),
    ];
    arms.extend(fast().map(|(name, kind)| rare(name, program(kind), load("/echo"))));
    measure(
        &format!("idle-{n}"),
        format!("{n} idle connections"),
        BYTES,
        arms,
    )
}
