//! One connection to a broker with its declarations, from connecting the socket to closing it.
//!
//! Owns: the exchange, the queues and their names, and cleanup: an abandoned connection leaves no
//! socket and no lapin thread behind. Must not know: the content of messages.

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

use super::connect_error::connect_error;
use super::url::{Broker, Tls};
use crate::backend::Topic;

/// A connection that consumes both queues.
pub(super) struct BrokerConnection {
    connection: Connection,
    channel: Channel,
    /// Dropping a consumer's handle cancels it.
    _consumers: [Consumer; 2],
    incoming: UnboundedReceiver<Result<IncomingMessage, BrokerError>>,
    _shutdown: ShutdownOnDrop,
}

/// A message from one of the queues. The channel that holds arrivals is unbounded, but the prefetch
/// count limits its length.
pub(super) struct IncomingMessage {
    pub topic: Topic,
    pub message: lapin::message::Delivery,
}

type IncomingSender = UnboundedSender<Result<IncomingMessage, BrokerError>>;

/// The reason why a connection failed, without credentials.
#[derive(Debug)]
pub(super) struct BrokerError(String);

impl BrokerConnection {
    /// Connects, declares the exchange and queues, and starts to consume. RabbitMQ delivers at most
    /// `prefetch` unacknowledged messages from each queue. `random` makes the queue names unique.
    pub(super) async fn open(
        broker: &Broker,
        prefetch: u16,
        random: u64,
    ) -> Result<BrokerConnection, BrokerError> {
        let opened = timeout(OPEN_TIMEOUT, async {
            let (connection, shutdown_guard) = connect(broker).await?;
            declare(connection, shutdown_guard, prefetch, random).await
        });
        opened.await.unwrap_or_else(|_| {
            let seconds = OPEN_TIMEOUT.as_secs();
            Err(BrokerError(format!("no answer within {seconds} s")))
        })
    }

    /// Returns the next message, or the reason why the connection ended.
    pub(super) async fn next(&mut self) -> Result<IncomingMessage, BrokerError> {
        let message = self.incoming.recv().await;
        message.unwrap_or_else(|| Err(BrokerError("the connection ended".into())))
    }

    /// Acknowledges a message.
    pub(super) async fn acknowledge(&self, tag: u64) -> Result<(), BrokerError> {
        let options = BasicAckOptions::default();
        Ok(self.channel.basic_ack(tag, options).await?)
    }

    /// Closes the connection cleanly, so that the broker deletes the queues at once.
    pub(super) async fn close(self) {
        let goodbye = self.connection.close(REPLY_SUCCESS, "OK".into());
        if let Ok(Err(error)) = timeout(CLOSE_TIMEOUT, goodbye).await {
            log::debug!("broker connection not closed cleanly: {error}");
        }
    }
}

/// Connects without declaring anything. The socket is created here rather than by lapin: after a
/// timeout, lapin would leave the socket and its waiting thread behind.
async fn connect(broker: &Broker) -> Result<(Connection, ShutdownOnDrop), BrokerError> {
    let runtime = lapin::runtime::default_runtime()?;
    let mut uri = broker.uri.clone();
    let (host, port) = (uri.authority.host.clone(), uri.authority.port);
    let addresses = runtime.to_socket_addrs((host.clone(), port));
    let stream = AsyncTcpStream::connect(&runtime, addresses).await?;
    let AsyncTcpStream::Plain(plain) = &stream else {
        return Err(BrokerError("not a TCP socket".into()));
    };
    let shutdown_guard = ShutdownOnDrop(plain.get_ref().as_fd().try_clone_to_owned()?);
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
    // Called only once, since lapin reconnects only if configured to.
    let stream = Mutex::new(Some(stream));
    let connect_once = async move |_, _| {
        let mut stream = stream.lock().unwrap_or_else(PoisonError::into_inner);
        let gone = || io::Error::from(io::ErrorKind::NotConnected).into();
        stream.take().ok_or_else(gone)
    };
    let connection = Connection::connector(uri, runtime, connect_once, properties).await?;
    Ok((connection, shutdown_guard))
}

fn tls_config(tls: &Tls) -> Result<OwnedTLSConfig, BrokerError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| BrokerError(format!("{}: {error}", path.display())))
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

