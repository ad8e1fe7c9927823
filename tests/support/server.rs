//! A server process of one test.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use h_realtime::backend::DataDir;
use h_realtime::backend::embedded::Store;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::{Client, PATIENCE, eventually, free_port};

/// The built program.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_h-realtime");

/// A running server, killed on drop.
pub struct Server {
    pub child: Child,
    /// The addresses of the WebSocket listeners, in the order given.
    pub listeners: Vec<String>,
    pub admin: SocketAddr,
    pub banner: String,
    folder: Arc<TempDir>,
}

impl Server {
    /// Starts a server with defaults, on free ports.
    pub fn start() -> Server {
        Server::with(&["--listen", "ws://127.0.0.1:0"], "")
    }

    /// Starts a server with this configuration file.
    pub fn configured(config: &str) -> Server {
        Server::with(&["--listen", "ws://127.0.0.1:0"], config)
    }

    /// Starts a server with these arguments and this configuration file.
    pub fn with(args: &[&str], config: &str) -> Server {
        Server::in_folder(TempDir::new().unwrap(), args, config)
    }

    /// Starts a server with verbose logging, to be read with [`Server::log`].
    pub fn verbose(config: &str) -> Server {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let mut command = Command::new(PROGRAM);
        command.env("RUST_LOG", "trace");
        Server::launch(command, folder, &["--listen", "ws://127.0.0.1:0"])
    }

    /// Starts a server in a folder of the test.
    pub fn in_folder(folder: TempDir, args: &[&str], config: &str) -> Server {
        let config_file = folder.path().join("config.toml");
        std::fs::write(config_file, config).unwrap();
        Server::launch(Command::new(PROGRAM), folder, args)
    }

    /// Starts a server with h's backend on this database and this broker, and waits until it is
    /// ready.
    pub fn of_h(database: &str, broker: &str, listen: &str, config: &str) -> Server {
        let folder = TempDir::new().unwrap();
        std::fs::write(folder.path().join("config.toml"), config).unwrap();
        let mut command = Command::new(PROGRAM);
        command
            .env("DATABASE_URL", database)
            .env("BROKER_URL", broker)
            .envs(OF_H);
        let args = ["--backend", "h", "--listen", listen];
        let server = Server::launch(command, folder, &args);
        server.wait_until_ready();
        server
    }

    /// Starts a server with a custom command, to which the arguments are added. There must be a
    /// `config.toml` in the folder. A listener on port 0 gets a port of the test's own, which is
    /// still free when the server starts again.
    pub fn launch(command: Command, folder: impl Into<Arc<TempDir>>, args: &[&str]) -> Server {
        let args: Vec<String> = args.iter().map(|arg| with_own_port(arg)).collect();
        let mut all = vec!["--admin", "127.0.0.1:0"];
        all.extend(args.iter().map(String::as_str));
        Server::launch_as_is(command, folder, &all)
    }

