//! Consumes events from RabbitMQ until the receiver is dropped.
//!
//! Owns: connecting and reconnecting, the decoding of messages, and acknowledgments: RabbitMQ
//! discards an event only after it has been handled. Must not know: the meaning of an event.

use std::sync::Arc;
use std::time::Duration;

use log::{debug, info, warn};
use serde_json::{Map, Value};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, interval, sleep};

use super::connection::{BrokerConnection, BrokerError, IncomingMessage};
use super::decode::decode;
use super::url::Broker;
use crate::backend::{DropReason, Stats, Topic};
use crate::backoff::Backoff;
use crate::log_throttle::LogThrottle;
use crate::model::{AckGuard, MonoMillis};

/// The configuration of an event source.
#[derive(Debug)]
pub struct Source {
    /// Tried in turn.
    pub brokers: Vec<Broker>,
    /// The prefetch count per topic: events delivered by RabbitMQ that have not been handled.
    pub prefetch: u16,
    /// The maximum size of an event, in bytes.
    pub max_event: usize,
    /// Counters of the source.
    pub stats: Arc<Stats>,
    /// Provides the arrival time of events.
    pub clock: fn() -> MonoMillis,
}

/// A received event.
#[derive(Debug)]
pub struct Delivery {
    /// The topic of the event.
    pub topic: Topic,
    /// The event.
    pub event: Map<String, Value>,
    /// The size of the message, in bytes.
    pub size: usize,
    /// When it arrived.
    pub received: MonoMillis,
    /// Must be dropped when the event has been handled.
    pub ack: AckGuard,
}

impl Source {
    /// Sends events to `out` in order of arrival. Closes the connection to the broker and returns
    /// once the receiver of `out` has been dropped. While `out` is full, or receipts are held,
    /// events stay with RabbitMQ; heartbeats continue.
    pub async fn consume(self, out: Sender<Delivery>, mut random: impl FnMut() -> u64) {
        let mut state = SourceState::new(self);
        let mut backoff = Backoff::new(SHORTEST_DELAY, LONGEST_DELAY);
        while !out.is_closed() {
            let opened = tokio::select! {
                opened = state.open(&mut random) => opened,
                () = out.closed() => return,
            };
            let lasted = match opened {
                Some(mut connection) => {
                    let since = Instant::now();
                    let cause = tokio::select! {
                        cause = state.forward(&mut connection, &out) => Some(cause),
                        () = out.closed() => None,
                    };
                    connection.close().await;
                    match cause {
                        Some(cause) => state.lost(&cause),
                        None => return,
                    }
                    since.elapsed()
                }
                None => Duration::ZERO,
            };
            tokio::select! {
                () = sleep(backoff.next(lasted, random())) => {}
                () = out.closed() => return,
            }
        }
    }
}

/// State that outlives a connection.
struct SourceState {
    source: Source,
    /// The broker to try first: the last one that accepted a connection.
    first: usize,
    outage: Option<Outage>,
    started: Instant,
    undecodable: LogThrottle,
    too_large: LogThrottle,
}

/// No connection is open.
struct Outage {
    since: Instant,
    /// A connection had been open before.
    was_up: bool,
    /// The reason has been logged.
    is_logged: bool,
}

impl SourceState {
    fn new(source: Source) -> SourceState {
        let now = Instant::now();
        SourceState {
            source,
            first: 0,
            outage: Some(Outage {
                since: now,
                was_up: false,
                is_logged: false,
            }),
            started: now,
            undecodable: LogThrottle::default(),
            too_large: LogThrottle::default(),
        }
    }

    /// Tries each broker once.
    async fn open(&mut self, random: &mut impl FnMut() -> u64) -> Option<BrokerConnection> {
        let count = self.source.brokers.len();
        for step in 0..count {
            let at = (self.first + step) % count;
            let broker = &self.source.brokers[at];
            match BrokerConnection::open(broker, self.source.prefetch, random()).await {
                Ok(connection) => {
                    self.first = at;
                    self.connected();
                    return Some(connection);
                }
                Err(failure) => self.failed(at, &failure),
            }
        }
        // All brokers have been tried; further failures are repetitions.
        if let Some(outage) = &mut self.outage {
            outage.is_logged = true;
        }
        None
    }

    fn connected(&mut self) {
        self.source.stats.broker.connected();
        let broker = &self.source.brokers[self.first];
        match self.outage.take() {
            Some(Outage {
                since,
                was_up: true,
                ..
            }) => {
                let seconds = since.elapsed().as_secs_f64();
                info!("reconnected to the broker at {broker}: outage={seconds:.1}s");
            }
            _ => info!("connected to the broker at {broker}"),
        }
    }

    /// Logs the first failure of each broker at a higher level: an outage may last long.
    fn failed(&self, at: usize, failure: &BrokerError) {
        let broker = &self.source.brokers[at];
        match self.outage {
            Some(Outage {
                is_logged: false, ..
            }) => {
                warn!("broker unavailable at {broker}: {failure}; retrying");
            }
            _ => debug!("broker unavailable at {broker}: {failure}"),
        }
    }

