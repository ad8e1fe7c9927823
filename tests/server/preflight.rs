//! `config check` and `serve` run the same checks: they refuse the same configurations with the
//! same messages, and accept the same.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use h_realtime::config::SETTINGS;
use tempfile::TempDir;

use crate::support::{PROGRAM, as_other_user, give, is_root, program_for_all};

/// Runs a command in a folder, without the machine's own variables.
fn run(folder: &Path, program: &str, args: &[&str], variables: &[(&str, &str)]) -> (i32, String) {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder);
    for name in SETTINGS.iter().filter_map(|setting| setting.variable) {
        command.env_remove(name);
    }
    let Output {
        status,
        stdout,
        stderr,
    } = command.envs(variables.iter().copied()).output().unwrap();
    let text = [stdout, stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    (status.code().unwrap_or(-1), text.concat())
}

/// Returns the output of both commands for a configuration that both must refuse.
fn refused(folder: &Path, config: &str, variables: &[(&str, &str)]) -> (i32, String) {
    fs::write(folder.join("c.toml"), config).unwrap();
    let args = ["config", "check", "--config", "c.toml"];
    let (code, printed) = run(folder, PROGRAM, &args, variables);
    let serve = run(folder, PROGRAM, &["serve", "--config", "c.toml"], variables);
    assert_eq!(
        (code, &printed),
        (serve.0, &serve.1),
        "{config} {variables:?}"
    );
    assert_ne!(code, 0, "{config} {variables:?}: {printed}");
    (code, printed)
}

#[test]
fn check_and_serve_refuse_the_same_settings() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    for (config, code, parts) in [
        (
            "listen = [\"ws://127.0.0.1:9\", \"ws://127.0.0.1:9\"]",
            78,
            &[
                "127.0.0.1:9 appears in listen more than once",
                "(c.toml, line 1)",
            ][..],
        ),
        (
            "listen = [\"ws://0.0.0.0:9\", \"ws://127.0.0.1:9\"]",
            78,
            &["0.0.0.0:9 and 127.0.0.1:9 cannot both be bound"],
        ),
        (
            "listen = [\"unix:/tmp/a\", \"unix:/tmp//a\"]",
            78,
            &["unix:/tmp/a appears in listen more than once"],
        ),
        (
            "listen = [\"unix:a.sock\", \"unix:./a.sock\"]",
            78,
            &["unix:a.sock appears in listen more than once"],
        ),
        (
            "admin = \"[::ffff:127.0.0.1]:9\"",
            78,
            &[
                "write 127.0.0.1:9 instead of [::ffff:127.0.0.1]:9",
                "(c.toml, line 1)",
            ],
        ),
        (
            "listen = [\"unix:nowhere/s\"]",
            69,
            &[
                "listen (c.toml, line 1): cannot listen on unix:nowhere/s: ",
                "create the directory",
            ],
        ),
        (
            "admin = \"unix:file/s\"",
            69,
            &[
                "admin (c.toml, line 1): cannot listen on unix:file/s: ",
                "must be a directory",
            ],
        ),
        (
            "[socket]\nadmin_group = \"no such\"",
            78,
            &["socket.admin_group (c.toml, line 2): this host has no group \"no such\""],
        ),
        (
            "admin = \"127.0.0.1:5001\"",
            78,
            &[
                "cannot both listen on 127.0.0.1:5001",
                "listen = [\"ws://127.0.0.1:5001\"] (default)",
                "admin = \"127.0.0.1:5001\" (c.toml, line 1)",
            ],
        ),
        (
            "data = \"file\"",
            78,
            &["data (c.toml, line 1): file is not a directory"],
        ),
        (
            "data = \"/dev/null/data\"",
            78,
            &["/dev/null is not a directory"],
        ),
        (
            "data = \"/proc/data\"",
            74,
            &["data (c.toml, line 1): /proc: this file system does not support creating files"],
        ),
        (
            "[timeouts]\nping = \"1ms\"",
            78,
            &["line 2: timeouts.ping: \"1ms\" is too short"],
        ),
        (
            "[limits]\nqueue_soft = \"1MiB\"\nqueue_total = \"1KiB\"",
            78,
            &[
                "limits.queue_soft <= limits.queue_hard <= limits.queue_total is required: ",
                "limits.queue_soft = \"1MiB\" (c.toml, line 2), ",
                "limits.queue_hard = \"256KiB\" (default), ",
                "limits.queue_total = \"1KiB\" (c.toml, line 3)",
            ],
        ),
    ] {
        let (got, printed) = refused(folder.path(), config, &[]);
        assert_eq!(got, code, "{config}: {printed}");
        for part in parts {
            assert!(printed.contains(part), "{config}: {part}: {printed}");
        }
    }
    let long = format!("listen = [\"unix:/tmp/{}\"]", "x".repeat(120));
    let (_, printed) = refused(folder.path(), &long, &[]);
    assert!(printed.contains("too long for a Unix socket"), "{printed}");
    assert!(!folder.path().join("h-realtime-data").exists());
}