    /// The same, with the admin address left to the arguments or the command.
    pub fn launch_as_is(
        mut command: Command,
        folder: impl Into<Arc<TempDir>>,
        args: &[&str],
    ) -> Server {
        let folder = folder.into();
        // An unread pipe would fill up and block the server.
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.path().join("log"))
            .unwrap();
        let mut child = command
            .env("H_REALTIME_METRICS_KEY", METRICS_KEY)
            .args(["serve", "--config"])
            .arg(folder.path().join("config.toml"))
            .arg("--data")
            .arg(folder.path().join("data"))
            .args(args)
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let banner = read_banner(&mut child, folder.path());
        let line = |word: &str| -> Vec<String> {
            let found = banner
                .lines()
                .filter_map(|line| line.trim().strip_prefix(word));
            found.map(|rest| rest.trim().to_owned()).collect()
        };
        let admin = line("admin").remove(0);
        let admin = admin.trim_start_matches("http://").trim_end_matches('/');
        Server {
            listeners: line("Real Time API"),
            admin: admin.parse().unwrap(),
            child,
            banner,
            folder,
        }
    }

    /// Returns the data directory.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Returns the parent folder, for files of the test.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the same folder, for another server on this data.
    pub fn shared_folder(&self) -> Arc<TempDir> {
        Arc::clone(&self.folder)
    }

    /// Returns the address of the first WebSocket listener.
    pub fn address(&self) -> SocketAddr {
        let url = &self.listeners[0];
        let host = url
            .split("//")
            .nth(1)
            .unwrap_or_else(|| panic!("{url} has no host"));
        host.trim_end_matches("/ws").parse().unwrap()
    }

    /// Opens the database, for changes that no command makes.
    pub fn store(&self) -> Store {
        let data = DataDir::open(&self.data()).unwrap();
        Store::open(&data.database()).unwrap()
    }

    /// Runs another command of the program on this server's data.
    pub fn command(&self, args: &[&str]) -> Output {
        Command::new(PROGRAM)
            .args(args)
            .arg("--data")
            .arg(self.data())
            .output()
            .unwrap()
    }

    /// Runs a command that must succeed, and returns the last line of its output.
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.command(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().last().unwrap_or("").to_owned()
    }

    /// Adds a user and returns a token of that user.
    pub fn user(&self, userid: &str) -> String {
        self.run(&["user", "add", userid]);
        self.run(&["token", "create", userid])
    }

    /// Connects an anonymous client.
    pub fn anonymous(&self) -> Client {
        Client::open(self.address(), "/ws", "")
    }

    /// Connects an authenticated client.
    pub fn logged_in(&self, token: &str) -> Client {
        let fields = format!("Authorization: Bearer {token}\r\n");
        Client::open(self.address(), "/ws", &fields)
    }

    /// Returns the publish key.
    pub fn publish_key(&self) -> String {
        let key = std::fs::read_to_string(self.data().join("publish.key")).unwrap();
        key.trim().to_owned()
    }

    /// Publishes, and returns the status and the response.
    pub fn publish(&self, body: &str) -> (u16, Value) {
        let fields = format!("Authorization: Bearer {}\r\n", self.publish_key());
        self.post_events(&fields, body)
    }

    /// Sends `POST /events` with these header fields.
    pub fn post_events(&self, fields: &str, body: &str) -> (u16, Value) {
        let request = format!(
            "POST /events HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n{fields}\r\n{body}",
            self.admin,
            body.len()
        );
        let (status, _, body) = http(self.admin, request.as_bytes());
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    /// Returns the status of `/readyz`.
    pub fn readiness(&self) -> u16 {
        let host = self.admin;
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        http(host, request.as_bytes()).0
    }

    /// Waits until its backend is ready. A dependency may just have become available, and the
    /// server waits for some seconds before it retries.
    pub fn wait_until_ready(&self) {
        eventually(3 * PATIENCE, || (self.readiness() == 200).then_some(()));
    }

    /// Returns the value of a metric, summed over its labels.
    pub fn metric(&self, name: &str) -> f64 {
        let request = format!(
            "GET /metrics HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {METRICS_KEY}\r\n\
             Connection: close\r\n\r\n",
            self.admin
        );
        let (status, _, text) = http(self.admin, request.as_bytes());
        assert_eq!(status, 200, "{text}");
        let is_sample = |line: &&str| {
            line.strip_prefix(name)
                .is_some_and(|rest| rest.starts_with(['{', ' ']))
        };
        let samples: Vec<_> = text.lines().filter(is_sample).collect();
        assert!(!samples.is_empty(), "there is no {name}");
        samples
            .iter()
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }

    /// Sends a signal to the process.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the process to exit; returns its standard error and its exit code.
    pub fn wait(&mut self) -> (String, Option<i32>) {
        let status = eventually(PATIENCE, || self.child.try_wait().unwrap());
        (self.log(), status.code())
    }

    /// Returns the server's standard error so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log")).unwrap()
    }

    /// Returns the log once it contains `part`: a separate thread writes it with a delay.
    pub fn log_with(&self, part: &str) -> String {
        eventually(PATIENCE, || {
            Some(self.log()).filter(|log| log.contains(part))
        })
    }

    /// Kills the process, and starts another with the same data and addresses.
    pub fn restart(&mut self) {
        let _ = self.child.kill();
        self.wait();
        *self = self.successor();
    }

    /// Starts another server with the same data and addresses, which this one must have released.
    pub fn successor(&self) -> Server {
        let listeners = self.listeners.iter();
        let args: Vec<&str> = listeners.flat_map(|url| ["--listen", url]).collect();
        Server::launch(Command::new(PROGRAM), Arc::clone(&self.folder), &args)
    }

    /// Starts another server on the same data with a custom command.
    pub fn beside(&self, command: Command, args: &[&str]) -> Server {
        Server::launch(command, Arc::clone(&self.folder), args)
    }

    /// Returns the resident memory of the process, in bytes.
    pub fn resident(&self) -> u64 {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let line = text.lines().find(|line| line.starts_with("Rss:")).unwrap();
        line.split_whitespace()
            .nth(1)
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A process records the lines that it has executed when it ends by itself.
        if std::env::var_os("LLVM_PROFILE_FILE").is_some() {
            shut_down(&mut self.child);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Replaces port 0 at the end of a listener's URL.
fn with_own_port(arg: &str) -> String {
    match arg.strip_suffix(":0") {
        Some(listener) if listener.contains("://") => format!("{listener}:{}", free_port()),
        _ => arg.to_owned(),
    }
}

/// Requests a shutdown until the server ends, which it does at once at the second request.
fn shut_down(child: &mut Child) {
    let until = Instant::now() + Duration::from_secs(10);
    while Instant::now() < until && matches!(child.try_wait(), Ok(None)) {
        let _ = kill_process(Pid::from_child(child), Signal::TERM);
        thread::sleep(Duration::from_millis(20));
    }
}

/// Reads the lines that the server prints when it is ready.
fn read_banner(child: &mut Child, folder: &Path) -> String {
    let mut reader = BufReader::new(child.stdout.take().unwrap());
    let mut banner = String::new();
    while !banner.contains("Ctrl-C") {
        if reader.read_line(&mut banner).unwrap() == 0 {
            let stderr = std::fs::read_to_string(folder.join("log"));
            panic!("the server did not start: {stderr:?}");
        }
    }
    banner
}

/// Sends a request, and returns the status, head, and body of the response. The request must end
/// the connection.
pub fn http(address: SocketAddr, request: &[u8]) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(request).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    (status.unwrap_or(0), head.to_owned(), body.to_owned())
}

/// The metrics key of every server.
pub const METRICS_KEY: &str = "the-metrics-key-of-the-tests";

/// Further environment variables of h's backend in all tests.
const OF_H: [(&str, &str); 3] = [
    ("AUTHORITY", "localhost"),
    ("APP_URL", "http://localhost:5000"),
    ("BOUNCER_URL", "http://localhost:8000"),
];
