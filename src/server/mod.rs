//! The server: builds the backend, the application, and the reactor, and runs them until shutdown.
//!
//! Owns: the order of startup and shutdown, reloads, and the interfaces between the process and its
//! host: sockets, signals, the service manager, and metrics. Must not know the command line, the syntax of
//! settings, or the messages of the API. [`run`] is the main path.
//!
//! | file | holds |
//! |---|---|
//! | `preflight` | all checks before anything is opened; also of `config check` and reloads |
//! | `socket_access` | the check whether this process may open the sockets |
//! | `certificate` | the certificate files: loading, changes, and expiry |
//! | `activation` | listening sockets inherited from systemd |
//! | `bind`, `handover` | opening the listeners, and waiting for a server that is shutting down |
//! | `backend`, `no_amqp` | the configured backend, from its settings to its threads |
//! | `client_log` | the log of clients in the data directory |
//! | `app` | the application that the engine runs: the API and the admin interface |
//! | `shared` | the state that threads share |
//! | `reload` | the thread that reloads the configuration and the certificate |
//! | `signals` | the thread that handles signals |
//! | `notify` | notifications to the service manager |
//! | `address_file` | the file `admin.address` |
//! | `banner`, `urls` | the startup banner, and the URLs in it |
//! | `metrics`, `process_stats` | the metrics, and the process statistics in them |
//! | `allocator` | return of memory to the system while idle |

mod activation;
mod address_file;
mod allocator;
mod app;
mod backend;
mod banner;
mod bind;
mod certificate;
mod client_log;
mod handover;
mod metrics;
#[cfg(not(feature = "amqp"))]
mod no_amqp;
mod notify;
pub(crate) mod preflight;
mod process_stats;
mod reload;
mod shared;
mod signals;
mod socket_access;
mod urls;

use std::io::{self, Write};
use std::rc::Rc;
use std::sync::Arc;

use crate::admin::{Admin, AdminKeys, HostCheck};
use crate::config::{ServerSettings, Sources};
use crate::exit::{Exit, thread_failed};
use crate::logging;
use crate::model::Secret;
use crate::net::{Listener, ListenerId, Reactor, raise_open_files};
use crate::realtime::Realtime;

use activation::InheritedSockets;
use address_file::{AddressFile, SharedAddressFile};
use app::App;
use backend::PreparedBackend;
use bind::{Bound, bind};
use client_log::RestoredClients;
use notify::{Heartbeat, Notifier};
use preflight::{Preflight, check_context};
use process_stats::ProcessStats;
use reload::Reloader;
use shared::{AppSettings, SharedState};
use signals::{RunningServer, SignalThread};
use urls::tcp_address;

pub(crate) use signals::catch as catch_signals;

/// Reads the configuration, and runs the server until SIGTERM or SIGINT.
///
/// # Errors
/// [`Exit`], with the code for the cause that prevents the server from starting or continuing.
pub(crate) fn run(mut sources: Sources) -> Result<(), Exit> {
    let signals = SignalThread::start()?;
    let inherited = InheritedSockets::take()?;
    sources.inherit(inherited.addresses());
    let notifier = Arc::new(Notifier::of_process());
    let open_files = raise_open_files();
    let Preflight {
        values,
        settings,
        certificate,
        backend,
        warnings,
    } = preflight::read(&sources, check_context(open_files))?;
    sources.pin_file(&values);
    logging::set(settings.log_level, settings.log_format);
    for warning in warnings {
        log::warn!("{warning}");
    }
    let (certificate, tls) = certificate.unzip();
    let shared = Arc::new(SharedState::new(&settings));
    shared.record_certificate(tls.as_ref());
    // Bind before preparing the backend, so that a start that fails because of an address in use
    // creates no data directory.
    let (sockets, bound) = bind(&settings, &values, inherited, tls, &notifier)?;
    let mut backend = backend.prepare(&settings)?;
    let heartbeat = Heartbeat::new(Arc::clone(&notifier));
    let seed = random().map_err(random_failed)?;
    let mut clients = client_log::open(&settings, seed, &shared.dropped_client_records);
    let client_log_thread = clients.thread.take();
    let mut reactor = reactor(&settings, &backend, &bound, &shared, clients, heartbeat)?;
    let address_file = write_address_file(&settings, &backend, &bound)?;
    signals.set_resources(address_file.clone(), backend.lock.take());
    listen(&mut reactor, sockets, address_file)?;
    let text = banner::text(&settings, &backend, &bound, open_files);
    let threads = backend.start(&reactor.mailbox())?;
    let reloader = Reloader {
        sources,
        started: values.clone(),
        values,
        settings,
        certificate,
        open_files,
        mailbox: reactor.mailbox(),
        shared: Arc::clone(&shared),
        notifier: Arc::clone(&notifier),
    };
    let reload = reloader.start().map_err(thread_failed)?;
    signals.run(RunningServer {
        mailbox: reactor.mailbox(),
        shared,
        reload,
        notifier: Arc::clone(&notifier),
    });
    print_banner(&text);
    log::info!("started");
    notifier.ready();

    let result = reactor.run();
    drop(reactor);
    threads.finish();
    if let Some(thread) = client_log_thread {
        thread.finish();
    }
    result.map_err(|error| Exit::new(Exit::OS, format!("poll: {error}")))?;
    log::info!("stopped");
    Ok(())
}