#[test]
fn addresses_without_permission_are_refused() {
    if !is_root() {
        return;
    }
    let folder = TempDir::new().unwrap();
    let program = program_for_all(folder.path());
    let open = folder.path().join("open");
    fs::create_dir(&open).unwrap();
    give(&open);
    let port = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap();
    let has_low_ports = port.trim() != "0";
    for (config, part) in [
        (
            "listen = [\"unix:s\"]",
            "listen (c.toml, line 1): cannot listen on unix:s: ",
        ),
        (
            "listen = [\"unix:open/s\"]\n[socket]\nuser = \"root\"",
            "socket.user (c.toml, line 3): cannot listen on unix:open/s: ",
        ),
        (
            "admin = \"unix:open/s\"\n[socket]\nadmin_group = \"root\"",
            "socket.admin_group (c.toml, line 3): cannot listen on unix:open/s: ",
        ),
        (
            "listen = [\"ws://127.0.0.1:1\"]",
            "listen (c.toml, line 1): cannot listen on 127.0.0.1:1: ",
        ),
    ] {
        if config.contains("ws:") && !has_low_ports {
            continue;
        }
        fs::write(folder.path().join("c.toml"), config).unwrap();
        for command in [&["config", "check"][..], &["serve"]] {
            let mut run = as_other_user(&program);
            run.args(command)
                .args(["--config", "c.toml", "--data", "open/data"]);
            let output = run.current_dir(folder.path()).output().unwrap();
            let printed = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(77), "{config}: {printed}");
            assert!(printed.contains(part), "{config}: {printed}");
        }
    }
}

#[test]
fn every_problem_is_reported_in_one_run() {
    let folder = TempDir::new().unwrap();
    let config = "lisen = []\nadmin = \"0.0.0.0:1\"\ndata = \"/dev/null/x\"\n\
                  [tls]\ncert = \"no-cert\"\nkey = \"no-key\"\n\
                  [limits]\nfragments = \"many\"\nqueue_hard = \"1KiB\"\n";
    let (code, printed) = refused(folder.path(), config, &[]);
    assert_eq!(code, 78);
    let parts = [
        "did you mean listen?",
        "is a public address",
        "/dev/null is not a directory",
        "tls.cert (c.toml, line 5): no-cert: ",
        "tls.key (c.toml, line 6): no-key: ",
        "limits.fragments",
        "is required",
    ];
    for part in parts {
        assert!(printed.contains(part), "{part}: {printed}");
    }
    assert_eq!(printed.lines().count(), parts.len(), "{printed}");
    // A value that cannot be read causes no further errors.
    let config = "[tls]\ncert = 5\nkey = \"no-key\"\n";
    let (_, printed) = refused(folder.path(), config, &[]);
    assert!(!printed.contains("must be set together"), "{printed}");
}

#[test]
fn more_connections_than_open_files_are_refused() {
    let folder = TempDir::new().unwrap();
    let config = "[limits]\nconnections = 10_000_000\n";
    fs::write(folder.path().join("c.toml"), config).unwrap();
    let script = |command: &str| {
        let text = format!("ulimit -n 1000 && exec {PROGRAM} {command} --config c.toml");
        run(folder.path(), "sh", &["-c", &text], &[])
    };
    let (code, printed) = script("config check");
    assert_eq!((code, &printed), (78, &script("serve").1));
    for part in [
        "limits.connections (c.toml, line 2)",
        "1000 open files",
        "exceed the 827",
    ] {
        assert!(printed.contains(part), "{part}: {printed}");
    }
}

