//! A RabbitMQ broker for tests, from Debian's packages: in a temporary folder, on free ports, on
//! loopback only. And a publisher that publishes as h's web application does.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::FieldTable;
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, ExchangeKind,
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::eventually;
use super::process::{ManagedProcess, command_as, free_port, give_to};

/// A message broker. It ends when this is dropped, and with the test's process.
pub struct RabbitMq {
    ports: Ports,
    running: Mutex<Option<ManagedProcess>>,
    vhosts: AtomicUsize,
    /// Erlang's port mapper, for this broker alone.
    _epmd: ManagedProcess,
    folder: TempDir,
}

struct Ports {
    amqp: u16,
    amqps: u16,
    node: u16,
    epmd: u16,
}

impl RabbitMq {
    /// Returns the broker shared by all tests of this process; it must not be stopped.
    pub fn shared() -> &'static RabbitMq {
        static SHARED: OnceLock<RabbitMq> = OnceLock::new();
        SHARED.get_or_init(RabbitMq::start)
    }

    /// Starts a broker for one test.
    pub fn start() -> RabbitMq {
        let folder = TempDir::new().unwrap();
        let ports = Ports {
            amqp: free_port(),
            amqps: free_port(),
            node: free_port(),
            epmd: free_port(),
        };
        configure(folder.path(), &ports);
        give_to(USER, folder.path());
        let port = ports.epmd.to_string();
        let mut epmd = command_as(USER, "epmd");
        epmd.args(["-address", "127.0.0.1", "-port", &port]);
        let broker = RabbitMq {
            _epmd: ManagedProcess::start(&mut epmd, folder.path()),
            ports,
            running: Mutex::new(None),
            vhosts: AtomicUsize::new(0),
            folder,
        };
        broker.start_again();
        broker
    }

    /// Returns the URL of a virtual host of its own.
    pub fn vhost(&self) -> String {
        let number = self.vhosts.fetch_add(1, Ordering::Relaxed);
        assert!(number < VHOSTS, "there are only {VHOSTS} virtual hosts");
        format!("amqp://guest:guest@127.0.0.1:{}/v{number}", self.ports.amqp)
    }

    /// Returns the URL of another virtual host over TLS, which requires a client certificate.
    pub fn secure_vhost(&self) -> String {
        let url = self.vhost();
        let ports = (self.ports.amqp, self.ports.amqps);
        url.replacen("amqp://", "amqps://", 1).replacen(
            &format!("@127.0.0.1:{}", ports.0),
            &format!("@localhost:{}", ports.1),
            1,
        )
    }

    /// Returns the path of a file for [`RabbitMq::secure_vhost`]: `ca.pem`, `client.pem`, or
    /// `client.key`.
    pub fn file(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    /// Stops it immediately: connections are cut, and transient messages are lost.
    pub fn stop(&self) {
        let running = self.running.lock().unwrap().take();
        running.expect("not running").end(Signal::KILL);
    }

    /// Starts it again, on the same ports.
    pub fn start_again(&self) {
        let mut running = self.running.lock().unwrap();
        assert!(running.is_none(), "already running");
        let path = self.folder.path().join("out");
        let out = File::create(&path).unwrap();
        let mut command = command_as(USER, SCRIPT);
        command
            .current_dir(self.folder.path())
            .envs(environment(self.folder.path(), &self.ports))
            .stdout(out.try_clone().unwrap())
            .stderr(out);
        let mut kept = ManagedProcess::start(&mut command, self.folder.path());
        eventually(BOOT, || {
            let output = fs::read_to_string(&path).unwrap();
            assert!(kept.is_running(), "{output}");
            output.contains("completed with").then_some(())
        });
        *running = Some(kept);
    }
}

/// Writes the configuration, which stays the same across restarts.
fn configure(folder: &Path, ports: &Ports) {
    certify(folder);
    let definitions = folder.join("definitions.json");
    let config = format!(
        "listeners.tcp.1 = 127.0.0.1:{}\nload_definitions = {}\nlog.file.level = warning\n\
         listeners.ssl.1 = 127.0.0.1:{}\nssl_options.verify = verify_peer\n\
         ssl_options.fail_if_no_peer_cert = true\nssl_options.cacertfile = {folder}/ca.pem\n\
         ssl_options.certfile = {folder}/server.pem\nssl_options.keyfile = {folder}/server.key\n",
        ports.amqp,
        definitions.display(),
        ports.amqps,
        folder = folder.display(),
    );
    fs::write(folder.join("rabbitmq.conf"), config).unwrap();
    fs::write(folder.join("enabled_plugins"), "[].").unwrap();
    let vhosts: Vec<Value> = (0..VHOSTS)
        .map(|n| json!({"name": format!("v{n}")}))
        .collect();
    let all = |vhost: &Value| json!({"user": "guest", "vhost": vhost["name"], "configure": ".*", "write": ".*", "read": ".*"});
    let made = json!({
        "users": [{"name": "guest", "password": "guest", "tags": ""}],
        "permissions": vhosts.iter().map(all).collect::<Vec<_>>(),
        "vhosts": vhosts,
    });
    fs::write(definitions, made.to_string()).unwrap();
}

