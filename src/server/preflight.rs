//! All checks that precede binding and connecting. They are the same for `serve`, `config check`,
//! and a reload.
//!
//! Owns: the list of checks, and reporting all problems together. Every check at startup belongs
//! here. [`NOT_CHECKED`] names the problems that only binding and connecting can reveal.

use std::fs::File;

use crate::backend::check_data_dir;
use crate::config::{BackendSettings, Features, ServerSettings, Sources, Values, warnings};
use crate::exit::Exit;
use crate::model::unix_now;
use crate::net::tls::TlsConfig;
use crate::net::{most_connections, reserved_connections};
use crate::owner::SocketFiles;

use super::backend::CheckedBackend;
use super::certificate::{Certificate, expiry_warnings};
use super::socket_access::{self, Privileges};

/// A checked configuration that the server can run with.
pub(crate) struct Preflight {
    pub(crate) values: Values,
    pub(super) settings: ServerSettings,
    pub(super) certificate: Option<(Certificate, TlsConfig)>,
    pub(super) backend: CheckedBackend,
    /// Warnings about settings that work but are possibly unintended.
    pub(crate) warnings: Vec<String>,
}

/// The context of a check: facts about the process and the time.
#[derive(Clone, Copy)]
pub(crate) struct CheckContext {
    /// The limit on open files.
    pub open_files: u64,
    /// Seconds since the Unix epoch.
    pub now: u64,
}

/// Returns the context of a check by this process at this time.
pub(crate) fn check_context(open_files: u64) -> CheckContext {
    CheckContext {
        open_files,
        now: unix_now() / 1000,
    }
}

/// Failed checks, each with its exit code.
#[derive(Default)]
struct Failures(Vec<(u8, String)>);

impl Failures {
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
pub(crate) fn read(sources: &Sources, context: CheckContext) -> Result<Preflight, Exit> {
    let (values, errors) = sources.read_all();
    check(values, errors, context, None)
}

/// Checks values. `errors` are the errors from reading them. `running` holds the values of a
/// running server, whose own data directory is not checked again.
pub(super) fn check(
    values: Values,
    errors: Vec<String>,
    context: CheckContext,
    running: Option<&Values>,
) -> Result<Preflight, Exit> {
    let mut problems = Failures::default();
    for error in errors {
        problems.add(Exit::CONFIG, error);
    }
    // An unreadable source may contain the missing settings.
    if !values.all_sources_were_read() {
        return Err(problems.into_exit());
    }
    let (mut settings, conflicts) = values.resolve(Features::BUILT).map_err(Exit::from)?;
    for problem in conflicts {
        problems.add(Exit::CONFIG, problem);
    }
    if let Err(problem) = limit_connections(&mut settings, &values, context.open_files) {
        problems.add(Exit::CONFIG, problem);
    }
    match SocketFiles::of(&settings, &values) {
        Err(problem) => problems.add(Exit::CONFIG, problem),
        // A running server has opened its sockets already.
        Ok(_) if running.is_some() => {}
        Ok(files) => {
            for exit in socket_access::check(&settings, &values, files, &Privileges::current()) {
                problems.add(exit.code, exit.message);
            }
        }
    }
    let certificate = certificate(&settings, &values, context.now, &mut problems);
    let is_running = |running: &Values| running.differing(&values).all(|it| it.name != "data");
    if matches!(settings.backend, BackendSettings::Embedded(_)) && !running.is_some_and(is_running)
    {
        check_data(&settings, &values, &mut problems);
    }
    let backend = CheckedBackend::new(&settings, &values).map_err(|found| {
        found
            .into_iter()
            .for_each(|problem| problems.add(Exit::CONFIG, problem));
    });
    match backend {
        Ok(backend) if problems.0.is_empty() => {
            let mut warnings = warnings(&settings, &values);
            if let Some((certificate, _)) = &certificate {
                warnings.extend(expiry_warnings(certificate, context.now));
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
    settings: &ServerSettings,
    values: &Values,
    now: u64,
    problems: &mut Failures,
) -> Option<(Certificate, TlsConfig)> {
    let (cert, key) = settings.tls.as_ref()?;
    let files = [("tls.cert", cert), ("tls.key", key)];
    let unreadable = files.map(|(name, file)| {
        let error = File::open(file).err()?;
        let problem = format!(
            "{}: {}: {error}",
            values.name_with_provenance(name),
            file.display()
        );
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

fn check_data(settings: &ServerSettings, values: &Values, problems: &mut Failures) {
    if let Err(error) = check_data_dir(&settings.data) {
        let setting = values.name_with_provenance("data");
        let exit = Exit::from(error);
        problems.add(exit.code, format!("{setting}: {}", exit.message));
    }
}

/// Limits connections to the number of files that may be open, less the files that the server
/// itself needs.
fn limit_connections(
    settings: &mut ServerSettings,
    values: &Values,
    open_files: u64,
) -> Result<(), String> {
    let max = most_connections(open_files);
    let configured = settings.connections.unwrap_or(max);
    settings.engine.max_connections = configured.min(max);
    settings.engine.max_reserved = reserved_connections(open_files);
    match configured > max {
        true => Err(format!(
            "{}: {configured} connections exceed the {max} that the limit of {open_files} open files \
             allows: raise that limit (LimitNOFILE=, ulimit -Hn), or lower limits.connections",
            values.name_with_provenance("limits.connections")
        )),
        false => Ok(()),
    }
}

/// Failures that only a start can reveal.
pub(crate) const NOT_CHECKED: &str = "not checked: whether the addresses are free, whether the embedded \
                                      database can be opened, whether PostgreSQL and \
                                      RabbitMQ are reachable, and credentials and sockets that \
                                      systemd passes to the service only";
