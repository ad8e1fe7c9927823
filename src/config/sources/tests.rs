//! Tests of the precedence of sources, and of the errors for unreadable ones.

use std::fs;

use tempfile::TempDir;

use super::*;
use crate::config::table::find;

/// Sources with the given file, variables, and flag.
struct TestSources {
    folder: TempDir,
    file: Option<&'static str>,
    environment: Vec<(&'static str, String)>,
    flags: Vec<Flag>,
}

fn test_sources(file: &'static str) -> TestSources {
    TestSources {
        folder: TempDir::new().unwrap(),
        file: Some(file),
        environment: Vec::new(),
        flags: Vec::new(),
    }
}

impl TestSources {
    fn variable(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    fn flag(mut self, setting: &'static str, value: &str) -> Self {
        let value = Value::Text(value.to_owned());
        let flag = "--flag";
        self.flags.push(Flag {
            flag,
            setting,
            value,
        });
        self
    }

    /// Adds a systemd credential.
    fn credential(self, name: &str, text: &str) -> Self {
        fs::write(self.folder.path().join(name), text).unwrap();
        let folder = self.folder.path().display().to_string();
        self.variable(CREDENTIALS_VARIABLE, &folder)
    }

    fn read(&self) -> Result<Values, String> {
        let file = self.file.map(|text| {
            let path = self.folder.path().join("config.toml");
            fs::write(&path, text).unwrap();
            path
        });
        let environment = self.environment.iter();
        let environment = environment.map(|(name, value)| ((*name).to_owned(), value.into()));
        let sources = Sources::new(self.flags.clone(), file, environment);
        sources.read().map_err(|error| error.0)
    }

    /// Returns the value of a setting, and the first word of its source.
    fn value(&self, name: &str) -> (Option<Value>, String) {
        let values = self.read().unwrap();
        let (setting, _) = find(name).unwrap();
        let provenance = values.provenance(setting);
        let provenance = provenance.map_or("default".to_owned(), Provenance::to_string);
        let word = provenance.rsplit(['/', ' ']).next().unwrap_or_default();
        (values.value(setting), word.to_owned())
    }
}

fn text(text: &str) -> Option<Value> {
    Some(Value::Text(text.to_owned()))
}

#[test]
fn precedence_is_flags_environment_file_default() {
    let nothing = test_sources("");
    let by_file = || test_sources("\n[log]\nlevel = \"warn\"");
    let by_environment = || by_file().variable("H_REALTIME_LOG__LEVEL", "debug");
    let by_flag = by_environment().flag("log.level", "trace");
    for (sources, value, provenance) in [
        (nothing, "info", "default"),
        (by_file(), "warn", "3"),
        (by_file().variable("H_REALTIME_LOG__LEVEL", ""), "warn", "3"),
        (by_file().variable("RUST_LOG", "error"), "error", "RUST_LOG"),
        (by_file().variable("RUST_LOG", "foo=bar"), "warn", "3"),
        (
            by_file().variable("RUST_LOG", "hyper=info,h_realtime=debug"),
            "debug",
            "RUST_LOG",
        ),
        (by_environment(), "debug", "H_REALTIME_LOG__LEVEL"),
        (
            by_environment().variable("RUST_LOG", "error"),
            "debug",
            "H_REALTIME_LOG__LEVEL",
        ),
        (by_flag, "trace", "--flag"),
    ] {
        assert_eq!(
            sources.value("log.level"),
            (text(value), provenance.to_owned())
        );
    }
}

#[test]
fn h_variables_rank_between_credentials_and_file() {
    let by_file = || test_sources("[h]\ndatabase_url = \"file\"");
    let by_h = || by_file().variable("DATABASE_URL", "theirs");
    let by_credential = || by_h().credential("h.database_url", "credential\n");
    let by_ours = by_credential().variable("H_REALTIME_H__DATABASE_URL", "ours");
    for (sources, value) in [
        (by_file(), "file"),
        (by_file().variable("DATABASE_URL", ""), "file"),
        (by_h(), "theirs"),
        (by_credential(), "credential"),
        (by_ours, "ours"),
    ] {
        assert_eq!(sources.value("h.database_url").0, text(value));
    }
}

#[test]
fn secrets_may_be_in_files() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("secret");
    fs::write(&path, "amqp://u:p@mq//\n").unwrap();
    let path = path.to_str().unwrap();
    let by_variable = || test_sources("").variable("H_REALTIME_AMQP__URL_FILE", path);
    assert_eq!(by_variable().value("amqp.url").0, text("amqp://u:p@mq//"));
    let file: &'static str = format!("[amqp]\nurl_file = {path:?}").leak();
    assert_eq!(
        test_sources(file).value("amqp.url").0,
        text("amqp://u:p@mq//")
    );
    let both = by_variable().variable("H_REALTIME_AMQP__URL", "amqp://other//");
    let error = both.read().err().unwrap();
    assert!(error.contains("remove one of them"), "{error}");
    fs::write(path, "\n").unwrap();
    let error = by_variable().read().err().unwrap();
    assert!(error.contains("the file is empty"), "{error}");
    fs::remove_file(path).unwrap();
    let error = by_variable().read().err().unwrap();
    assert!(
        error.contains(path) && error.contains("H_REALTIME_AMQP__URL_FILE"),
        "{error}"
    );
}

#[test]
fn certificate_credentials_are_paths() {
    let sources = test_sources("").credential("tls.key", "PEM");
    let path = sources.folder.path().join("tls.key").display().to_string();
    assert_eq!(sources.value("tls.key").0, text(&path));
    assert_eq!(sources.value("tls.cert").0, None);
    // A credential cannot set `listen`.
    let sources = sources.credential("listen", "ws://127.0.0.1:1");
    assert_eq!(sources.value("listen").1, "default");
}

#[test]
fn all_errors_are_reported_with_their_location() {
    let sources = test_sources(
        "lisen = []\nlog = 5\n[limit]\na = 1\n[limits]\nmessage = 7\n[tls]\ncert.x = 1\n",
    )
    .variable("H_REALTIME_LIMITS__MESAGE", "1MiB")
    .variable("H_REALTIME_TIMEOUTS__PING", "soon")
    .flag("data", "");
    let error = sources.read().err().unwrap();
    let lines: Vec<&str> = error.lines().collect();
    let parts = [
        "--flag: the path is empty",
        "H_REALTIME_LIMITS__MESAGE: unknown setting; did you mean H_REALTIME_LIMITS__MESSAGE?",
        "H_REALTIME_TIMEOUTS__PING: \"soon\" is not a valid duration",
        "line 1: unknown setting lisen; did you mean listen?",
        "line 2: log is a section; write it as [log]",
        "line 3: unknown section [limit]; did you mean [limits]?",
        "line 6: limits.message: expected a size",
        "line 8: tls.cert: expected a string",
    ];
    assert_eq!(lines.len(), parts.len(), "{error}");
    for (line, part) in lines.iter().zip(parts) {
        assert!(line.contains(part), "{line} / {part}");
    }
}

// CVE-2026-33247
#[test]
fn toml_error_names_the_line_without_its_content() {
    let error = test_sources("[h]\ndatabase_url = \"postgresql://u:hunter2@db/h\n")
        .read()
        .err()
        .unwrap();
    assert!(error.contains("line 2"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn foreign_variables_with_our_prefix_are_ignored() {
    let sources = test_sources("")
        .variable("H_REALTIME_TOKEN", "t")
        .variable("H_REALTIME_PUBLISH_KEY", "k")
        .variable("H_REALTIME_PORT", "tcp://10.0.0.1:5001")
        .variable("H_REALTIME_PORT_5001_TCP_ADDR", "10.0.0.1")
        .variable("H_REALTIME_SERVICE_HOST", "10.0.0.1")
        .variable("H_REALTIMES", "x");
    assert!(sources.read().is_ok());
}

// CVE-2017-7652
#[test]
fn named_or_previously_read_file_must_exist() {
    let mut sources = test_sources("");
    sources.file = None;
    let named = |path: &Path| {
        let path = path.display().to_string();
        Sources::new(
            vec![],
            None,
            [(CONFIG_VARIABLE.to_owned(), path.into())].into_iter(),
        )
    };
    let path = sources.folder.path().join("named.toml");
    let error = named(&path).read().err().unwrap();
    assert!(error.0.contains("named.toml"), "{error}");
    fs::write(&path, "").unwrap();
    assert_eq!(
        named(&path).read().ok().and_then(|values| values.file),
        Some(path.clone())
    );

    let mut usual = named(&path);
    usual.file = ConfigFile::Optional(path.clone());
    let values = usual.read().ok().unwrap();
    fs::remove_file(&path).unwrap();
    assert!(usual.read().is_ok());
    usual.pin_file(&values);
    assert!(usual.read().is_err());
}