/// Writes the file from which commands learn the admin address.
fn write_address_file(
    settings: &ServerSettings,
    backend: &PreparedBackend,
    bound: &Bound,
) -> Result<SharedAddressFile, Exit> {
    let data = backend.data.as_ref().or(backend.key_dir.as_ref());
    let file = data.map(|data| AddressFile::write(data, &bound.admin));
    let file = SharedAddressFile::new(file);
    if settings.reuse_port {
        file.spawn_rewriter().map_err(thread_failed)?;
    }
    Ok(file)
}

/// Adds the sockets to the reactor. The address file exists as long as the admin listener, which is
/// the first one: commands can find this server as long as it is reachable.
fn listen(
    reactor: &mut Reactor<App>,
    sockets: Vec<Listener>,
    address_file: SharedAddressFile,
) -> Result<(), Exit> {
    let mut address_file = Some(address_file);
    for mut socket in sockets {
        if let Some(file) = address_file.take() {
            socket = socket.before_close(move || file.remove());
        }
        let added = reactor.listen(socket);
        added.map_err(|error| Exit::new(Exit::OS, error))?;
    }
    Ok(())
}

/// Prints the banner. Errors are ignored: a closed standard output is no reason not to serve.
fn print_banner(banner: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(banner.as_bytes()).and_then(|()| out.flush());
}

/// Builds the reactor with the application, but without its sockets.
fn reactor(
    settings: &ServerSettings,
    backend: &PreparedBackend,
    bound: &Bound,
    shared: &Arc<SharedState>,
    clients: RestoredClients,
    heartbeat: Heartbeat,
) -> Result<Reactor<App>, Exit> {
    let AppSettings {
        realtime,
        insecure_settings,
    } = AppSettings::new(settings);
    let mut realtime = Realtime::new(Box::new(Rc::clone(&backend.handle)), realtime, clients.seed);
    realtime.restore_clients(clients.clients, clients.log);
    let keys = AdminKeys {
        publish: backend.publish_key.clone(),
        is_read_only: backend.data.is_none(),
        metrics: settings.metrics_key.clone().map(|key| Secret(key.0)),
    };
    if keys.metrics.is_some() && keys.metrics == keys.publish {
        log::warn!(
            "metrics_key equals the publish key: programs that read metrics with it can also \
             publish events; set metrics_key to a different value"
        );
    }
    let admin = Admin::new(
        HostCheck::new(tcp_address(&bound.admin), settings.admin_hosts.clone()),
        keys,
        &bound.page_url(),
        Box::new(Rc::clone(&backend.handle)),
    );
    let app = App {
        realtime,
        events: app::event_queue(),
        admin,
        admin_listener: ADMIN,
        ready: false,
        stats: Arc::clone(&backend.stats),
        insecure_settings,
        shared: Arc::clone(shared),
        heartbeat,
        process_stats: ProcessStats::start(),
        was_ready: None,
    };
    let [seed] = random().map_err(random_failed)?;
    let config = settings.engine.clone().reserved_listener(Some(ADMIN));
    Reactor::with_seed(config, app, seed).map_err(|error| Exit::new(Exit::OS, error))
}

fn random<const N: usize>() -> Result<[u64; N], getrandom::Error> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = getrandom::u64()?;
    }
    Ok(numbers)
}

fn random_failed(error: getrandom::Error) -> Exit {
    Exit::new(
        Exit::OS,
        format!("cannot get random numbers from the system: {error}"),
    )
}

/// The admin interface is the first listener.
const ADMIN: ListenerId = ListenerId(0);
