//! The official client in a browser: what its sidebar shows, and a user's actions in it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::json;

use super::service::Service;
use crate::support::{Browser, PATIENCE, eventually};

/// A browser with the sidebar open on the annotated page.
pub struct Sidebar {
    browser: Browser,
}

impl Sidebar {
    /// Opens the page in a new browser profile, as an anonymous user.
    pub fn open(service: &Service) -> Sidebar {
        Sidebar::open_page(Browser::start(), service)
    }

    /// Opens the page in a new browser profile, as an authenticated user who has selected a group.
    pub fn open_as(service: &Service, token: &str, group: &str) -> Sidebar {
        let browser = Browser::start();
        log_in(&browser, service.address, token, group);
        Sidebar::open_page(browser, service)
    }

    fn open_page(browser: Browser, service: &Service) -> Sidebar {
        // The client draws the cards in view only.
        browser.resize(1200, 1600);
        browser.open(&service.page());
        browser.run(HELPERS);
        browser.until("!!app()?.querySelector('[data-testid=top-bar]')");
        Sidebar { browser }
    }

    /// Waits until the sidebar shows exactly these texts, in any order.
    pub fn shows(&self, texts: &[&str]) {
        self.becomes("texts()", texts);
    }

    /// Waits until the page highlights exactly these words.
    pub fn highlights(&self, words: &[&str]) {
        self.becomes("highlights()", words);
    }

    /// Waits until this number of updates is indicated.
    pub fn has_updates(&self, count: usize) {
        self.browser.until(&format!("updates() === {count}"));
    }

    fn becomes(&self, expression: &str, expected: &[&str]) {
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let expected = json!(expected);
        let deadline = Instant::now() + PATIENCE;
        loop {
            let actual = self.browser.value(expression);
            if actual == expected {
                return;
            }
            if Instant::now() > deadline {
                assert_eq!(actual, expected, "{:#?}", self.browser.console());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Applies the updates that are indicated, with a click on the indicator.
    pub fn apply(&self) {
        self.browser.run("indicator()?.click()");
    }

    /// Applies the updates that are indicated, with the key.
    pub fn apply_with_key(&self) {
        self.browser.run("frame().focus()");
        self.browser.press("l");
    }

    /// Applies updates until this text is shown. All updates that were received before it have then
    /// been applied as well.
    pub fn apply_until(&self, text: &str) {
        eventually(PATIENCE, || {
            self.apply();
            let is_shown = format!("texts().includes({text:?})");
            (self.browser.value(&is_shown) == true).then_some(())
        });
        self.has_updates(0);
    }

    /// Replaces the text of the user's own annotation, which shows `before`.
    pub fn edit(&self, before: &str, text: &str) {
        let action = format!("cardOf({before:?}).querySelector('[title=Edit]').click()");
        self.browser.run(&action);
        self.browser.until("!!app().querySelector('textarea')");
        self.browser.run(&format!("type({text:?})"));
        self.browser.run("postButton().click()");
    }

    /// Returns the uncaught exceptions in the page.
    pub fn errors(&self) -> Vec<String> {
        let console = self.browser.console();
        console
            .into_iter()
            .filter(|line| line.contains("Uncaught"))
            .collect()
    }

    pub fn screenshot(&self, name: &str) -> PathBuf {
        self.browser.screenshot(name)
    }
}

/// Stores a token and the selected group as the client does.
fn log_in(browser: &Browser, site: SocketAddr, token: &str, group: &str) {
    browser.open(&format!("http://{site}/empty"));
    let info = json!({"accessToken": token, "refreshToken": "-", "expiresAt": 9e12});
    browser.run(&format!(
        "localStorage.setItem('hypothesis.oauth.127%2E0%2E0%2E1.token', JSON.stringify({info}))"
    ));
    browser.run(&format!(
        "localStorage.setItem('hypothesis.groups.focus', {group:?})"
    ));
}

const HELPERS: &str = r"
const root = () => document.querySelector('hypothesis-sidebar')?.shadowRoot;
window.frame = () => root()?.querySelector('iframe')?.contentWindow;
window.app = () => frame()?.document;
window.cards = () => [...app().querySelectorAll('[data-testid=thread-card]')];
window.texts = () => cards().map((card) => (card.innerText.match(/\w+ v\d+/) ?? [card.innerText])[0]).sort();
window.indicator = () => app().querySelector('[data-testid=notification]');
window.updates = () => Number(indicator()?.querySelector('.font-bold').textContent ?? 0);
window.highlights = () =>
  [...new Set([...document.querySelectorAll('hypothesis-highlight')].map((mark) => mark.textContent))].sort();
window.cardOf = (text) => cards().find((card) => card.innerText.includes(text));
window.type = (text) => {
  const area = app().querySelector('textarea');
  area.value = text;
  area.dispatchEvent(new Event('input', { bubbles: true }));
};
window.postButton = () =>
  [...app().querySelectorAll('button')].find((button) => button.innerText.startsWith('Post to'));
";
