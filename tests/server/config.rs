//! The configuration from an operator's side: its sources, its validation and display, and rejected
//! values.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use h_realtime::config::SETTINGS;
use tempfile::TempDir;

use crate::support::{PROGRAM, Server};

/// Runs a command in a folder with environment variables.
fn run(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> (i32, String, String) {
    let mut command = Command::new(PROGRAM);
    command.args(args).current_dir(folder);
    // Ignore variables of the machine.
    let others = SETTINGS.iter().filter_map(|setting| setting.variable);
    others.for_each(|name| {
        command.env_remove(name);
    });
    command.envs(environment.iter().copied());
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// The error of a build without h's backend.
const NO_H: &str = match cfg!(feature = "h") {
    true => "DATABASE_URL",
    false => "this build does not include h's backend",
};

const NOT_CHECKED: &str = "not checked: whether the addresses are free, whether the embedded \
                           database can be opened, whether PostgreSQL and RabbitMQ are reachable, and \
                           credentials and sockets that systemd passes to the service only\n";

/// Returns the line of a setting in the output.
fn shown<'a>(text: &'a str, setting: &str) -> &'a str {
    let start = format!("{setting} = ");
    let line = text
        .lines()
        .find(|line| line.trim_start_matches("# ").starts_with(&start));
    line.unwrap_or_else(|| panic!("{setting} is not in {text}"))
}

#[test]
fn sources_have_precedence_and_are_named() {
    let folder = TempDir::new().unwrap();
    let text = "data = \"by-file\"\n[log]\nlevel = \"warn\"\n[limits]\nmessage = \"1KiB\"\n";
    fs::write(folder.path().join("c.toml"), text).unwrap();
    let environment = [
        ("H_REALTIME_CONFIG", "c.toml"),
        ("H_REALTIME_LOG__LEVEL", "debug"),
        ("H_REALTIME_DATA", "by-variable"),
        ("H_REALTIME_ORIGINS", "https://a.example, https://b.example"),
    ];
    let args = [
        "config",
        "show",
        "--data",
        "by-flag",
        "--listen",
        "ws://127.0.0.1:1",
    ];
    let (code, out, printed) = run(folder.path(), &args, &environment);
    assert_eq!((code, &*printed), (0, ""));
    for (setting, value, provenance) in [
        ("data", "\"by-flag\"", "--data"),
        ("listen", "[\"ws://127.0.0.1:1\"]", "--listen"),
        ("log.level", "\"debug\"", "H_REALTIME_LOG__LEVEL"),
        (
            "origins",
            "[\"https://a.example\", \"https://b.example\"]",
            "H_REALTIME_ORIGINS",
        ),
        ("limits.message", "\"1KiB\"", "c.toml, line 5"),
        ("timeouts.ping", "\"30s\"", "default"),
        (
            "limits.connections",
            "…",
            "default: the limit on open files minus 64 to 304",
        ),
    ] {
        let line = shown(&out, setting);
        let (left, right) = line.split_once("  # ").unwrap();
        assert!(left.trim_end().ends_with(&format!(" = {value}")), "{line}");
        assert_eq!(right, provenance, "{line}");
    }
    // Every setting is listed.
    assert_eq!(out.lines().count(), SETTINGS.len());
    // `data` also applies to commands that use the data directory.
    let (code, _, printed) = run(folder.path(), &["user", "list", "--create"], &environment);
    assert_eq!(code, 0, "{printed}");
    assert!(folder.path().join("by-variable").is_dir());
    let (_, _, printed) = run(folder.path(), &["publish", "c.toml"], &environment[..1]);
    assert!(printed.contains("by-file"), "{printed}");
}

