//! Events from RabbitMQ, for as long as anybody takes them.
//!
//! Owns: connecting, and connecting again; what of the messages is an event; and that RabbitMQ
//! forgets an event only when it has been dealt with. Must not know what an event means.

use std::sync::Arc;
use std::time::Duration;

use log::{debug, info, warn};
use serde_json::{Map, Value};
use tokio::sync::mpsc::{Sender, UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, interval, sleep};

use super::decode::decode;
use super::session::{Arrival, Failure, Session};
use super::url::Broker;
use crate::backend::{Fate, Stats, Topic};
use crate::backoff::Backoff;
use crate::log_throttle::LogThrottle;
use crate::model::{MonoMillis, Receipt};

/// Where events come from.
#[derive(Debug)]
pub struct Source {
    /// To be tried in turn.
    pub brokers: Vec<Broker>,
    /// How many events of each topic may be here that have not been dealt with.
    pub prefetch: u16,
    /// The most bytes of an event.
    pub max_event: usize,
    /// Where what happens is counted.
    pub stats: Arc<Stats>,
    /// Says when events arrive.
    pub clock: fn() -> MonoMillis,
}

/// An event that has arrived.
#[derive(Debug)]
pub struct Delivery {
    /// What it is about.
    pub topic: Topic,
    /// The event.
    pub event: Map<String, Value>,
    /// Bytes of the message it came in.
    pub size: usize,
    /// When it arrived.
    pub received: MonoMillis,
    /// To be dropped when it has been dealt with.
    pub receipt: Receipt,
}

