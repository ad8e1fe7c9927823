//! `RUST_LOG`, which a session or container may set for other programs as well.

/// Returns the level that a value of `RUST_LOG` sets for this program: the max verbose of the
/// directives that apply to it, in the syntax of the crate env_logger (`LEVEL`, `TARGET=LEVEL`,
/// `TARGET`, separated by commas). `None` if no directive applies.
pub fn rust_log_level(text: &str) -> Option<&'static str> {
    // A message pattern may follow a slash.
    let directives = text.split('/').next().unwrap_or_default().split(',');
    let levels = directives.filter_map(|directive| {
        let (target, level) = match directive.trim().split_once('=') {
            Some((target, level)) => (Some(target.trim()), level.trim()),
            None => (None, directive.trim()),
        };
        match target {
            None if is_own(level) => Some("trace"),
            None => known(level),
            Some(target) if is_own(target) => known(level),
            Some(_) => None,
        }
    });
    levels.max_by_key(|level| LEVELS.iter().position(|known| known == level))
}

fn is_own(target: &str) -> bool {
    let first = target.split("::").next().unwrap_or_default();
    first == "h_realtime" || first == "h-realtime"
}

fn known(word: &str) -> Option<&'static str> {
    // Errors are always logged.
    let word = if word.eq_ignore_ascii_case("off") {
        "error"
    } else {
        word
    };
    let mut levels = LEVELS.iter().copied();
    levels.find(|level| level.eq_ignore_ascii_case(word))
}

/// The variable that sets the log level of Rust programs.
pub(super) const RUST_LOG: &str = "RUST_LOG";
const LEVELS: &[&str] = &["error", "warn", "info", "debug", "trace"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_of_other_programs_are_ignored() {
        for (text, level) in [
            ("", None),
            ("debug", Some("debug")),
            ("DEBUG", Some("debug")),
            ("off", Some("error")),
            ("foo=bar", None),
            ("hyper=trace,mio", None),
            ("warn,hyper=trace", Some("warn")),
            ("hyper=trace, h_realtime=debug", Some("debug")),
            ("h_realtime::net=trace,warn", Some("trace")),
            ("h_realtime", Some("trace")),
            ("h_realtime=loud", None),
            ("info/pattern,trace", Some("info")),
        ] {
            assert_eq!(rust_log_level(text), level, "{text}");
        }
    }
}
