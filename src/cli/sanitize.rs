//! Sanitizing of untrusted text for terminals.

/// Returns at most 300 characters of `text` on one line, without control characters and with
/// invisible characters escaped. Text from a server must not be able to move the cursor, to forge
/// lines of this program's output, or to change the direction of a line.
pub(super) fn printable(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(MAX_CHARS));
    for c in text.chars().take(MAX_CHARS) {
        match c {
            c if c.is_control() => line.push(' '),
            c if is_invisible(c) => line.extend(c.escape_unicode()),
            c => line.push(c),
        }
    }
    if text.chars().nth(MAX_CHARS).is_some() {
        line.push('…');
    }
    line
}

/// Escapes the control and invisible characters of `text`, for the results of commands. Different
/// texts stay distinguishable.
#[cfg(any(test, feature = "sqlite"))]
pub(super) fn escaped(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() || is_invisible(c) {
            true => line.extend(c.escape_unicode()),
            false => line.push(c),
        }
    }
    line
}

/// Returns whether a terminal displays `c` as nothing, or `c` affects the order or line breaks of
/// the text around it: Unicode format characters (category Cf), line and paragraph separators, and
/// blank letters and selectors.
fn is_invisible(c: char) -> bool {
    matches!(c,
        // The soft hyphen, and Arabic and Syriac directional and prepended marks.
        '\u{ad}' | '\u{61c}' | '\u{70f}' | '\u{600}'..='\u{605}' | '\u{6dd}' | '\u{890}' | '\u{891}' | '\u{8e2}'
        // Filler letters without a glyph, and the combining grapheme joiner.
        | '\u{34f}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{3164}' | '\u{ffa0}'
        // Mongolian separators and variation selectors.
        | '\u{180b}'..='\u{180f}'
        // Zero-width spaces and joiners, and directional marks.
        | '\u{200b}'..='\u{200f}'
        // Line and paragraph separators, and directional embeddings and overrides.
        | '\u{2028}'..='\u{202e}'
        // Invisible operators, directional isolates, and deprecated controls.
        | '\u{2060}'..='\u{206f}'
        // The byte order mark, and interlinear annotations.
        | '\u{feff}' | '\u{fff0}'..='\u{fffb}'
        // Controls of hieroglyphs, shorthand, and musical notation.
        | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1345f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
        // Tags, and the variation selectors after them.
        | '\u{e0000}'..='\u{e0fff}'
    )
}

const MAX_CHARS: usize = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_removed_and_text_is_truncated() {
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
    fn invisible_and_bidirectional_characters_are_escaped() {
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
