//! Words of strangers, made fit for a person's terminal.

/// `text` on one line, at most 300 characters of it, without control characters and with those
/// that are invisible escaped: what a server says must not be able to move the cursor, to forge
/// lines of ours, or to change the order in which a line is shown.
pub fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(LONGEST));
    for c in text.chars().take(LONGEST) {
        match c {
            c if c.is_control() => line.push(' '),
            c if is_invisible(c) => line.extend(c.escape_unicode()),
            c => line.push(c),
        }
    }
    if text.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

/// `text` with its control and invisible characters escaped, for the results of commands: two
/// that differ look different.
pub fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() || is_invisible(c) {
            true => line.extend(c.escape_unicode()),
            false => line.push(c),
        }
    }
    line
}

/// Whether a terminal shows nothing for `c`, or changes the order or the lines of what is around
/// it: Unicode's format characters (category Cf), its separators of lines and paragraphs, and
/// letters and selectors that are blank.
fn is_invisible(c: char) -> bool {
    matches!(c,
        // The soft hyphen, and marks of the direction of Arabic and Syriac.
        '\u{ad}' | '\u{61c}' | '\u{70f}' | '\u{600}'..='\u{605}' | '\u{6dd}' | '\u{890}' | '\u{891}' | '\u{8e2}'
        // Fillers that are letters without a shape, and the joiner of combining characters.
        | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{ffa0}'
        // Separators and selectors of Mongolian.
        | '\u{180b}'..='\u{180f}'
        // Spaces and joiners without a width, marks of direction.
        | '\u{200b}'..='\u{200f}'
        // Separators of lines and paragraphs, embeddings and overrides of direction.
        | '\u{2028}'..='\u{202e}'
        // Invisible operators, isolates of direction, and deprecated controls.
        | '\u{2060}'..='\u{206f}'
        // The byte order mark, and annotations between lines.
        | '\u{feff}' | '\u{fff0}'..='\u{fffb}'
        // Controls of hieroglyphs, shorthand, and music.
        | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1345f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        // Tags, and the selectors after them.
        | '\u{e0000}'..='\u{e0fff}'
    )
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

    #[test]
    fn invisible_characters_and_those_that_change_the_order_are_escaped() {
        for (text, shown) in [
            ("a\u{202e}b", "a\\u{202e}b"),
            ("a\u{2066}b\u{2069}", "a\\u{2066}b\\u{2069}"),
            ("jo\u{200b}e\u{feff}", "jo\\u{200b}e\\u{feff}"),
            ("a\u{2028}b", "a\\u{2028}b"),
            ("\u{e0041}", "\\u{e0041}"),
            (
                "José 日本\u{3000}語 😀 \u{5e9}",
                "José 日本\u{3000}語 😀 \u{5e9}",
            ),
        ] {
            assert_eq!(printable(text), shown);
            assert_eq!(escaped(text), shown);
        }
        assert_eq!(escaped("a\u{1b}[2J\u{9b}\n"), "a\\u{1b}[2J\\u{9b}\\u{a}");
    }
}
