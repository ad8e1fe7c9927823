//! A strict parser of Prometheus' exposition format 0.0.4.

use std::collections::{BTreeMap, BTreeSet};

/// Parses the samples of a text in the exposition format 0.0.4, by name and labels. Stricter than
/// Prometheus: every family must be complete, described, and named by the conventions.
pub fn parse(text: &str) -> BTreeMap<String, f64> {
    assert!(text.ends_with('\n'), "the last line has no end");
    let mut samples = BTreeMap::new();
    let mut families = BTreeSet::new();
    let (mut described, mut family) = (None, None);
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(is_name(name) && !help.is_empty(), "{line}");
            assert!(families.insert(name), "a second family {name}");
            described = Some(name);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(described.take(), Some(name), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            family = Some((name, kind));
        } else {
            let (name, labels, value) = sample(line);
            let (family, kind) = family.unwrap();
            let part = name
                .strip_prefix(family)
                .unwrap_or_else(|| panic!("{line}"));
            match kind {
                "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&part), "{line}"),
                _ => assert_eq!(part, "", "{line}"),
            }
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite() && value >= 0.0, "{line}");
            let series = format!("{name}{labels}");
            assert_eq!(samples.insert(series, value), None, "twice: {line}");
        }
    }
    assert!(!samples.is_empty());
    check_histograms(text, &samples);
    samples
}

/// Checks that buckets are cumulative, and that the last one, without a bound, contains all.
fn check_histograms(text: &str, samples: &BTreeMap<String, f64>) {
    for name in text
        .lines()
        .filter_map(|line| line.strip_suffix(" histogram"))
    {
        let name = name.strip_prefix("# TYPE ").unwrap();
        let start = format!("{name}_bucket{{le=\"");
        let buckets = text.lines().filter_map(|line| line.strip_prefix(&start));
        let buckets: Vec<(f64, f64)> = buckets
            .map(|bucket| bucket.split_once("\"} ").unwrap())
            .map(|(bound, count)| (bound.parse().unwrap(), count.parse().unwrap()))
            .collect();
        assert!(
            buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1),
            "{name}"
        );
        let all = (f64::INFINITY, samples[&format!("{name}_count")]);
        assert_eq!(buckets.last(), Some(&all), "{name}");
    }
}

/// Splits a line into name, labels with their braces, and value.
fn sample(line: &str) -> (&str, &str, &str) {
    let end = line.find(['{', ' ']).unwrap();
    let (name, rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let (labels, value) = match rest.find('}') {
        Some(end) => rest.split_at(end + 1),
        None => ("", rest),
    };
    for label in labels
        .trim_matches(['{', '}'])
        .split(',')
        .filter(|label| !label.is_empty())
    {
        let (name, value) = label.split_once('=').unwrap();
        let inner = value
            .strip_prefix('"')
            .and_then(|value| value.strip_suffix('"'));
        assert!(is_name(name) && !name.contains(':'), "{line}");
        assert!(
            inner.is_some_and(|text| !text.contains(['"', '\\'])),
            "{line}"
        );
    }
    let value = value.strip_prefix(' ').unwrap();
    assert!(!value.contains(' '), "{line}");
    (name, labels, value)
}

fn is_name(name: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    name.starts_with(is_letter) && name.chars().all(|c| is_letter(c) || c.is_ascii_digit())
}
