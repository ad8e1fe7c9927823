//! The whole server: builds back end, application and reactor, and runs them to the end.

mod app;
mod back_end;
mod banner;
mod metrics;

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::admin::{Admin, Guard};
use crate::cli::exit::Exit;
use crate::config::{InvalidToken, OnExpiry, Settings};
use crate::model::Tell;
use crate::net::tls::TlsConfig;
use crate::net::{
    Address, Listener, ListenerId, Mailbox, Reactor, most_connections, raise_open_files,
};
use crate::realtime::{self, Realtime};

use app::App;
use back_end::BackEnd;

/// Runs the server until it is told to end, by SIGTERM or SIGINT.
///
/// # Errors
/// [`Exit`] with the code of what stands in the way of starting, or of going on.
pub fn run(mut settings: Settings) -> Result<(), Exit> {
    let open_files = raise_open_files();
    limit_connections(&mut settings, open_files);
    let tls = certificate(&settings)?;
    let back_end = BackEnd::prepare(&settings)?;
    let realtime = Realtime::new(
        Box::new(Rc::clone(&back_end.asker)),
        realtime_settings(&settings),
        random().map_err(random_failed)?,
    );
    let (sockets, bound) = bind(&settings, tls)?;
    let admin = Admin::new(
        Guard::new(tcp_address(&bound.admin), settings.admin_hosts.clone()),
        back_end.publish_key.clone(),
        &bound.page_url(),
        Box::new(Rc::clone(&back_end.asker)),
    );
    let app = App {
        realtime,
        admin,
        admin_listener: ADMIN,
        ready: false,
        stats: Arc::clone(&back_end.stats),
    };
    let [seed] = random().map_err(random_failed)?;
    settings.engine.reserved_listener = Some(ADMIN);
    let reactor = Reactor::new(settings.engine.clone(), app, seed);
    let mut reactor = reactor.map_err(|error| Exit::new(Exit::OS, error))?;
    for socket in sockets {
        let added = reactor.listen(socket);
        added.map_err(|error| Exit::new(Exit::OS, error))?;
    }
    let text = banner::text(&settings, &back_end, &bound, open_files);
    let address_file = match &back_end.data {
        Some(_) => {
            let written = AddressFile::write(&settings.data, &bound.admin);
            Some(written.map_err(|error| Exit::new(Exit::IO, error))?)
        }
        None => None,
    };
    let threads = back_end.start(&reactor.mailbox())?;
    end_on_signals(reactor.mailbox(), settings.drain, address_file)?;
    // Nobody reading the banner is no reason not to serve.
    let _ = io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| io::stdout().flush());
    log::info!("started");

    let result = reactor.run();
    drop(reactor);
    threads.finish();
    result.map_err(|error| Exit::new(Exit::OS, format!("the poller: {error}")))?;
    log::info!("ended");
    Ok(())
}

fn certificate(settings: &Settings) -> Result<Option<TlsConfig>, Exit> {
    let Some((cert, key)) = &settings.tls else {
        return Ok(None);
    };
    let config = TlsConfig::from_pem_files(cert, key);
    config
        .map(Some)
        .map_err(|error| Exit::new(Exit::CONFIG, error))
}

/// Where the server listens, with the ports that the system chose.
struct Bound {
    admin: Address,
    /// With whether it has TLS.
    listeners: Vec<(Address, bool)>,
}

impl Bound {
    /// What the admin page proposes to connect to: the first listener that a browser can reach.
    /// Empty if there is none.
    fn page_url(&self) -> String {
        let mut listeners = self.listeners.iter();
        let reachable = listeners.find(|(address, _)| tcp_address(address).is_some());
        reachable.map_or_else(String::new, |(address, tls)| banner::ws_url(address, *tls))
    }
}