impl Source {
    /// Hands over each event in the order of their arrival, until the other end of `out` is gone;
    /// then it says goodbye to the broker and is done. While there is no room in `out`, and while
    /// receipts are withheld, the events stay where they are; heartbeats go on.
    pub async fn consume(self, out: Sender<Delivery>, mut random: impl FnMut() -> u64) {
        let mut state = State::new(self);
        let mut backoff = Backoff::new(SHORTEST_DELAY, LONGEST_DELAY);
        while !out.is_closed() {
            let opened = tokio::select! {
                opened = state.open(&mut random) => opened,
                () = out.closed() => return,
            };
            let lasted = match opened {
                Some(mut session) => {
                    let since = Instant::now();
                    let cause = tokio::select! {
                        cause = state.serve(&mut session, &out) => Some(cause),
                        () = out.closed() => None,
                    };
                    session.close().await;
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

/// What is remembered from one connection to the next.
struct State {
    source: Source,
    /// The broker to begin with: the one that answered last.
    first: usize,
    away: Option<Away>,
    started: Instant,
    undecodable: LogThrottle,
    too_large: LogThrottle,
}

/// There is no connection.
struct Away {
    since: Instant,
    /// There was one.
    was_up: bool,
    /// It was said why there is none.
    is_said: bool,
}

impl State {
    fn new(source: Source) -> State {
        let now = Instant::now();
        State {
            source,
            first: 0,
            away: Some(Away {
                since: now,
                was_up: false,
                is_said: false,
            }),
            started: now,
            undecodable: LogThrottle::default(),
            too_large: LogThrottle::default(),
        }
    }

    /// Tries all brokers once.
    async fn open(&mut self, random: &mut impl FnMut() -> u64) -> Option<Session> {
        let count = self.source.brokers.len();
        for step in 0..count {
            let at = (self.first + step) % count;
            let broker = &self.source.brokers[at];
            match Session::open(broker, self.source.prefetch, random()).await {
                Ok(session) => {
                    self.first = at;
                    self.connected();
                    return Some(session);
                }
                Err(failure) => self.failed(at, &failure),
            }
        }
        // All have been tried, so from now on it is the same again.
        if let Some(away) = &mut self.away {
            away.is_said = true;
        }
        None
    }

    fn connected(&mut self) {
        self.source.stats.broker.connected();
        let broker = &self.source.brokers[self.first];
        match self.away.take() {
            Some(Away {
                since,
                was_up: true,
                ..
            }) => {
                let seconds = since.elapsed().as_secs_f64();
                info!("connected to the broker at {broker} again, after {seconds:.1} s");
            }
            _ => info!("connected to the broker at {broker}"),
        }
    }

    /// Once for each broker: it may be away for long.
    fn failed(&self, at: usize, failure: &Failure) {
        let broker = &self.source.brokers[at];
        match self.away {
            Some(Away { is_said: false, .. }) => {
                warn!("the broker at {broker} cannot be used: {failure}; trying again");
            }
            _ => debug!("the broker at {broker} cannot be used: {failure}"),
        }
    }

    fn lost(&mut self, cause: &Failure) {
        self.source.stats.broker.lost();
        let broker = &self.source.brokers[self.first];
        warn!(
            "the connection to the broker at {broker} is lost: {cause}; events are missed until \
             there is one again"
        );
        self.away = Some(Away {
            since: Instant::now(),
            was_up: true,
            is_said: false,
        });
    }

    /// Hands over what comes until the connection is lost; why it was.
    async fn serve(&self, session: &mut Session, out: &Sender<Delivery>) -> Failure {
        let (acks, mut handled) = unbounded_channel();
        let mut waiting = None;
        let mut flush = interval(FLUSH_PERIOD);
        loop {
            let done = tokio::select! {
                biased;
                tags = some(&mut handled) => acknowledge(session, tags).await,
                permit = out.reserve(), if waiting.is_some() => {
                    if let (Ok(permit), Some(delivery)) = (permit, waiting.take()) {
                        permit.send(delivery);
                    }
                    Ok(())
                }
                arrival = session.next(), if waiting.is_none() => {
                    arrival.map(|arrival| waiting = self.receive(arrival, &acks))
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

    /// The event in a message, if there is one.
    fn receive(&self, arrival: Arrival, acks: &UnboundedSender<u64>) -> Option<Delivery> {
        let Arrival { topic, message } = arrival;
        let (tag, acks) = (message.delivery_tag, acks.clone());
        let receipt = Receipt::new(move || {
            // Of another connection, it is forgotten already.
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
                receipt,
            }),
            Err(fate) => {
                self.pass_over(topic, fate, message.data.len());
                None
            }
        }
    }

    fn pass_over(&self, topic: Topic, fate: Fate, size: usize) {
        self.source.stats.count_dropped(fate);
        let (throttle, now) = match fate {
            Fate::TooLarge => (&self.too_large, self.now()),
            _ => (&self.undecodable, self.now()),
        };
        if let Some(count) = throttle.count(1, now) {
            let latest = format!("; the latest: {size} bytes for {:?}", topic.as_str());
            self.log_passed_over(fate, count, &latest);
        }
    }

    /// Logs the messages that were passed over without a line of their own, once their period has
    /// ended.
    fn flush(&self) {
        let now = self.now();
        if let Some(count) = self.too_large.flush(now) {
            self.log_passed_over(Fate::TooLarge, count, "");
        }
        if let Some(count) = self.undecodable.flush(now) {
            self.log_passed_over(Fate::Undecodable, count, "");
        }
    }

    fn log_passed_over(&self, fate: Fate, count: u64, latest: &str) {
        let since = format!("{count} since the last such line{latest}");
        match fate {
            Fate::TooLarge => warn!(
                "dropped messages from the queue that are too large: {since} \
                 (limits.event = {}B)",
                self.source.max_event
            ),
            _ => warn!(
                "dropped messages from the queue that are not a JSON object marked as \
                 application/json: {since}"
            ),
        }
    }

    /// In milliseconds.
    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(count) = self.too_large.finish() {
            self.log_passed_over(Fate::TooLarge, count, "");
        }
        if let Some(count) = self.undecodable.finish() {
            self.log_passed_over(Fate::Undecodable, count, "");
        }
    }
}

/// Some of those that have been dealt with. Never returns while there are none.
async fn some(handled: &mut UnboundedReceiver<u64>) -> Vec<u64> {
    let mut tags = Vec::new();
    handled.recv_many(&mut tags, ACKS).await;
    tags
}

async fn acknowledge(session: &Session, tags: Vec<u64>) -> Result<(), Failure> {
    for tag in tags {
        session.acknowledge(tag).await?;
    }
    Ok(())
}

/// Bounds of the delay before connecting again. What is published meanwhile is lost, or waits: a
/// broker or a database that is back should not have to wait for us.
pub(in crate::backend) const SHORTEST_DELAY: Duration = Duration::from_millis(250);
pub(in crate::backend) const LONGEST_DELAY: Duration = Duration::from_secs(5);
/// How often suppressed log lines are looked at.
const FLUSH_PERIOD: Duration = Duration::from_secs(1);
/// How many acknowledgements are sent before anything else is looked at.
const ACKS: usize = 64;
