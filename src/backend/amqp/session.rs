//! One connection to a broker, with what is declared on it: from the socket to its end.
//!
//! Owns: the exchange, the queues and their names, and that a connection which nobody wants any
//! more leaves nothing behind: no socket, no thread of lapin's. Must not know what is in a
//! message.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lapin::message::DeliveryResult;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicQosOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::types::FieldTable;
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use rustix::net::{Shutdown, shutdown};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;

use super::reach::unreachable;
use super::url::{Broker, Tls};
use crate::backend::Topic;

/// A connection on which both queues are consumed.
pub(super) struct Session {
    connection: Connection,
    channel: Channel,
    /// A consumer whose handle is dropped is cancelled.
    _consumers: [Consumer; 2],
    arrivals: UnboundedReceiver<Result<Arrival, Failure>>,
    _cut: Cut,
}

/// What has come out of one of the queues. The channel that holds them has no bound of its own:
/// it never holds more than were asked for.
pub(super) struct Arrival {
    pub topic: Topic,
    pub message: lapin::message::Delivery,
}

type Arrivals = UnboundedSender<Result<Arrival, Failure>>;

/// Why a connection was not made or did not last, in words without credentials.
#[derive(Debug)]
pub(super) struct Failure(String);

impl Session {
    /// Connects, declares everything and begins to consume. No more than `prefetch` messages of
    /// each queue are on their way at a time; `random` names the queues.
    pub(super) async fn open(
        broker: &Broker,
        prefetch: u16,
        random: u64,
    ) -> Result<Session, Failure> {
        let opened = timeout(OPEN_TIMEOUT, async {
            let (connection, cut) = connect(broker).await?;
            declare(connection, cut, prefetch, random).await
        });
        opened.await.unwrap_or_else(|_| {
            let seconds = OPEN_TIMEOUT.as_secs();
            Err(Failure(format!("it did not answer within {seconds} s")))
        })
    }

    /// What comes next, or why nothing does any more.
    pub(super) async fn next(&mut self) -> Result<Arrival, Failure> {
        let arrival = self.arrivals.recv().await;
        arrival.unwrap_or_else(|| Err(Failure("it has ended".into())))
    }

    /// Tells the broker that a message has been dealt with.
    pub(super) async fn acknowledge(&self, tag: u64) -> Result<(), Failure> {
        let options = BasicAckOptions::default();
        Ok(self.channel.basic_ack(tag, options).await?)
    }

    /// Says goodbye, so that the queues are gone at once.
    pub(super) async fn close(self) {
        let goodbye = self.connection.close(REPLY_SUCCESS, "OK".into());
        if let Ok(Err(error)) = timeout(CLOSE_TIMEOUT, goodbye).await {
            log::debug!("the connection to the broker ended badly: {error}");
        }
    }
}

/// The connection alone. The socket is made here rather than by lapin, which would leave it and
/// the thread that waits for it to themselves when we wait no longer.
async fn connect(broker: &Broker) -> Result<(Connection, Cut), Failure> {
    let runtime = lapin::runtime::default_runtime()?;
    let mut uri = broker.uri.clone();
    let (host, port) = (uri.authority.host.clone(), uri.authority.port);
    let addresses = runtime.to_socket_addrs((host.clone(), port));
    let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
    let AsyncTcpStream::Plain(plain) = &stream else {
        return Err(Failure("the socket is not a plain one".into()));
    };
    let cut = Cut(plain.get_ref().as_fd().try_clone_to_owned()?);
    let stream = match &broker.tls {
        Some(tls) => stream.into_tls(&host, tls_config(tls)?.as_ref()).await?,
        None => stream,
    };
    uri.query.heartbeat = Some(HEARTBEAT);
    uri.query.frame_max = Some(MAX_FRAME);
    let properties = ConnectionProperties::default()
        .with_connection_name(PRODUCT.into())
        .with_client_property("product".into(), PRODUCT.into())
        .with_client_property("version".into(), env!("CARGO_PKG_VERSION").into());
    // It is asked for once: lapin connects anew only where it is told to.
    let stream = Mutex::new(Some(stream));
    let hand_over = async move |_, _| {
        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || io::Error::from(io::ErrorKind::NotConnected).into();
        stream.take().ok_or_else(gone)
    };
    let connection = Connection::connector(uri, runtime, hand_over, properties).await?;
    Ok((connection, cut))
}

fn tls_config(tls: &Tls) -> Result<OwnedTLSConfig, Failure> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| Failure(format!("{}: {error}", path.display())))
    };
    let authorities = tls.authorities.as_deref().map(read).transpose()?;
    let identity = match &tls.identity {
        Some((certificate, key)) => Some(OwnedIdentity::PKCS8 {
            pem: read(certificate)?,
            key: read(key)?,
        }),
        None => None,
    };
    Ok(OwnedTLSConfig {
        identity,
        cert_chain: authorities.map(|pem| String::from_utf8_lossy(&pem).into_owned()),
    })
}