    fn lost(&mut self, cause: &BrokerError) {
        self.source.stats.broker.lost();
        let broker = &self.source.brokers[self.first];
        warn!(
            "lost the connection to the broker at {broker}: {cause}; reconnecting, and missing \
             events meanwhile"
        );
        self.outage = Some(Outage {
            since: Instant::now(),
            was_up: true,
            is_logged: false,
        });
    }

    /// Sends received events to `out` until the connection is lost. Returns the cause.
    async fn forward(
        &self,
        connection: &mut BrokerConnection,
        out: &Sender<Delivery>,
    ) -> BrokerError {
        let (acks, mut handled) = unbounded_channel();
        let mut pending = None;
        let mut flush = interval(FLUSH_PERIOD);
        loop {
            let done = tokio::select! {
                biased;
                tags = some(&mut handled) => acknowledge(connection, tags).await,
                permit = out.reserve(), if pending.is_some() => {
                    if let (Ok(permit), Some(delivery)) = (permit, pending.take()) {
                        permit.send(delivery);
                    }
                    Ok(())
                }
                message = connection.next(), if pending.is_none() => {
                    message.map(|message| pending = self.receive(message, &acks))
                }
                _ = flush.tick() => {
                    self.flush();
                    Ok(())
                }
            };
            if let Err(failure) = done {
                return failure;
            }
        }
    }

    /// Decodes the event of a message, if it contains one.
    fn receive(&self, message: IncomingMessage, acks: &UnboundedSender<u64>) -> Option<Delivery> {
        let IncomingMessage { topic, message } = message;
        let (tag, acks) = (message.delivery_tag, acks.clone());
        let ack = AckGuard::new(move || {
            // The broker has already requeued or discarded the messages of a former connection.
            let _ = acks.send(tag);
        });
        self.source.stats.count_received(topic);
        let text =
            |value: &Option<lapin::types::ShortString>| value.as_ref().map(|text| text.to_string());
        let kind = text(message.properties.content_type());
        let encoding = text(message.properties.content_encoding());
        let max = self.source.max_event;
        match decode(kind.as_deref(), encoding.as_deref(), &message.data, max) {
            Ok(event) => Some(Delivery {
                topic,
                event,
                size: message.data.len(),
                received: (self.source.clock)(),
                ack,
            }),
            Err(reason) => {
                self.drop_message(topic, reason, message.data.len());
                None
            }
        }
    }

    fn drop_message(&self, topic: Topic, reason: DropReason, size: usize) {
        self.source.stats.count_dropped(reason);
        let (throttle, now) = match reason {
            DropReason::TooLarge => (&self.too_large, self.now()),
            _ => (&self.undecodable, self.now()),
        };
        if let Some(count) = throttle.count(1, now) {
            let latest = format!("; latest: size={size}B queue={}", topic.as_str());
            self.log_dropped(reason, count, &latest);
        }
    }

    /// Logs dropped messages that have no log line of their own, once their period has ended.
    fn flush(&self) {
        let now = self.now();
        if let Some(count) = self.too_large.poll(now) {
            self.log_dropped(DropReason::TooLarge, count, "");
        }
        if let Some(count) = self.undecodable.poll(now) {
            self.log_dropped(DropReason::Undecodable, count, "");
        }
    }

    fn log_dropped(&self, reason: DropReason, count: u64, latest: &str) {
        let since = format!("{count} since the last such line{latest}");
        match reason {
            DropReason::TooLarge => warn!(
                "dropped oversized messages from the queue: {since}; limits.event={}B",
                self.source.max_event
            ),
            _ => warn!(
                "dropped messages from the queue that are not a JSON object of content type \
                 application/json: {since}"
            ),
        }
    }

    /// Milliseconds since the source was created.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for SourceState {
    fn drop(&mut self) {
        if let Some(count) = self.too_large.finish() {
            self.log_dropped(DropReason::TooLarge, count, "");
        }
        if let Some(count) = self.undecodable.finish() {
            self.log_dropped(DropReason::Undecodable, count, "");
        }
    }
}

/// Returns the tags of some handled events. Waits while there are none.
async fn some(handled: &mut UnboundedReceiver<u64>) -> Vec<u64> {
    let mut tags = Vec::new();
    handled.recv_many(&mut tags, ACKS).await;
    tags
}

async fn acknowledge(connection: &BrokerConnection, tags: Vec<u64>) -> Result<(), BrokerError> {
    for tag in tags {
        connection.acknowledge(tag).await?;
    }
    Ok(())
}

/// Bounds of the reconnect delay. Events published during an outage are lost or delayed, so the
/// delay stays short.
pub(in crate::backend) const SHORTEST_DELAY: Duration = Duration::from_millis(250);
pub(in crate::backend) const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// Interval for flushing suppressed log lines.
const FLUSH_PERIOD: Duration = Duration::from_secs(1);
/// Acknowledgments sent before other work is polled.
const ACKS: usize = 64;
