//! A headless Chromium of one test, driven by the WebDriver protocol.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::Agent;

use super::PATIENCE;

/// A headless browser with a fresh profile, terminated with the test.
pub struct Browser {
    driver: Child,
    agent: Agent,
    /// The URL of the session's commands.
    session: String,
    /// Removed after the browser has exited.
    _profile: TempDir,
}

pub const TAB: &str = "\u{E004}";
pub const ENTER: &str = "\u{E007}";
pub const CONTROL: &str = "\u{E009}";

impl Browser {
    pub fn start() -> Browser {
        let chromium = find("chromium");
        let (driver, port) = start_driver();
        let profile = TempDir::new().unwrap();
        let mut args = FLAGS.map(str::to_owned).to_vec();
        args.push(format!("--user-data-dir={}", profile.path().display()));
        let mut browser = Browser {
            driver,
            agent: Agent::config_builder()
                .proxy(None)
                .http_status_as_error(false)
                .timeout_global(Some(2 * PATIENCE))
                .build()
                .into(),
            session: format!("http://127.0.0.1:{port}/session"),
            _profile: profile,
        };
        let wanted = json!({
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": chromium, "args": args},
            "goog:loggingPrefs": {"browser": "ALL"},
        });
        let capabilities = json!({"capabilities": {"alwaysMatch": wanted}});
        let session = browser.post("", &capabilities);
        let id = session["sessionId"].as_str().unwrap();
        browser.session = format!("{}/{id}", browser.session);
        browser
    }

    pub fn open(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
    }

    /// Reloads the page, as the browser's button does.
    pub fn reload(&self) {
        self.post("/refresh", &json!({}));
    }

    /// Returns the number of tabs.
    pub fn tabs(&self) -> usize {
        self.get("/window/handles").as_array().unwrap().len()
    }

    /// Runs a function with this body and returns its result; a promise is awaited.
    pub fn run(&self, body: &str) -> Value {
        self.post("/execute/sync", &json!({"script": body, "args": []}))
    }

    /// Returns the value of an expression.
    pub fn value(&self, expression: &str) -> Value {
        self.run(&format!("return ({expression})"))
    }

    /// Returns the text of the only element that matches the selector.
    pub fn text(&self, selector: &str) -> String {
        let text = self.value(&format!("document.querySelector({selector:?}).textContent"));
        text.as_str().unwrap().to_owned()
    }

    /// Waits until an expression is true, and returns its value.
    pub fn until(&self, expression: &str) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let value = self.value(expression);
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return value;
            }
            if Instant::now() > deadline {
                let page = self.value("document.body.innerText");
                panic!("never true: {expression}\n{page:#}\n{:#?}", self.console());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Clicks on an element with the mouse.
    pub fn click(&self, selector: &str) {
        // The driver would scroll it to an edge of the window, below sticky elements.
        self.run(&format!(
            "document.querySelector({selector:?}).scrollIntoView({{block: 'center'}})"
        ));
        let element = self.element(selector);
        self.post(&format!("/element/{element}/click"), &json!({}));
    }

    /// Replaces the content of a field.
    pub fn fill(&self, selector: &str, text: &str) {
        let element = self.element(selector);
        self.post(&format!("/element/{element}/clear"), &json!({}));
        self.post(&format!("/element/{element}/value"), &json!({"text": text}));
    }

    /// Presses keys, at the current focus.
    pub fn press(&self, keys: &str) {
        let press = |key: char| {
            ["keyDown", "keyUp"].map(|kind| json!({"type": kind, "value": key.to_string()}))
        };
        let actions: Vec<Value> = keys.chars().flat_map(press).collect();
        self.keyboard(actions);
    }

    /// Presses a key while another one is held.
    pub fn press_with(&self, held: &str, key: &str) {
        let step = |kind: &str, key: &str| json!({"type": kind, "value": key});
        self.keyboard(vec![
            step("keyDown", held),
            step("keyDown", key),
            step("keyUp", key),
            step("keyUp", held),
        ]);
    }

    /// Sends a command of the DevTools protocol.
    pub fn devtools(&self, command: &str, params: &Value) -> Value {
        let body = json!({"cmd": command, "params": params});
        self.post("/goog/cdp/execute", &body)
    }

    /// Resizes the page's viewport, in CSS pixels; it may be smaller than a real window.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false,
        });
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Saves a screenshot of the window in `target/screenshots`.
    pub fn screenshot(&self, name: &str) -> PathBuf {
        let picture = self.get("/screenshot");
        let bytes = STANDARD.decode(picture.as_str().unwrap()).unwrap();
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join(name).with_extension("png");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// Returns the browser's console output since the last call.
    pub fn console(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({"type": "browser"}));
        let line = |entry: &Value| format!("{} {}", entry["level"], entry["message"]);
        entries.as_array().unwrap().iter().map(line).collect()
    }

    fn keyboard(&self, actions: Vec<Value>) {
        let keyboard = json!({"type": "key", "id": "keyboard", "actions": actions});
        self.post("/actions", &json!({"actions": [keyboard]}));
    }

    fn element(&self, selector: &str) -> String {
        let wanted = json!({"using": "css selector", "value": selector});
        let found = self.post("/element", &wanted);
        // The key is a constant of the protocol, and the only one.
        let id = found.as_object().and_then(|found| found.values().next());
        id.and_then(Value::as_str).unwrap().to_owned()
    }

    fn post(&self, command: &str, body: &Value) -> Value {
        let request = self.agent.post(format!("{}{command}", self.session));
        let request = request.header("Content-Type", "application/json");
        answer(command, request.send(body.to_string()))
    }

    fn get(&self, command: &str) -> Value {
        let request = self.agent.get(format!("{}{command}", self.session));
        answer(command, request.call())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser, which would otherwise keep running.
        let _ = self.agent.delete(&self.session).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

fn answer(command: &str, response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Value {
    let mut response = response.unwrap_or_else(|error| panic!("chromedriver, {command}: {error}"));
    let text = response.body_mut().read_to_string().unwrap();
    let mut answer: Value = serde_json::from_str(&text).unwrap();
    let value = answer["value"].take();
    assert!(
        response.status().is_success(),
        "chromedriver, {command}: {} {}",
        value["error"],
        value["message"]
    );
    value
}

/// Starts the driver on a free port.
fn start_driver() -> (Child, u16) {
    let program = find("chromedriver");
    // It picks a port that is free for IPv6 and exits if that is in use for IPv4, which happens on
    // a machine with many connections.
    let mut tries = (0..30).filter_map(|_| try_start_driver(&program));
    tries.next().expect("chromedriver did not start")
}

fn try_start_driver(program: &Path) -> Option<(Child, u16)> {
    let mut driver = Command::new(program)
        .arg("--port=0")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = lines.by_ref().map_while(Result::ok).find_map(|line| {
        let (_, port) = line.split_once("started successfully on port ")?;
        port.trim_end_matches('.').parse().ok()
    });
    let Some(port) = port else {
        let _ = driver.wait();
        return None;
    };
    // Drain its output so that it does not block.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    Some((driver, port))
}

/// Returns the path of a program.
fn find(program: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(program))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("this test needs {program}: tests/setup installs it"))
}

/// Flags that let Chromium run as root and in a container, without background network requests.
const FLAGS: [&str; 11] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--no-default-browser-check",
    "--window-size=1440,1000",
];