/// Declares everything that h's streamer declares, with the same arguments: the broker refuses a
/// redeclaration with different ones.
async fn declare(
    connection: Connection,
    shutdown_guard: ShutdownOnDrop,
    prefetch: u16,
    random: u64,
) -> Result<BrokerConnection, BrokerError> {
    let channel = connection.create_channel().await?;
    let options = ExchangeDeclareOptions::default();
    let (kind, table) = (ExchangeKind::Direct, FieldTable::default());
    channel
        .exchange_declare(EXCHANGE.into(), kind, options, table)
        .await?;
    // The limit applies to each consumer separately.
    channel
        .basic_qos(prefetch, BasicQosOptions::default())
        .await?;
    let (sender, incoming) = unbounded_channel();
    let [annotation, user] = Topic::ALL;
    let consumers = [
        consume(&channel, annotation, random, &sender).await?,
        consume(&channel, user, random, &sender).await?,
    ];
    Ok(BrokerConnection {
        connection,
        channel,
        _consumers: consumers,
        incoming,
        _shutdown: shutdown_guard,
    })
}

/// Declares and binds the queue of a topic, and starts to consume it.
async fn consume(
    channel: &Channel,
    topic: Topic,
    random: u64,
    incoming: &IncomingSender,
) -> Result<Consumer, BrokerError> {
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
    // The delegate is called for messages of both queues in order of arrival. Two separate streams
    // of messages could not be put back in order.
    let incoming = incoming.clone();
    consumer.set_delegate(move |result: DeliveryResult| {
        let message = match result {
            Ok(Some(message)) => Ok(IncomingMessage { topic, message }),
            Ok(None) => Err(BrokerError("the broker cancelled the consumer".into())),
            Err(error) => Err(error.into()),
        };
        // If the receiver has been dropped, the connection is being closed.
        let _ = incoming.send(message);
        std::future::ready(())
    });
    Ok(consumer)
}

/// Shuts the socket down when dropped, which unblocks any thread that reads from it.
struct ShutdownOnDrop(OwnedFd);

impl Drop for ShutdownOnDrop {
    fn drop(&mut self) {
        // The peer may have closed the connection already.
        let _ = shutdown(&self.0, Shutdown::Both);
    }
}

impl fmt::Display for BrokerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<lapin::Error> for BrokerError {
    fn from(error: lapin::Error) -> Self {
        BrokerError(connect_error(&error, error.to_string(), "amqp.url"))
    }
}

impl From<io::Error> for BrokerError {
    fn from(error: io::Error) -> Self {
        BrokerError(connect_error(&error, error.to_string(), "amqp.url"))
    }
}

/// h's exchange.
const EXCHANGE: &str = "realtime";
/// The product name sent to the broker.
const PRODUCT: &str = env!("CARGO_PKG_NAME");
/// Covers name resolution, TCP, TLS, login, and declarations.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// In seconds. A dead connection is detected after two intervals.
const HEARTBEAT: u16 = 20;
/// In bytes. lapin allocates two buffers of 32 frames each, and h's events are small.
const MAX_FRAME: u32 = 16 << 10;
/// AMQP's reply code for success.
const REPLY_SUCCESS: u16 = 200;

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// Counts lapin's threads in this process. No other test starts any.
    fn waiting() -> usize {
        let threads = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let names = threads.map(|thread| std::fs::read_to_string(thread.path().join("comm")));
        names
            .filter(|name| name.as_ref().is_ok_and(|name| name.starts_with("lapin")))
            .count()
    }

    /// Waits until the number of lapin's threads is `count`.
    fn until_waiting(count: usize) {
        let end = std::time::Instant::now() + Duration::from_secs(20);
        while waiting() != count {
            assert!(std::time::Instant::now() < end, "{} wait", waiting());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    #[tokio::test]
    async fn silent_broker_times_out_and_leaves_nothing_behind() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("amqp://{}//", listener.local_addr().unwrap());
        let broker = Broker::parse(&url).unwrap();
        let opening =
            tokio::spawn(async move { BrokerConnection::open(&broker, 1, 0).await.err() });
        let silent = tokio::task::spawn_blocking(move || {
            let accepted = listener.accept().unwrap();
            until_waiting(1);
            accepted
        });
        let _silent = silent.await.unwrap();
        tokio::time::pause();
        tokio::time::advance(OPEN_TIMEOUT).await;
        let failure = opening.await.unwrap().unwrap().to_string();
        assert_eq!(failure, "no answer within 10 s");
        let ended = tokio::task::spawn_blocking(|| until_waiting(0));
        ended.await.unwrap();
    }

    #[tokio::test]
    async fn missing_file_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("amqp://u:secret@{address}//?ssl_ca_certs=/nowhere/ca.pem");
        let failure = BrokerConnection::open(&Broker::parse(&url).unwrap(), 1, 0)
            .await
            .err();
        let failure = failure.unwrap().to_string();
        assert!(failure.starts_with("/nowhere/ca.pem: "), "{failure}");
    }
}
