//! URLs of h, and libpq's options.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use tokio_postgres::config::{ChannelBinding, LoadBalanceHosts, SslNegotiation};

use super::*;
use crate::trust::{Roots, Versions};

fn ssl_modes(query: &str) -> (Vec<SslMode>, Verification) {
    let spec = parse(&format!("postgresql://u:p@db.example/h?{query}"));
    let spec = spec.unwrap_or_else(|errors| panic!("{query}: {errors:?}"));
    (spec.ssl_modes, spec.verification)
}

#[test]
fn urls_of_sqlalchemy_and_libpq_are_parsed() {
    for scheme in [
        "postgres",
        "postgresql",
        "postgresql+psycopg2",
        "postgresql+asyncpg",
    ] {
        let url = format!("{scheme}://us%65r:p%40ss@db.example:5433/h?connect_timeout=7");
        let ConnectionSpec { config, .. } = parse(&url).unwrap();
        assert_eq!(config.get_user(), Some("user"));
        assert_eq!(config.get_password(), Some(&b"p@ss"[..]));
        assert_eq!(config.get_hosts(), [Host::Tcp("db.example".into())]);
        assert_eq!(config.get_ports(), [5433]);
        assert_eq!(config.get_dbname(), Some("h"));
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(7)));
        assert_eq!(config.get_application_name(), Some("h-realtime"));
    }
}

#[test]
fn server_name_omits_user_and_password() {
    for (url, server) in [
        ("postgresql://joe:secret@db.example/h", "db.example:5432"),
        ("postgresql://joe@a:5433,b:5434/h", "a:5433, b:5434"),
        ("postgresql:///h?host=/tmp/pg&port=5433", "/tmp/pg:5433"),
        ("postgresql:///h?hostaddr=192.0.2.1", "192.0.2.1:5432"),
    ] {
        assert_eq!(parse(url).unwrap().server(), server);
    }
}

#[test]
fn missing_host_means_the_local_socket() {
    let spec = parse("postgresql:///h").unwrap();
    assert_eq!(spec.config.get_hosts(), [Host::Unix(LOCAL_SOCKETS.into())]);
    let spec = parse("postgresql:///h?host=/tmp/pg&sslmode=require").unwrap();
    assert_eq!(spec.config.get_hosts(), [Host::Unix("/tmp/pg".into())]);
    assert_eq!(spec.ssl_modes, [SslMode::Disable]);
}

#[test]
fn sslmode_has_libpq_semantics() {
    use SslMode::{Disable, Prefer, Require};
    let file = || Roots::File("/a b.pem".into());
    for (query, expected) in [
        ("", (vec![Prefer, Disable], Verification::Nothing)),
        ("sslmode=disable", (vec![Disable], Verification::Nothing)),
        (
            "sslmode=allow",
            (vec![Disable, Require], Verification::Nothing),
        ),
        ("sslmode=require", (vec![Require], Verification::Nothing)),
        (
            "sslmode=require&sslrootcert=%2Fa%20b.pem",
            (vec![Require], Verification::Chain(file())),
        ),
        (
            "sslmode=verify-ca&sslrootcert=/a%20b.pem",
            (vec![Require], Verification::Chain(file())),
        ),
        (
            "sslmode=verify-full&sslrootcert=/a%20b.pem",
            (vec![Require], Verification::Name(file())),
        ),
        (
            "sslmode=verify-full",
            (vec![Require], Verification::Name(Roots::System)),
        ),
        (
            "sslrootcert=system",
            (vec![Require], Verification::Name(Roots::System)),
        ),
    ] {
        assert_eq!(ssl_modes(query), expected, "{query}");
    }
}

#[test]
fn invalid_urls_are_refused_without_revealing_secrets() {
    for (url, word) in [
        ("mysql://u:secret@h/d", "postgresql://"),
        ("u:secret@h/d", "postgresql://"),
        ("postgresql://u:secret@h/d?sslmode=some", "sslmode"),
        ("postgresql://u:secret@h/d?sslmode=%ff", "sslmode"),
        ("postgresql://u:secret@h:secret/d", "port"),
        ("postgresql://u:secret@h/d?sslcert=secret", "sslcert"),
        ("postgresql://u:secret@h/d?secret", "parameter"),
        (
            "postgresql://u:secret@h/d?sslmode=require&sslrootcert=system",
            "verify-full",
        ),
    ] {
        let error = parse(url).map(|_| ()).unwrap_err().join("; ");
        assert!(error.contains(word), "{url}: {error}");
        assert!(!error.contains("secret"), "{url}: {error}");
    }
}

