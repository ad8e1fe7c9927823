//! Events from a real RabbitMQ: deliveries, rejections, and restarts of the broker.
#![cfg(feature = "amqp")]

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use h_realtime::backend::amqp::{Broker, Delivery, Source};
use h_realtime::backend::{DropReason, Stats, Topic};
use h_realtime::model::MonoMillis;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{PATIENCE, Publisher, RabbitMq, Received, Server, event, eventually};

/// A source on a separate thread. Its queues are named after `name`.
struct Listening {
    stats: Arc<Stats>,
    deliveries: Option<Receiver<Delivery>>,
    thread: Option<JoinHandle<()>>,
}

impl Listening {
    fn to(urls: &[&str], prefetch: u16, name: u64) -> Listening {
        let stats = Arc::new(Stats::requiring(true, false));
        let source = Source {
            brokers: urls.iter().map(|url| Broker::parse(url).unwrap()).collect(),
            prefetch,
            max_event: 4 << 20,
            stats: Arc::clone(&stats),
            clock: || MonoMillis(7),
        };
        let (sender, deliveries) = channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let (inner, mut arriving) = tokio::sync::mpsc::channel(1);
                let forward_events = async move {
                    while let Some(delivery) = arriving.recv().await {
                        if sender.send(delivery).is_err() {
                            return;
                        }
                    }
                };
                tokio::join!(source.consume(inner, move || name), forward_events)
            });
        });
        Listening {
            stats,
            deliveries: Some(deliveries),
            thread: Some(thread),
        }
    }

    /// Starts a source with one broker, and waits until it is connected.
    fn on(url: &str, name: u64) -> Listening {
        let listening = Listening::to(&[url], 100, name);
        listening.until_up();
        listening
    }

    fn until_up(&self) {
        eventually(BACK, || self.stats.is_connected().then_some(()));
    }

    fn next(&self) -> Delivery {
        let deliveries = self.deliveries.as_ref().unwrap();
        deliveries.recv_timeout(PATIENCE).unwrap()
    }

    /// Returns the topic and the number of the next event.
    fn number(&self) -> (Topic, u64) {
        let delivery = self.next();
        (delivery.topic, delivery.event["n"].as_u64().unwrap())
    }

    fn is_silent(&self) -> bool {
        let deliveries = self.deliveries.as_ref().unwrap();
        let received = deliveries.recv_timeout(Duration::from_millis(300));
        matches!(received, Err(RecvTimeoutError::Timeout))
    }
}

fn numbered(n: u64) -> Value {
    json!({ "n": n })
}

/// Returns whether the broker has a queue of this name.
fn exists(url: &str, queue: &str) -> bool {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let connection = Connection::connect(url, ConnectionProperties::default()).await;
        let channel = connection.unwrap().create_channel().await.unwrap();
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare(queue.into(), options, FieldTable::default());
        declared.await.is_ok()
    })
}

const JSON: &str = "application/json";
/// The source may wait for half a minute before it reconnects.
const BACK: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs RabbitMQ: run tests/run"]
fn events_are_routed_by_key_and_ordered() {
    let url = RabbitMq::shared().vhost();
    let listening = Listening::on(&url, 1);
    let publisher = Publisher::new(&url);
    for n in 0..300 {
        publisher.publish(if n % 3 == 0 { "user" } else { "annotation" }, &numbered(n));
    }
    // Each queue is ordered; RabbitMQ defines no order between two.
    let (mut users, mut annotations) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        match listening.number() {
            (Topic::User, n) => users.push(n),
            (Topic::Annotation, n) => annotations.push(n),
        }
    }
    let (thirds, others) = (0..300).partition(|n| n % 3 == 0);
    assert_eq!((users, annotations), (thirds, others));
    assert_eq!(listening.stats.received(Topic::User), 100);
    assert_eq!(listening.stats.received(Topic::Annotation), 200);
}

