//! The startup banner.

use std::path::{Path, PathBuf};

use crate::config::{DEFAULT_DATA, ServerSettings};

use super::backend::PreparedBackend;
use super::bind::Bound;
use super::urls::{admin_url, ws_url};

/// Returns the banner: the addresses in use, and commands to try the server with.
pub(super) fn text(
    settings: &ServerSettings,
    backend: &PreparedBackend,
    bound: &Bound,
    open_files: u64,
) -> String {
    let mut lines = vec![format!("h-realtime {}", env!("CARGO_PKG_VERSION"))];
    for (address, tls) in &bound.listeners {
        lines.push(format!("  Real Time API  {}", ws_url(address, *tls)));
    }
    lines.push(format!("  admin          {}", admin_url(&bound.admin)));
    match &backend.data {
        Some(data) => lines.push(format!("  database       {}", data.database().display())),
        None => lines.push("  backend        h's PostgreSQL and RabbitMQ".into()),
    }
    if let Some(brokers) = &backend.brokers {
        lines.push(format!("  message queue  {brokers}"));
    }
    let connections = settings.engine.max_connections;
    lines.push(format!(
        "  open files     {open_files} (at most {connections} connections)"
    ));
    if backend.data.is_some() {
        lines.extend(first_steps(settings));
    }
    lines.push("Press Ctrl-C to stop.".into());
    lines.join("\n") + "\n"
}

/// Returns the first steps for a server without users.
fn first_steps(settings: &ServerSettings) -> [String; 5] {
    let program = program();
    let data = match settings.data == Path::new(DEFAULT_DATA) {
        true => String::new(),
        false => format!(" --data {}", quoted(&settings.data)),
    };
    [
        "Add a user, and create a token:".into(),
        format!("  {program} user add acct:me@example.org{data}"),
        format!("  {program} token create acct:me@example.org{data}"),
        "Publish an annotation:".into(),
        format!("  echo '{SAMPLE}' | {program} publish -{data}"),
    ]
}

/// Returns the command that runs this program: its name if it was started by name, otherwise its
/// path, relative to the current directory if possible.
fn program() -> String {
    let is_found = std::env::args_os()
        .next()
        .is_some_and(|name| !name.to_string_lossy().contains('/'));
    let path = std::env::current_exe().ok().filter(|_| !is_found);
    let Some(path) = path else {
        return "h-realtime".into();
    };
    quoted(&relative_to(
        &std::env::current_dir().unwrap_or_default(),
        &path,
    ))
}

/// Returns a path relative to `here` if it is below that directory. The root directory does not
/// count: services run there, but readers of the banner do not.
fn relative_to(here: &Path, path: &Path) -> PathBuf {
    match path.strip_prefix(here) {
        Ok(relative) if here.parent().is_some() => Path::new(".").join(relative),
        _ => path.to_owned(),
    }
}

/// Quotes a path for a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    if text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

const SAMPLE: &str = r#"{"topic":"annotation","action":"create","annotation":{"id":"AAAAAAAAAAAAAAAAAAAAAQ","user":"acct:me@example.org","uri":"https://example.org/","text":"Hello","permissions":{"read":["group:__world__"]}}}"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_path_is_relative_to_current_directory() {
        let program = Path::new("/usr/bin/h-realtime");
        for (here, name) in [
            ("/usr", "./bin/h-realtime"),
            ("/home/me", "/usr/bin/h-realtime"),
            ("/", "/usr/bin/h-realtime"),
        ] {
            assert_eq!(relative_to(Path::new(here), program), Path::new(name));
        }
    }

    #[test]
    fn paths_are_quoted_for_a_shell() {
        assert_eq!(quoted(Path::new("./a/b-c.d")), "./a/b-c.d");
        assert_eq!(quoted(Path::new("/a b/it's")), r"'/a b/it'\''s'");
    }
}
