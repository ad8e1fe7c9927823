//! The metrics of the command, and the listener that serves them to Prometheus.
//!
//! Owns: the names, and a thread that answers one request after the other. Must not know how the
//! numbers come about.

use std::fmt::Write as _;
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::event::Action;
use super::post::FailureCause;
use crate::exit::{Exit, thread_failed};
use crate::model::{UnixMillis, unix_now};

/// The numbers, which the main thread updates.
#[derive(Default)]
pub(super) struct ForwardMetrics {
    events: [AtomicU64; Action::ALL.len()],
    delivered: AtomicU64,
    replaced: AtomicU64,
    requests: AtomicU64,
    failures: [AtomicU64; FailureCause::ALL.len()],
    lost: AtomicU64,
    gaps: AtomicU64,
    reconnects: AtomicU64,
    pending: AtomicU64,
    failing: AtomicU64,
    /// When the oldest pending event was received; 0 if there is none.
    oldest: AtomicU64,
    /// When the position was last known to be that of the stream, or has moved.
    position_moved: AtomicU64,
    connected: AtomicU64,
    circuit_open: AtomicU64,
}

impl ForwardMetrics {
    pub(super) fn received(&self, action: Action) {
        let at = Action::ALL.iter().position(|&found| found == action);
        add(at.and_then(|at| self.events.get(at)), 1);
    }

    pub(super) fn delivered(&self, events: usize) {
        add(Some(&self.requests), 1);
        add(Some(&self.delivered), events as u64);
    }

    pub(super) fn failed(&self, cause: FailureCause) {
        add(Some(&self.requests), 1);
        let at = FailureCause::ALL.iter().position(|&found| found == cause);
        add(at.and_then(|at| self.failures.get(at)), 1);
    }

    pub(super) fn replaced(&self) {
        add(Some(&self.replaced), 1);
    }

    pub(super) fn lost(&self, events: u64) {
        add(Some(&self.lost), events);
    }

    pub(super) fn gap(&self) {
        add(Some(&self.gaps), 1);
    }

    pub(super) fn connected(&self, is_connected: bool) {
        let was_connected = self.connected.swap(is_connected.into(), Ordering::Relaxed);
        if is_connected && was_connected == 0 {
            add(Some(&self.reconnects), 1);
        }
    }

    pub(super) fn position_moved(&self) {
        self.position_moved.store(unix_now(), Ordering::Relaxed);
    }

    pub(super) fn queue(
        &self,
        (pending, oldest): (usize, Option<UnixMillis>),
        failing: usize,
        is_circuit_open: bool,
    ) {
        self.pending.store(pending as u64, Ordering::Relaxed);
        self.failing.store(failing as u64, Ordering::Relaxed);
        self.oldest
            .store(oldest.unwrap_or_default(), Ordering::Relaxed);
        self.circuit_open
            .store(is_circuit_open.into(), Ordering::Relaxed);
    }

    /// Returns the metrics in the text format of Prometheus.
    pub(super) fn render(&self, now: UnixMillis) -> String {
        let mut text = String::new();
        let events = self.events.iter().zip(Action::ALL);
        let events: Vec<_> = events
            .map(|(count, action)| (format!("{{action=\"{}\"}}", action.name()), get(count)))
            .collect();
        let failures = self.failures.iter().zip(FailureCause::ALL);
        let failures: Vec<_> = failures
            .map(|(count, cause)| (format!("{{cause=\"{}\"}}", cause.name()), get(count)))
            .collect();
        let one = |count: &AtomicU64| vec![(String::new(), get(count))];
        for (name, kind, help, values) in [
            (
                "events_total",
                "counter",
                "Events received, by action",
                events,
            ),
            (
                "delivered_total",
                "counter",
                "Events that the receiver has acknowledged",
                one(&self.delivered),
            ),
            (
                "replaced_total",
                "counter",
                "Pending events that a newer event of the annotation has replaced",
                one(&self.replaced),
            ),
            (
                "requests_total",
                "counter",
                "Requests to the receiver that have ended",
                one(&self.requests),
            ),
            (
                "failures_total",
                "counter",
                "Failed requests, by cause",
                failures,
            ),
            (
                "lost_total",
                "counter",
                "Events that were given up",
                one(&self.lost),
            ),
            (
                "gaps_total",
                "counter",
                "Gaps in the server's history",
                one(&self.gaps),
            ),
            (
                "connections_total",
                "counter",
                "Connections to the server",
                one(&self.reconnects),
            ),
            (
                "connected",
                "gauge",
                "1 if the connection to the server is open",
                one(&self.connected),
            ),
            (
                "receiver_down",
                "gauge",
                "1 if the receiver does not work",
                one(&self.circuit_open),
            ),
            (
                "pending",
                "gauge",
                "Events that are not acknowledged",
                one(&self.pending),
            ),
            (
                "failing",
                "gauge",
                "Events that have failed and are not acknowledged",
                one(&self.failing),
            ),
        ] {
            family(&mut text, name, kind, help);
            for (labels, value) in values {
                let _ = writeln!(text, "{PREFIX}{name}{labels} {value}");
            }
        }
        for (name, help, since) in [
            (
                "oldest_pending_seconds",
                "Age of the oldest pending event",
                &self.oldest,
            ),
            (
                "position_age_seconds",
                "Time since the stored position has moved",
                &self.position_moved,
            ),
        ] {
            family(&mut text, name, "gauge", help);
            let age = match get(since) {
                0 => 0,
                since => now.saturating_sub(since),
            };
            let _ = writeln!(text, "{PREFIX}{name} {}.{:03}", age / 1000, age % 1000);
        }
        text
    }
}