fn spec(query: &str) -> ConnectionSpec {
    let spec = parse(&format!("postgresql://u:p@db.example/h?{query}"));
    spec.unwrap_or_else(|errors| panic!("{query}: {errors:?}"))
}

fn hosts(url: &str) -> Vec<(String, u16)> {
    let spec = parse(url).unwrap_or_else(|errors| panic!("{url}: {errors:?}"));
    let named = spec.config.get_hosts().iter().map(|host| match host {
        Host::Tcp(name) => name.clone(),
        Host::Unix(path) => path.display().to_string(),
    });
    named.zip(spec.config.get_ports().iter().copied()).collect()
}

// D10
#[test]
fn hosts_are_parsed_as_by_sqlalchemy_and_libpq() {
    for (url, expected) in [
        ("postgresql://a/h", &[("a", 5432)][..]),
        (
            "postgresql://a:5433,b,c:/h",
            &[("a", 5433), ("b", 5432), ("c", 5432)],
        ),
        ("postgresql://[::1]:5433/h", &[("::1", 5433)]),
        ("postgresql://%2Frun%2Fpg:5433/h", &[("/run/pg", 5433)]),
        ("postgresql:///h?host=%2Frun%2Fpg", &[("/run/pg", 5432)]),
        ("postgresql://:5433/h?host=/run/pg", &[("/run/pg", 5433)]),
        (
            "postgresql:///h?host=a,b&port=5433,5434",
            &[("a", 5433), ("b", 5434)],
        ),
        (
            "postgresql:///h?host=a,b&port=5433",
            &[("a", 5433), ("b", 5433)],
        ),
        (
            "postgresql:///h?host=a:5433&host=b",
            &[("a", 5433), ("b", 5432)],
        ),
        ("postgresql://x:1/h?host=::1&port=5433", &[("::1", 5433)]),
        ("postgresql:///h?user=a@b&host=a", &[("a", 5432)]),
    ] {
        let expected = expected
            .iter()
            .map(|(name, port)| ((*name).to_owned(), *port));
        assert_eq!(hosts(url), expected.collect::<Vec<_>>(), "{url}");
    }
    for (url, part) in [
        ("postgresql://a,b,c/h?port=1,2", "2 ports for 3 hosts"),
        ("postgresql://a:x/h", "port"),
        (
            "postgresql://a,b/h?hostaddr=192.0.2.1",
            "1 values in hostaddr for 2 hosts",
        ),
        ("postgresql:///h?hostaddr=db.example", "hostaddr"),
        ("postgresql:///h?host=@abstract", "abstract"),
        // Otherwise the server would be connected to without TLS.
        (
            "postgresql:///h?host=/run/pg&hostaddr=192.0.2.1&sslmode=verify-full",
            "must be a name",
        ),
        (
            "postgresql:///h?hostaddr=192.0.2.1&sslmode=verify-full",
            "name of the host",
        ),
    ] {
        let errors = parse(url).map(|_| ()).unwrap_err().join("; ");
        assert!(errors.contains(part), "{url}: {errors}");
    }
}

#[test]
fn credentials_are_decoded_and_parameters_take_precedence() {
    let config = |url: &str| parse(url).unwrap().config;
    let decoded = config("postgresql+psycopg2://j%40e:p%2F%3A@a/h%20x");
    assert_eq!(decoded.get_user(), Some("j@e"));
    assert_eq!(decoded.get_password(), Some(&b"p/:"[..]));
    assert_eq!(decoded.get_dbname(), Some("h x"));
    let plain = config("postgresql://joe:p/w@a:5433/h");
    assert_eq!(plain.get_password(), Some(&b"p/w"[..]));
    assert_eq!(
        (plain.get_ports(), plain.get_dbname()),
        (&[5433][..], Some("h"))
    );
    let given = config("postgresql://x:y@a/z?user=joe&password=pw&dbname=h&options=-c+a%3Db");
    assert_eq!(
        (given.get_user(), given.get_dbname()),
        (Some("joe"), Some("h"))
    );
    assert_eq!(given.get_password(), Some(&b"pw"[..]));
    assert_eq!(given.get_options(), Some("-c a=b"));
}

