//! What is measured, and of whom.

use load::Result;

use super::servers::{Places, Program, Spec, start};

/// How much of everything.
pub struct Scale {
    pub rounds: u64,
    pub seconds: u64,
    /// Connections where it is about many.
    pub most: u64,
    pub quick: bool,
}

/// One thing that is measured.
pub struct Measure {
    pub id: String,
    pub title: String,
    /// What the table shows: a figure of the load's report, and what to call it.
    pub figures: Vec<(&'static str, &'static str)>,
    pub arms: Vec<Arm>,
}

/// One server in it.
pub struct Arm {
    pub name: &'static str,
    pub server: Spec,
    /// The load's command line, with `{address}` and others for the server to fill in.
    pub load: Vec<String>,
    /// Takes part in some rounds only: it is far behind, and its figures take long.
    pub rare: bool,
}

/// What a message of the API looks like on the wire.
pub struct Sample {
    /// The event to publish for it.
    event: String,
    /// The message that a subscriber gets: 600 bytes, if all is well.
    text: String,
}

/// Publishes one event, to see what its receivers get; then makes it as long as it should be.
pub fn sample(places: &Places) -> Result<Sample> {
    let mut padding = String::new();
    loop {
        let event = EVENT.replace("{uri}", SHARED).replace("{text}", &padding);
        let server = start(&program(Program::Api), places)?;
        let mut command = places.pinned(1, &places.load());
        let load = [
            words("fan-out ws://{address}/ws -n 1 --rounds 1"),
            publish(&event),
            subscribe(SHARED),
        ]
        .concat();
        command.args(load.iter().map(|word| server.fill(word, places)));
        let report = super::figures(command.args(["--json", "-"]))?;
        let text = report["delivered"].as_str().ok_or("no sample")?.to_owned();
        match MESSAGE.checked_sub(text.len()) {
            Some(short) if short > 0 && padding.is_empty() => {
                padding = FILLER.chars().cycle().take(short).collect()
            }
            _ => return Ok(Sample { event, text }),
        }
    }
}

/// All of it.
pub fn all(scale: &Scale, sample: &Sample) -> Vec<Measure> {
    let mut all = vec![
        idle(scale),
        idle_subscribed(scale),
        idle_tls(scale),
        idle_large(scale, false),
        idle_large(scale, true),
        heartbeats(scale),
    ];
    all.extend(
        [1, 10, 100, 1000, 10_000]
            .iter()
            .filter(|&&n| n <= scale.most)
            .map(|&n| ping(scale, n, 1)),
    );
    all.push(ping(scale, 100, 16));
    let sizes = [1000, 10_000, 19_000].map(|n: u64| n.min(scale.most));
    let mut sizes = sizes.to_vec();
    sizes.dedup();
    all.extend(sizes.iter().map(|&n| fan_out(scale, sample, n, 1)));
    let many = 10_000.min(scale.most);
    all.push(fan_out(scale, sample, many, 10));
    all.extend(sizes.iter().map(|&n| ping_meanwhile(scale, sample, n)));
    all.extend([100, scale.most].map(|n| selective(scale, n)));
    all.push(upgrade(scale));
    all.extend([false, true].map(|resume| tls_handshake(scale, resume)));
    all.extend([false, true].map(|tls| storm(scale, tls)));
    all.push(deflate(scale, sample, many));
    all.extend(
        [1000, 5000, 10_000]
            .iter()
            .filter(|&&n| n < scale.most)
            .map(|&n| idle_growth(n)),
    );
    if scale.quick {
        for measure in &mut all {
            measure.arms.retain(|arm| !arm.rare);
        }
        all.retain(|measure| !measure.arms.is_empty());
    }
    all
}

