//! The results of the rounds, and how figures are aggregated.

use std::fs;
use std::path::Path;

use load::Result;
use serde_json::{Map, Value, json};

use super::measures::{Arm, Measure, Scale};
use super::stats::{self, Estimate};

/// The content of the results file: measures, their servers, and one report per round.
pub struct Results {
    root: Value,
}

impl Results {
    pub fn new(scale: &Scale, facts: Value) -> Results {
        let mut root = facts;
        root["rounds"] = json!(scale.rounds);
        root["quick"] = json!(scale.quick);
        root["measures"] = json!({});
        Results { root }
    }

    /// Reads a results file. Errors name it.
    pub fn read(file: &Path) -> Result<Results> {
        let name = file.display();
        let text = fs::read(file).map_err(|error| format!("cannot read {name}: {error}"))?;
        let root: Value =
            serde_json::from_slice(&text).map_err(|error| format!("{name}: {error}"))?;
        if !root["measures"].is_object() {
            return Err(format!("{name} is not a results file of benches/run").into());
        }
        Ok(Results { root })
    }

    /// Writes one report per line, so that two files can be compared.
    pub fn write(&self, file: &Path) -> Result<()> {
        let mut text = String::from("{\n");
        for (key, value) in self.root.as_object().into_iter().flatten() {
            if key != "measures" {
                text += &format!("{}: {value},\n", json!(key));
            }
        }
        text += "\"measures\": {";
        for (number, (id, measure)) in self.measures().enumerate() {
            let comma = if number == 0 { "" } else { "," };
            let about = [
                ("title", &measure["title"]),
                ("figures", &measure["figures"]),
            ];
            let about = about.map(|(key, value)| format!("{}: {value}", json!(key)));
            text += &format!(
                "{comma}\n {}: {{{}, \"servers\": {{",
                json!(id),
                about.join(", ")
            );
            for (number, (name, rounds)) in servers(measure).enumerate() {
                let comma = if number == 0 { "" } else { "," };
                text += &format!("{comma}\n  {}: {rounds}", json!(name));
            }
            text += "}}";
        }
        text += "}\n}\n";
        // Verify that the file can be parsed again.
        serde_json::from_str::<Value>(&text)?;
        Ok(fs::write(file, text)?)
    }

    /// Returns the name of the file without its extension.
    pub fn name(&self) -> String {
        let date = self.root["date"].as_str().unwrap_or("today");
        let quick = if self.root["quick"] == true {
            "-quick"
        } else {
            ""
        };
        format!("{}{quick}", date.replace(':', ""))
    }

    pub fn add(&mut self, measure: &Measure, arm: &Arm, figures: Value) {
        let all = &mut self.root["measures"][&measure.id];
        all["title"] = json!(measure.title);
        all["figures"] = json!(measure.figures);
        let rounds = &mut all["servers"][arm.name];
        if rounds.is_null() {
            *rounds = json!([]);
        }
        if let Some(rounds) = rounds.as_array_mut() {
            rounds.push(selected(figures));
        }
    }

    /// Records how the rows of the paired mode were measured.
    pub fn set_paired(&mut self, facts: Value) {
        self.root["paired"] = facts;
    }

    pub fn rounds_done(&mut self, rounds: u64) {
        self.root["rounds"] = json!(rounds);
    }

    pub fn facts(&self) -> &Value {
        &self.root
    }

    pub fn measures(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.root["measures"].as_object().into_iter().flatten()
    }

    /// Returns a figure for each round, or a ratio of figures given as `part.of`.
    pub fn rounds(&self, measure: &str, server: &str, figure: &str) -> Vec<f64> {
        let rounds = self.root["measures"][measure]["servers"][server].as_array();
        let pointer = format!("/{}", figure.replace('.', "/"));
        let rounds = rounds.into_iter().flatten();
        rounds
            .filter_map(|round| round.pointer(&pointer)?.as_f64())
            .collect()
    }

    /// Returns the ratio of the first figures of two servers in a row of the paired mode.
    pub fn paired_ratio(&self, row: &str, one: &str, other: &str) -> Option<Estimate> {
        let figure = self.root["measures"][row]["figures"][0][0].as_str()?;
        stats::ratio(
            &self.rounds(row, one, figure),
            &self.rounds(row, other, figure),
        )
    }

    pub fn median(&self, measure: &str, server: &str, figure: &str) -> Option<f64> {
        median(self.rounds(measure, server, figure))
    }

    pub fn worst(&self, measure: &str, server: &str, figure: &str) -> Option<f64> {
        self.rounds(measure, server, figure)
            .into_iter()
            .reduce(f64::max)
    }

    /// Returns the median over the rounds of one figure divided by another.
    pub fn ratio(&self, one: (&str, &str, &str), other: (&str, &str, &str)) -> Option<f64> {
        let ones = self.rounds(one.0, one.1, one.2);
        let others = self.rounds(other.0, other.1, other.2);
        let pairs = ones.iter().zip(&others).filter(|(_, other)| **other > 0.0);
        median(pairs.map(|(one, other)| one / other).collect())
    }
}

/// Returns the servers of a measure.
pub fn servers(measure: &Value) -> impl Iterator<Item = (&String, &Value)> {
    measure["servers"].as_object().into_iter().flatten()
}

pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        length if length % 2 == 1 => values.get(middle).copied(),
        _ => Some((values.get(middle - 1)? + values.get(middle)?) / 2.0),
    }
}

/// Selects the part of a report to store: no texts, and the most relevant percentiles of latencies.
fn selected(figures: Value) -> Value {
    let mut selected = Map::new();
    for (name, value) in figures.as_object().into_iter().flatten() {
        match value {
            Value::Number(_) => drop(selected.insert(name.clone(), value.clone())),
            Value::Object(parts) => {
                let parts =
                    ["p50", "p99", "max"].map(|part| (part.to_owned(), parts[part].clone()));
                selected.insert(name.clone(), Value::Object(Map::from_iter(parts)));
            }
            _ => {}
        }
    }
    Value::Object(selected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn median_is_the_middle_value() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_computed_within_a_round() {
        let rounds = |values: [f64; 3]| json!(values.map(|value| json!({"cpu": value})));
        let servers = json!({"a": rounds([1.0, 20.0, 3.0]), "b": rounds([2.0, 40.0, 3.0])});
        let root = json!({"measures": {"m": {"servers": servers}}});
        let results = Results { root };
        assert_eq!(
            results.ratio(("m", "a", "cpu"), ("m", "b", "cpu")),
            Some(0.5)
        );
        assert_eq!(results.worst("m", "a", "cpu"), Some(20.0));
        assert_eq!(results.ratio(("m", "a", "cpu"), ("m", "c", "cpu")), None);
    }
}