/// Creates a certificate authority, and certificates for the server and a client.
fn certify(folder: &Path) {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(folder.join("ca.pem"), authority.pem()).unwrap();
    for (name, host) in [("server", "localhost"), ("client", "client.example")] {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([host.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// The environment that keeps RabbitMQ's and Erlang's files out of system-wide locations.
fn environment(folder: &Path, ports: &Ports) -> Vec<(&'static str, String)> {
    let place = |name: &str| folder.join(name).display().to_string();
    vec![
        ("HOME", place("")),
        ("ERL_EPMD_PORT", ports.epmd.to_string()),
        ("ERL_EPMD_ADDRESS", "127.0.0.1".into()),
        ("RABBITMQ_CONF_ENV_FILE", "/dev/null".into()),
        ("RABBITMQ_NODENAME", "test@localhost".into()),
        ("RABBITMQ_DIST_PORT", ports.node.to_string()),
        ("RABBITMQ_CONFIG_FILE", place("rabbitmq.conf")),
        ("RABBITMQ_ENABLED_PLUGINS_FILE", place("enabled_plugins")),
        ("RABBITMQ_MNESIA_BASE", place("mnesia")),
        ("RABBITMQ_LOG_BASE", place("log")),
        ("RABBITMQ_PID_FILE", place("pid")),
        // Makes the script exec the server instead of waiting for it.
        ("RABBITMQ_ALLOW_INPUT", "1".into()),
        (
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
            "-noinput -kernel inet_dist_use_interface {127,0,0,1}".into(),
        ),
    ]
}

/// A connection that publishes events to the broker at a URL.
pub struct Publisher {
    runtime: Runtime,
    channel: Channel,
    _connection: Connection,
}

impl Publisher {
    pub fn new(url: &str) -> Publisher {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let opened = runtime.block_on(async {
            // No heartbeat is processed between two events.
            let url = format!("{url}?heartbeat=0");
            let connection = Connection::connect(&url, ConnectionProperties::default()).await?;
            let channel = connection.create_channel().await?;
            // The same declaration as h's: the first client creates the exchange.
            let options = ExchangeDeclareOptions::default();
            let (kind, table) = (ExchangeKind::Direct, FieldTable::default());
            channel
                .exchange_declare("realtime".into(), kind, options, table)
                .await?;
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            Ok::<_, lapin::Error>((connection, channel))
        });
        let (connection, channel) = opened.unwrap_or_else(|error| panic!("{url}: {error}"));
        Publisher {
            runtime,
            channel,
            _connection: connection,
        }
    }

    /// Publishes an event as h does, and waits until the broker has enqueued it.
    pub fn publish(&self, key: &str, event: &Value) {
        let body = event.to_string();
        let routed = self.publish_raw(key, body.as_bytes(), "application/json", "utf-8");
        assert!(routed, "no queue is bound to {key}");
    }

    /// Publishes a sequence of events as fast as the broker accepts them.
    pub fn publish_all(&self, key: &str, events: impl IntoIterator<Item = Value>) {
        let options = BasicPublishOptions::default();
        let kind = "application/json";
        let properties = BasicProperties::default().with_content_type(kind.into());
        let published = self.runtime.block_on(async {
            let mut confirms = Vec::new();
            for event in events {
                let body = event.to_string();
                let publish = self.channel.basic_publish(
                    "realtime".into(),
                    key.into(),
                    options,
                    body.as_bytes(),
                    properties.clone(),
                );
                confirms.push(publish.await?);
            }
            for confirm in confirms {
                confirm.await?;
            }
            Ok::<_, lapin::Error>(())
        });
        published.unwrap();
    }

    /// Publishes any message; an empty type or encoding is omitted. Returns whether it was routed
    /// to a queue.
    pub fn publish_raw(&self, key: &str, body: &[u8], kind: &str, encoding: &str) -> bool {
        let mut properties = BasicProperties::default()
            .with_delivery_mode(1)
            .with_priority(0);
        if !kind.is_empty() {
            properties = properties.with_content_type(kind.into());
        }
        if !encoding.is_empty() {
            properties = properties.with_content_encoding(encoding.into());
        }
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let confirmed = self.runtime.block_on(async {
            let publish = self.channel.basic_publish(
                "realtime".into(),
                key.into(),
                options,
                body,
                properties,
            );
            publish.await?.await
        });
        // Unroutable messages are returned and confirmed all the same.
        matches!(confirmed.unwrap(), Confirmation::Ack(None))
    }
}

/// The user that Debian creates for RabbitMQ.
const USER: &str = "rabbitmq";
/// The script in the `PATH` is for the system's own broker.
const SCRIPT: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";
/// The maximum number of tests with a virtual host.
const VHOSTS: usize = 48;
/// It takes five seconds of CPU time to start.
const BOOT: std::time::Duration = std::time::Duration::from_secs(300);
