//! The measures, and the servers that take part in each.

mod handshakes;
mod idle;
mod parts;
mod rows;
mod traffic;

use load::Result;

use self::handshakes::{storm, tls_handshake, upgrade};
use self::idle::{heartbeats, idle, idle_growth, idle_large, idle_subscribed, idle_tls};
use self::parts::{EVENT, FILLER, MESSAGE, SHARED, program, publish, split_args, subscribe};
pub use self::rows::{PAIRED, Row, rows};
use self::traffic::{deflate, fan_out, ping, ping_meanwhile, selective};
use super::servers::{Places, Program, Spec, start};

/// The scale of the measurements.
pub struct Scale {
    pub rounds: u64,
    pub seconds: u64,
    /// The number of connections in measures with many connections.
    pub most: u64,
    pub quick: bool,
}

/// One measure.
pub struct Measure {
    pub id: String,
    pub title: String,
    /// The figures shown in the table: the name in the load's report, and its label.
    pub figures: Vec<(&'static str, &'static str)>,
    pub arms: Vec<Arm>,
}

/// One server in a measure.
pub struct Arm {
    pub name: &'static str,
    pub server: Spec,
    /// The load's command line. `{address}` and others are filled in from the server.
    pub load: Vec<String>,
    /// Takes part in some rounds only, since it is much slower.
    pub rare: bool,
}

/// An example of an API message on the wire.
pub struct Sample {
    /// The event that causes it.
    event: String,
    /// The message that a subscriber receives: 600 bytes if the filler is right.
    text: String,
}

/// Publishes one event to see the message that receivers get, then extends it to the intended
/// length.
pub fn sample(places: &Places) -> Result<Sample> {
    let mut padding = String::new();
    loop {
        let event = EVENT.replace("{uri}", SHARED).replace("{text}", &padding);
        let server = start(&program(Program::Api), places)?;
        let mut command = places.pinned(1, &places.load());
        let load = [
            split_args("fan-out ws://{address}/ws -n 1 --rounds 1"),
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

/// Returns all measures.
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