// CVE-2026-33247
#[test]
fn secrets_are_neither_shown_nor_accepted_as_flags() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("secret"), "amqp://u:hunter2@mq//\n").unwrap();
    let environment = [
        ("DATABASE_URL", "postgresql://u:hunter2@db/h"),
        ("H_REALTIME_AMQP__URL_FILE", "secret"),
    ];
    let args = ["config", "show", "--backend", "h"];
    let (code, out, printed) = run(folder.path(), &args, &environment);
    assert_eq!((code, &*printed), (0, ""));
    assert!(!out.contains("hunter2"), "{out}");
    let line = shown(&out, "h.database_url");
    assert!(line.contains("\"***\""), "{line}");
    assert!(line.ends_with("# DATABASE_URL"), "{line}");
    let line = shown(&out, "amqp.url");
    assert!(line.contains("\"***\""), "{line}");
    assert!(
        line.ends_with("# secret, by H_REALTIME_AMQP__URL_FILE"),
        "{line}"
    );

    let (_, help, _) = run(folder.path(), &["serve", "--help"], &[]);
    let secrets = SETTINGS.iter().filter(|setting| setting.is_secret);
    for setting in secrets {
        let key = setting.name.rsplit('.').next().unwrap();
        for word in [key.replace('_', "-"), setting.name.replace(['.', '_'], "-")] {
            assert!(!help.contains(&format!("--{word}")), "--{word}");
        }
    }
    // Errors in secrets do not contain the secrets either.
    let file = "[amqp]\nurl = \"amqp://u:hunter2@mq//\nevents = 5";
    fs::write(folder.path().join("c.toml"), file).unwrap();
    let (code, _, printed) = run(
        folder.path(),
        &["config", "check", "--config", "c.toml"],
        &[],
    );
    assert_eq!(code, 78);
    assert!(
        printed.contains("line 2") && !printed.contains("hunter2"),
        "{printed}"
    );
}

#[test]
fn check_reports_all_problems_and_starts_nothing() {
    let folder = TempDir::new().unwrap();
    let check = |text: &str, args: &[&str]| {
        fs::write(folder.path().join("c.toml"), text).unwrap();
        let args = [&["config", "check", "--config", "c.toml"], args].concat();
        run(folder.path(), &args, &[])
    };
    let (code, out, printed) = check("[limits]\nmessage = \"1KiB\"", &[]);
    assert_eq!(
        (code, &*out, &*printed),
        (
            0,
            &*format!("c.toml: the configuration is valid\n{NOT_CHECKED}"),
            ""
        )
    );
    assert!(!folder.path().join("h-realtime-data").exists());

    let bad =
        "lisen = []\n[limits]\nmesage = \"1KiB\"\nfragments = \"many\"\n[log]\nlevel = \"inof\"";
    let (code, out, printed) = check(bad, &[]);
    assert_eq!((code, &*out), (78, ""));
    for part in [
        "c.toml: line 1: unknown setting lisen; did you mean listen?",
        "c.toml: line 3: unknown setting limits.mesage; did you mean limits.message?",
        "c.toml: line 4: limits.fragments: expected an integer",
        "c.toml: line 6: log.level: \"inof\" is not one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"; did you mean \"info\"?",
    ] {
        assert!(printed.contains(part), "{printed}");
    }
    for (text, args, part) in [
        (
            "",
            &["--tls-cert", "a"][..],
            "tls.cert and tls.key must be set together",
        ),
        (
            "",
            &["--listen", "wss://127.0.0.1:1"],
            "requires tls.cert and tls.key",
        ),
        (
            "",
            &["--log-level", "loud"],
            "--log-level: \"loud\" is not one of",
        ),
        ("[tls]\ncert = \"no\"\nkey = \"no\"", &[], "no"),
        ("admin = \"0.0.0.0:5002\"", &[], "admin_public = true"),
        ("admin = \"[2001:db8::1]:5002\"", &[], "admin_public = true"),
        (
            "origins = [\"*\"]",
            &[],
            "to allow all pages, use an empty list",
        ),
        ("backend = \"h\"", &[], NO_H),
        ("[limits]\nqueue_hard = \"1KiB\"", &[], "is required"),
        (
            "[socket]\ngroup = \"no such\"",
            &[],
            "socket.group (c.toml, line 2): this host has no group \"no such\"",
        ),
    ] {
        let (code, _, printed) = check(text, args);
        assert_eq!(code, 78, "{text} {args:?}: {printed}");
        assert!(printed.contains(part), "{text} {args:?}: {printed}");
        assert!(!printed.contains("Error"), "{printed}");
    }
    // `serve` refuses the same, before it does anything.
    let args = ["serve", "--admin", "0.0.0.0:0"];
    let (code, _, printed) = run(folder.path(), &args, &[]);
    assert_eq!(code, 78, "{printed}");
    let (code, _, printed) = run(folder.path(), &["serve"], &[("H_REALTIME_LISEN", "x")]);
    assert_eq!(code, 78, "{printed}");
    assert!(
        printed.contains("did you mean H_REALTIME_LISTEN?"),
        "{printed}"
    );
    assert!(!folder.path().join("h-realtime-data").exists());
}