#[test]
#[ignore = "needs RabbitMQ: run tests/run"]
fn invalid_messages_are_counted_and_do_not_block_others() {
    let url = RabbitMq::shared().vhost();
    // Room for one message per topic: an unacknowledged message would block all later ones.
    let listening = Listening::to(&[&url], 1, 2);
    listening.until_up();
    let publisher = Publisher::new(&url);
    let body = numbered(0).to_string();
    for kind in [
        "text/plain",
        "",
        "application/json; charset=utf-8",
        "application/x-yaml",
    ] {
        publisher.publish_raw("annotation", body.as_bytes(), kind, "utf-8");
    }
    for body in [&b"{"[..], b"[1]", b"\xff", b"", b"\x80\x02}q\x00."] {
        publisher.publish_raw("annotation", body, JSON, "utf-8");
    }
    publisher.publish_raw("user", &vec![b' '; 5 << 20], JSON, "utf-8");
    publisher.publish("annotation", &numbered(1));
    publisher.publish("user", &numbered(2));
    let mut received = [listening.number(), listening.number()];
    received.sort_by_key(|(_, n)| *n);
    assert_eq!(received, [(Topic::Annotation, 1), (Topic::User, 2)]);
    assert_eq!(listening.stats.dropped(DropReason::Undecodable), 9);
    assert_eq!(listening.stats.dropped(DropReason::TooLarge), 1);
}

#[test]
#[ignore = "needs RabbitMQ: run tests/run"]
fn every_process_receives_every_event() {
    let url = RabbitMq::shared().vhost();
    let listening = [Listening::on(&url, 3), Listening::on(&url, 4)];
    let publisher = Publisher::new(&url);
    for n in 0..20 {
        publisher.publish("annotation", &numbered(n));
    }
    for one in &listening {
        for n in 0..20 {
            assert_eq!(one.number(), (Topic::Annotation, n));
        }
    }
}

#[test]
#[ignore = "needs RabbitMQ: run tests/run"]
fn prefetch_limits_unacknowledged_events() {
    let url = RabbitMq::shared().vhost();
    let listening = Listening::to(&[&url], 3, 5);
    listening.until_up();
    let publisher = Publisher::new(&url);
    for n in 0..10 {
        publisher.publish("annotation", &numbered(n));
    }
    let mut held: Vec<_> = (0..3).map(|_| listening.next()).collect();
    assert!(listening.is_silent());
    // The other queue does not block this one.
    publisher.publish("user", &numbered(99));
    assert_eq!(listening.number(), (Topic::User, 99));
    held.remove(1);
    held.push(listening.next());
    assert_eq!(held[2].event["n"], 3);
    assert!(listening.is_silent());
    drop(held);
    for n in 4..10 {
        assert_eq!(listening.number(), (Topic::Annotation, n));
    }
}

#[test]
#[ignore = "needs RabbitMQ: run tests/run"]
fn queues_are_deleted_with_their_consumer() {
    let url = RabbitMq::shared().vhost();
    let mut listening = Listening::on(&url, 0x2a);
    let publisher = Publisher::new(&url);
    let queues = ["annotation", "user"].map(|key| format!("realtime-{key}-000000000000002a"));
    assert!(queues.iter().all(|queue| exists(&url, queue)));
    // One event is held, and more are queued.
    for n in 0..200 {
        publisher.publish("annotation", &numbered(n));
    }
    let held = listening.next();
    listening.deliveries = None;
    // It only notices at its next delivery.
    publisher.publish("annotation", &numbered(200));
    listening.thread.take().unwrap().join().unwrap();
    // The broker deletes them after it has confirmed the end of the connection.
    eventually(PATIENCE, || {
        (!queues.iter().any(|queue| exists(&url, queue))).then_some(())
    });
    drop(held);
    assert_eq!(listening.stats.broker.losses(), 0);
}

#[test]
#[ignore = "needs RabbitMQ: run tests/run"]
fn source_reconnects_to_a_restarted_broker() {
    let broker = RabbitMq::start();
    let url = broker.vhost();
    let stranger = "amqp://127.0.0.1:1//";
    let listening = Listening::to(&[stranger, &url], 100, 6);
    listening.until_up();
    let publisher = Publisher::new(&url);
    publisher.publish("annotation", &numbered(1));
    let held = listening.next();
    drop(publisher);
    for time in 1..=2 {
        broker.stop();
        eventually(PATIENCE, || (!listening.stats.broker.is_up()).then_some(()));
        assert_eq!(listening.stats.broker.losses(), time);
        broker.start_again();
        listening.until_up();
    }
    assert_eq!(listening.stats.broker.connects(), 3);
    // On the new connection, its tag is invalid or belongs to another message.
    drop(held);
    let publisher = Publisher::new(&url);
    for n in 2..200 {
        publisher.publish("user", &numbered(n));
        assert_eq!(listening.number(), (Topic::User, n));
    }
}

