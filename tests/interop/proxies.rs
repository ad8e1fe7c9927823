//! The configurations in `docs/proxies.md`, each with its proxy and a server behind it. Only ports,
//! paths, and the proxy's working files are replaced.
#![cfg(all(feature = "amqp", feature = "tls", feature = "sqlite"))]

mod event_stream;

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Client, PATIENCE, Program, Server, event, eventually, free_port};

type TlsClient = Client<StreamOwned<ClientConnection, TcpStream>>;

const NAME: &str = "realtime.example.org";
const PAGE: &str = "https://example.org/page";

/// A proxy with a certificate and a folder.
struct Front {
    folder: TempDir,
    port: u16,
    program: Option<Program>,
    trust: Arc<ClientConfig>,
}

/// Returns the configuration in a section of the document, by its language.
fn snippet(heading: &str, language: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/proxies.md");
    let text = fs::read_to_string(path).unwrap();
    let (_, section) = text.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let (_, block) = section.split_once(&format!("```{language}\n")).unwrap();
    block.split("```").next().unwrap().to_owned()
}

/// Replaces a text that must be present.
fn replace(text: &str, place: &str, with: &str) -> String {
    assert!(text.contains(place), "{place:?} is not in {text}");
    text.replace(place, with)
}

impl Front {
    fn new() -> Front {
        let folder = TempDir::new().unwrap();
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()]).unwrap();
        let (cert, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        fs::write(folder.path().join("cert.pem"), &cert).unwrap();
        fs::write(folder.path().join("key.pem"), &key).unwrap();
        fs::write(folder.path().join("both.pem"), format!("{cert}{key}")).unwrap();
        let mut roots = RootCertStore::empty();
        let path = folder.path().join("cert.pem");
        let cert = rustls::pki_types::CertificateDer::from_pem_file(path).unwrap();
        roots.add(cert).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        Front {
            folder,
            port: free_port(),
            program: None,
            trust: Arc::new(config.with_no_client_auth()),
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_str().unwrap().to_owned()
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// Starts it, and waits until it accepts connections.
    fn start(&mut self, command: &mut Command) {
        self.program = Some(Program::start(command));
        eventually(PATIENCE, || {
            let program = self.program.as_mut().unwrap();
            if let Some(status) = program.child.try_wait().unwrap() {
                let mut output = Vec::new();
                while let Some(line) = program.error_line() {
                    output.push(line);
                }
                panic!("{command:?}: {status}: {output:#?}");
            }
            self.shakes_hands().ok()
        });
    }

    /// Completes a TLS handshake, since an open port may not be served yet.
    fn shakes_hands(&self) -> io::Result<()> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let name = ServerName::try_from(NAME).unwrap();
        let mut session = ClientConnection::new(Arc::clone(&self.trust), name).unwrap();
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(())
    }

    /// Requests a WebSocket through it, from an address of this machine.
    fn try_open(&self, from: [u8; 4], fields: &str) -> TlsClient {
        let to: SocketAddr = ([127, 0, 0, 1], self.port).into();
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.unwrap();
        socket.bind(&SocketAddr::from((from, 0)).into()).unwrap();
        socket.connect(&to.into()).unwrap();
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from(NAME).unwrap();
        let session = ClientConnection::new(Arc::clone(&self.trust), name).unwrap();
        Client::over_as(StreamOwned::new(session, stream), NAME, "/ws", fields)
    }

    fn open(&self, fields: &str) -> TlsClient {
        // A proxy may first have to find the server healthy.
        let client = eventually(PATIENCE, || {
            let client = self.try_open([127, 0, 0, 1], fields);
            (!client.head.contains(" 503 ")).then_some(client)
        });
        assert!(client.head.starts_with("HTTP/1.1 101 "), "{}", client.head);
        client
    }
}

/// Starts a server with one slot for each client.
fn server() -> Server {
    Server::verbose("[limits]\nconnections_per_ip = 1\ntrusted_proxies = [\"127.0.0.1\"]\n")
}

