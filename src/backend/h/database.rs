//! Queries the database, which may become unavailable at any time.
//!
//! Owns: when to reconnect, and the related log messages. Must not know: the queries.

use std::time::Duration;

use log::{error, info, warn};
use tokio::time::{Instant, sleep, timeout};

use super::event::AnnotationEvent;
use super::pending::Pending;
use super::store::{Away, Standing, Store};
use crate::backend::Fate;
use crate::backend::amqp::{LONGEST_DELAY, SHORTEST_DELAY};
use crate::backoff::Backoff;
use crate::model::{Identity, Membership, Plan, TokenId, UnixMillis};

/// Queries on h's data. See the methods of [`Store`].
#[allow(missing_docs)]
pub(super) trait Data {
    async fn connect(&mut self) -> Result<(), Away>;
    fn is_connected(&self) -> bool;
    async fn identities(
        &mut self,
        tokens: &[&str],
        now: UnixMillis,
    ) -> Result<Vec<Option<Identity>>, Away>;
    async fn memberships(&mut self, userid: &str) -> Result<Option<Vec<Membership>>, Away>;
    async fn sweep(
        &mut self,
        tokens: &[TokenId],
        now: UnixMillis,
    ) -> Result<Vec<(TokenId, Standing)>, Away>;
    async fn annotation(
        &mut self,
        event: &AnnotationEvent,
        pending: &Pending,
    ) -> Result<Result<Plan, Fate>, Away>;
}

impl Data for Store {
    async fn connect(&mut self) -> Result<(), Away> {
        Store::connect(self).await
    }

    fn is_connected(&self) -> bool {
        Store::is_connected(self)
    }

    async fn identities(
        &mut self,
        tokens: &[&str],
        now: UnixMillis,
    ) -> Result<Vec<Option<Identity>>, Away> {
        Store::identities(self, tokens, now).await
    }

    async fn memberships(&mut self, userid: &str) -> Result<Option<Vec<Membership>>, Away> {
        Store::memberships(self, userid).await
    }

    async fn sweep(
        &mut self,
        tokens: &[TokenId],
        now: UnixMillis,
    ) -> Result<Vec<(TokenId, Standing)>, Away> {
        Store::sweep(self, tokens, now).await
    }

    async fn annotation(
        &mut self,
        event: &AnnotationEvent,
        pending: &Pending,
    ) -> Result<Result<Plan, Fate>, Away> {
        Store::annotation(self, event, pending).await
    }
}

/// A database with its availability.
pub(super) struct Database<D> {
    data: D,
    state: State,
    backoff: Backoff,
    random: Box<dyn FnMut() -> u64>,
}

enum State {
    Up {
        since: Instant,
    },
    Away {
        since: Instant,
        /// The duration of the last connection.
        lasted: Duration,
        /// No connection has been attempted yet.
        is_first: bool,
        /// The connection error that was logged last.
        logged: Option<String>,
    },
}

impl<D: Data> Database<D> {
    /// Creates a database without connecting to it.
    pub fn new(data: D, random: impl FnMut() -> u64 + 'static) -> Self {
        Database {
            data,
            state: State::Away {
                since: Instant::now(),
                lasted: Duration::ZERO,
                is_first: true,
                logged: None,
            },
            backoff: Backoff::new(SHORTEST_DELAY, LONGEST_DELAY),
            random: Box::new(random),
        }
    }

    /// Returns whether the database is available.
    pub fn is_up(&self) -> bool {
        matches!(self.state, State::Up { .. })
    }

    /// Runs a query, and returns `None` if the database is unavailable. A closed connection is
    /// often detected only when it is used, and the server may have restarted by then, so the query
    /// is retried once after a reconnect.
    pub async fn ask<T>(&mut self, question: impl AsyncFn(&mut D) -> Result<T, Away>) -> Option<T> {
        match question(&mut self.data).await {
            Ok(answer) => return Some(answer),
            Err(away) => self.revive(away).await.ok()?,
        }
        match question(&mut self.data).await {
            Ok(answer) => Some(answer),
            Err(away) => {
                self.lost(&away);
                None
            }
        }
    }

    /// Reconnects if the connection has ended while idle.
    pub async fn look(&mut self) {
        if !self.data.is_connected() {
            // The database is either unavailable or available again now.
            let _ = self.revive(Away("the connection ended".into())).await;
        }
    }

    /// Reconnects once without delay. If that fails, the database is unavailable.
    async fn revive(&mut self, lost: Away) -> Result<(), ()> {
        match timeout(REVIVAL, self.data.connect()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                self.lost(&lost);
                Err(())
            }
        }
    }

    fn lost(&mut self, away: &Away) {
        let State::Up { since } = self.state else {
            return;
        };
        warn!("the database is away: {away}; who comes with a token is told to come back later");
        self.state = State::Away {
            since: Instant::now(),
            lasted: since.elapsed(),
            is_first: false,
            logged: None,
        };
    }

    /// Reconnects, and retries until that succeeds.
    pub async fn come_back(&mut self) {
        while let State::Away {
            since,
            lasted,
            is_first,
            logged,
        } = &mut self.state
        {
            if !*is_first {
                sleep(self.backoff.next(*lasted, (self.random)())).await;
            }
            match self.data.connect().await {
                Ok(()) => {
                    if !*is_first {
                        let seconds = since.elapsed().as_secs_f64();
                        info!("the database is there again, after {seconds:.1} s");
                    }
                    let since = Instant::now();
                    self.state = State::Up { since };
                }
                Err(away) => {
                    // An outage may last long; only a new reason is logged.
                    let cause = away.to_string();
                    if logged.as_ref() != Some(&cause) {
                        error!("the database cannot be reached: {cause}; trying again");
                        *logged = Some(cause);
                    }
                    (*lasted, *is_first) = (Duration::ZERO, false);
                }
            }
        }
    }
}

/// The timeout for reconnecting in place of a closed connection. Handshakes wait meanwhile.
const REVIVAL: Duration = Duration::from_secs(2);