/// Opens the listening sockets, that of the admin interface first: the application knows it as
/// listener 0.
fn bind(settings: &Settings, tls: Option<TlsConfig>) -> Result<(Vec<Listener>, Bound), Exit> {
    let mut sockets = Vec::new();
    let mut open = |address: &Address, tls: Option<TlsConfig>, shared: bool| {
        let opened = match shared {
            true => Listener::open_shared(address, tls),
            false => Listener::open(address, tls),
        };
        let opened = opened.and_then(|listener| listener.address().map(|bound| (listener, bound)));
        let (listener, bound) = opened.map_err(|error| {
            let message = format!("cannot listen on {address}: {error}");
            Exit::new(Exit::UNAVAILABLE, message)
        })?;
        sockets.push(listener);
        Ok::<_, Exit>(bound)
    };
    let admin = open(&settings.admin, None, false)?;
    let mut listeners = Vec::new();
    for listen in &settings.listen {
        let tls = tls.clone().filter(|_| listen.tls);
        let bound = open(&listen.address, tls, settings.reuse_port)?;
        listeners.push((bound, listen.tls));
    }
    Ok((sockets, Bound { admin, listeners }))
}

/// Connections cannot be more than the files that may be open, less those the server itself
/// needs.
fn limit_connections(settings: &mut Settings, open_files: u64) {
    let most = most_connections(open_files);
    let wanted = settings.connections.unwrap_or(most);
    if wanted > most {
        log::warn!(
            "limits.connections is {wanted}, but {open_files} open files allow only {most}: \
             raise the limit on open files (LimitNOFILE, ulimit -n)"
        );
    }
    settings.engine.max_connections = wanted.min(most);
}

fn realtime_settings(settings: &Settings) -> realtime::Settings {
    realtime::Settings {
        origins: Vec::new(),
        invalid_token: match settings.invalid_token {
            InvalidToken::Anonymous => realtime::InvalidToken::Anonymous,
            InvalidToken::Reject => realtime::InvalidToken::Reject,
        },
        max_terms: settings.filter_terms,
        on_expiry: match settings.on_expiry {
            OnExpiry::Close => realtime::OnExpiry::Close,
            OnExpiry::Keep => realtime::OnExpiry::Keep,
        },
        expiry_spread: millis(settings.expiry_spread),
        sweep_period: settings.sweep.map(millis),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn tcp_address(address: &Address) -> Option<std::net::SocketAddr> {
    match address {
        Address::Tcp(address) => Some(*address),
        Address::Unix(_) => None,
    }
}

/// The first signal begins the shutdown, the second ends it.
fn end_on_signals(
    mailbox: Mailbox<Tell>,
    drain: Duration,
    address_file: Option<AddressFile>,
) -> Result<(), Exit> {
    let mut signals = Signals::new([SIGTERM, SIGINT])
        .map_err(|error| Exit::new(Exit::OS, format!("signals: {error}")))?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            let mut address_file = address_file;
            for signal in signals.forever() {
                // Before the addresses are free: the next server to take them may start while
                // this one still sees its clients off, and has a file of its own by then.
                drop(address_file.take());
                log::info!("signal {signal}: shutting down");
                if mailbox.shut_down(drain).is_err() {
                    return;
                }
            }
        })
        .map_err(|error| Exit::new(Exit::OS, format!("a thread for signals: {error}")))?;
    Ok(())
}

/// The file that tells commands on this machine where the admin interface is.
struct AddressFile(PathBuf);

impl AddressFile {
    fn write(data: &Path, admin: &Address) -> io::Result<Self> {
        let path = data.join("admin.address");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o600);
        writeln!(options.open(&path)?, "{}", banner::admin_url(admin))?;
        Ok(AddressFile(path))
    }
}

impl Drop for AddressFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            log::debug!("{}: {error}", self.0.display());
        }
    }
}

fn random<const N: usize>() -> Result<[u64; N], getrandom::Error> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = getrandom::u64()?;
    }
    Ok(numbers)
}

fn random_failed(error: getrandom::Error) -> Exit {
    Exit::new(Exit::OS, format!("random numbers: {error}"))
}

/// The first listener is that of the admin interface.
const ADMIN: ListenerId = ListenerId(0);
