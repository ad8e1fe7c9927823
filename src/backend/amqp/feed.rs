//! Events from RabbitMQ for a back end that answers on a thread of its own, as the embedded one.
//!
//! Owns: the thread that hands them over. They hold whole annotations, as those that are
//! published by HTTP.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, channel};
use tokio::sync::oneshot;
use tokio::time::sleep;

use super::source::{Delivery, Source};
use super::{random, runtime};
use crate::backend::Asker;
use crate::model::Ask;

/// A thread that hands over events.
#[derive(Debug)]
pub struct Feed {
    thread: JoinHandle<()>,
    /// Dropped to end it.
    _stop: oneshot::Sender<()>,
}

impl Feed {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system refuses a thread, or what an asynchronous runtime needs.
    pub fn start(source: Source, asker: Asker) -> io::Result<Feed> {
        let (stop, stopped) = oneshot::channel::<()>();
        let runtime = runtime()?;
        let thread = thread::Builder::new()
            .name("amqp".to_owned())
            .spawn(move || {
                runtime.block_on(async move {
                    let (sender, deliveries) = channel(HANDS);
                    let hand_over = async move {
                        tokio::select! {
                            () = hand_over(deliveries, asker) => {}
                            _ = stopped => {}
                        }
                    };
                    tokio::join!(source.consume(sender, random), hand_over)
                });
                // A name that is being resolved must not be waited for.
                runtime.shutdown_background();
            })?;
        Ok(Feed {
            thread,
            _stop: stop,
        })
    }

    /// Ends it, and waits until it has: then its way to the back end is gone, too.
    pub fn finish(self) {
        let Feed { thread, _stop } = self;
        drop(_stop);
        let _ = thread.join();
    }
}

/// Asks the back end about one event after the other. While it has no room, RabbitMQ keeps them.
async fn hand_over(mut deliveries: Receiver<Delivery>, asker: Asker) {
    while let Some(delivery) = deliveries.recv().await {
        let Some(mut question) = question(delivery) else {
            continue;
        };
        while let Err(back) = asker.offer(question) {
            question = back;
            sleep(RETRY).await;
        }
    }
}

/// The event as one that was published by HTTP. What it is about is known by its routing key.
fn question(delivery: Delivery) -> Option<Ask> {
    let Delivery {
        topic,
        mut event,
        received,
        receipt,
        ..
    } = delivery;
    event.insert("topic".to_owned(), topic.as_str().into());
    // What was read as JSON can be written as JSON.
    let body = serde_json::to_vec(&event).ok()?;
    Some(Ask::Event {
        body,
        received,
        receipt,
    })
}

/// How many events of each topic may be on their way to the embedded back end, and be no event
/// yet for the reactor. Whole annotations may be large.
pub const PREFETCH: u16 = 64;
/// How many are between the connection and the back end.
const HANDS: usize = 4;
/// How long to wait while the back end has no room.
const RETRY: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Topic, questions};
    use crate::model::{MonoMillis, Receipt};
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
            receipt: Receipt::new(move || {
                handled.fetch_add(1, Ordering::Relaxed);
            }),
        }
    }

    #[test]
    fn an_event_is_about_what_its_routing_key_says() {
        let handled = Arc::default();
        let event = serde_json::json!({"topic": "annotation", "type": "group-join"});
        let Some(Ask::Event {
            body,
            received: MonoMillis(7),
            receipt,
        }) = question(delivery(Topic::User, event, &handled))
        else {
            panic!("no question");
        };
        assert_eq!(body, br#"{"topic":"user","type":"group-join"}"#);
        assert_eq!(handled.load(Ordering::Relaxed), 0);
        drop(receipt);
        assert_eq!(handled.load(Ordering::Relaxed), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_back_end_without_room_gets_everything_later_and_once() {
        let (asker, inbox) = questions();
        let handled = Arc::default();
        let count = crate::backend::QUEUE + 10;
        let (sender, deliveries) = channel(count);
        for number in 0..count {
            let event = serde_json::json!({ "number": number });
            let delivery = delivery(Topic::Annotation, event, &handled);
            sender.try_send(delivery).unwrap();
        }
        drop(sender);
        let handing = tokio::spawn(hand_over(deliveries, asker));
        sleep(Duration::from_secs(1)).await;
        assert!(!handing.is_finished());
        assert_eq!(handled.load(Ordering::Relaxed), 0, "nothing was given up");
        let mut bodies = Vec::new();
        while bodies.len() < count {
            while let Some(Ask::Event { body, .. }) = inbox.try_next() {
                bodies.push(body);
            }
            sleep(RETRY).await;
        }
        for (number, body) in bodies.iter().enumerate() {
            let expected = format!(r#"{{"number":{number},"topic":"annotation"}}"#);
            assert_eq!(body, expected.as_bytes());
        }
        assert_eq!(handled.load(Ordering::Relaxed), count);
        handing.await.unwrap();
    }
}