// GO-2026-4703
#[test]
fn insecure_settings_cause_warnings() {
    let folder = TempDir::new().unwrap();
    let text = "admin = \"0.0.0.0:0\"\nadmin_public = true\n[auth]\non_expiry = \"keep\"\n\
                [h]\ndatabase_url = \"postgresql://u:p@db/h\"";
    let file = folder.path().join("c.toml");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let args = ["config", "check", "--config", "c.toml"];
    let (code, _, printed) = run(folder.path(), &args, &[]);
    assert_eq!(code, 0, "{printed}");
    for part in [
        "warning: admin_public: ",
        "warning: auth.on_expiry = \"keep\": ",
        "warning: c.toml: all users of this host can read h.database_url",
    ] {
        assert!(printed.contains(part), "{printed}");
    }
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let (_, _, printed) = run(folder.path(), &args, &[]);
    assert!(!printed.contains("all users of this host"), "{printed}");

    let server = Server::configured("[auth]\non_expiry = \"keep\"");
    server.log_with("WARN");
    let value = |setting: &str| {
        server.metric(&format!(
            "h_realtime_dangerous_setting{{setting=\"{setting}\"}}"
        ))
    };
    assert_eq!((value("auth.on_expiry"), value("admin_public")), (1.0, 0.0));
}

#[test]
fn documented_defaults_match_the_program() {
    let folder = TempDir::new().unwrap();
    let (code, out, _) = run(folder.path(), &["config", "default"], &[]);
    assert_eq!(code, 0);
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md");
    let document = fs::read_to_string(document).unwrap();
    let list = format!("```toml\n{out}```\n");
    assert!(
        document.contains(&list),
        "the list in docs/operating.md should be:\n{list}"
    );
    // The list is also a usable configuration file.
    fs::write(folder.path().join("c.toml"), out).unwrap();
    let (code, _, printed) = run(
        folder.path(),
        &["config", "check", "--config", "c.toml"],
        &[],
    );
    assert_eq!((code, &*printed), (0, ""));
}

/// The package's configuration file names the package's data directory, so that commands do not
/// need `--data`.
#[test]
fn packaged_configuration_names_its_data_directory() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let script = fs::read_to_string(root.join("docs/packaging/deb")).unwrap();
    let line = script
        .lines()
        .find(|line| line.contains("config default |"));
    let line = line.unwrap().replace("\"$program\"", PROGRAM);
    let output = Command::new("sh").args(["-c", &line]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let settings = text.lines().filter(|line| !line.starts_with(['#', '[']));
    let settings: Vec<_> = settings.filter(|line| !line.is_empty()).collect();
    assert_eq!(settings.len(), 1, "{settings:?}");
    assert!(settings[0].starts_with("data = \"/var/lib/h-realtime\""));

    let folder = TempDir::new().unwrap();
    let data = folder.path().join("of the package");
    let text = text.replace("/var/lib/h-realtime", data.to_str().unwrap());
    let file = folder.path().join("h-realtime.toml");
    fs::write(&file, text).unwrap();
    let environment = [("H_REALTIME_CONFIG", file.to_str().unwrap())];
    let args = ["user", "list", "--create"];
    let (code, _, printed) = run(folder.path(), &args, &environment);
    assert_eq!(code, 0, "{printed}");
    assert!(data.join("h-realtime.sqlite").is_file());
    let unit = fs::read_to_string(root.join("docs/systemd/h-realtime.service")).unwrap();
    assert!(unit.contains("StateDirectory=h-realtime\n"));
}
