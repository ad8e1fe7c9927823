//! Words of strangers, made fit for a person's terminal.

/// `text` on one line, at most 300 characters of it, without control characters: what a server
/// says must not be able to move the cursor or to forge lines of ours.
pub fn printable(text: &str) -> String {
    let mut line: String = text
        .chars()
        .take(LONGEST)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

const LONGEST: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_and_length_are_tamed() {
        let long = "é".repeat(301);
        let cut = format!("{}…", "é".repeat(300));
        for (text, expected) in [
            ("not a group", "not a group"),
            ("a\r\nb\u{1b}[2Jc\u{9b}d", "a  b [2Jc d"),
            (long.as_str(), cut.as_str()),
        ] {
            assert_eq!(printable(text), expected);
        }
    }
}
