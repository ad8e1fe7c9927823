//! What somebody may have meant who wrote something else.

/// The one of `known` that is most like `written`, if one is like it: at most every third
/// character is wrong, missing, too much or swapped with the next.
pub fn nearest(written: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let most = written.chars().count().max(3) / 3;
    known
        .map(|name| (strsim::osa_distance(written, &name), name))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_mistakes_are_recognized_and_other_words_are_not() {
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
