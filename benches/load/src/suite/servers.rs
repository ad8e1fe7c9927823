//! Starts each server and finds its address.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use load::Result;

/// A server and how to run it.
#[derive(Clone, Debug, Default)]
pub struct Spec {
    pub program: Program,
    pub tls: bool,
    /// Further arguments.
    pub args: Vec<String>,
    /// The configuration file, for h-realtime itself.
    pub settings: String,
    /// The directory of another build of this project, with the same files as `target/release`.
    pub build: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Program {
    /// The engine alone: `examples/conformance.rs`.
    #[default]
    Engine,
    /// `h-realtime serve`.
    Api,
    Floor,
    UWebSockets,
    FastWebSockets,
    Tungstenite,
    Picows,
    WebSockets,
    Socketify,
    Ws,
}

/// The locations of all programs and files.
pub struct Places {
    folder: PathBuf,
    has_two_cpus: bool,
}

impl Places {
    /// Must be called in the repository's root, after `benches/run` has built everything.
    pub fn find(folder: &Path) -> Result<Places> {
        let made =
            rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        fs::write(folder.join("cert.pem"), made.cert.pem())?;
        fs::write(folder.join("key.pem"), made.signing_key.serialize_pem())?;
        let has_two_cpus = thread::available_parallelism()?.get() >= 2;
        if !has_two_cpus {
            println!("One CPU only: server and client share it, so times are not meaningful.");
        }
        Ok(Places {
            folder: folder.to_owned(),
            has_two_cpus,
        })
    }

    /// Returns the path of the load program.
    pub fn load(&self) -> PathBuf {
        Path::new(BUILT).join("load")
    }

    /// Returns a command that is pinned to one CPU.
    pub fn pinned(&self, cpu: u32, program: &Path) -> Command {
        if !self.has_two_cpus {
            return Command::new(program);
        }
        let mut command = Command::new("taskset");
        command.args(["-c", &cpu.to_string()]).arg(program);
        command
    }

    pub fn has(&self, spec: &Spec) -> bool {
        self.program(spec).iter().all(|part| part.exists())
    }

    /// Returns the peers that cannot be run.
    pub fn missing(&self) -> impl Iterator<Item = &'static str> {
        let known = PEERS.iter().filter(|(_, program)| {
            let spec = Spec {
                program: *program,
                ..Spec::default()
            };
            !self.has(&spec)
        });
        known.map(|(name, _)| *name)
    }

    /// Returns the program and all files that it needs.
    fn program(&self, spec: &Spec) -> Vec<PathBuf> {
        let ours = |name: &str| {
            let build = spec.build.as_deref();
            vec![build.unwrap_or(Path::new("target/release")).join(name)]
        };
        let built = |name: &str| vec![Path::new(BUILT).join(name)];
        let python = |name: &str| {
            let root = Path::new("target/benches/python");
            let script = Path::new(SCRIPTS).join(format!("{name}_peer.py"));
            let library = root.join("lib");
            let installed = fs::read_dir(library)
                .ok()
                .and_then(|mut found| found.next());
            let library = installed.and_then(|found| Some(found.ok()?.path()));
            let library = library.unwrap_or_default().join("site-packages").join(name);
            vec![root.join("bin/python"), script, library]
        };
        match spec.program {
            Program::Engine => ours("examples/conformance"),
            Program::Api => ours("h-realtime"),
            Program::Floor => built("floor"),
            Program::UWebSockets => built("uws"),
            Program::FastWebSockets => built("fastwebsockets"),
            Program::Tungstenite => built("tungstenite"),
            Program::Picows => python("picows"),
            Program::WebSockets => python("websockets"),
            Program::Socketify => python("socketify"),
            Program::Ws => vec![
                node(),
                Path::new(SCRIPTS).join("ws_peer.js"),
                "target/benches/node/node_modules/ws".into(),
            ],
        }
    }
}

/// A running server, terminated on drop.
pub struct Running {
    child: Child,
    address: String,
    admin: String,
    data: PathBuf,
}

impl Running {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Replaces placeholders in an argument of the load's command line. `{n}` is left for the load.
    pub fn fill(&self, word: &str, places: &Places) -> String {
        let cert = places.folder.join("cert.pem");
        word.replace("{address}", &self.address)
            .replace("{admin}", &self.admin)
            .replace("{key}", &self.data.join("publish.key").to_string_lossy())
            .replace("{ca}", &cert.to_string_lossy())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Starts a server on a port of its own, on the first CPU.
pub fn start(spec: &Spec, places: &Places) -> Result<Running> {
    let files = places.program(spec);
    let (program, rest) = files.split_first().ok_or("no program")?;
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let data = places.folder.join(format!("data-{number}"));
    let mut command = places.pinned(0, program);
    command.args(rest.first());
    match spec.program {
        Program::Api => {
            let settings = places.folder.join(format!("settings-{number}.toml"));
            fs::write(&settings, &spec.settings)?;
            let scheme = if spec.tls { "wss" } else { "ws" };
            command.args(["--listen", &format!("{scheme}://127.0.0.1:0")]);
            command
                .args(["--admin", "127.0.0.1:0", "--data"])
                .arg(&data);
            command.arg("--config").arg(settings);
        }
        Program::UWebSockets => drop(command.arg("0")),
        Program::Engine | Program::Floor | Program::FastWebSockets | Program::Tungstenite => {
            command.arg("127.0.0.1:0");
        }
        _ => {}
    }
    if spec.tls {
        command
            .arg("--tls-cert")
            .arg(places.folder.join("cert.pem"));
        command.arg("--tls-key").arg(places.folder.join("key.pem"));
    }
    let mut child = command
        .args(&spec.args)
        .env("NODE_PATH", "target/benches/node/node_modules")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = child.stdout.take();
    let mut running = Running {
        child,
        address: String::new(),
        admin: String::new(),
        data,
    };
    let mut output = BufReader::new(output.ok_or("no output")?);
    let mut line = String::new();
    while output.read_line(&mut line)? > 0 {
        let words: Vec<&str> = line.split_whitespace().collect();
        match (words.as_slice(), spec.program) {
            (["listening", "on", address], _) => running.address = (*address).to_owned(),
            (["Real", "Time", "API", url], Program::Api) => {
                let address = url.trim_end_matches("/ws").rsplit('/').next();
                running.address = address.unwrap_or_default().to_owned();
            }
            (["admin", url], Program::Api) => {
                running.admin = url.trim_end_matches('/').to_owned();
            }
            _ => {}
        }
        line.clear();
        let has_admin = spec.program != Program::Api || !running.admin.is_empty();
        if !running.address.is_empty() && has_admin {
            // Drain its remaining output.
            thread::spawn(move || std::io::copy(&mut output, &mut std::io::sink()));
            return Ok(running);
        }
    }
    Err(format!("{:?} did not start", spec.program).into())
}

/// Finds Node.
fn node() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join("node"));
    places
        .find(|file| file.exists())
        .unwrap_or_else(|| "node".into())
}

/// The peers, by the names in the tables.
pub const PEERS: [(&str, Program); 8] = [
    ("floor", Program::Floor),
    ("uWebSockets", Program::UWebSockets),
    ("fastwebsockets", Program::FastWebSockets),
    ("tungstenite", Program::Tungstenite),
    ("picows", Program::Picows),
    ("websockets", Program::WebSockets),
    ("socketify", Program::Socketify),
    ("ws", Program::Ws),
];

const BUILT: &str = "target/benches/cargo/release";
const SCRIPTS: &str = "benches/peers/scripts";

static NUMBER: AtomicU32 = AtomicU32::new(0);