#[cfg(feature = "h")]
#[test]
fn urls_of_servers_are_checked_with_all_their_options() {
    let folder = TempDir::new().unwrap();
    let database = "postgresql://h:secret@db.example/h";
    for (url, broker, parts) in [
        (
            database,
            "redis://x",
            &["amqp.url (BROKER_URL): amqp:// or amqps://"][..],
        ),
        (
            database,
            "amqp://a//;redis://b;amqp://c//?ssl_ca_certs=/nope",
            &["broker 2 of 3: ", "broker 3 of 3: ssl_ca_certs: /nope: "],
        ),
        (
            "mysql://h:secret@db.example/h",
            "redis://x",
            &[
                "h.database_url (DATABASE_URL): it does not begin",
                "BROKER_URL",
            ],
        ),
        (
            "postgresql://h:secret@db.example/h?sslmode=verify-full&sslrootcert=/nope",
            "amqp://a//",
            &["h.database_url (DATABASE_URL): sslrootcert: /nope: "],
        ),
        (
            "postgresql://h:secret@db.example/h?sslmode=x&keepalives=y&sslcrl=/z\
             &sslrootcert=/nope&colour=1",
            "amqp://a//",
            &[
                "sslmode is none of",
                "keepalives is not",
                "sslcrl is not supported",
                "sslrootcert: /nope: ",
                "colour is not an option of libpq",
            ],
        ),
    ] {
        let variables = [("DATABASE_URL", url), ("BROKER_URL", broker)];
        let (code, printed) = refused(folder.path(), "backend = \"h\"", &variables);
        assert_eq!(code, 78, "{printed}");
        assert_eq!(printed.lines().count(), parts.len(), "{printed}");
        for part in parts {
            assert!(printed.contains(part), "{part}: {printed}");
        }
        assert!(!printed.contains("secret"), "{printed}");
    }
    let (_, printed) = refused(folder.path(), "backend = \"h\"", &[]);
    assert!(
        printed.contains("h's backend requires DATABASE_URL"),
        "{printed}"
    );
    // An option without effect is a warning.
    let url = format!("{database}?krbsrvname=x");
    let args = ["config", "check", "--backend", "h"];
    let variables = [("DATABASE_URL", &*url)];
    let (code, printed) = run(folder.path(), PROGRAM, &args, &variables);
    assert_eq!(code, 0, "{printed}");
    let warning = "warning: h.database_url (DATABASE_URL): krbsrvname is ignored: ";
    assert!(printed.contains(warning), "{printed}");
}

#[cfg(not(feature = "h"))]
#[test]
fn missing_backend_is_reported_first() {
    let folder = TempDir::new().unwrap();
    let (code, printed) = refused(folder.path(), "backend = \"h\"", &[]);
    assert_eq!(code, 78);
    assert!(
        printed.contains("this build does not include h's backend"),
        "{printed}"
    );
    assert!(!printed.contains("DATABASE_URL"), "{printed}");
}

#[cfg(feature = "tls")]
#[test]
fn certificates_that_clients_refuse_are_named_by_check_and_serve() {
    use crate::support::Server;

    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let write = |from: i32, until: i32| {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(path("cert.pem"), params.self_signed(&key).unwrap().pem()).unwrap();
        fs::write(path("key.pem"), key.serialize_pem()).unwrap();
    };
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let listen = [
        "--listen",
        "wss://127.0.0.1:0",
        "--tls-cert",
        &cert,
        "--tls-key",
        &key,
    ];
    let check = || {
        let args = [&["config", "check"], &listen[..]].concat();
        run(folder.path(), PROGRAM, &args, &[])
    };
    write(3000, 3001);
    let (code, printed) = check();
    assert_eq!(code, 0, "{printed}");
    assert!(
        printed.contains("is not valid before 3000-01-01T00:00:00Z"),
        "{printed}"
    );
    write(2020, 2021);
    let (code, printed) = check();
    assert_eq!(code, 0, "{printed}");
    let expired = "expired at 2021-01-01T00:00:00Z";
    assert!(
        printed.contains(&format!("warning: {cert}: certificate of ")),
        "{printed}"
    );
    assert!(printed.contains(expired), "{printed}");
    let server = Server::with(&listen, "");
    server.log_with(expired);
    let metric = "h_realtime_certificate_expiry_timestamp_seconds";
    assert_eq!(server.metric(metric), 1_609_459_200.0);
    drop(server);
    // Errors name the file.
    fs::write(&key, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n").unwrap();
    let (code, printed) = check();
    assert_eq!(code, 78, "{printed}");
    assert!(
        printed.contains(&format!("{key}: the private key is encrypted")),
        "{printed}"
    );
}
