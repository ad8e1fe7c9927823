//! The server: builds the back end, the application, and the reactor, and runs them until shutdown.

mod activation;
mod address_file;
mod allocator;
mod app;
mod backend;
mod banner;
mod bind;
mod certificate;
mod figures;
mod handover;
mod metrics;
#[cfg(not(feature = "amqp"))]
mod no_amqp;
mod notify;
mod places;
pub(crate) mod preflight;
mod reload;
mod signals;

use std::io::{self, Write};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::admin::{Admin, AdminKeys, HostCheck};
use crate::cli::exit::Exit;
use crate::config::{Settings, Sources};
use crate::logging;
use crate::model::Secret;
use crate::model::unix_now;
use crate::net::{Address, Config, ListenerId, Reactor, raise_open_files};
use crate::realtime::{self, Realtime};

use activation::Sockets;
use address_file::{AddressFile, SharedFile};
use app::App;
use backend::Backend;
use bind::{Bound, bind};
use figures::Figures;
use notify::{Notifier, Pulse};
use preflight::{Facts, Preflight};
use reload::{Application, Reloader, Shared};
use signals::{Running, SignalThread};

pub use signals::catch as catch_signals;

/// Reads the configuration, and runs the server until SIGTERM or SIGINT.
///
/// # Errors
/// [`Exit`], with the code for the cause that prevents the server from starting or continuing.
pub fn run(mut sources: Sources) -> Result<(), Exit> {
    let signals = SignalThread::start()?;
    let inherited = Sockets::take()?;
    sources.inherit(inherited.places());
    let notifier = Arc::new(Notifier::of_process());
    let open_files = raise_open_files();
    let Preflight {
        values,
        settings,
        certificate,
        backend,
        warnings,
    } = preflight::read(&sources, facts(open_files))?;
    sources.hold_on_to(&values);
    logging::set(settings.log_level, settings.log_format);
    for warning in warnings {
        log::warn!("{warning}");
    }
    let (certificate, tls) = certificate.unzip();
    let shared = Arc::new(Shared::new(&settings));
    shared.has_certificate(tls.as_ref());
    // Bind before preparing the back end, so that a start that fails because of an address in use
    // creates no data directory.
    let (mut sockets, bound) = bind(&settings, &values, inherited, tls, &notifier)?;
    let mut backend = backend.prepare(&settings)?;
    let pulse = Pulse::new(Arc::clone(&notifier));
    let mut reactor = reactor(&settings, &backend, &bound, &shared, pulse)?;
    let data = backend.data.as_ref();
    let address_file = data.map(|data| AddressFile::write(data, &bound.admin));
    let address_file = SharedFile::new(address_file);
    if settings.reuse_port {
        address_file.keep().map_err(no_thread)?;
    }
    signals.own(address_file.clone(), backend.lock.take());
    // Commands can find this server as long as it is reachable.
    let admin = sockets
        .remove(0)
        .before_close(move || address_file.remove());
    sockets.insert(0, admin);
    for socket in sockets {
        let added = reactor.listen(socket);
        added.map_err(|error| Exit::new(Exit::OS, error))?;
    }
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
    let reload = reloader.start().map_err(no_thread)?;
    signals.run(Running {
        mailbox: reactor.mailbox(),
        shared,
        reload,
        notifier: Arc::clone(&notifier),
    });
    say(&text);
    log::info!("started");
    notifier.ready();

    let result = reactor.run();
    drop(reactor);
    threads.finish();
    result.map_err(|error| Exit::new(Exit::OS, format!("the poller: {error}")))?;
    log::info!("ended");
    Ok(())
}

/// Prints the banner. Errors are ignored: a closed standard output is no reason not to serve.
fn say(banner: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(banner.as_bytes()).and_then(|()| out.flush());
}

/// Builds the reactor with the application, but without its sockets.
fn reactor(
    settings: &Settings,
    backend: &Backend,
    bound: &Bound,
    shared: &Arc<Shared>,
    pulse: Pulse,
) -> Result<Reactor<App>, Exit> {
    let Application { realtime, dangers } = Application::new(settings);
    let realtime = Realtime::new(
        Box::new(Rc::clone(&backend.asker)),
        realtime,
        random().map_err(random_failed)?,
    );
    let keys = AdminKeys {
        publish: backend.publish_key.clone(),
        metrics: settings.metrics_key.clone().map(|key| Secret(key.0)),
    };
    if keys.metrics.is_some() && keys.metrics == keys.publish {
        log::warn!(
            "metrics_key is the publish key: a program that reads metrics with it can publish \
             events too; set metrics_key to another value"
        );
    }
    let admin = Admin::new(
        HostCheck::new(tcp_address(&bound.admin), settings.admin_hosts.clone()),
        keys,
        &bound.page_url(),
        Box::new(Rc::clone(&backend.asker)),
    );
    let app = App {
        realtime,
        events: app::event_queue(),
        admin,
        admin_listener: ADMIN,
        ready: false,
        stats: Arc::clone(&backend.stats),
        dangers,
        shared: Arc::clone(shared),
        pulse,
        figures: Figures::start(),
        was_ready: None,
    };
    let [seed] = random().map_err(random_failed)?;
    let config = Config {
        reserved_listener: Some(ADMIN),
        ..settings.engine.clone()
    };
    Reactor::new(config, app, seed).map_err(|error| Exit::new(Exit::OS, error))
}

/// Returns facts about this process at this time.
pub(crate) fn facts(open_files: u64) -> Facts {
    Facts {
        open_files,
        now: unix_now() / 1000,
    }
}

fn realtime_settings(settings: &Settings) -> realtime::ApiSettings {
    realtime::ApiSettings {
        origins: settings.origins.clone(),
        invalid_token: settings.invalid_token,
        max_terms: settings.filter_terms,
        filters_total: settings.filters_total,
        on_expiry: settings.on_expiry,
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

fn no_thread(error: io::Error) -> Exit {
    Exit::new(Exit::OS, format!("a thread: {error}"))
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

/// The admin interface is the first listener.
const ADMIN: ListenerId = ListenerId(0);