/// Everything that h's streamer declares, and just so: who comes second with other arguments is
/// refused.
async fn declare(
    connection: Connection,
    cut: Cut,
    prefetch: u16,
    random: u64,
) -> Result<Session, Failure> {
    let channel = connection.create_channel().await?;
    let options = ExchangeDeclareOptions::default();
    let (kind, table) = (ExchangeKind::Direct, FieldTable::default());
    channel
        .exchange_declare(EXCHANGE.into(), kind, options, table)
        .await?;
    // Counted for each consumer by itself.
    channel
        .basic_qos(prefetch, BasicQosOptions::default())
        .await?;
    let (sender, arrivals) = unbounded_channel();
    let [annotation, user] = Topic::ALL;
    let consumers = [
        consume(&channel, annotation, random, &sender).await?,
        consume(&channel, user, random, &sender).await?,
    ];
    Ok(Session {
        connection,
        channel,
        _consumers: consumers,
        arrivals,
        _cut: cut,
    })
}

/// Makes the queue of a topic and begins to consume it.
async fn consume(
    channel: &Channel,
    topic: Topic,
    random: u64,
    arrivals: &Arrivals,
) -> Result<Consumer, Failure> {
    let queue = format!("realtime-{}-{random:016x}", topic.as_str());
    let options = QueueDeclareOptions {
        auto_delete: true,
        ..QueueDeclareOptions::default()
    };
    let name = || queue.as_str().into();
    channel
        .queue_declare(name(), options, FieldTable::default())
        .await?;
    let (key, options) = (topic.as_str().into(), QueueBindOptions::default());
    channel
        .queue_bind(name(), EXCHANGE.into(), key, options, FieldTable::default())
        .await?;
    let tag = format!("{PRODUCT}-{}", topic.as_str());
    let options = BasicConsumeOptions::default();
    let consumer = channel
        .basic_consume(name(), tag.as_str().into(), options, FieldTable::default())
        .await?;
    // Called for one message after the other as they come in, whichever queue they are of: the
    // two streams of messages could not be put in order again.
    let arrivals = arrivals.clone();
    consumer.set_delegate(move |result: DeliveryResult| {
        let arrival = match result {
            Ok(Some(message)) => Ok(Arrival { topic, message }),
            Ok(None) => Err(Failure("it consumes for us no more".into())),
            Err(error) => Err(error.into()),
        };
        // Where nobody listens any more, the connection is being closed.
        let _ = arrivals.send(arrival);
        std::future::ready(())
    });
    Ok(consumer)
}

/// Ends a socket when it is dropped, whoever may be waiting for it to say something.
struct Cut(OwnedFd);

impl Drop for Cut {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = shutdown(&self.0, Shutdown::Both);
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<lapin::Error> for Failure {
    fn from(error: lapin::Error) -> Self {
        Failure(unreachable(&error, error.to_string(), "amqp.url"))
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure(unreachable(&error, error.to_string(), "amqp.url"))
    }
}

/// h's exchange.
const EXCHANGE: &str = "realtime";
/// What we call ourselves to the broker.
const PRODUCT: &str = env!("CARGO_PKG_NAME");
/// Name resolution, TCP, TLS, login and declarations together.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// In seconds. A connection that has died without a word is noticed after two of them.
const HEARTBEAT: u16 = 20;
/// Bytes of a frame. lapin keeps two buffers of 32 such frames, and h's events are small.
const MAX_FRAME: u32 = 16 << 10;
/// AMQP's reply code for a good end.
const REPLY_SUCCESS: u16 = 200;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Threads of this process by which lapin waits for a broker. No other test makes any.
    fn waiting() -> usize {
        let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = threads.map(|thread| std::fs::read_to_string(thread.path().join("comm")));
        names
            .filter(|name| name.as_ref().is_ok_and(|name| name.starts_with("lapin")))
            .count()
    }

    /// Waits for the threads of lapin's to be so many.
    fn until_waiting(count: usize) {
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while waiting() != count {
            assert!(std::time::Instant::now() < end, "{} wait", waiting());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[tokio::test]
    async fn a_broker_that_says_nothing_is_given_up_and_leaves_nothing_behind() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("amqp://{}//", listener.local_addr().unwrap());
        let broker = Broker::parse(&url).unwrap();
        let opening = tokio::spawn(async move { Session::open(&broker, 1, 0).await.err() });
        let silent = tokio::task::spawn_blocking(move || {
            let accepted = listener.accept().unwrap();
            until_waiting(1);
            accepted
        });
        let _silent = silent.await.unwrap();
        tokio::time::pause();
        tokio::time::advance(OPEN_TIMEOUT).await;
        let failure = opening.await.unwrap().unwrap().to_string();
        assert_eq!(failure, "it did not answer within 10 s");
        let ended = tokio::task::spawn_blocking(|| until_waiting(0));
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn a_file_that_is_not_there_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("amqp://u:secret@{address}//?ssl_ca_certs=/nowhere/ca.pem");
        let failure = Session::open(&Broker::parse(&url).unwrap(), 1, 0)
            .await
            .err();
        let failure = failure.unwrap().to_string();
        assert!(failure.starts_with("/nowhere/ca.pem: "), "{failure}");
    }
}