#[test]
fn socket_options_have_libpq_units() {
    let query = "connect_timeout=7&keepalives=1&keepalives_idle=30&keepalives_interval=5\
                 &keepalives_count=3&tcp_user_timeout=2500&load_balance_hosts=random";
    let ConnectionSpec {
        config, warnings, ..
    } = spec(query);
    assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(7)));
    assert!(config.get_keepalives());
    assert_eq!(config.get_keepalives_idle(), Duration::from_secs(30));
    assert_eq!(
        config.get_keepalives_interval(),
        Some(Duration::from_secs(5))
    );
    assert_eq!(config.get_keepalives_retries(), Some(3));
    let timeout = Some(&Duration::from_millis(2500));
    assert_eq!(config.get_tcp_user_timeout(), timeout);
    assert_eq!(config.get_load_balance_hosts(), LoadBalanceHosts::Random);
    assert_eq!(warnings, [""; 0]);
    assert!(!spec("keepalives=0").config.get_keepalives());
    assert_eq!(
        spec("connect_timeout=0").config.get_connect_timeout(),
        Some(&TCP_TIMEOUT)
    );
}

#[test]
fn timeout_allows_for_every_host() {
    let connect_timeout = |url: &str| parse(url).unwrap().connect_timeout().as_secs();
    assert_eq!(connect_timeout("postgresql://a/h"), 8);
    assert_eq!(connect_timeout("postgresql://a,b,c/h"), 14);
    assert_eq!(connect_timeout("postgresql://a,b/h?connect_timeout=10"), 25);
}

// D10: every option in libpq's documentation, with a value that an installation of h may use.
#[test]
fn every_option_is_honored_or_named() {
    let folder = tempfile::tempdir().unwrap();
    let passfile = folder.path().join("pgpass");
    fs::write(&passfile, "*:*:*:*:from-the-file\n").unwrap();
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).unwrap();
    let passfile = format!("passfile={}", passfile.display());
    let honored = [
        "application_name=h",
        "channel_binding=require",
        "client_encoding=utf8",
        "client_encoding=UTF-8",
        "connect_timeout=5",
        "dbname=h",
        "fallback_application_name=h",
        "gssencmode=disable",
        "gssencmode=prefer",
        "host=a",
        "hostaddr=192.0.2.1",
        "keepalives=1",
        "keepalives_count=3",
        "keepalives_idle=30",
        "keepalives_interval=5",
        "load_balance_hosts=random",
        "max_protocol_version=3.2",
        "min_protocol_version=3.0",
        "options=-c%20a%3Db",
        &*passfile,
        "password=p",
        "port=5433",
        "replication=false",
        "ssl_max_protocol_version=TLSv1.3",
        "ssl_min_protocol_version=TLSv1.2",
        "sslcert=/c.pem&sslkey=/k.pem",
        "sslcertmode=allow",
        "sslcompression=0",
        "sslmode=verify-full",
        "sslmode=require&sslnegotiation=direct",
        "sslrootcert=/a.pem",
        "sslsni=0",
        "target_session_attrs=prefer-standby",
        "tcp_user_timeout=5",
        "user=u",
    ];
    let ignored = [
        "client_encoding=latin1",
        "gssdelegation=1",
        "gsslib=gssapi",
        "krbsrvname=postgres",
        "sslcompression=1",
        "sslkeylogfile=/k",
    ];
    let refused = [
        "gssencmode=require",
        "min_protocol_version=3.2",
        "oauth_client_id=x",
        "oauth_client_secret=x",
        "oauth_issuer=x",
        "oauth_scope=x",
        "replication=database",
        "require_auth=scram-sha-256",
        "requirepeer=postgres",
        "scram_client_key=x",
        "scram_server_key=x",
        "service=x",
        "servicefile=/x",
        "sslcert=/c.pem",
        "sslcertmode=require",
        "sslcrl=/x",
        "sslcrldir=/x",
        "sslkey=/k.pem",
        "sslpassword=x",
        "ssl_max_protocol_version=TLSv1.1",
        "sslnegotiation=direct",
    ];
    let name = |query: &str| query.split('=').next().unwrap().to_owned();
    for query in honored {
        assert_eq!(spec(query).warnings, [""; 0], "{query}");
    }
    for query in ignored {
        let expected = format!("{} is ignored: ", name(query));
        let warnings = spec(query).warnings.join("; ");
        assert!(warnings.starts_with(&expected), "{query}: {warnings}");
    }
    for query in refused {
        let errors = parse(&format!("postgresql://u:p@db.example/h?{query}")).map(|_| ());
        let errors = errors.unwrap_err().join("; ");
        assert!(errors.contains(&name(query)), "{query}: {errors}");
    }
    let all: Vec<String> = honored
        .iter()
        .chain(&ignored)
        .chain(&refused)
        .map(|it| name(it))
        .collect();
    for known in parameters::KNOWN {
        assert!(
            all.iter().any(|name| name == known),
            "{known} is not tested"
        );
        let document = include_str!("../../../../docs/replacing-h.md");
        assert!(
            document.contains(&format!("`{known}`")),
            "{known} is not documented"
        );
    }
    let ConnectionSpec { config, .. } = parse(&format!("postgresql://u@a/h?{passfile}")).unwrap();
    assert_eq!(config.get_password(), Some(&b"from-the-file"[..]));
}

