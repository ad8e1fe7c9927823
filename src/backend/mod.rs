//! Back ends: what knows users, tokens, groups and who may read what.
//!
//! Owns: the thread that a back end runs on, and the channel on which it is asked. Must not know:
//! sockets, connections or WebSockets; it speaks to the rest only in the words of [`model`].
//!
//! [`model`]: crate::model

pub(crate) mod advice;
#[cfg(feature = "amqp")]
pub mod amqp;
mod data_check;
mod data_dir;
mod data_lock;
#[cfg(feature = "sqlite")]
pub mod embedded;
#[cfg(feature = "h")]
pub mod h;
#[cfg(any(feature = "amqp", feature = "sqlite"))]
mod json;
mod leftovers;
mod secret;
mod stats;

pub use data_check::check_data_dir;
pub use data_dir::{DataDir, DataDirError, FileMark};
pub use data_lock::{DirLock, Locking, Sharing};
pub use secret::new_secret;
pub use stats::{Fate, Link, Stats, Topic};

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::model::{Ask, Asks, Busy, Tell, UnixMillis};

/// What answers the questions and has the news.
pub trait BackEnd: Send + 'static {
    /// Finds out what changed since the last turn, and answers `questions` as things are after
    /// that: the news come before the answers. Every question that asks for an answer gets exactly
    /// one, also when the back end cannot do its work.
    fn turn(&mut self, questions: Vec<Ask>, now: UnixMillis) -> Vec<Tell>;
}

/// Nobody listens any more to what a back end tells.
#[derive(Debug, PartialEq, Eq)]
pub struct Closed;

/// Why something that a back end tells was not taken.
#[derive(Debug)]
pub enum Undelivered {
    /// There is no room for it now; here it is again.
    Full(Tell),
    /// Nobody listens any more.
    Closed,
}

/// The way from a back end to the reactor.
pub trait Way: Send + 'static {
    /// Hands something over; waits while there is no room for it.
    fn tell(&self, tell: Tell) -> Result<(), Closed>;

    /// Hands something over, or gives it back: for a thread that has other things to do than
    /// to wait.
    fn try_tell(&self, tell: Tell) -> Result<(), Undelivered>;
}

/// The way to a back end's thread; as many copies as wanted.
#[derive(Clone, Debug)]
pub struct Asker {
    questions: SyncSender<Ask>,
}

/// What was asked and not answered yet.
#[derive(Debug)]
pub struct Questions(Receiver<Ask>);

#[cfg(all(test, feature = "amqp"))]
impl Questions {
    /// The next one, if any waits.
    pub(crate) fn try_next(&self) -> Option<Ask> {
        self.0.try_recv().ok()
    }
}

/// A queue of questions: for those who ask, and for the back end that answers. [`Asks::ask`]
/// says [`Busy`] once [`QUEUE`] of them wait.
pub fn questions() -> (Asker, Questions) {
    let (questions, inbox) = sync_channel(QUEUE);
    (Asker { questions }, Questions(inbox))
}

/// Starts the thread of a back end. It ends when every copy of the [`Asker`] is gone, or when
/// `way` says [`Closed`].
///
/// # Errors
/// When the system refuses a thread.
pub fn start<B, C, W>(
    mut back_end: B,
    questions: Questions,
    clock: C,
    way: W,
) -> io::Result<JoinHandle<()>>
where
    B: BackEnd,
    C: Fn() -> UnixMillis + Send + 'static,
    W: Way,
{
    thread::Builder::new()
        .name("backend".to_owned())
        .spawn(move || {
            // A first turn without questions, so that the back end says at once whether it is ready.
            let mut batch = Some(Vec::new());
            while let Some(asked) = batch {
                for news in back_end.turn(asked, clock()) {
                    if way.tell(news).is_err() {
                        return;
                    }
                }
                batch = next_batch(&questions.0);
            }
        })
}

/// The questions for the next turn: none when nothing was asked for [`POLL_PERIOD`], and `None`
/// when nobody can ask any more.
fn next_batch(inbox: &Receiver<Ask>) -> Option<Vec<Ask>> {
    match inbox.recv_timeout(POLL_PERIOD) {
        Ok(first) => {
            let mut batch = vec![first];
            batch.extend(inbox.try_iter().take(BATCH - 1));
            Some(batch)
        }
        Err(RecvTimeoutError::Timeout) => Some(Vec::new()),
        Err(RecvTimeoutError::Disconnected) => None,
    }
}

