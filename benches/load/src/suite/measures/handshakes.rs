//! Short-lived connections.

use super::super::servers::{Program, Spec};
use super::parts::{PING, arm, fast, measure, per, program, rare, slow, split_args, with_tls};
use super::{Measure, Scale};

pub(super) fn upgrade(scale: &Scale) -> Measure {
    let line = |path: &str| {
        split_args(&format!(
            "handshake ws://{{address}}{path} --seconds {} --spin",
            scale.seconds
        ))
    };
    let mut arms = vec![
        arm("h-realtime", program(Program::Api), line("/ws")),
        arm("engine", program(Program::Engine), line("/echo")),
    ];
    arms.extend(fast().map(|(name, kind)| arm(name, program(kind), line("/echo"))));
    arms.extend(slow().map(|(name, kind)| rare(name, program(kind), line("/echo"))));
    let figures = per(
        "server_cpu_us_per_handshake",
        "server_user_us_per_handshake",
    );
    measure("upgrade", "connect, upgrade, close".into(), figures, arms)
}

pub(super) fn tls_handshake(scale: &Scale, resume: bool) -> Measure {
    let (id, flag, what) = match resume {
        true => ("tls-resumed", " --resume", "resumed"),
        false => ("tls-full", "", "full"),
    };
    let line = split_args(&format!(
        "handshake wss://{{address}}/echo --ca {{ca}} --seconds {} --spin{flag}",
        scale.seconds
    ));
    let mut arms = vec![arm("engine", with_tls(Program::Engine), line.clone())];
    let peers = fast().filter(|(name, _)| *name != "floor");
    arms.extend(peers.map(|(name, kind)| arm(name, with_tls(kind), line.clone())));
    let figures = per(
        "server_cpu_us_per_handshake",
        "server_user_us_per_handshake",
    );
    measure(id, format!("the same over TLS 1.3, {what}"), figures, arms)
}

pub(super) fn storm(scale: &Scale, tls: bool) -> Measure {
    let (id, scheme, path, what) = match tls {
        true => ("storm-tls", "wss", "/ws --ca {ca}", "TLS handshakes"),
        false => ("storm", "ws", "/ws", "upgrades"),
    };
    let line = split_args(&format!(
        "storm {scheme}://{{address}}{path} -n 100 --concurrent 500 --seconds {} --spin --probe 5 --probe-message",
        scale.seconds
    ));
    let spec = Spec {
        tls,
        ..program(Program::Api)
    };
    let arms = vec![arm(
        "h-realtime",
        spec,
        [line, vec![PING.to_owned()]].concat(),
    )];
    let figures = vec![
        ("probe_us.max", "µs, max"),
        ("probe_us.p50", "µs, median"),
        ("handshakes_per_s", "a second"),
    ];
    measure(
        id,
        format!("an open client's ping during a storm of {what}"),
        figures,
        arms,
    )
}
