//! A PostgreSQL server for tests, from Debian's packages: in a temporary folder, on a free port, on
//! loopback only.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};

use rustix::process::Signal;
use tempfile::TempDir;

use super::process::{ManagedProcess, command_as, free_port, give_to};
use super::{PATIENCE, eventually};

/// A database server. It ends when this is dropped, and with the test's process.
pub struct Postgres {
    port: u16,
    running: Mutex<Option<ManagedProcess>>,
    databases: AtomicU32,
    folder: TempDir,
}

impl Postgres {
    /// Returns the server shared by all tests of this process; it must not be stopped.
    pub fn shared() -> &'static Postgres {
        static SHARED: OnceLock<Postgres> = OnceLock::new();
        SHARED.get_or_init(Postgres::start)
    }

    /// Starts a server for one test.
    pub fn start() -> Postgres {
        let folder = TempDir::new().unwrap();
        give_to(USER, folder.path());
        let initialised = command_as(USER, program("initdb"))
            .current_dir(folder.path())
            .args(["--no-sync", "--no-instructions", "--auth=trust"])
            .args(["--username=postgres", "--encoding=UTF8", "--locale=C"])
            .arg(folder.path().join("data"))
            .output()
            .unwrap();
        assert!(initialised.status.success(), "{initialised:?}");
        let postgres = Postgres {
            port: free_port(),
            running: Mutex::new(None),
            databases: AtomicU32::new(0),
            folder,
        };
        postgres.start_again();
        let make = format!("CREATE DATABASE {TEMPLATE}");
        postgres.sql("postgres", &make);
        let files = ["schema.sql", "seed.sql"].map(|file| format!("--file={}", data(file)));
        let [schema, seed] = &files;
        psql(
            &postgres.url(TEMPLATE),
            &["--single-transaction", schema, seed],
        );
        postgres
    }

    /// Creates a database with h's tables and the rows of `tests/data/h/seed.sql`, and returns its
    /// URL.
    pub fn database(&self) -> String {
        let number = self.databases.fetch_add(1, Ordering::Relaxed);
        let name = format!("test_{number}");
        self.sql(
            "postgres",
            &format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}"),
        );
        self.url(&name)
    }

    /// Stops it immediately: connections are cut, as in a crash.
    pub fn stop(&self) {
        let running = self.running.lock().unwrap().take();
        running.expect("not running").end(Signal::QUIT);
    }

    /// Starts it again, with the same data on the same port.
    pub fn start_again(&self) {
        let mut running = self.running.lock().unwrap();
        assert!(running.is_none(), "already running");
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join("log"))
            .unwrap();
        let mut command = command_as(USER, program("postgres"));
        command
            .current_dir(self.folder.path())
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .arg("-k")
            .arg(self.folder.path())
            .args(["-h", "127.0.0.1", "-p", &self.port.to_string()])
            .args(SETTINGS.iter().flat_map(|setting| ["-c", setting]))
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let mut kept = ManagedProcess::start(&mut command, self.folder.path());
        let url = self.url("postgres");
        eventually(PATIENCE, || {
            assert!(kept.is_running(), "{}", self.log());
            let answer = ask(&url, &["-c", "SELECT 1"]);
            answer.status.success().then_some(())
        });
        *running = Some(kept);
    }

    /// Returns its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    fn sql(&self, database: &str, sql: &str) {
        psql(&self.url(database), &["-c", sql]);
    }

    fn url(&self, database: &str) -> String {
        format!("postgresql://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

/// Runs statements in the database at this URL. Returns the rows, one per line, with `|` between
/// the columns.
pub fn sql(url: &str, statements: &str) -> String {
    psql(url, &["-c", statements])
}

/// An open transaction, rolled back on drop.
pub struct Transaction {
    psql: Child,
}

impl Transaction {
    /// Begins a transaction and runs statements in it.
    pub fn begin(url: &str, statements: &str) -> Transaction {
        let mut psql = psql_command(url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = psql.stdin.as_mut().unwrap();
        writeln!(input, "BEGIN; {statements};\n\\echo {DONE}").unwrap();
        let output = psql.stdout.as_mut().unwrap();
        let line = BufReader::new(output).lines().next();
        assert_eq!(line.expect("a statement failed").unwrap(), DONE);
        Transaction { psql }
    }

    pub fn commit(self) {
        self.end("COMMIT");
    }

    pub fn roll_back(self) {
        self.end("ROLLBACK");
    }

    fn end(mut self, command: &str) {
        let mut input = self.psql.stdin.take().unwrap();
        writeln!(input, "{command};").unwrap();
        drop(input);
        assert!(self.psql.wait().unwrap().success());
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // At the end of its input psql exits, and the session ends.
        drop(self.psql.stdin.take());
        let _ = self.psql.wait();
    }
}

fn psql(url: &str, args: &[&str]) -> String {
    let output = ask(url, args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{args:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

fn ask(url: &str, args: &[&str]) -> std::process::Output {
    psql_command(url).args(args).output().unwrap()
}

fn psql_command(url: &str) -> Command {
    let mut command = Command::new(program("psql"));
    command
        .args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only"])
        .args(["--set=ON_ERROR_STOP=1", "--dbname", url])
        .env("PGCONNECT_TIMEOUT", "5");
    command
}

/// Returns the path of a program of the newest installed PostgreSQL. Debian keeps them out of the
/// `PATH`.
fn program(name: &str) -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten();
    let versions = versions.map(|version| version.unwrap().path());
    let number = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions
        .map(|path| path.join("bin").join(name))
        .filter(|program| program.is_file())
        .max_by_key(|program| number(&program.parent()?.parent()?.to_owned()));
    newest.unwrap_or_else(|| name.into())
}

fn data(file: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/h");
    folder.join(file).to_str().unwrap().to_owned()
}

/// The user that Debian creates for PostgreSQL.
const USER: &str = "postgres";
const TEMPLATE: &str = "seeded";
/// Printed by psql after the preceding statements.
const DONE: &str = "done";
/// Durability is not needed.
const SETTINGS: [&str; 6] = [
    "fsync=off",
    "full_page_writes=off",
    "synchronous_commit=off",
    "autovacuum=off",
    "shared_buffers=16MB",
    "max_connections=100",
];
