//! All checks that precede binding and connecting. They are the same for `serve`, `config check`,
//! and a reload.
//!
//! Owns: the list of checks, and reporting all problems together. Every check at startup belongs
//! here. [`NOT_CHECKED`] names the problems that only binding and connecting can reveal.

use std::fs::File;

use crate::backend::check_data_dir;
use crate::cli::exit::Exit;
use crate::config::{BackendSettings, Features, Settings, Sources, Values, warnings};
use crate::net::tls::TlsConfig;
use crate::net::{most_connections, reserved_connections};
use crate::owner::SocketFiles;

use super::backend::Draft;
use super::certificate::{Certificate, expiry_warnings};
use super::places::{self, Process};

/// A checked configuration that the server can run with.
pub(crate) struct Preflight {
    pub(crate) values: Values,
    pub(super) settings: Settings,
    pub(super) certificate: Option<(Certificate, TlsConfig)>,
    pub(super) backend: Draft,
    /// Warnings about settings that work but are possibly unintended.
    pub(crate) warnings: Vec<String>,
}

/// Facts about the process.
#[derive(Clone, Copy)]
pub(crate) struct Facts {
    /// The limit on open files.
    pub open_files: u64,
    /// Seconds since the Unix epoch.
    pub now: u64,
}

/// Problems, each with its exit code.
#[derive(Default)]
struct Problems(Vec<(u8, String)>);

impl Problems {
    fn add(&mut self, code: u8, text: impl std::fmt::Display) {
        self.0.push((code, text.to_string()));
    }

    /// Combines the problems, one line each. If their codes differ, the code is that of the
    /// configuration.
    fn into_exit(self) -> Exit {
        let codes = self.0.iter().map(|(code, _)| *code);
        let code = codes.reduce(|one, other| if one == other { one } else { Exit::CONFIG });
        let lines: Vec<_> = self.0.into_iter().map(|(_, text)| text).collect();
        Exit::new(code.unwrap_or(Exit::CONFIG), lines.join("\n"))
    }
}

/// Reads the sources, and checks the result.
///
/// # Errors
/// Every problem that prevents serving, one line each.
pub(crate) fn read(sources: &Sources, facts: Facts) -> Result<Preflight, Exit> {
    let (values, errors) = sources.read_all();
    check(values, errors, facts, None)
}

/// Checks values. `errors` are the errors from reading them. `running` holds the values of a
/// running server, whose own data directory is not checked again.
pub(super) fn check(
    values: Values,
    errors: Vec<String>,
    facts: Facts,
    running: Option<&Values>,
) -> Result<Preflight, Exit> {
    let mut problems = Problems::default();
    for error in errors {
        problems.add(Exit::CONFIG, error);
    }
    // An unreadable source may contain the missing settings.
    if !values.are_complete() {
        return Err(problems.into_exit());
    }
    let (mut settings, more) = values.resolve(Features::BUILT).map_err(Exit::from)?;
    for problem in more {
        problems.add(Exit::CONFIG, problem);
    }
    if let Err(problem) = limit_connections(&mut settings, &values, facts.open_files) {
        problems.add(Exit::CONFIG, problem);
    }
    match SocketFiles::of(&settings, &values) {
        Err(problem) => problems.add(Exit::CONFIG, problem),
        // A running server has opened its sockets already.
        Ok(_) if running.is_some() => {}
        Ok(files) => {
            for exit in places::check(&settings, &values, files, &Process::current()) {
                problems.add(exit.code, exit.message);
            }
        }
    }
    let certificate = certificate(&settings, &values, facts.now, &mut problems);
    let is_running = |running: &Values| running.differing(&values).all(|it| it.name != "data");
    if matches!(settings.backend, BackendSettings::Embedded(_)) && !running.is_some_and(is_running)
    {
        check_data(&settings, &values, &mut problems);
    }
    let backend = Draft::new(&settings, &values).map_err(|found| {
        found
            .into_iter()
            .for_each(|problem| problems.add(Exit::CONFIG, problem));
    });
    match backend {
        Ok(backend) if problems.0.is_empty() => {
            let mut warnings = warnings(&settings, &values);
            if let Some((certificate, _)) = &certificate {
                warnings.extend(expiry_warnings(certificate, facts.now));
            }
            warnings.extend(backend.warnings(&values));
            Ok(Preflight {
                values,
                settings,
                certificate,
                backend,
                warnings,
            })
        }
        _ => Err(problems.into_exit()),
    }
}

fn certificate(
    settings: &Settings,
    values: &Values,
    now: u64,
    problems: &mut Problems,
) -> Option<(Certificate, TlsConfig)> {
    let (cert, key) = settings.tls.as_ref()?;
    let files = [("tls.cert", cert), ("tls.key", key)];
    let unreadable = files.map(|(name, file)| {
        let error = File::open(file).err()?;
        let problem = format!("{}: {}: {error}", values.place(name), file.display());
        problems.add(Exit::CONFIG, problem);
        Some(())
    });
    if unreadable.iter().any(Option::is_some) {
        return None;
    }
    match Certificate::read(cert, key, now) {
        Ok(read) => Some(read),
        Err(error) => {
            problems.add(Exit::CONFIG, error);
            None
        }
    }
}

fn check_data(settings: &Settings, values: &Values, problems: &mut Problems) {
    if let Err(error) = check_data_dir(&settings.data) {
        let place = values.place("data");
        let exit = Exit::from(error);
        problems.add(exit.code, format!("{place}: {}", exit.message));
    }
}

/// Limits connections to the number of files that may be open, less the files that the server
/// itself needs.
fn limit_connections(
    settings: &mut Settings,
    values: &Values,
    open_files: u64,
) -> Result<(), String> {
    let most = most_connections(open_files);
    let wanted = settings.connections.unwrap_or(most);
    settings.engine.max_connections = wanted.min(most);
    settings.engine.max_reserved = reserved_connections(open_files);
    match wanted > most {
        true => Err(format!(
            "{}: {wanted} connections, but the limit of {open_files} open files allows only \
             {most}: raise it (LimitNOFILE, ulimit -Hn), or lower limits.connections",
            values.place("limits.connections")
        )),
        false => Ok(()),
    }
}

/// Problems that only a start can reveal.
pub(crate) const NOT_CHECKED: &str = "not checked: whether the addresses are free, whether the \
                                      embedded database can be opened, whether PostgreSQL and \
                                      RabbitMQ answer, and what systemd hands to the service \
                                      alone (credentials and sockets)";
