//! The language of comments, documents, test names, and messages: nouns instead of clauses that
//! begin with *who*, *what*, or *somebody*.
//!
//! In comparable projects these words are rare in comments: below 1 in 1,000. Limits are rates, since
//! single uses are correct English. Code blocks, inline code, and quotations do not count.

use std::fs;
use std::path::{Path, PathBuf};

use super::lexer::{Text, lex};

/// The folders with Rust sources. Each is measured as a whole.
const FOLDERS: [&str; 4] = ["src", "tests", "benches", "fuzz"];

/// The maximum rate of each kind of word in a folder, per 1,000 words.
const PER_FOLDER: f64 = 1.5;

/// The maximum rate of each kind of word in a file, per 1,000 words. A single use is permitted.
const PER_FILE: f64 = 3.0;

/// Files with fewer words only count for their folder.
const MIN_WORDS: usize = 300;

/// The name of a kind of words, and whether a word is of that kind.
type Kind = (&'static str, fn(&str) -> bool);

/// The kinds of words that are counted.
const KINDS: [Kind; 3] = [
    ("who…", |word| {
        word.starts_with("who") && !word.starts_with("whole")
    }),
    ("what", |word| word == "what"),
    ("…body", |word| word.ends_with("body") && word != "body"),
];

/// Words that the name of a test must not contain.
const NOT_IN_TEST_NAMES: [&str; 9] = [
    "who",
    "what",
    "those",
    "nobody",
    "everybody",
    "whose",
    "whom",
    "somebody",
    "anybody",
];

/// Words that a message must not contain.
const NOT_IN_MESSAGES: [&str; 10] = [
    "who",
    "whom",
    "whose",
    "whoever",
    "what",
    "whatever",
    "nobody",
    "everybody",
    "somebody",
    "anybody",
];

/// Messages that contain such a word for a reason, by a part of their text.
const ALLOWED_MESSAGES: [&str; 0] = [];

/// The words of a file, and the counted ones by kind with their lines.
struct Measured {
    file: PathBuf,
    words: usize,
    found: [Vec<(usize, String)>; KINDS.len()],
}

#[test]
fn comments_avoid_free_relatives() {
    let mut faults = Vec::new();
    for folder in FOLDERS {
        let files = files(folder, "rs");
        let measured: Vec<_> = files
            .iter()
            .map(|(file, text)| measure(file, &lex(text).comments))
            .collect();
        check(folder, &measured, &mut faults);
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn documents_avoid_free_relatives() {
    let mut documents = files("docs", "md");
    documents.extend(["README.md", "CHANGELOG.md"].map(|name| {
        let text = fs::read_to_string(root().join(name)).unwrap();
        (PathBuf::from(name), text)
    }));
    let measured: Vec<_> = documents
        .iter()
        .map(|(file, text)| {
            let lines = text.lines().enumerate();
            let lines: Vec<Text> = lines.map(|(at, line)| (at + 1, line.to_owned())).collect();
            measure(file, &lines)
        })
        .collect();
    let mut faults = Vec::new();
    check("documents", &measured, &mut faults);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn test_names_state_behavior() {
    let mut faults = Vec::new();
    for folder in FOLDERS {
        for (file, text) in files(folder, "rs") {
            for (line, name) in test_names(&text) {
                if name
                    .split('_')
                    .any(|word| NOT_IN_TEST_NAMES.contains(&word))
                {
                    faults.push(format!("{}:{line}: {name}", file.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Every string literal of several words in `src` counts as a message: logs, errors, help, and
/// the descriptions of settings and metrics.
#[test]
fn messages_name_their_subject() {
    let mut faults = Vec::new();
    for (file, text) in files("src", "rs") {
        if is_test(&file) {
            continue;
        }
        let product = text.split("#[cfg(test)]\nmod").next().unwrap_or(&text);
        for (line, literal) in lex(product).literals {
            let is_message = literal.trim().contains(' ') && !is_allowed(&literal);
            let words = words(&literal);
            let mut words = words.iter().filter(|(_, word)| is_unwanted(word));
            if let (true, Some((below, word))) = (is_message, words.next()) {
                let text = literal.lines().nth(*below).unwrap_or("").trim();
                let line = line + below;
                faults.push(format!("{}:{line}: {word}: {text}", file.display()));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn is_unwanted(word: &str) -> bool {
    NOT_IN_MESSAGES.contains(&word)
}

fn is_allowed(literal: &str) -> bool {
    let mut allowed = ALLOWED_MESSAGES.iter();
    allowed.any(|part: &&str| literal.contains(part))
}

/// Adds a fault for each rate that exceeds its limit, with the worst files and their lines.
fn check(folder: &str, measured: &[Measured], faults: &mut Vec<String>) {
    for (kind, (name, _)) in KINDS.iter().enumerate() {
        let count = |file: &Measured| file.found[kind].len();
        let words: usize = measured.iter().map(|file| file.words).sum();
        let rate = per_1000(measured.iter().map(count).sum(), words);
        if rate > PER_FOLDER {
            faults.push(format!(
                "{folder}: {rate:.1} of {name} per 1,000 words, at most {PER_FOLDER}"
            ));
            let mut worst: Vec<_> = measured.iter().filter(|file| count(file) > 0).collect();
            worst.sort_by_key(|file| std::cmp::Reverse(count(file)));
            faults.extend(worst.iter().take(10).map(|file| describe(file, kind)));
        }
        for file in measured.iter().filter(|file| file.words > MIN_WORDS) {
            let rate = per_1000(count(file), file.words);
            if count(file) > 1 && rate > PER_FILE {
                let description = describe(file, kind);
                faults.push(format!(
                    "{description}: {rate:.1} of {name} per 1,000 words, at most {PER_FILE}"
                ));
            }
        }
    }
}

fn describe(file: &Measured, kind: usize) -> String {
    let found = &file.found[kind];
    let lines: Vec<_> = found.iter().map(|(line, _)| line.to_string()).collect();
    format!("  {}:{}", file.file.display(), lines.join(","))
}

fn per_1000(count: usize, words: usize) -> f64 {
    1000.0 * count as f64 / words.max(1) as f64
}

fn measure(file: &Path, lines: &[Text]) -> Measured {
    let mut measured = Measured {
        file: file.to_owned(),
        words: 0,
        found: Default::default(),
    };
    for paragraph in paragraphs(lines) {
        let first = paragraph[0].0;
        let text: Vec<&str> = paragraph.iter().map(|(_, line)| &**line).collect();
        for (line, word) in words(&text.join("\n")) {
            measured.words += 1;
            let bare = word.split('\'').next().unwrap_or("");
            for (found, (_, is_counted)) in measured.found.iter_mut().zip(KINDS) {
                if is_counted(bare) {
                    found.push((first + line, word.clone()));
                }
            }
        }
    }
    measured
}

/// Splits lines at gaps and empty lines, and drops code blocks.
fn paragraphs(lines: &[Text]) -> Vec<Vec<Text>> {
    let mut paragraphs: Vec<Vec<Text>> = Vec::new();
    let mut in_code = false;
    let mut last = 0;
    for (line, text) in lines {
        let is_fence = text.trim_start().starts_with("```");
        if is_fence {
            in_code = !in_code;
        }
        if is_fence || in_code || text.trim().is_empty() {
            last = 0;
            continue;
        }
        match paragraphs.last_mut() {
            Some(paragraph) if last > 0 && *line == last + 1 => {
                paragraph.push((*line, text.clone()));
            }
            _ => paragraphs.push(vec![(*line, text.clone())]),
        }
        last = *line;
    }
    paragraphs
}

/// Returns the words of a text in lower case with their lines, without inline code, quotations, and
/// placeholders in braces.
fn words(text: &str) -> Vec<(usize, String)> {
    let (mut words, mut word, mut line) = (Vec::new(), String::new(), 0);
    let mut closing = None;
    for char in text.chars().chain([' ']) {
        if closing.is_none() && (char.is_alphabetic() || char == '\'' && !word.is_empty()) {
            word.extend(char.to_lowercase());
            continue;
        }
        if !word.is_empty() {
            words.push((line, std::mem::take(&mut word)));
        }
        match (closing, char) {
            (Some(end), _) if end == char => closing = None,
            (None, '`') => closing = Some('`'),
            (None, '"') => closing = Some('"'),
            (None, '“') => closing = Some('”'),
            (None, '{') => closing = Some('}'),
            _ => {}
        }
        line += usize::from(char == '\n');
    }
    words
}

/// Returns the names of the functions with a test attribute, and their lines.
fn test_names(text: &str) -> Vec<(usize, String)> {
    let mut names = Vec::new();
    let mut is_test = false;
    for (at, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.starts_with("#[") {
            is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
            continue;
        }
        let name = line.trim_start_matches("async ").strip_prefix("fn ");
        if let (true, Some(name)) = (is_test, name) {
            let name = name.split('(').next().unwrap_or("");
            names.push((at + 1, name.to_owned()));
        }
        is_test &= line.starts_with("//");
    }
    names
}

/// Returns the files of a folder with an extension, relative to the repository, and their text.
fn files(folder: &str, extension: &str) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap().flatten() {
            let path = folder.join(entry.file_name());
            let is_built =
                ["target", "node_modules"].contains(&&*entry.file_name().to_string_lossy());
            if entry.path().is_dir() && !is_built {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let text = fs::read_to_string(entry.path()).unwrap();
                found.push((path, text));
            }
        }
    }
    assert!(!found.is_empty(), "no files in {folder}");
    found
}

fn is_test(file: &Path) -> bool {
    let mut parts = file.iter().map(|part| part.to_string_lossy());
    parts.any(|part| part.starts_with("test"))
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn words_are_counted_outside_of_code_and_quotations() {
    let text = "Who asks,\nand `what` \"who said\" {who} is\nsomebody's whole body.";
    let lines: Vec<Text> = (1..).zip(text.lines().map(str::to_owned)).collect();
    let measured = measure(Path::new("x"), &lines);
    let found = measured
        .found
        .map(|found| found.iter().map(|(line, _)| *line).collect::<Vec<_>>());
    assert_eq!(found, [vec![1], vec![], vec![3]]);
    assert_eq!(measured.words, 7);
}
