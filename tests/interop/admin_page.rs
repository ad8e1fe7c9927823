//! The admin page in a real Chromium, against the real server.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::support::admin_page::*;
use crate::support::{Browser, CONTROL, Client, ENTER, Server, TlsServer, serve_page};

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn page_connects_and_shows_its_identity() {
    let server = Server::start();
    let token = server.user("acct:joe.bloggs@example.org");
    let browser = open_page(&server);
    // The system has chosen the port, so the page can only have it from the server.
    assert_eq!(
        browser.value(&value_of("#ws-url")),
        json!(server.listeners[0])
    );

    browser.click("#connect");
    browser.until(&state_is("open"));
    browser.click("#ping");
    let pong = browser.until(&frame("in", "m.type === 'pong'"));
    assert_eq!(pong, json!({"type": "pong", "ok": true, "reply_to": 1}));
    browser.click("#whoami");
    let nobody = browser.until(&frame("in", "m.type === 'whoyouare'"));
    assert_eq!(nobody["userid"], Value::Null);
    browser.click("#disconnect");
    browser.until(&state_is("closed"));
    // The page closed with 1000, and the server echoed the code.
    assert!(browser.text("#state").contains("Closed: 1000"));

    browser.fill("#token", &token);
    browser.click("#connect");
    browser.until(&state_is("open"));
    browser.click("#whoami");
    let joe = browser.until(&frame("in", "m.userid"));
    assert_eq!(joe["userid"], "acct:joe.bloggs@example.org");
    let shown = browser.value("document.documentElement.outerHTML");
    assert!(!shown.as_str().unwrap().contains(&token));
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn published_events_appear_if_the_filter_matches() {
    let server = Server::start();
    let browser = open_page(&server);
    connect(&browser);
    browser.until("document.querySelector('#connections-now').textContent === '1'");
    set_filter(&browser, "https://example.org/a page");
    browser.fill("#publish-key", &server.publish_key());
    browser.click("#publish");
    browser.until(&outcome_is("good"));
    assert_eq!(
        browser.text("#publish-result"),
        r#"202 {"accepted":1,"matched":1}"#
    );
    let event = browser.until(&frame("in", NOTIFICATION));
    assert_eq!(event["options"], json!({"action": "create"}));
    assert_eq!(event["payload"][0]["uri"], "https://example.org/a page");
    // From then on the page has the key for event metrics.
    browser.until("/received/.test(document.querySelector('#events-now').textContent)");

    // The server normalizes URIs: this is the same page. The next one is another.
    assert_eq!(
        server
            .publish(&annotation("same", "https://example.org/a%20page#part"))
            .1["matched"],
        1
    );
    assert_eq!(
        server
            .publish(&annotation("other", "https://example.org/b"))
            .1["matched"],
        0
    );
    fence(&browser);
    let ids = browser.value(&format!(
        "{}.filter((m) => {NOTIFICATION}).map((m) => m.payload[0].id)",
        frames("in")
    ));
    assert_eq!(ids, json!([event["payload"][0]["id"], "same"]));
    browser.click(".frame[data-raw*='\"same\"'] summary");
    browser.run("window.scrollTo(0, 0)");
    browser.screenshot("light");
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn refused_event_is_shown_as_refused() {
    let server = Server::start();
    let browser = open_page(&server);
    let publish = |key: &str, event: &str| {
        browser.fill("#publish-key", key);
        browser.fill("#publish-event", event);
        browser.click("#publish");
        browser.until(&outcome_is("bad"));
        browser.text("#publish-result")
    };
    let good = annotation("id", "https://example.org/");
    let key = server.publish_key();
    assert!(publish("wrong", &good).starts_with("401 "));
    let output = publish(&key, &format!("{good}\n{{\"topic\": \"weather\"}}"));
    assert!(
        output.starts_with("400 ") && output.contains(r#""line":2"#),
        "{output}"
    );
    assert_eq!(server.metric("h_realtime_events_received_total"), 0.0);
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn page_is_usable_with_the_keyboard() {
    let server = Server::start();
    let token = server.user("acct:joe.bloggs@example.org");
    let browser = open_page(&server);
    tab_to(&browser, "#token");
    browser.press(&token);
    browser.press(ENTER);
    browser.until(&state_is("open"));
    tab_to(&browser, "#whoami");
    browser.press(ENTER);
    browser.until(&frame("in", "m.userid === 'acct:joe.bloggs@example.org'"));
    tab_to(&browser, "#filter-values");
    browser.press_with(CONTROL, ENTER);
    browser.until(&frame("out", "m.type === 'filter'"));
    tab_to(&browser, "#publish-key");
    browser.press(&server.publish_key());
    browser.press(ENTER);
    browser.until(&outcome_is("good"));
    browser.until(&frame("in", NOTIFICATION));
    // Only the newest frame is in the tab order.
    tab_to(&browser, "#log summary");
    browser.press(ENTER);
    browser.until(
        "document.activeElement.closest('.frame').matches('[open][data-raw*=notification]')",
    );
    browser.press(UP);
    browser.until("document.activeElement.closest('.frame').matches('[data-direction=out]')");
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn narrow_window_does_not_scroll_horizontally() {
    let server = Server::start();
    let browser = open_page(&server);
    browser.resize(320, 640);
    let fits = || browser.value("document.documentElement.scrollWidth <= innerWidth");
    assert_eq!(fits(), true);
    connect(&browser);
    set_filter(&browser, "https://example.org/");
    let long = format!("https://example.org/#{}", "long".repeat(500));
    assert_eq!(server.publish(&annotation("an-id", &long)).1["matched"], 1);
    browser.until(&frame("in", NOTIFICATION));
    assert_eq!(fits(), true);
    browser.click(".frame[data-raw*=notification] summary");
    browser.fill("#publish-key", &server.publish_key());
    browser.fill(
        "#publish-event",
        &format!("{{\"{}\": 1}}", "long".repeat(500)),
    );
    browser.click("#publish");
    browser.until(&outcome_is("bad"));
    assert_eq!(fits(), true);
    browser.screenshot("narrow-publish");
    browser.run("document.querySelector('#log-title').scrollIntoView()");
    browser.screenshot("narrow-log");
    browser.run("window.scrollTo(0, 0)");
    browser.screenshot("narrow");
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn page_follows_the_color_scheme() {
    let server = Server::start();
    let browser = open_page(&server);
    let background = || browser.value("getComputedStyle(document.body).backgroundColor");
    browser.until("matchMedia('(prefers-color-scheme: light)').matches");
    assert_eq!(background(), "rgb(244, 246, 248)");
    let dark = json!([{"name": "prefers-color-scheme", "value": "dark"}]);
    browser.devtools("Emulation.setEmulatedMedia", &json!({"features": dark}));
    browser.until("matchMedia('(prefers-color-scheme: dark)').matches");
    assert_eq!(background(), "rgb(18, 21, 26)");
    connect(&browser);
    browser.click("#ping");
    browser.until(&frame("in", "m.type === 'pong'"));
    browser.click(".frame[data-direction=in] summary");
    browser.until(&shows("#events-now", "need a key"));
    browser.screenshot("dark");
    assert_eq!(browser.console(), [""; 0]);
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn page_shows_metrics_and_recent_events() {
    let server = TlsServer::start();
    let (token, key) = (
        server.server.user("acct:joe@example.org"),
        server.server.publish_key(),
    );
    let mut readers: Vec<_> = (0..24)
        .map(|number| match number % 3 {
            0 => server.plain(),
            _ => server.plain_at(&format!("/ws?access_token={token}")),
        })
        .collect();
    for reader in &mut readers {
        reader.subscribe("/group", "__world__");
    }
    let browser = open_page(&server.server);
    browser.until(&shows("#connections-now", "24"));
    browser.until(&shows(
        "#connections-more",
        "16 logged in, 1 user, 0 by TLS",
    ));
    browser.until(&shows("#backend-now", "ready"));
    browser.until(&shows("#latency-more", "needs a key"));
    assert!(browser.text("#certificate-now").ends_with(" days left"));
    assert_eq!(browser.text("#certificate-more"), "until 4096-01-01");
    assert!(browser.text("#memory-now").ends_with(" MiB"));

    for (number, reader) in readers.drain(12..).enumerate() {
        close(reader, if number % 4 == 0 { 4000 } else { 1000 });
    }
    browser.until(&shows("#connections-now", "12"));
    let codes = "[...document.querySelectorAll('#codes .bar')].map((bar) => bar.innerText)";
    let told = browser.until(&format!("{codes}.length === 2 && {codes}"));
    assert_eq!(told, json!(["1000 normal\n9", "other\n3"]));
    let reasons = browser.value("document.querySelector('#reasons').innerText");
    assert_eq!(reasons, "client\n12");

    // The recent events contain actions and ids, but no content.
    browser.click("#watch");
    browser.until(&shows("#tail-state", "The publish key is needed."));
    browser.fill("#tail-key", "wrong");
    browser.click("#watch");
    browser.until("/^401 /.test(document.querySelector('#tail-state').textContent)");
    let refused = browser.console();
    assert!(
        refused.len() == 1 && refused[0].contains("401"),
        "{refused:?}"
    );
    browser.fill("#tail-key", &key);
    assert_eq!(browser.value(&value_of("#publish-key")), json!(key));
    browser.press(ENTER);
    browser.until(&shows("#tail-state", "Watching"));
    // The page has all metrics from now on.
    browser.until(&format!("!/key/.test({})", text_of("#events-now")));
    browser.until(&format!("/^95 %/.test({})", text_of("#latency-more")));
    let hostile = "<img src=x onerror=alert(1)>";
    for id in ["first", hostile] {
        server
            .server
            .publish(&annotation(id, "https://example.org/"));
    }
    let rows = "[...document.querySelectorAll('#tail-rows tr')].map((row) => \
                [...row.cells].slice(1).map((cell) => cell.textContent))";
    let told = browser.until(&format!("{rows}.length === 2 && {rows}"));
    let row = |id: &str| json!(["create", format!("{id} in __world__"), "12"]);
    assert_eq!(told, json!([row(hostile), row("first")]));
    browser.until(&format!("/ms$/.test({})", text_of("#latency-now")));
    browser.click("#watch");
    browser.until(&shows("#tail-state", "Not watching"));
    // The chart has a text alternative.
    let label = "document.querySelector('#connections-chart').getAttribute('aria-label')";
    assert!(
        browser
            .value(label)
            .as_str()
            .unwrap()
            .contains("now 12, lowest 12, highest 24")
    );
    check_all_widths(&browser);
    assert_eq!(browser.console(), [""; 0]);
}

/// Takes screenshots at several widths, and checks that nothing overflows the window.
fn check_all_widths(browser: &Browser) {
    let dark = |scheme: &str| {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        browser.devtools("Emulation.setEmulatedMedia", &json!({"features": features}));
    };
    for (width, height) in [(1600, 1000), (1000, 1400), (320, 1900)] {
        browser.resize(width, height);
        for scheme in ["light", "dark"] {
            dark(scheme);
            browser.until(&format!(
                "matchMedia('(prefers-color-scheme: {scheme})').matches"
            ));
            let fits = "document.documentElement.scrollWidth <= innerWidth && \
                        document.querySelector('.rows').scrollWidth <= document.querySelector('.rows').clientWidth";
            assert_eq!(browser.value(fits), true, "{width}");
            browser.run("window.scrollTo(0, 0)");
            browser.screenshot(&format!("overview-{width}-{scheme}"));
        }
    }
}

fn close(mut client: Client, code: u16) {
    client.close(code, "");
    client.receive();
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn page_shows_that_the_server_has_stopped() {
    let mut server = Server::start();
    let browser = open_page(&server);
    connect(&browser);
    server.signal(rustix::process::Signal::TERM);
    browser.until(&state_is("closed"));
    assert!(
        browser
            .text("#state")
            .contains("Closed: 1012 (service restart)")
    );
    assert_eq!(server.wait().1, Some(0));
    browser.until("document.querySelector('#metrics-state').dataset.failed === 'true'");
    // All figures remain, marked as stale.
    let state = browser.text("#metrics-state");
    assert!(
        state.contains(&format!("No answer from {}", server.admin)),
        "{state}"
    );
    assert!(state.contains("The figures are those of "), "{state}");
    assert!(browser.text("#memory-now").ends_with(" MiB"));
    let stale = "[...document.querySelectorAll('.tile')].every((tile) => \
                 getComputedStyle(tile.parentElement).filter === 'grayscale(1)' && \
                 getComputedStyle(tile.querySelector('dd')).color === getComputedStyle(tile.querySelector('dt')).color)";
    assert_eq!(browser.value(stale), true);
    browser.run("window.scrollTo(0, 0)");
    browser.screenshot("stale");
    browser.click("#connect");
    browser.until(&state_is("failed"));
}

// CVE-2026-22689, CVE-2026-44514, CVE-2026-34403, CVE-2026-55883
#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn page_of_another_origin_cannot_publish() {
    let server = Server::start();
    let mut reader = server.anonymous();
    reader.subscribe("/uri", "https://example.org/");
    let site = serve_page("<!doctype html><title>Another site</title><body>");
    let browser = Browser::start();
    browser.open(&format!("http://{site}/"));
    let event = annotation("id", "https://example.org/");
    let key = format!("Bearer {}", server.publish_key());
    let tries = [
        // Even with the key: the browser sends a preflight request first.
        (
            "/events",
            json!({"method": "POST", "body": event, "headers": {"Authorization": key}}),
            "refused",
        ),
        (
            "/events",
            json!({"method": "POST", "body": event}),
            "refused",
        ),
        // Sent without a preflight; the page cannot read the response.
        (
            "/events",
            json!({"method": "POST", "body": event, "mode": "no-cors"}),
            "opaque",
        ),
        ("/metrics", json!({}), "refused"),
        ("/", json!({}), "refused"),
    ];
    for (path, options, outcome) in tries {
        let url = format!("http://{}{path}", server.admin);
        let script =
            format!("return fetch('{url}', {options}).then((r) => r.type, () => 'refused')");
        assert_eq!(browser.run(&script), outcome, "{path} {options}");
    }
    submit_form(&browser, server.admin, &event);
    browser.until("document.body.innerText.includes('forbidden')");
    // A host name that resolves to the server's address does not make the page same-origin.
    browser.open(&format!(
        "http://rebound.localhost:{}/",
        server.admin.port()
    ));
    browser.until("document.body.innerText.includes('forbidden')");

    assert_eq!(reader.drain(), []);
    assert_eq!(server.metric("h_realtime_events_received_total"), 0.0);
    assert!(server.metric("h_realtime_publish_refusals_total") >= 7.0);
}

/// Submits a form, which needs neither a script nor a preflight.
fn submit_form(browser: &Browser, admin: SocketAddr, event: &str) {
    browser.run(&format!(
        "const form = document.createElement('form');
         form.method = 'post';
         form.enctype = 'text/plain';
         form.action = 'http://{admin}/events';
         const field = document.createElement('textarea');
         [field.name, field.value] = [{event:?}, ''];
         form.append(field);
         document.body.append(form);
         form.submit();"
    ));
}

const UP: &str = "\u{E013}";
