//! Finds the comments and string literals of Rust source code.

/// A line number, and a text on that line.
pub type Text = (usize, String);

#[derive(Default)]
pub struct Lexed {
    /// The content of each line comment.
    pub comments: Vec<Text>,
    /// The content of each string literal, at the line where it begins.
    pub literals: Vec<Text>,
}

/// Reads a source file that compiles.
pub fn lex(source: &str) -> Lexed {
    let mut lexed = Lexed::default();
    let mut rest = source;
    let mut before = ' ';
    let mut line = 1;
    while let Some(char) = rest.chars().next() {
        let in_name = before.is_alphanumeric() || before == '_';
        let length = match char {
            '/' if rest.starts_with("//") => {
                let comment = rest.lines().next().unwrap_or("");
                let text = comment.trim_start_matches(['/', '!']);
                lexed.comments.push((line, text.to_owned()));
                comment.len()
            }
            '/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
            '"' => {
                let length = quoted_length(rest);
                lexed.literals.push((line, unescaped(&rest[1..length - 1])));
                length
            }
            'r' if !in_name && is_raw(rest) => {
                let (start, length) = raw_span(rest);
                let text = &rest[start..length - start + 1];
                lexed.literals.push((line, text.to_owned()));
                length
            }
            '\'' => char_length(rest),
            other => other.len_utf8(),
        };
        line += rest[..length].matches('\n').count();
        before = rest[..length].chars().next_back().unwrap_or(' ');
        rest = &rest[length..];
    }
    lexed
}

/// Returns the length of the string literal at the beginning, with its quotation marks.
fn quoted_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, char) in text.char_indices().skip(1) {
        match char {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Joins continued lines.
fn unescaped(text: &str) -> String {
    let mut parts = text.split("\\\n");
    let first = parts.next().unwrap_or("").to_owned();
    parts.fold(first, |joined, part| joined + part.trim_start())
}

fn is_raw(text: &str) -> bool {
    text[1..].trim_start_matches('#').starts_with('"')
}

/// Returns the offset of a raw string's content, and the length of the literal.
fn raw_span(text: &str) -> (usize, usize) {
    let hashes = text[1..].chars().take_while(|&char| char == '#').count();
    let start = hashes + 2;
    let end = format!("\"{}", "#".repeat(hashes));
    let content = text[start..].find(&end).unwrap_or(0);
    (start, start + content + end.len())
}

/// Returns the length of the character literal at the beginning, or 1 for a lifetime.
fn char_length(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[2..].find('\'').map_or(1, |end| {
            let is_quote = text[2..].starts_with('\'');
            if is_quote { 4 } else { end + 3 }
        }),
        Some(_) => match chars.next() {
            Some((end, '\'')) => end + 1,
            _ => 1,
        },
        None => 1,
    }
}

#[test]
fn comments_and_literals_are_separated() {
    let source = "//! Doc // more\nlet a: &'a str = \"x // \\\" y\"; // end\nlet c = ('\"', '\\'', 'b');\n\
                  let r = r#\"raw \" z\"#; /* no */ let s = \"a \\\n    b\";\n";
    let lexed = lex(source);
    let comments: Vec<_> = lexed
        .comments
        .iter()
        .map(|(at, text)| (*at, &**text))
        .collect();
    assert_eq!(comments, [(1, " Doc // more"), (2, " end")]);
    let literals: Vec<_> = lexed
        .literals
        .iter()
        .map(|(at, text)| (*at, &**text))
        .collect();
    let wanted = [(2, "x // \\\" y"), (4, "raw \" z"), (4, "a b")];
    assert_eq!(literals, wanted);
}