/// Checks that a client's requests are answered and that it receives events.
fn check_client(server: &Server, client: &mut TlsClient) {
    let answer = client.ask(r#"{"type": "whoami", "id": 1}"#);
    assert!(answer.contains("whoyouare"), "{answer}");
    client.subscribe("/uri", PAGE);
    assert_eq!(client.drain(), []);
    let (status, answer) = server.publish(&event("create", json!({})).to_string());
    assert_eq!(status, 202, "{answer}");
    let received: Value = client.json();
    assert_eq!(received["type"], "annotation-notification");
}

/// Checks a proxy that writes `X-Forwarded-For`, with this machine as a trusted proxy in front of
/// it.
fn check(server: &Server, front: &Front) {
    let of = |last: u8| format!("X-Forwarded-For: 203.0.113.{last}\r\n");
    let mut first = front.open(&of(1));
    check_client(server, &mut first);
    let again = front.try_open([127, 0, 0, 1], &of(1));
    assert!(again.head.starts_with("HTTP/1.1 429 "), "{}", again.head);
    let mut other = front.open(&of(2));
    check_client(server, &mut other);
    server.log_with("for 203.0.113.2, by its request");
    // A client that is not a trusted proxy cannot forge the field: the proxy adds the client's
    // address.
    let stranger = front.try_open([127, 0, 0, 2], &of(1));
    assert!(
        stranger.head.starts_with("HTTP/1.1 101 "),
        "{}",
        stranger.head
    );
    server.log_with("for 127.0.0.2, by its request");
}

#[test]
#[ignore = "needs nginx and curl"]
fn nginx() {
    let (server, mut front) = (server(), Front::new());
    let text = nginx_site(&front);
    let text = replace(&text, "127.0.0.1:5001", &server.address().to_string());
    start_nginx(&mut front, "master_process off;", &text);
    check(&server, &front);
    event_stream::check(&server, &front);
}

/// The workers run as a separate user, as in Debian's package.
#[test]
#[ignore = "needs nginx and curl"]
fn nginx_over_a_unix_socket() {
    if !crate::support::is_root() {
        return;
    }
    let mut front = Front::new();
    let section = "nginx, by a Unix socket";
    let folder = TempDir::new().unwrap();
    for path in [folder.path(), front.folder.path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let socket = folder.path().join("ws.sock").display().to_string();
    let place = "/run/h-realtime/ws.sock";
    let config = replace(&snippet(section, "toml"), place, &socket);
    // The clients are on this machine.
    let trusted = "[\"unix\", \"127.0.0.1\"]\nconnections_per_ip = 1";
    let config = replace(&config, "[\"unix\"]", trusted);
    fs::write(folder.path().join("config.toml"), config).unwrap();
    let mut command = Command::new(crate::support::PROGRAM);
    command.env("RUST_LOG", "debug");
    let server = Server::launch(command, folder, &[]);

    let pass = replace(&snippet(section, "nginx"), place, &socket);
    let text = nginx_site(&front);
    let text = replace(&text, "proxy_pass http://127.0.0.1:5001;", pass.trim());
    start_nginx(&mut front, "user www-data;", &text);
    check(&server, &front);
    event_stream::check(&server, &front);
}

/// Returns the configuration of the document's section about nginx, for this certificate and port.
fn nginx_site(front: &Front) -> String {
    let text = snippet("nginx", "nginx");
    let text = replace(&text, "    listen [::]:443 ssl;\n", "");
    let text = replace(
        &text,
        "listen 443 ssl",
        &format!("listen 127.0.0.1:{} ssl", front.port),
    );
    let live = format!("/etc/letsencrypt/live/{NAME}");
    let text = replace(
        &text,
        &format!("{live}/fullchain.pem"),
        &front.path("cert.pem"),
    );
    replace(
        &text,
        &format!("{live}/privkey.pem"),
        &front.path("key.pem"),
    )
}

/// Starts nginx with this text in the `http` block.
fn start_nginx(front: &mut Front, process: &str, text: &str) {
    let folder = front.path("");
    let whole = nginx_config(&folder, process, text);
    let config = front.write("nginx.conf", &whole);
    let mut command = Command::new("/usr/sbin/nginx");
    front.start(
        command
            .args(["-e", "stderr", "-p", &folder, "-c"])
            .arg(config),
    );
}

/// Returns a configuration with nginx's own files in a folder, and this text in its `http` block.
fn nginx_config(folder: &str, process: &str, text: &str) -> String {
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {folder}{kind};\n"))
        .concat();
    format!(
        "daemon off; {process} pid {folder}pid; error_log stderr;\n\
         events {{}}\nhttp {{\naccess_log off;\n{temporary}{text}}}\n"
    )
}

fn nginx_alone(front: &Front, text: &str) -> Program {
    let folder = front.path("");
    let whole = nginx_config(&folder, "master_process off;", text);
    let config = front.write("nginx.conf", &whole);
    let mut command = Command::new("/usr/sbin/nginx");
    command.args(["-e", "stderr", "-p", &folder, "-c"]);
    Program::start(command.arg(config))
}

// CVE-2026-22689, CVE-2026-44514, CVE-2026-34403, CVE-2026-55883
#[test]
#[ignore = "needs nginx"]
fn nginx_in_front_of_the_admin_interface_refuses_other_origins() {
    let front = Front::new();
    let socket = front.path("admin.sock");
    let name = format!("admin.example.org:{}", front.port);
    let settings = snippet("The admin interface", "toml");
    let settings = replace(&settings, "/run/h-realtime/admin.sock", &socket);
    let settings = replace(&settings, "admin.example.org:8080", &name);
    let file = front.write("config.toml", &settings);
    let mut command = Command::new(crate::support::PROGRAM);
    command.args(["serve", "--listen", "ws://127.0.0.1:0", "--config"]);
    command.arg(file).arg("--data").arg(front.path("data"));
    let server = Program::start(&mut command);
    server.wait_for_error_line("started");
    let text = snippet("The admin interface", "nginx");
    let text = replace(&text, "/run/h-realtime/admin.sock", &socket);
    let text = replace(
        &text,
        "127.0.0.1:8080",
        &format!("127.0.0.1:{}", front.port),
    );
    let address: SocketAddr = ([127, 0, 0, 1], front.port).into();
    let ask = |line: &str, host: &str, fields: &str, body: &str| {
        let head = format!("{line} HTTP/1.1\r\nHost: {host}\r\n{fields}");
        let request = format!("{head}Connection: close\r\n\r\n{body}");
        crate::support::http(address, request.as_bytes()).0
    };
    let rebound = format!("rebound.example.org:{}", front.port);
    {
        let _nginx = nginx_alone(&front, &text);
        eventually(PATIENCE, || TcpStream::connect(address).ok());
        assert_eq!(ask("GET /livez", &name, "", ""), 200);
        assert_eq!(ask("GET /livez", &rebound, "", ""), 403);
        let from = |host: &str| format!("Origin: http://{host}\r\n");
        assert_eq!(ask("GET /tail", &name, &from(&name), ""), 401);
        assert_eq!(ask("GET /tail", &name, &from(&rebound), ""), 403);
        assert_eq!(ask("GET /tail", &rebound, &from(&rebound), ""), 403);
        // A body of unknown length is passed on.
        let key = fs::read_to_string(front.path("data/publish.key")).unwrap();
        let key = key.trim();
        let fields = format!("Authorization: Bearer {key}\r\nTransfer-Encoding: chunked\r\n");
        let event = event("create", json!({})).to_string();
        let body = format!("{:x}\r\n{event}\r\n0\r\n\r\n", event.len());
        assert_eq!(ask("POST /events", &name, &fields, &body), 202);
    }
    // Without that line any page would be accepted.
    let line = "        proxy_set_header Host $http_host;\n";
    let _nginx = nginx_alone(&front, &replace(&text, line, ""));
    eventually(PATIENCE, || TcpStream::connect(address).ok());
    assert_eq!(ask("GET /livez", &rebound, "", ""), 200);
}

#[test]
#[ignore = "needs HAProxy and curl"]
fn haproxy() {
    let (server, mut front) = (server(), Front::new());
    let text = snippet("HAProxy", "haproxy");
    let text = replace(&text, "127.0.0.1:5001", &server.address().to_string());
    let text = replace(&text, ":443 ssl", &format!("127.0.0.1:{} ssl", front.port));
    let text = replace(
        &text,
        "/etc/haproxy/realtime.example.org.pem",
        &front.path("both.pem"),
    );
    let config = front.write("haproxy.cfg", &text);
    let mut command = Command::new("/usr/sbin/haproxy");
    front.start(command.args(["-db", "-f"]).arg(config));
    check(&server, &front);
    event_stream::check(&server, &front);
}

#[test]
#[ignore = "needs HAProxy"]
fn haproxy_with_tls_in_the_server() {
    let mut front = Front::new();
    let port = free_port();
    let whole = snippet("HAProxy, with TLS in the server", "toml");
    let whole = replace(&whole, "127.0.0.1:5443", &format!("127.0.0.1:{port}"));
    let live = format!("/etc/letsencrypt/live/{NAME}");
    let whole = replace(
        &whole,
        &format!("{live}/fullchain.pem"),
        &front.path("cert.pem"),
    );
    let whole = replace(
        &whole,
        &format!("{live}/privkey.pem"),
        &front.path("key.pem"),
    );
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("config.toml"), whole).unwrap();
    let mut command = Command::new(crate::support::PROGRAM);
    command.env("RUST_LOG", "debug");
    let server = Server::launch(command, folder, &[]);

    let text = snippet("HAProxy, with TLS in the server", "haproxy");
    let text = replace(&text, "127.0.0.1:5443", &format!("127.0.0.1:{port}"));
    let text = replace(
        &text,
        "bind :443",
        &format!("bind 127.0.0.1:{}", front.port),
    );
    let config = front.write("haproxy.cfg", &text);
    let mut command = Command::new("/usr/sbin/haproxy");
    front.start(command.args(["-db", "-f"]).arg(config));

    let mut client = front.try_open([127, 0, 0, 3], "");
    assert!(client.head.starts_with("HTTP/1.1 101 "), "{}", client.head);
    check_client(&server, &mut client);
    server.log_with("for 127.0.0.3, by the PROXY protocol");
}

#[test]
#[ignore = "needs Caddy and curl"]
fn caddy() {
    if !Path::new("/usr/bin/caddy").exists() {
        eprintln!("Caddy is not installed: skipped");
        return;
    }
    let (server, mut front) = (server(), Front::new());
    let text = snippet("Caddy", "caddyfile");
    let address = server.address().to_string();
    let text = replace(&text, "127.0.0.1:5001", &address);
    let certificate = format!("tls {} {}", front.path("cert.pem"), front.path("key.pem"));
    let site = format!("{NAME}:{} {{\nbind 127.0.0.1\n{certificate}\n", front.port);
    let text = replace(&text, &format!("{NAME} {{\n"), &site);
    // As behind another proxy on this machine, which the test's clients are.
    let block = format!("reverse_proxy {address} {{\n");
    let text = replace(
        &text,
        &block,
        &format!("{block}trusted_proxies 127.0.0.1/32\n"),
    );
    let whole = format!("{{\nadmin off\nauto_https disable_redirects\n}}\n{text}");
    let config = front.write("Caddyfile", &whole);
    let home = front.path("");
    let mut command = Command::new("/usr/bin/caddy");
    command.envs(["HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"].map(|name| (name, &home)));
    front.start(
        command
            .args(["run", "--adapter", "caddyfile", "--config"])
            .arg(config),
    );
    check(&server, &front);
    event_stream::check(&server, &front);
}
