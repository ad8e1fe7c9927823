//! What may be written in a configuration file, and what may not.

use super::*;

fn settle(text: &str) -> Result<Settings, String> {
    File::parse(text)
        .and_then(File::settle)
        .map_err(|error| error.0)
}

#[test]
fn nothing_said_is_the_default() {
    let settings = settle("").unwrap();
    assert_eq!(
        settings.listen,
        [Listen {
            address: Address::Tcp("127.0.0.1:5001".parse().unwrap()),
            tls: false
        }]
    );
    assert_eq!(
        settings.admin,
        Address::Tcp("127.0.0.1:5002".parse().unwrap())
    );
    assert_eq!(settings.invalid_token, InvalidToken::Anonymous);
    assert_eq!(settings.engine.max_message, 64 * 1024);
    assert!(settings.engine.deflate);
    assert_eq!(settings.drain, Duration::from_secs(10));
}

#[test]
fn all_that_can_be_said() {
    let settings = settle(
        r#"
        listen = ["wss://[::1]:443/ws", "unix:/run/h.sock", "ws://localhost:80"]
        admin = "unix:/run/admin.sock"
        [tls]
        cert = "a.pem"
        key = "b.pem"
        [auth]
        invalid_token = "reject"
        [compression]
        enabled = false
        [limits]
        connections = 5
        connections_per_ip = 2
        trusted_proxies = ["192.0.2.1"]
        message = "1MiB"
        [timeouts]
        ping = "1m"
        slow = "500ms"
        "#,
    )
    .unwrap();
    assert!(settings.listen[0].tls);
    assert_eq!(
        settings.listen[1].address,
        Address::Unix("/run/h.sock".into())
    );
    assert_eq!(
        settings.listen[2].address,
        Address::Tcp("127.0.0.1:80".parse().unwrap())
    );
    assert_eq!(settings.invalid_token, InvalidToken::Reject);
    assert!(!settings.engine.deflate);
    assert_eq!(settings.engine.max_message, 1 << 20);
    assert_eq!(settings.engine.ping_interval, Duration::from_secs(60));
    assert_eq!(settings.engine.slow_timeout, Duration::from_millis(500));
}

#[test]
fn what_cannot_be_is_named() {
    for (text, part) in [
        ("lisen = []", "unknown field `lisen`"),
        ("[limits]\nmessage = 5", "line 2"),
        ("[limits]\nmessage = \"5 bananas\"", "limits.message"),
        ("[timeouts]\nping = \"soon\"", "timeouts.ping"),
        ("[compression]\nenabled = 6", "line 2"),
        ("[auth]\ninvalid_token = \"ignore\"", "unknown variant"),
        ("listen = [\"http://127.0.0.1:1\"]", "listen"),
        ("listen = [\"wss://127.0.0.1:1\"]", "tls.cert"),
        ("listen = [\"ws://example.org:80\"]", "listen"),
        ("listen = [\"unix:\"]", "listen"),
        ("admin = \"5002\"", "admin"),
        ("[tls]\ncert = \"a\"", "go together"),
        ("[limits]\nqueue_soft = \"1MiB\"", "queue_soft"),
        ("[limits]\nconnections = 0", "limits.connections"),
    ] {
        let error = settle(text).unwrap_err();
        assert!(error.contains(part), "{text:?}: {error}");
    }
}
