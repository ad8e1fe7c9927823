//! The table, printed as Markdown.

use serde_json::Value;

use super::goals;
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
        one(results, id, measure);
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
        "| {:<66} | {:>12} | {:>12} | {:<7} |",
        "goal", "measured", "at most", ""
    );
    println!("|{}|---:|---:|---|", "-".repeat(68));
    for verdict in &verdicts {
        let unit = verdict.unit;
        let measured = format!("{} {unit}", short(verdict.value));
        let limit = format!("{} {unit}", short(verdict.limit));
        let word = if verdict.is_met() { "met" } else { "NOT MET" };
        println!(
            "| {:<66} | {measured:>12} | {limit:>12} | {word:<7} |",
            verdict.text
        );
    }
    let met = verdicts.iter().filter(|verdict| verdict.is_met()).count();
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
