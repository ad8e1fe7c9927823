//! The table, printed as Markdown.

use serde_json::Value;

use super::goals::{self, Outcome};
use super::measures::PAIRED;
use super::results::{Results, servers};

pub fn print(results: &Results) {
    let facts = results.facts();
    println!("\n{}", facts["machine"].as_str().unwrap_or_default());
    let word = |key: &str| facts[key].to_string().trim_matches('"').to_owned();
    println!(
        "{}, {} rounds; medians, and (spread)\n",
        word("date"),
        word("rounds")
    );
    for (id, measure) in results.measures() {
        match id.starts_with(PAIRED) {
            true => paired(results, id, measure),
            false => one(results, id, measure),
        }
    }
    verdicts(results);
}

/// Prints one measure: a row for each server, with its ratio to this project's.
fn one(results: &Results, id: &str, measure: &Value) {
    let figures: Vec<(&str, &str)> = measure["figures"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pair| Some((pair[0].as_str()?, pair[1].as_str()?)))
        .collect();
    let Some((first, _)) = figures.first() else {
        return;
    };
    let heads = figures.iter().map(|(_, label)| format!("{label:>24}"));
    println!("{id}: {}", measure["title"].as_str().unwrap_or_default());
    println!(
        "| {:<16} | {} | {:>8} |",
        "",
        heads.collect::<Vec<_>>().join(" | "),
        "× floor"
    );
    println!(
        "|{}|{}|",
        "-".repeat(18),
        vec!["---:"; figures.len() + 1].join("|")
    );
    for (name, _) in servers(measure) {
        let cells = figures.iter().map(|(figure, _)| {
            let mut rounds = results.rounds(id, name, figure);
            rounds.sort_by(f64::total_cmp);
            match (
                results.median(id, name, figure),
                rounds.first(),
                rounds.last(),
            ) {
                (Some(median), Some(low), Some(high)) => {
                    format!("{:>10} ({}–{})", short(median), short(*low), short(*high))
                }
                _ => "–".into(),
            }
        });
        let cells: Vec<String> = cells.map(|cell| format!("{cell:>24}")).collect();
        let ratio = results.ratio((id, name, first), (id, "floor", first));
        let ratio = ratio.map_or("–".into(), |ratio| format!("{ratio:.2}"));
        println!("| {name:<16} | {} | {ratio:>8} |", cells.join(" | "));
    }
    beside(results, id, measure, first);
    println!();
}

/// Prints a row of the paired mode: the ratio of each server to the floor, and of this project's to
/// each, with confidence intervals.
fn paired(results: &Results, id: &str, measure: &Value) {
    let figure = |number: usize| measure["figures"][number][0].as_str().unwrap_or_default();
    let names: Vec<&str> = servers(measure).map(|(name, _)| name.as_str()).collect();
    let rounds = names
        .first()
        .map(|name| results.rounds(id, name, figure(0)).len());
    println!(
        "{id}: {}; {} rounds",
        measure["title"].as_str().unwrap_or_default(),
        rounds.unwrap_or(0)
    );
    println!(
        "| {:<18} | {:>8} | {:>8} | {:>22} | {:>22} |",
        "", "µs", "user", "÷ floor", "h-realtime ÷ it"
    );
    println!("|{}|---:|---:|---:|---:|", "-".repeat(20));
    let ratio = |one, other| match results.paired_ratio(id, one, other) {
        Some(found) if one != other => {
            format!("{:.3} ({:.3}–{:.3})", found.value, found.low, found.high)
        }
        _ => "–".to_owned(),
    };
    for name in names {
        let median = |number| {
            results
                .median(id, name, figure(number))
                .map_or("–".into(), short)
        };
        println!(
            "| {name:<18} | {:>8} | {:>8} | {:>22} | {:>22} |",
            median(0),
            median(1),
            ratio(name, "floor"),
            ratio("h-realtime", name)
        );
    }
    println!();
}

/// Prints this project's ratio to the floor and to the best of the others.
fn beside(results: &Results, id: &str, measure: &Value, figure: &str) {
    let names: Vec<&str> = servers(measure).map(|(name, _)| name.as_str()).collect();
    let Some(ours) = OURS.into_iter().find(|ours| names.contains(ours)) else {
        return;
    };
    let peers = names
        .into_iter()
        .filter(|name| *name != "floor" && !OURS.contains(name));
    let peers = peers.filter_map(|name| Some((results.median(id, name, figure)?, name)));
    let best = peers
        .min_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, name)| name);
    for other in ["floor"].into_iter().chain(best) {
        if let Some(ratio) = results.ratio((id, ours, figure), (id, other, figure)) {
            println!("{ours} ÷ {other}: {ratio:.2}");
        }
    }
}

fn verdicts(results: &Results) {
    let verdicts = goals::judge(results);
    println!(
        "| {:<66} | {:>22} | {:>12} | {:<9} |",
        "goal", "measured", "at most", ""
    );
    println!("|{}|---:|---:|---|", "-".repeat(68));
    for verdict in &verdicts {
        let unit = verdict.unit;
        let interval = verdict.interval;
        let interval = interval.map(|(low, high)| format!(" ({}–{})", short(low), short(high)));
        let interval = interval.unwrap_or_default();
        let measured = format!("{}{interval} {unit}", short(verdict.value));
        let limit = format!("{} {unit}", short(verdict.limit));
        let word = match verdict.outcome() {
            Outcome::Met => "met",
            Outcome::Missed => "NOT MET",
            Outcome::Undecided => "undecided",
        };
        println!(
            "| {:<66} | {measured:>22} | {limit:>12} | {word:<9} |",
            verdict.text
        );
    }
    let is_met = |verdict: &&goals::Verdict| verdict.outcome() == Outcome::Met;
    let met = verdicts.iter().filter(is_met).count();
    println!("\n{met} of {} goals met.\n", verdicts.len());
}

/// Formats a number with about three digits.
pub fn short(value: f64) -> String {
    let sign = if value < 0.0 { "-" } else { "" };
    let size = value.abs();
    let digits = match size {
        _ if size < 0.0005 => "0".to_owned(),
        _ if size < 1.0 => format!("{size:.3}"),
        _ if size < 10.0 => format!("{size:.2}"),
        _ if size < 100.0 => format!("{size:.1}"),
        _ => grouped(&format!("{size:.0}")),
    };
    format!("{sign}{digits}")
}

/// Formats a number without its fraction.
pub fn whole(value: f64) -> String {
    grouped(&format!("{value:.0}"))
}

/// Groups digits by three.
fn grouped(digits: &str) -> String {
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups = groups.filter_map(|group| std::str::from_utf8(group).ok());
    groups.collect::<Vec<_>>().join(",")
}

/// The names of this project's servers, in order of preference.
const OURS: [&str; 2] = ["h-realtime", "engine"];

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in [
            (0.0, "0"),
            (0.1234, "0.123"),
            (1.234, "1.23"),
            (12.34, "12.3"),
            (1234.5, "1,234"),
            (-20.0, "-20.0"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(short(value), text);
        }
    }
}