impl Asker {
    /// As [`Asks::ask`], but gives a question back that there is no room for, or nobody to answer.
    ///
    /// # Errors
    /// The question.
    pub fn offer(&self, question: Ask) -> Result<(), Ask> {
        self.questions
            .try_send(question)
            .map_err(|error| match error {
                TrySendError::Full(question) | TrySendError::Disconnected(question) => question,
            })
    }
}

impl Asks for Asker {
    fn ask(&self, question: Ask) -> Result<(), Busy> {
        self.offer(question).map_err(|_| Busy)
    }
}

/// How many questions may wait for a back end.
pub const QUEUE: usize = 4096;
/// How many questions are answered together: what a storm of reconnecting clients asks is then
/// answered from one view of the database.
const BATCH: usize = 256;
/// How often a back end that is not asked looks for changes. What the commands change must take
/// effect within a second.
const POLL_PERIOD: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;
    use crate::model::{AuthReply, Secret, Ticket};

    /// Answers every token with "unknown"; tells of its first turn.
    struct Echo {
        told: bool,
    }

    impl BackEnd for Echo {
        fn turn(&mut self, questions: Vec<Ask>, _now: UnixMillis) -> Vec<Tell> {
            let mut tells = Vec::new();
            if !self.told {
                self.told = true;
                tells.push(Tell::Health { ready: true });
            }
            tells.extend(questions.into_iter().filter_map(|ask| match ask {
                Ask::Authenticate { ticket, .. } => Some(Tell::Authenticated {
                    ticket,
                    reply: AuthReply::Unknown,
                }),
                Ask::Publish { .. } | Ask::Event { .. } | Ask::Sweep { .. } => None,
            }));
            tells
        }
    }

    fn question(number: u64) -> Ask {
        Ask::Authenticate {
            ticket: Ticket(number),
            token: Secret("t".to_owned()),
        }
    }

    struct Told(Sender<Tell>);

    impl Way for Told {
        fn tell(&self, tell: Tell) -> Result<(), Closed> {
            self.0.send(tell).map_err(|_| Closed)
        }

        fn try_tell(&self, tell: Tell) -> Result<(), Undelivered> {
            self.tell(tell).map_err(|Closed| Undelivered::Closed)
        }
    }

    /// Takes nothing, and says so when its other end is dropped.
    struct Stuck(std::sync::Mutex<Receiver<()>>);

    impl Way for Stuck {
        fn tell(&self, _: Tell) -> Result<(), Closed> {
            let hold = self.0.lock().map_err(|_| Closed)?;
            hold.recv().map_err(|_| Closed)
        }

        fn try_tell(&self, tell: Tell) -> Result<(), Undelivered> {
            Err(Undelivered::Full(tell))
        }
    }

    #[test]
    fn says_that_it_is_ready_then_answers_in_order_and_ends_with_its_askers() {
        let (sender, told) = channel();
        let (asker, inbox) = questions();
        let thread = start(Echo { told: false }, inbox, || 0, Told(sender)).unwrap();
        assert!(matches!(told.recv(), Ok(Tell::Health { ready: true })));
        let other = asker.clone();
        for number in 0..10 {
            other.ask(question(number)).unwrap();
        }
        for number in 0..10 {
            let Ok(Tell::Authenticated { ticket, .. }) = told.recv() else {
                panic!("no answer");
            };
            assert_eq!(ticket, Ticket(number));
        }
        drop((asker, other));
        thread.join().unwrap();
    }

    #[test]
    fn a_full_queue_is_busy_and_so_is_a_back_end_that_has_ended() {
        let (held, hold) = channel::<()>();
        let (asker, inbox) = questions();
        let thread = start(Echo { told: false }, inbox, || 0, Stuck(hold.into())).unwrap();
        // The thread is stuck telling of its health, so nothing is taken out of the queue.
        let taken = (0..=QUEUE as u64)
            .take_while(|&number| asker.ask(question(number)).is_ok())
            .count();
        assert_eq!(taken, QUEUE);
        drop(held);
        thread.join().unwrap();
        assert_eq!(asker.ask(question(0)), Err(Busy));
    }
}
