//! Messages: pings and their responses, and events to few and to many receivers.

use super::super::servers::{Program, Spec};
use super::parts::{
    EVENT, PING, PONG, SHARED, arm, fast, floor, measure, per, program, publish, rare, slow,
    split_args, subscribe,
};
use super::{Arm, Measure, Sample, Scale};

pub(super) fn ping(scale: &Scale, n: u64, depth: u64) -> Measure {
    let mode = if depth == 1 { "echo" } else { "pipelined" };
    let seconds = scale.seconds;
    let line = |path: &str| {
        let text = format!(
            "{mode} ws://{{address}}{path} -n {n} --depth {depth} --seconds {seconds} --spin --message"
        );
        [split_args(&text), vec![PING.to_owned()]].concat()
    };
    let pong = || vec!["--expect".to_owned(), PONG.to_owned()];
    let mut arms = vec![arm(
        "h-realtime",
        program(Program::Api),
        [line("/ws"), pong()].concat(),
    )];
    arms.push(arm("engine", program(Program::Engine), line("/echo")));
    for (name, kind) in fast() {
        match kind {
            Program::Floor => {
                let load = [line("/"), pong()].concat();
                arms.push(arm(name, floor("--mode echo", PING.len(), PONG), load));
            }
            _ => arms.push(arm(name, program(kind), line("/echo"))),
        }
    }
    if n == 100 {
        arms.extend(slow().map(|(name, kind)| rare(name, program(kind), line("/echo"))));
    }
    if n == 10 || n >= 1000 {
        // Only used to show how it grows.
        arms.iter_mut().for_each(|arm| arm.rare = true);
    }
    let what = if depth == 1 {
        String::new()
    } else {
        format!(", {depth} in one write")
    };
    let title = format!("a JSON ping and its pong (peers: echo), {n} connections{what}");
    measure(
        &format!("{mode}-{n}"),
        title,
        per("server_cpu_us_per_message", "server_user_us_per_message"),
        arms,
    )
}

pub(super) fn fan_out(scale: &Scale, sample: &Sample, n: u64, burst: u64) -> Measure {
    // About the same number of deliveries for any number of receivers.
    let most = if scale.quick { 20_000 } else { 200_000 };
    let rounds = (most / n / burst).clamp(3, 100);
    let line = |path: &str| {
        split_args(&format!(
            "fan-out ws://{{address}}{path} -n {n} --rounds {rounds} --burst {burst} --spin"
        ))
    };
    let arms = fan_out_arms(sample, &line, n == 1000 && burst == 1);
    let figures = vec![
        ("server_cpu_us_per_delivery", "µs per delivery"),
        ("server_user_us_per_delivery", "of it user"),
        ("to_last_us.p50", "µs to the last"),
    ];
    let what = if burst == 1 {
        "an event"
    } else {
        "a burst of 10 events"
    };
    let title = format!("{what} of {} bytes to {n}", sample.text.len());
    let id = if burst == 1 {
        format!("fan-out-{n}")
    } else {
        "burst".into()
    };
    measure(&id, title, figures, arms)
}

fn fan_out_arms(sample: &Sample, line: &dyn Fn(&str) -> Vec<String>, all: bool) -> Vec<Arm> {
    let ours = [line("/ws"), publish(&sample.event), subscribe(SHARED)].concat();
    let theirs = |path: &str| {
        [
            line(path),
            vec!["--message".to_owned(), sample.text.clone()],
        ]
        .concat()
    };
    let mut arms = vec![arm("h-realtime", program(Program::Api), ours)];
    for (name, kind) in fast() {
        match kind {
            Program::Floor => {
                let spec = floor("--mode fan", sample.text.len(), &sample.text);
                arms.push(arm(name, spec, theirs("/")));
            }
            _ => arms.push(arm(name, program(kind), theirs("/fan"))),
        }
    }
    if all {
        arms.extend(slow().map(|(name, kind)| rare(name, program(kind), theirs("/fan"))));
    }
    arms
}

/// Another client's ping while events are delivered.
pub(super) fn ping_meanwhile(scale: &Scale, sample: &Sample, n: u64) -> Measure {
    let rounds = (if scale.quick { 20_000 } else { 150_000 } / n).clamp(3, 100);
    let line = |path: &str, probe: &str| {
        split_args(&format!(
            "fan-out ws://{{address}}{path} -n {n} --rounds {rounds} --spin --probe 5 {probe}"
        ))
    };
    let question = vec!["--probe-message".to_owned(), PING.to_owned()];
    let ours = [
        line("/ws", ""),
        question,
        publish(&sample.event),
        subscribe(SHARED),
    ]
    .concat();
    let mut arms = vec![arm("h-realtime", program(Program::Api), ours)];
    if n == 10_000.min(scale.most) {
        for (name, kind) in fast().filter(|(name, _)| *name != "floor") {
            let theirs = line("/fan", "--probe-url ws://{address}/echo");
            let message = vec!["--message".to_owned(), sample.text.clone()];
            arms.push(arm(name, program(kind), [theirs, message].concat()));
        }
    }
    let title = format!("another client's ping meanwhile, {n} receivers");
    let figures = vec![("probe_us.max", "µs, max"), ("probe_us.p50", "µs, median")];
    measure(&format!("ping-meanwhile-{n}"), title, figures, arms)
}

pub(super) fn selective(scale: &Scale, n: u64) -> Measure {
    let events = if scale.quick { 1000 } else { 5000 };
    let page = "https://example.org/a/page/of/its/own/{n}";
    let event = EVENT
        .replace("{uri}", page)
        .replace("{text}", "An annotation.");
    let line = split_args(&format!(
        "selective ws://{{address}}/ws -n {n} --rounds {events} --spin"
    ));
    let ours = [line, publish(&event), subscribe(page)].concat();
    let figures = per("server_cpu_us_per_delivery", "server_user_us_per_delivery");
    let title = format!("an event that matches one of {n}, publishing included");
    let id = if n == 100 {
        "selective-few"
    } else {
        "selective-many"
    };
    measure(
        id,
        title,
        figures,
        vec![arm("h-realtime", program(Program::Api), ours)],
    )
}

pub(super) fn deflate(scale: &Scale, sample: &Sample, n: u64) -> Measure {
    let rounds = (if scale.quick { 20_000 } else { 200_000 } / n).clamp(3, 100);
    let line = |path: &str| {
        split_args(&format!(
            "fan-out ws://{{address}}{path} -n {n} --rounds {rounds} --spin --deflate"
        ))
    };
    let ours = [line("/ws"), publish(&sample.event), subscribe(SHARED)].concat();
    let theirs = [
        line("/fan"),
        vec!["--message".to_owned(), sample.text.clone()],
    ]
    .concat();
    let shared = Spec {
        args: split_args("--deflate"),
        ..program(Program::UWebSockets)
    };
    let arms = vec![
        arm("h-realtime", program(Program::Api), ours),
        arm("uWebSockets", shared, theirs),
    ];
    let figures = vec![
        ("server_cpu_us_per_delivery", "µs per delivery"),
        ("server_user_us_per_delivery", "of it user"),
        ("delivered_bytes", "bytes"),
    ];
    measure(
        "deflate",
        format!("the same to {n} with compression"),
        figures,
        arms,
    )
}