fn family(text: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(
        text,
        "# HELP {PREFIX}{name} {help}.\n# TYPE {PREFIX}{name} {kind}"
    );
}

fn add(count: Option<&AtomicU64>, value: u64) {
    if let Some(count) = count {
        count.fetch_add(value, Ordering::Relaxed);
    }
}

fn get(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// Serves the metrics on `address`. Returns the address with its port.
pub(super) fn serve(address: SocketAddr, metrics: Arc<ForwardMetrics>) -> Result<SocketAddr, Exit> {
    let failed = |error: io::Error| {
        let message = format!("--metrics: cannot listen on {address}: {error}");
        Exit::new(Exit::UNAVAILABLE, message)
    };
    let listener = TcpListener::bind(address).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let thread = thread::Builder::new().name("metrics".to_owned());
    let spawned = thread.spawn(move || {
        for stream in listener.incoming() {
            match stream {
                // A failed scrape is repeated by the client.
                Ok(stream) => drop(answer(&stream, &metrics)),
                // Such as too many open files: other connections may end.
                Err(_) => thread::sleep(ACCEPT_PAUSE),
            }
        }
    });
    spawned.map_err(thread_failed)?;
    Ok(bound)
}

fn answer(mut stream: &TcpStream, metrics: &ForwardMetrics) -> io::Result<()> {
    let deadline = Instant::now() + SCRAPE_TIMEOUT;
    stream.set_write_timeout(Some(SCRAPE_TIMEOUT))?;
    let (mut head, mut chunk) = (Vec::new(), [0; 1024]);
    while !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let left = deadline.saturating_duration_since(Instant::now());
        if head.len() > MAX_HEAD || left.is_zero() {
            return Ok(());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk)? {
            0 => return Ok(()),
            count => head.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
    }
    let (status, body) = match head.split(|&byte| byte == b' ').take(2).collect::<Vec<_>>()[..] {
        [b"GET", b"/metrics"] => ("200 OK", metrics.render(unix_now())),
        [b"GET", _] => ("404 Not Found", "see /metrics\n".to_owned()),
        _ => ("405 Method Not Allowed", "GET only\n".to_owned()),
    };
    let length = body.len();
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(response.as_bytes())
}

const PREFIX: &str = "h_realtime_forward_";
/// The time that one scrape may take; others wait meanwhile.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// The maximum size of the head of a request, in bytes.
const MAX_HEAD: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_series_exist_from_the_start() {
        let text = ForwardMetrics::default().render(5000);
        for series in [
            "events_total{action=\"create\"} 0",
            "events_total{action=\"delete\"} 0",
            "failures_total{cause=\"timeout\"} 0",
            "failures_total{cause=\"server_error\"} 0",
            "connected 0",
            "oldest_pending_seconds 0.000",
            "position_age_seconds 0.000",
        ] {
            let line = format!("\nh_realtime_forward_{series}\n");
            assert!(text.contains(&line), "{series}: {text}");
        }
    }

    #[test]
    fn counts_and_ages_are_rendered() {
        let metrics = ForwardMetrics::default();
        metrics.received(Action::Update);
        metrics.failed(FailureCause::Reset);
        metrics.delivered(3);
        metrics.queue((2, Some(1500)), 1, true);
        let text = metrics.render(5000);
        for series in [
            "events_total{action=\"update\"} 1",
            "failures_total{cause=\"reset\"} 1",
            "delivered_total 3",
            "requests_total 2",
            "pending 2",
            "failing 1",
            "receiver_down 1",
            "oldest_pending_seconds 3.500",
        ] {
            let line = format!("\nh_realtime_forward_{series}\n");
            assert!(text.contains(&line), "{series}: {text}");
        }
    }

    #[test]
    fn only_get_of_the_metrics_is_answered_with_them() {
        let address = "127.0.0.1:0".parse().expect("an address");
        let bound = serve(address, Arc::default()).unwrap_or_else(|_| panic!("a listener"));
        for (request, status) in [
            ("GET /metrics", "200"),
            ("GET /", "404"),
            ("POST /metrics", "405"),
            ("x", "405"),
        ] {
            let mut stream = TcpStream::connect(bound).expect("a connection");
            let request = format!("{request} HTTP/1.1\r\n\r\n");
            stream.write_all(request.as_bytes()).expect("sent");
            let mut response = String::new();
            stream.read_to_string(&mut response).expect("a response");
            let expected = format!("HTTP/1.1 {status} ");
            assert!(response.starts_with(&expected), "{request}: {response}");
        }
    }
}