// D10
#[test]
fn security_options_are_enforced() {
    let ConnectionSpec { tls_options, .. } = spec("sslcert=/c.pem&sslkey=/k.pem&sslsni=0");
    assert_eq!(
        tls_options.identity,
        Some(("/c.pem".into(), "/k.pem".into()))
    );
    assert!(tls_options.omit_sni);
    let versions = |query: &str| spec(query).tls_options.versions;
    assert_eq!(versions(""), Versions::All);
    assert_eq!(
        versions("ssl_min_protocol_version=TLSv1.3"),
        Versions::Tls13
    );
    assert_eq!(
        versions("ssl_max_protocol_version=TLSv1.2"),
        Versions::Tls12
    );
    let bound = spec("channel_binding=require").config;
    assert_eq!(bound.get_channel_binding(), ChannelBinding::Require);
    let direct = spec("sslmode=verify-full&sslnegotiation=direct");
    assert_eq!(direct.config.get_ssl_negotiation(), SslNegotiation::Direct);
    assert_eq!(direct.tls_options.protocol, Some("postgresql"));
    // No combination weakens it.
    for more in [
        "",
        "&gssencmode=prefer",
        "&sslcertmode=disable",
        "&sslsni=0",
        "&krbsrvname=x",
    ] {
        let spec = spec(&format!("sslmode=verify-full{more}"));
        assert_eq!(spec.ssl_modes, [SslMode::Require], "{more}");
        assert_eq!(
            spec.verification,
            Verification::Name(Roots::System),
            "{more}"
        );
    }
}

#[test]
fn all_errors_in_a_url_are_reported_together() {
    let url = "postgresql://u:secret@a,b/h?port=1,2,3&sslmode=some&sslcrl=/x&service=y\
               &keepalives=many&sslmod=x&requiressl=1&sslsni=0&sslsni=1";
    let errors = parse(url).map(|_| ()).unwrap_err();
    let text = errors.join("; ");
    for part in [
        "3 ports for 2 hosts",
        "sslmode is none of",
        "sslcrl is not supported",
        "service is not supported",
        "keepalives is not a whole number",
        "sslmod is not an option of libpq; did you mean sslmode?",
        "requiressl is not an option",
        "sslsni is there more than once",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("secret"), "{text}");
    // An unencoded question mark in the password.
    let errors = parse("postgresql://u:a?secret=x@db.example/h").map(|_| ());
    let errors = errors.unwrap_err().join("; ");
    assert!(errors.contains("a parameter is not an option"), "{errors}");
    assert!(!errors.contains("secret"), "{errors}");
}

#[test]
fn unreadable_files_are_reported_with_their_options() {
    let files = |query: &str| unreadable_files(&format!("postgresql://u:p@a/h?{query}"));
    let all = files("sslcert=/no/c.pem&sslkey=/no%20k.pem&sslrootcert=/no/r.pem");
    assert_eq!(all.len(), 3);
    for (line, start) in all.iter().zip([
        "sslcert: /no/c.pem: ",
        "sslkey: /no k.pem: ",
        "sslrootcert: /no/r.pem: ",
    ]) {
        assert!(line.starts_with(start), "{line}");
    }
    for query in [
        "",
        "sslrootcert=system",
        "sslmode=disable&sslrootcert=/no/r.pem",
    ] {
        assert_eq!(files(query), [""; 0], "{query}");
    }
}