#[test]
#[ignore = "needs RabbitMQ: run tests/run"]
fn tls_verifies_the_broker_and_sends_a_client_certificate() {
    let broker = RabbitMq::shared();
    let url = broker.secure_vhost();
    let vhost = url.rsplit('/').next().unwrap();
    let plain = broker.vhost();
    let plain = plain.replace(plain.rsplit('/').next().unwrap(), vhost);
    let authority = format!("ssl_ca_certs={}", broker.file("ca.pem"));
    let identity = format!(
        "ssl_certfile={}&ssl_keyfile={}",
        broker.file("client.pem"),
        broker.file("client.key")
    );
    // An unknown authority; a name that is not in the certificate; no client certificate.
    let numeric = url.replace("localhost", "127.0.0.1");
    let refused = [
        format!("{url}?{identity}"),
        format!("{numeric}?{authority}&{identity}"),
        format!("{url}?{authority}"),
    ];
    let refused = refused.map(|url| Listening::to(&[&url], 1, 7));
    let listening = Listening::on(&format!("{url}?{authority}&{identity}"), 8);
    Publisher::new(&plain).publish("annotation", &numbered(1));
    assert_eq!(listening.number(), (Topic::Annotation, 1));
    for one in &refused {
        assert_eq!(one.stats.broker.connects(), 0);
    }
}

/// The whole server: complete annotations from RabbitMQ instead of `POST /events`.
#[test]
#[ignore = "needs RabbitMQ: run tests/run"]
fn embedded_backend_receives_events() {
    let broker = RabbitMq::start();
    let config = format!("events = \"amqp\"\n[amqp]\nurl = \"{}\"\n", broker.vhost());
    let config = config.replace("guest:guest", "guest:gu%65st");
    // On a loaded machine the broker may need long to restart.
    let config = format!("{config}[timeouts]\nping = \"10m\"\n");
    let mut server = Server::configured(&config);
    server.wait_until_ready();
    let mut client = server.anonymous();
    client.subscribe("/uri", "https://example.org/page");
    let url = config.split('"').nth(3).unwrap().to_owned();
    let publish = |annotation: Value| {
        let mut event = event("create", annotation);
        event.as_object_mut().unwrap().remove("topic");
        Publisher::new(&url).publish("annotation", &event);
    };
    let text = |client: &mut crate::support::Client| match client.receive() {
        Received::Text(text) => serde_json::from_str::<Value>(&text).unwrap(),
        other => panic!("{other:?}"),
    };
    publish(json!({"text": "by RabbitMQ"}));
    assert_eq!(text(&mut client)["payload"][0]["text"], "by RabbitMQ");
    let (status, _) = server.publish(&event("create", json!({"text": "by HTTP"})).to_string());
    assert_eq!(status, 202);
    assert_eq!(text(&mut client)["payload"][0]["text"], "by HTTP");

    publish(json!({"user": 5}));
    eventually(PATIENCE, || {
        (server.metric("h_realtime_queue_events_dropped_total") == 1.0).then_some(())
    });
    broker.stop();
    eventually(PATIENCE, || (server.readiness() == 503).then_some(()));
    // Connected clients stay and are answered, and new ones may connect.
    assert_eq!(client.drain(), []);
    assert_eq!(server.anonymous().drain(), []);
    broker.start_again();
    server.wait_until_ready();
    publish(json!({"text": "again"}));
    assert_eq!(text(&mut client)["payload"][0]["text"], "again");

    drop(client);
    server.signal(Signal::TERM);
    let (log, code) = server.wait();
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("reconnected to the broker"), "{log}");
    assert!(!log.contains("gu%65st") && !log.contains("guest"), "{log}");
}
