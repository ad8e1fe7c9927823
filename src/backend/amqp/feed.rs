//! Events from RabbitMQ for a backend with a synchronous thread, such as the embedded one.
//!
//! Owns: the thread that forwards events. The events contain whole annotations, like those
//! published over HTTP.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::source::{Delivery, Source};
use super::{random, runtime};
use crate::backend::RequestSender;
use crate::model::BackendRequest;

/// A thread that forwards events to the backend.
#[derive(Debug)]
pub struct Feed {
    thread: JoinHandle<()>,
    /// Dropping the sender stops the thread.
    _stop: oneshot::Sender<()>,
}

impl Feed {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system refuses a thread or a resource of the asynchronous runtime.
    pub fn start(source: Source, requests: RequestSender) -> io::Result<Feed> {
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = runtime()?;
        let thread = thread::Builder::new()
            .name("amqp".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    let (sender, deliveries) = channel(DELIVERY_CAPACITY);
                    let forward_events = async move {
                        tokio::select! {
                            () = forward_events(deliveries, requests) => {}
                            _ = stopped => {}
                        }
                    };
                    tokio::join!(source.consume(sender, random), forward_events)
                });
                // Do not wait for a pending name resolution.
                runtime.shutdown_background();
            })?;
        Ok(Feed {
            thread,
            _stop: stop,
        })
    }

    /// Stops the thread and waits for it. Its handle to the backend is then dropped, too.
    pub fn finish(self) {
        let Feed { thread, _stop } = self;
        drop(_stop);
        let _ = thread.join();
    }
}

/// Passes events to the backend one at a time. While the backend's queue is full, events stay with
/// RabbitMQ.
async fn forward_events(mut deliveries: Receiver<Delivery>, requests: RequestSender) {
    while let Some(delivery) = deliveries.recv().await {
        let Some(mut request) = to_request(delivery) else {
            continue;
        };
        while let Err(returned) = requests.try_send(request) {
            request = returned;
            sleep(RETRY).await;
        }
    }
}

/// Converts a delivery into the request that an event published over HTTP would make. The routing
/// key determines the topic.
fn to_request(delivery: Delivery) -> Option<BackendRequest> {
    let Delivery {
        topic,
        mut event,
        received,
        ack,
        ..
    } = delivery;
    event.insert("topic".to_owned(), topic.as_str().into());
    // Serialization cannot fail, since the event was parsed from JSON.
    let body = serde_json::to_vec(&event).ok()?;
    Some(BackendRequest::QueueEvent {
        body,
        received,
        ack,
    })
}

/// The prefetch count per topic for the embedded backend: events delivered by RabbitMQ that have
/// not been handled. Events contain whole annotations, which may be large.
pub const PREFETCH: u16 = 64;
/// Capacity of the channel between the connection and the backend.
const DELIVERY_CAPACITY: usize = 4;
/// Delay before retrying while the backend's queue is full.
const RETRY: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{QUEUE_CAPACITY, Topic, request_queue};
    use crate::model::{AckGuard, MonoMillis};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn delivery(topic: Topic, event: serde_json::Value, handled: &Arc<AtomicUsize>) -> Delivery {
        let serde_json::Value::Object(event) = event else {
            panic!("no object");
        };
        let handled = Arc::clone(handled);
        Delivery {
            topic,
            event,
            size: 0,
            received: MonoMillis(7),
            ack: AckGuard::new(move || {
                handled.fetch_add(1, Ordering::Relaxed);
            }),
        }
    }

    #[test]
    fn routing_key_determines_the_topic() {
        let handled = Arc::default();
        let event = serde_json::json!({"topic": "annotation", "type": "group-join"});
        let Some(BackendRequest::QueueEvent {
            body,
            received: MonoMillis(7),
            ack,
        }) = to_request(delivery(Topic::User, event, &handled))
        else {
            panic!("not an event");
        };
        assert_eq!(body, br#"{"topic":"user","type":"group-join"}"#);
        assert_eq!(handled.load(Ordering::Relaxed), 0);
        drop(ack);
        assert_eq!(handled.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn full_backend_gets_every_event_later_and_once() {
        let (sender, queue) = request_queue();
        let handled = Arc::default();
        let count = QUEUE_CAPACITY + 10;
        let (events, deliveries) = channel(count);
        for number in 0..count {
            let event = serde_json::json!({ "number": number });
            let delivery = delivery(Topic::Annotation, event, &handled);
            events.try_send(delivery).unwrap();
        }
        drop(events);
        let forwarding = tokio::spawn(forward_events(deliveries, sender));
        sleep(Duration::from_secs(1)).await;
        assert!(!forwarding.is_finished());
        assert_eq!(handled.load(Ordering::Relaxed), 0, "nothing was given up");
        let mut bodies = Vec::new();
        while bodies.len() < count {
            while let Ok(BackendRequest::QueueEvent { body, .. }) = queue.try_recv() {
                bodies.push(body);
            }
            sleep(RETRY).await;
        }
        for (number, body) in bodies.iter().enumerate() {
            let expected = format!(r#"{{"number":{number},"topic":"annotation"}}"#);
            assert_eq!(body, expected.as_bytes());
        }
        assert_eq!(handled.load(Ordering::Relaxed), count);
        forwarding.await.unwrap();
    }
}
