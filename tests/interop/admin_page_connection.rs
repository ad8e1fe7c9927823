//! The connection of the admin page in a real Chromium: its user, its loss, and the causes of
//! failures.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::Command;

use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};

use crate::support::admin_page::*;
use crate::support::{PROGRAM, Server, TlsServer, free_port};

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn the_authenticated_user_is_shown_or_that_the_token_was_not_accepted() {
    let server = Server::start();
    let token = server.user("acct:joe.bloggs@example.org");
    let browser = open_page(&server);
    for (token, identity, text) in [
        ("", "anonymous", "Connected anonymously, without a token"),
        (&token, "user", "Connected as acct:joe.bloggs@example.org"),
        (
            "not-a-token",
            "refused",
            "Connected anonymously: the token was not accepted. It is unknown, expired, or revoked.",
        ),
    ] {
        browser.run(&format!(
            "document.querySelector('#token').value = {token:?}"
        ));
        connect(&browser);
        browser.until(&identity_is(identity));
        assert_eq!(browser.text("#state"), text);
        assert!(!browser.text("#log").contains("with a token"));
        browser.run("document.querySelector('.console').scrollIntoView()");
        browser.screenshot(&format!("identity-{identity}"));
        browser.click("#disconnect");
        browser.until(&state_is("closed"));
    }
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn endpoint_links_open_in_a_new_tab_and_keep_the_connection() {
    let server = Server::start();
    let browser = open_page(&server);
    connect(&browser);
    for (number, path) in ["/metrics", "/livez", "/readyz"].iter().enumerate() {
        browser.click(&format!("nav a[href='{path}']"));
        assert_eq!(browser.tabs(), number + 2, "{path}");
    }
    assert_eq!(browser.value("document.title"), "h-realtime admin");
    assert_eq!(browser.value(&state_is("open")), true);
    let open = server.metric("h_realtime_connections{state=\"open\"}");
    assert_eq!(open, 1.0);
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn a_lost_connection_is_restored_after_a_restart() {
    let mut server = Server::configured("[timeouts]\ndrain = \"100ms\"");
    let token = server.user("acct:joe.bloggs@example.org");
    let browser = open_page(&server);
    browser.fill("#token", &token);
    connect(&browser);
    browser.click("#client-id");
    browser.run("document.querySelector('#filter-field').value = '/group'");
    set_filter(&browser, "__world__");

    // Once with a close frame, and once without.
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::KILL] {
        server.signal(signal);
        server.wait();
        browser.until("/Reconnecting/.test(document.querySelector('#state').textContent)");
        browser.run("document.querySelector('.console').scrollIntoView()");
        browser.screenshot("reconnecting");
        browser.run("document.querySelector('#clear').click()");
        server = server.successor();
        browser.until(&identity_is("user"));
        let sent = frames("out");
        let types = browser.until(&format!("{sent}.length === 3 && {sent}.map((m) => m.type)"));
        assert_eq!(types, json!(["whoami", "client_id", "filter"]));
        fence(&browser);
        let event = annotation("after", "https://example.org/");
        assert_eq!(server.publish(&event).1["matched"], 1);
        browser.until(&frame("in", NOTIFICATION));
    }

    // After a deliberate disconnect, the page does not reconnect.
    browser.click("#disconnect");
    browser.until(&state_is("closed"));
    assert!(browser.text("#state").starts_with("Closed: 1000"));
    assert!(!browser.text("#state").contains("Reconnecting"));
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn reconnecting_ends_with_disconnect_and_a_client_at_fault_does_not_reconnect() {
    let mut server = Server::start();
    let browser = open_page(&server);
    connect(&browser);
    // A client error: the next connection would end in the same way.
    browser.run("document.querySelector('#message').value = 'x'.repeat(100000)");
    browser.click("#send");
    browser.until(&state_is("closed"));
    let text = browser.text("#state");
    assert!(
        text.starts_with("Closed: 1009") && !text.contains("Reconnecting"),
        "{text}"
    );

    connect(&browser);
    server.signal(rustix::process::Signal::KILL);
    server.wait();
    browser.until("/Reconnecting/.test(document.querySelector('#state').textContent)");
    browser.click("#disconnect");
    browser.until(&shows(
        "#state",
        "Not connected: no further try to reconnect",
    ));
    assert_eq!(
        browser.value("document.querySelector('#disconnect').ariaDisabled"),
        "true"
    );
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn figures_and_charts_continue_after_a_restart_and_a_reload() {
    // The page stays at one address, so the admin listener does, too.
    let admin = free_port().to_string();
    let serve = |folder| {
        let admin = format!("127.0.0.1:{admin}");
        let args = ["--listen", "ws://127.0.0.1:0", "--admin", &admin];
        Server::launch_as_is(Command::new(PROGRAM), folder, &args)
    };
    let folder = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    std::fs::write(folder.path().join("config.toml"), "").unwrap();
    let mut server = serve(std::sync::Arc::clone(&folder));
    let token = server.user("acct:joe.bloggs@example.org");
    let key = server.publish_key();
    let browser = open_page(&server);
    browser.fill("#token", &token);
    connect(&browser);
    browser.fill("#publish-key", &key);
    browser.click("#publish");
    browser.until(&outcome_is("good"));
    browser.until("/received/.test(document.querySelector('#events-now').textContent)");
    browser.until(&shows("#connections-now", "1"));

    browser.reload();
    browser.until(&state_is("idle"));
    browser.until(&shows("#connections-now", "0"));
    let described = browser.value(CONNECTIONS_CHART);
    assert!(
        described.as_str().unwrap().contains("highest 1"),
        "{described}"
    );
    let events = "document.querySelector('#events-chart').getAttribute('aria-label')";
    assert!(
        !browser
            .value(events)
            .as_str()
            .unwrap()
            .contains("no values yet")
    );
    let stored =
        browser.value("JSON.stringify([{...sessionStorage}, {...localStorage}, document.cookie])");
    let stored = stored.as_str().unwrap();
    assert!(
        !stored.contains(&token) && !stored.contains(&key),
        "{stored}"
    );

    server.signal(rustix::process::Signal::KILL);
    server.wait();
    browser.until("document.querySelector('#metrics-state').dataset.failed === 'true'");
    server = serve(folder);
    browser.until("document.querySelector('#metrics-state').dataset.failed === 'false'");
    let described = browser.value(CONNECTIONS_CHART);
    assert!(
        described.as_str().unwrap().contains("highest 1"),
        "{described}"
    );
    drop(server);
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn stored_figures_are_bounded_and_malformed_ones_are_ignored() {
    let server = Server::start();
    let browser = open_page(&server);
    let many = "const rows = Array.from({length: 5000}, (_, i) => [now - 5000 + i, 1, 7, 0, 0, 0, 0, 0, 0]);";
    for (stored, loaded) in [
        ("'{'", 0),
        ("'null'", 0),
        ("JSON.stringify({length: 3})", 0),
        (
            "JSON.stringify([[now, 1, 2], null, 'x', [now, 1, '2', 0, 0, 0, 0, 0, 0]])",
            0,
        ),
        (
            "JSON.stringify([[now - 1e9, 1, 2, 0, 0, 0, 0, 0, 0], [now + 1e9, 1, 2, 0, 0, 0, 0, 0, 0]])",
            0,
        ),
        (
            "JSON.stringify([[now - 9, 1, 2, 0, 0, 0, 0, 0, 0], [now - 8, 1, null, 0, 0, 0, 0, 0, 0]])",
            2,
        ),
        ("JSON.stringify(rows)", 0),
        ("JSON.stringify(rows.slice(0, 500))", 100),
    ] {
        let found = browser.run(&format!(
            "return import('/history.js').then(({{ clock, loadHistory }}) => {{
               const now = clock();
               {many}
               sessionStorage.setItem('h-realtime-history', {stored});
               return loadHistory(120000).length;
             }})"
        ));
        assert_eq!(found, loaded, "{stored}");
    }
    let saved = browser.run(
        "return import('/history.js').then(({ clock, loadHistory, saveHistory }) => {
           const now = clock();
           saveHistory(Array.from({length: 5000}, (_, i) => ({at: now - 5000 + i, started: 1.5, connections: 1e9})));
           return [loadHistory(120000).length, sessionStorage.getItem('h-realtime-history').length < 65536];
         })",
    );
    assert_eq!(saved, json!([100, true]));
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn a_failed_connection_lists_its_likely_causes() {
    let server = TlsServer::configured("origins = [\"https://example.org\"]");
    let browser = open_page(&server.server);
    // The server's counters are compared with earlier metrics.
    browser.until("document.querySelector('#connections-now').textContent === '0'");
    let listeners = &server.server.listeners;
    let of = |scheme: &str| {
        listeners
            .iter()
            .find(|url| url.starts_with(scheme))
            .unwrap()
            .clone()
    };
    let (plain, tls) = (of("ws://"), of("wss://"));
    // Bound, so that no other test gets it; nothing listens.
    let bound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    bound.bind(&any.into()).unwrap();
    let port = bound.local_addr().unwrap().as_socket().unwrap().port();
    let closed = format!("ws://127.0.0.1:{port}/ws");
    for (url, causes) in [
        (
            plain.replace("/ws", "/socket"),
            ["Wrong path:", "reason “path”"],
        ),
        (plain.clone(), ["Refused origin:", "reason “origin”"]),
        (tls.clone(), ["Certificate not trusted:", "reason “tls”"]),
        (closed, ["Wrong port:", "Nothing listens there:"]),
    ] {
        browser.fill("#ws-url", &url);
        browser.click("#connect");
        browser.until(&state_is("failed"));
        for cause in causes {
            browser.until(&format!("{}.includes({cause:?})", text_of("#causes")));
        }
        browser.run("document.querySelector('.console').scrollIntoView()");
        browser.screenshot(&format!(
            "causes-{}",
            causes[0]
                .trim_end_matches(':')
                .replace(' ', "-")
                .to_lowercase()
        ));
    }
    assert_eq!(
        browser.value("document.querySelector('#causes').hidden"),
        false
    );
    browser.resize(320, 900);
    let fits = "document.documentElement.scrollWidth <= innerWidth";
    assert_eq!(browser.value(fits), true);
    browser.run("document.querySelector('.console').scrollIntoView()");
    browser.screenshot("causes-narrow");
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn likely_causes_follow_from_the_url_and_the_page() {
    let server = Server::start();
    let browser = open_page(&server);
    let causes = |url: &str, origin: &str, offered: &str| -> Vec<String> {
        let found = browser.run(&format!(
            "return import('/causes.js').then(({{ likelyCauses }}) => {{
               const page = new URL({origin:?});
               const place = {{origin: page.origin, protocol: page.protocol, offered: {offered:?}}};
               return likelyCauses(new URL({url:?}), place, 0).map(({{ cause }}) => cause);
             }})"
        ));
        let found: Vec<Value> = found.as_array().unwrap().clone();
        found
            .iter()
            .map(|cause| cause.as_str().unwrap().to_owned())
            .collect()
    };
    let offered = "ws://127.0.0.1:5001/ws";
    let has = |causes: &[String], wanted: &str| causes.iter().any(|cause| cause == wanted);
    let local = causes(offered, "http://127.0.0.1:5002", offered);
    for absent in [
        "Mixed content:",
        "Wrong path:",
        "Wrong port:",
        "Wrong scheme:",
        "Certificate not trusted:",
        "Refused token:",
    ] {
        assert!(!has(&local, absent), "{absent} {local:?}");
    }
    // Another host's ports are not those of this server.
    let other = causes("ws://example.org/ws", "http://127.0.0.1:5002", offered);
    assert!(!has(&other, "Wrong port:"), "{other:?}");
    assert!(has(&local, "Page through a tunnel:"));
    for (url, origin, wanted) in [
        (
            "ws://example.org/ws",
            "https://admin.example.org",
            "Mixed content:",
        ),
        (
            "wss://127.0.0.1:5001/ws",
            "http://127.0.0.1:5002",
            "Wrong scheme:",
        ),
        (
            "wss://example.org/ws",
            "http://127.0.0.1:5002",
            "Certificate not trusted:",
        ),
        ("ws://127.0.0.1/ws", "http://127.0.0.1:5002", "Wrong port:"),
        (
            "ws://127.0.0.1:5001/",
            "http://127.0.0.1:5002",
            "Wrong path:",
        ),
        (
            "ws://127.0.0.1:5001/ws?access_token=x",
            "http://127.0.0.1:5002",
            "Refused token:",
        ),
    ] {
        let found = causes(url, origin, offered);
        assert!(has(&found, wanted), "{url}: {found:?}");
    }
}

fn identity_is(identity: &str) -> String {
    format!("document.querySelector('#state').dataset.identity === {identity:?}")
}

const CONNECTIONS_CHART: &str =
    "document.querySelector('#connections-chart').getAttribute('aria-label')";
