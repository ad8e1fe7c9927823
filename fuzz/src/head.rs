//! Request heads, compared with a naive line parser.

use h_realtime_engine::http::{
    Framing, Head, HeadError, check_upgrade, parse_head, percent_decode,
};

/// Input: the bytes of a request.
pub fn request_head(input: &[u8]) {
    let names = naive_names(input);
    let whole = read(input, &names);
    let len = match &whole {
        Ok(Some(view)) => view.len,
        _ => input.len(),
    };
    if let Ok(Some(view)) = &whole {
        check_against_lines(view, &input[..view.len], &names);
        let alone = read(&input[..view.len], &names);
        assert_eq!(alone, whole, "without the bytes after the head");
    }
    // Every prefix is either incomplete, or invalid like the entire head.
    let step = len / 64 + 1;
    for end in (0..len).step_by(step) {
        match (read(&input[..end], &names), &whole) {
            (Ok(None), _) => {}
            (Err(HeadError::TooLarge), Err(_)) => {}
            (early, Err(error)) => assert_eq!(early, Err(*error), "{end}"),
            (early, late) => panic!("{early:?} after {end} bytes, then {late:?}"),
        }
    }
}

/// The parsed parts of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
struct View {
    len: usize,
    method: String,
    /// Path and query.
    target: String,
    authority: Option<String>,
    framing: Framing,
    is_current: bool,
    keeps_alive: bool,
    /// The values of each requested name.
    values: Vec<Vec<Vec<u8>>>,
}

fn read(input: &[u8], names: &[String]) -> Result<Option<View>, HeadError> {
    let head = parse_head(input, MAX_HEAD, |request| {
        let query = request.query.map(|query| format!("?{query}"));
        // Only checked for panics.
        percent_decode(request.path);
        request.last_param("access_token");
        if let Ok(upgrade) = check_upgrade(request) {
            let mut answer = Vec::new();
            upgrade.encode(&mut answer);
            check_switch(&answer);
        }
        View {
            len: request.length,
            method: request.method.to_owned(),
            target: [request.path, &query.unwrap_or_default()].concat(),
            authority: request.authority.map(str::to_owned),
            framing: request.framing,
            is_current: request.minor_version == 1,
            keeps_alive: request.keeps_alive(),
            values: (names.iter())
                .map(|name| request.headers(name).map(<[u8]>::to_vec).collect())
                .collect(),
        }
    })?;
    Ok(match head {
        Head::Complete(view) => Some(view),
        Head::Partial => None,
    })
}

/// Checks that the response is a single 101 head, regardless of the request.
fn check_switch(answer: &[u8]) {
    let text = std::str::from_utf8(answer).expect("ASCII");
    assert!(text.starts_with("HTTP/1.1 101 "));
    assert_eq!(text.find("\r\n\r\n"), Some(text.len() - 4));
}

/// Returns the names of all fields up to the first empty line, in lower case.
fn naive_names(input: &[u8]) -> Vec<String> {
    let mut names: Vec<_> = fields(input).into_iter().map(|(name, _)| name).collect();
    names.extend(["host".to_owned(), "upgrade".to_owned()]);
    names.sort_unstable();
    names.dedup();
    names
}

/// Returns the lines that have a colon, as name and value.
fn fields(head: &[u8]) -> Vec<(String, Vec<u8>)> {
    let text: String = head.iter().map(|&byte| char::from(byte)).collect();
    let mut fields = Vec::new();
    for line in text.split("\r\n").skip(1) {
        if line.is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            // Each char is one byte.
            let value = value.trim_matches([' ', '\t']);
            let value = value.chars().map(|char| char as u8).collect();
            fields.push((name.to_ascii_lowercase(), value));
        }
    }
    fields
}

/// Returns whether the request line contains the method and the target, in origin or absolute form.
fn is_on_request_line(view: &View, head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or(head);
    let line = String::from_utf8_lossy(line);
    let mut words = line.split(' ');
    let (method, target) = (words.next(), words.next().unwrap_or_default());
    let target = match &view.authority {
        None => target.to_owned(),
        Some(authority) => {
            let behind = format!("://{authority}");
            match target.split_once(&behind) {
                Some((_, rest)) if rest.starts_with('/') => rest.to_owned(),
                Some((_, rest)) => format!("/{rest}"),
                None => return false,
            }
        }
    };
    let is_version = words.next().is_some_and(|word| word.starts_with("HTTP/1."));
    method == Some(view.method.as_str()) && target == view.target && is_version
}

fn check_against_lines(view: &View, head: &[u8], names: &[String]) {
    assert!(head.ends_with(b"\r\n\r\n"));
    let lines = head.split(|&byte| byte == b'\n');
    let (last, rest) = head.split_last().expect("an end");
    assert_eq!((*last, rest.last()), (b'\n', Some(&b'\r')));
    assert!(
        lines
            .clone()
            .all(|line| line.is_empty() || line.ends_with(b"\r")),
        "a bare line feed"
    );
    assert!(is_on_request_line(view, head), "{view:?}");

    let fields = fields(head);
    // The request line, and the two ends of the empty line after the fields.
    assert_eq!(
        fields.len() + 3,
        lines.count(),
        "a line that is not a field"
    );
    let all = |name: &str| -> Vec<Vec<u8>> {
        let named = fields.iter().filter(|field| field.0 == name);
        named.map(|field| field.1.clone()).collect()
    };
    for (name, values) in names.iter().zip(&view.values) {
        assert_eq!(*values, all(name), "{name}");
    }
    // No ambiguity that a proxy in front could frame differently.
    let hosts = all("host");
    assert!(hosts.len() <= 1);
    assert!(!view.is_current || hosts.len() == 1);
    let is_host = |host: &Vec<u8>| !host.iter().any(|byte| b"/@?# \t\"\\".contains(byte));
    assert!(hosts.iter().all(is_host));
    let codings = all("transfer-encoding");
    let framing = match all("content-length").as_slice() {
        [] if codings.is_empty() => Framing::None,
        [] => {
            assert!(view.is_current && codings.len() == 1);
            assert!(codings[0].eq_ignore_ascii_case(b"chunked"));
            Framing::Chunked
        }
        [digits] => {
            assert!(codings.is_empty());
            let digits = std::str::from_utf8(digits).expect("ASCII");
            assert!(digits.bytes().all(|byte| byte.is_ascii_digit()));
            Framing::Length(digits.parse().expect("a number"))
        }
        several => panic!("{several:?}"),
    };
    assert_eq!(view.framing, framing);
    assert!(!view.keeps_alive || all("upgrade").is_empty());
}

const MAX_HEAD: usize = 2048;
