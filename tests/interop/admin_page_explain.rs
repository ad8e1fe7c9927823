//! The form "Explain" of the admin page in a real Chromium.

use serde_json::json;

use crate::support::admin_page::*;
use crate::support::{ENTER, Server, event};

fn result_is(outcome: &str) -> String {
    format!("document.querySelector('#explain-result').dataset.outcome === {outcome:?}")
}

#[test]
#[ignore = "needs chromium and chromedriver: run tests/run"]
fn page_explains_supposed_and_open_connections() {
    let server = Server::start();
    server.run(&["group", "add", "g"]);
    server.run(&["user", "add", "acct:joe@example.org"]);
    let of_group = json!({"group": "g", "permissions": {"read": ["group:g"]}});
    server.publish(&event("create", of_group).to_string());
    let browser = open_page(&server);
    browser.click("#explain");
    browser.until(&result_is("bad"));
    assert_eq!(
        browser.text("#explain-result"),
        "The publish key is needed."
    );

    browser.fill("#explain-key", &server.publish_key());
    browser.fill("#explain-user", "acct:joe@example.org");
    browser.fill("#filter-values", "https://EXAMPLE.org/page/");
    browser.fill("#explain-annotation", "AAAAAREREeaAAAAAAAAAAQ");
    browser.click("#explain");
    browser.until(&result_is("no"));
    let text = "not notified: not permitted: only a member of group g may read it";
    assert_eq!(browser.text("#explain-result"), text);
    let details = browser.text("#explain-details");
    for part in [
        "normalized: httpx://example.org/page",
        "a member of group g (no)",
        "← decides",
    ] {
        assert!(details.contains(part), "{part} in {details}");
    }
    browser.run("document.querySelector('#explain-title').scrollIntoView()");
    browser.screenshot("explain");
    server.run(&["group", "member", "add", "g", "acct:joe@example.org"]);
    browser.click("#explain");
    browser.until(&result_is("yes"));

    let mut client = server.anonymous();
    client.send(r#"{"type":"client_id","value":"<b>c</b>"}"#);
    client.subscribe("/uri", "https://example.org/page");
    browser.run(
        "const kind = document.querySelector('#explain-kind'); kind.value = 'open'; \
                 kind.dispatchEvent(new Event('change'))",
    );
    assert_eq!(
        browser.value("document.querySelector('#explain-user').offsetParent"),
        json!(null)
    );
    browser.fill("#explain-annotation", "");
    browser.fill("#explain-client", "<b>c</b>");
    tab_to(&browser, "#explain-key");
    browser.press(ENTER);
    browser.until("document.querySelector('#explain-details').textContent.includes('anonymous')");
    let details = browser.text("#explain-details");
    let line = "create AAAAAREREeaAAAAAAAAAAQ: withheld: permission (evaluated now)";
    assert!(details.contains(line), "{details}");
    browser.run("document.querySelector('#explain-title').scrollIntoView()");
    browser.screenshot("explain-open");
    browser.resize(320, 640);
    assert_eq!(
        browser.value("document.documentElement.scrollWidth <= innerWidth"),
        true
    );
    browser.screenshot("explain-narrow");
    assert_eq!(browser.console(), [""; 0]);
}