fn idle(scale: &Scale) -> Measure {
    let load = |path, n| words(&format!("idle ws://{{address}}{path} -n {n}"));
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

fn idle_subscribed(scale: &Scale) -> Measure {
    let n = scale.most;
    let hello = subscribe("https://example.org/a/page/of/its/own/{n}");
    let client_id = r#"{"messageType":"client_id","value":"00000000000000000000000000{n}"}"#;
    let ours = [
        words(&format!(
            "idle ws://{{address}}/ws -n {n} --leave --settle 10 --hello"
        )),
        vec![client_id.to_owned()],
        hello,
    ];
    let theirs = words(&format!(
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

fn idle_tls(scale: &Scale) -> Measure {
    let load = words(&format!(
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

fn idle_large(scale: &Scale, tls: bool) -> Measure {
    let n = scale.most;
    let mut arms = Vec::new();
    if tls {
        let load = words(&format!(
            "idle wss://{{address}}/echo -n {n} --ca {{ca}} --large 60000"
        ));
        arms.push(arm("engine", with_tls(Program::Engine), load));
    } else {
        let load = words(&format!("idle ws://{{address}}/echo -n {n} --large 60000"));
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

/// The interval is two seconds in place of thirty, so that there are enough of them to measure.
fn heartbeats(scale: &Scale) -> Measure {
    let n = scale.most;
    let hold = if scale.quick { 8 } else { 30 };
    let load = |path: &str| words(&format!("idle ws://{{address}}{path} -n {n} --hold {hold}"));
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

fn ping(scale: &Scale, n: u64, depth: u64) -> Measure {
    let mode = if depth == 1 { "echo" } else { "pipelined" };
    let seconds = scale.seconds;
    let line = |path: &str| {
        let text = format!(
            "{mode} ws://{{address}}{path} -n {n} --depth {depth} --seconds {seconds} --spin --message"
        );
        [words(&text), vec![PING.to_owned()]].concat()
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
        // Only for how it grows.
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

fn fan_out(scale: &Scale, sample: &Sample, n: u64, burst: u64) -> Measure {
    // About as many deliveries, however many receivers.
    let most = if scale.quick { 20_000 } else { 200_000 };
    let rounds = (most / n / burst).clamp(3, 100);
    let line = |path: &str| {
        words(&format!(
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

/// Another client's ping, while events go out.
fn ping_meanwhile(scale: &Scale, sample: &Sample, n: u64) -> Measure {
    let rounds = (if scale.quick { 20_000 } else { 150_000 } / n).clamp(3, 100);
    let line = |path: &str, probe: &str| {
        words(&format!(
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
    let figures = vec![
        ("probe_us.max", "µs at most"),
        ("probe_us.p50", "µs, median"),
    ];
    measure(&format!("ping-meanwhile-{n}"), title, figures, arms)
}

fn selective(scale: &Scale, n: u64) -> Measure {
    let events = if scale.quick { 1000 } else { 5000 };
    let page = "https://example.org/a/page/of/its/own/{n}";
    let event = EVENT
        .replace("{uri}", page)
        .replace("{text}", "An annotation.");
    let line = words(&format!(
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

fn upgrade(scale: &Scale) -> Measure {
    let line = |path: &str| {
        words(&format!(
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
    measure("upgrade", "connect, upgrade, end".into(), figures, arms)
}

fn tls_handshake(scale: &Scale, resume: bool) -> Measure {
    let (id, flag, what) = match resume {
        true => ("tls-resumed", " --resume", "resumed"),
        false => ("tls-full", "", "full"),
    };
    let line = words(&format!(
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

fn storm(scale: &Scale, tls: bool) -> Measure {
    let (id, scheme, path, what) = match tls {
        true => ("storm-tls", "wss", "/ws --ca {ca}", "TLS handshakes"),
        false => ("storm", "ws", "/ws", "upgrades"),
    };
    let line = words(&format!(
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
        ("probe_us.max", "µs at most"),
        ("probe_us.p50", "µs, median"),
        ("handshakes_per_s", "a second"),
    ];
    measure(
        id,
        format!("an open client's ping in a storm of {what}"),
        figures,
        arms,
    )
}

fn deflate(scale: &Scale, sample: &Sample, n: u64) -> Measure {
    let rounds = (if scale.quick { 20_000 } else { 200_000 } / n).clamp(3, 100);
    let line = |path: &str| {
        words(&format!(
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
        args: words("--deflate"),
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
        format!("the same to {n} that agreed to compression"),
        figures,
        arms,
    )
}

/// For a plot only.
fn idle_growth(n: u64) -> Measure {
    let load = |path| words(&format!("idle ws://{{address}}{path} -n {n}"));
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

fn fast() -> impl Iterator<Item = (&'static str, Program)> {
    super::servers::PEERS.into_iter().take(4)
}

fn slow() -> impl Iterator<Item = (&'static str, Program)> {
    super::servers::PEERS.into_iter().skip(4)
}

fn measure(
    id: &str,
    title: String,
    figures: impl Into<Vec<(&'static str, &'static str)>>,
    arms: Vec<Arm>,
) -> Measure {
    Measure {
        id: id.to_owned(),
        title,
        figures: figures.into(),
        arms,
    }
}

fn arm(name: &'static str, server: Spec, load: Vec<String>) -> Arm {
    Arm {
        name,
        server,
        load,
        rare: false,
    }
}

fn rare(name: &'static str, server: Spec, load: Vec<String>) -> Arm {
    Arm {
        rare: true,
        ..arm(name, server, load)
    }
}

fn program(program: Program) -> Spec {
    Spec {
        program,
        ..Spec::default()
    }
}

fn with_tls(kind: Program) -> Spec {
    Spec {
        tls: true,
        ..program(kind)
    }
}

fn floor(args: &str, question: usize, answer: &str) -> Spec {
    let mut args = words(&format!("{args} --question {question}"));
    if !answer.is_empty() {
        args.extend(["--answer".to_owned(), answer.to_owned()]);
    }
    Spec {
        args,
        ..program(Program::Floor)
    }
}

/// What a connection says to hear of a page; `whoami` shows that it was taken in.
fn subscribe(page: &str) -> Vec<String> {
    let filter = FILTER.replace("{uri}", page);
    let whoami = r#"{"type":"whoami","id":1}"#.to_owned();
    let hello = "--hello".to_owned();
    vec![
        hello.clone(),
        filter,
        hello,
        whoami,
        "--hello-answers".into(),
        "1".into(),
    ]
}

fn publish(event: &str) -> Vec<String> {
    let mut words = words("--publish {admin}/events --key {key} --event");
    words.push(event.to_owned());
    words
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn per(total: &'static str, user: &'static str) -> Vec<(&'static str, &'static str)> {
    vec![(total, "µs"), (user, "of it user")]
}

const BYTES: [(&str, &str); 1] = [("bytes_per_connection", "bytes each")];

const PING: &str = r#"{"type":"ping","id":1}"#;
const PONG: &str = r#"{"type": "pong", "ok": true, "reply_to": 1}"#;

/// The length of a message in the measurements of fan-out, in bytes.
const MESSAGE: usize = 600;

const SHARED: &str = "https://example.org/a";

const FILTER: &str = r#"{"filter":{"match_policy":"include_any","clauses":[{"field":"/uri","operator":"one_of","value":["{uri}"],"case_sensitive":false}],"actions":{"create":true,"update":true,"delete":true}}}"#;

const EVENT: &str = r#"{"topic":"annotation","action":"create","annotation":{"id":"AAAAAREREeaAAAAAAAAAAQ","created":"2024-01-02T03:04:05.678901+00:00","updated":"2024-01-02T03:04:05.678901+00:00","user":"acct:a@example.org","uri":"{uri}","text":"{text}","permissions":{"read":["group:__world__"]}}}"#;

/// What is said in an annotation to make it long enough.
const FILLER: &str = "The quick brown fox jumps over the lazy dog, and reads on. ";
