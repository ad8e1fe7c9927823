//! "Did you mean …?" suggestions for misspelled names.

/// Returns the entry of `known` that is closest to `written`, provided that at most every third
/// character is wrong, missing, superfluous, or swapped with the next.
pub(super) fn nearest(written: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let max = written.chars().count().max(3) / 3;
    known
        .map(|name| (strsim::osa_distance(written, &name), name))
        .filter(|(distance, _)| *distance <= max)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_cover_small_typos_only() {
        let known = || ["info", "warn", "debug"].map(String::from).into_iter();
        for (written, right) in [
            ("inof", Some("info")),
            ("debugg", Some("debug")),
            ("warning", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, known()).as_deref(), right, "{written}");
        }
    }
}
