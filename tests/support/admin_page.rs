//! The admin page in a browser: helpers to open, use, and read it.

use serde_json::json;

use super::{Browser, Server, TAB};

pub fn open_page(server: &Server) -> Browser {
    let browser = Browser::start();
    browser.open(&format!("http://{}/", server.admin));
    browser.until(&state_is("idle"));
    browser
}

pub fn connect(browser: &Browser) {
    browser.click("#connect");
    browser.until(&state_is("open"));
}

/// Sets a filter on URIs, and waits until it is in force.
pub fn set_filter(browser: &Browser, uri: &str) {
    browser.fill("#filter-values", uri);
    browser.click("#set-filter");
    fence(browser);
}

/// Waits until the server has replied to everything that the page has sent.
pub fn fence(browser: &Browser) {
    let pongs = format!("{}.filter((m) => m.type === 'pong').length", frames("in"));
    let before = browser.value(&pongs);
    browser.click("#ping");
    browser.until(&format!("{pongs} > {before}"));
}

/// Presses Tab until the element has the focus, and checks that the focus is visible.
pub fn tab_to(browser: &Browser, selector: &str) {
    for _ in 0..40 {
        browser.press(TAB);
        if browser.value(&format!("document.activeElement.matches({selector:?})")) == true {
            let outline = browser.value("getComputedStyle(document.activeElement).outlineStyle");
            assert_eq!(outline, "solid", "{selector}");
            return;
        }
    }
    panic!("Tab does not reach {selector}");
}

pub fn text_of(selector: &str) -> String {
    format!("document.querySelector({selector:?}).textContent")
}

pub fn shows(selector: &str, text: &str) -> String {
    format!("{} === {text:?}", text_of(selector))
}

pub fn value_of(selector: &str) -> String {
    format!("document.querySelector({selector:?}).value")
}

pub fn state_is(state: &str) -> String {
    format!("document.querySelector('#state').dataset.state === {state:?}")
}

pub fn outcome_is(outcome: &str) -> String {
    format!("document.querySelector('#publish-result').dataset.outcome === {outcome:?}")
}

/// Returns an expression for the messages in the log.
pub fn frames(direction: &str) -> String {
    format!(
        "[...document.querySelectorAll('.frame[data-direction={direction}]')]\
         .map((frame) => JSON.parse(frame.dataset.raw))"
    )
}

/// Returns an expression for the first message `m` in the log that satisfies the condition.
pub fn frame(direction: &str, condition: &str) -> String {
    format!("{}.find((m) => {condition})", frames(direction))
}

pub fn annotation(id: &str, uri: &str) -> String {
    let annotation = json!({
        "id": id,
        "user": "acct:joe.bloggs@example.org",
        "uri": uri,
        "permissions": {"read": ["group:__world__"]},
    });
    json!({"topic": "annotation", "action": "create", "annotation_id": id, "annotation": annotation})
        .to_string()
}

pub const NOTIFICATION: &str = "m.type === 'annotation-notification'";
