//! Queries the database, which may become unavailable at any time.
//!
//! Owns: when to reconnect, and the related log messages. Must not know: the queries.

use std::time::Duration;

use log::{error, info, warn};
use tokio::time::{Instant, sleep, timeout};

use super::client::{DatabaseClient, TokenStatus, Unavailable};
use super::event::AnnotationEvent;
use super::history::{Changes, Page, Planned, Rights};
use super::history_queries::{Answer, Decide, Swept};
use super::ids::Uuid;
use super::pending::Pending;
use crate::backend::DropReason;
use crate::backend::amqp::{LONGEST_DELAY, SHORTEST_DELAY};
use crate::backoff::Backoff;
use crate::model::{FoundUser, Identity, Membership, TokenId, UnixMillis};

/// Queries on h's data. See the methods of [`DatabaseClient`].
#[allow(missing_docs)]
pub(super) trait Queries {
    async fn connect(&mut self) -> Result<(), Unavailable>;
    fn is_connected(&self) -> bool;
    async fn identities(
        &mut self,
        tokens: &[&str],
        now: UnixMillis,
    ) -> Result<Vec<Option<Identity>>, Unavailable>;
    async fn memberships(&mut self, userid: &str) -> Result<Option<Vec<Membership>>, Unavailable>;
    async fn user(&mut self, userid: &str) -> Result<Option<FoundUser>, Unavailable>;
    async fn sweep(
        &mut self,
        tokens: &[TokenId],
        now: UnixMillis,
    ) -> Result<Vec<(TokenId, TokenStatus)>, Unavailable>;
    async fn annotation(
        &mut self,
        event: &AnnotationEvent,
        pending: &Pending,
    ) -> Result<Result<Planned, DropReason>, Unavailable>;
    async fn changes(&mut self, page: Page) -> Answer<Changes>;
    async fn rights(&mut self, authors: &[&str], groups: &[&str]) -> Answer<Rights>;
    async fn annotations(
        &mut self,
        ids: &[Uuid],
        pending: &Pending,
        decide: Decide<'_>,
    ) -> Result<Vec<Swept>, Unavailable>;
}

impl Queries for DatabaseClient {
    async fn connect(&mut self) -> Result<(), Unavailable> {
        // The future is large, since it contains the preparation of all statements. Every query
        // contains it.
        Box::pin(DatabaseClient::connect(self)).await
    }

    fn is_connected(&self) -> bool {
        DatabaseClient::is_connected(self)
    }

    async fn identities(
        &mut self,
        tokens: &[&str],
        now: UnixMillis,
    ) -> Result<Vec<Option<Identity>>, Unavailable> {
        DatabaseClient::identities(self, tokens, now).await
    }

    async fn memberships(&mut self, userid: &str) -> Result<Option<Vec<Membership>>, Unavailable> {
        DatabaseClient::memberships(self, userid).await
    }

    async fn user(&mut self, userid: &str) -> Result<Option<FoundUser>, Unavailable> {
        DatabaseClient::user(self, userid).await
    }

    async fn sweep(
        &mut self,
        tokens: &[TokenId],
        now: UnixMillis,
    ) -> Result<Vec<(TokenId, TokenStatus)>, Unavailable> {
        DatabaseClient::sweep(self, tokens, now).await
    }

    async fn annotation(
        &mut self,
        event: &AnnotationEvent,
        pending: &Pending,
    ) -> Result<Result<Planned, DropReason>, Unavailable> {
        DatabaseClient::annotation(self, event, pending).await
    }

    async fn changes(&mut self, page: Page) -> Answer<Changes> {
        DatabaseClient::changes(self, page).await
    }

    async fn rights(&mut self, authors: &[&str], groups: &[&str]) -> Answer<Rights> {
        DatabaseClient::rights(self, authors, groups).await
    }

    async fn annotations(
        &mut self,
        ids: &[Uuid],
        pending: &Pending,
        decide: Decide<'_>,
    ) -> Result<Vec<Swept>, Unavailable> {
        DatabaseClient::annotations(self, ids, pending, decide).await
    }
}

/// A database with its availability.
pub(super) struct Database<D> {
    data: D,
    state: DatabaseState,
    backoff: Backoff,
    random: Box<dyn FnMut() -> u64>,
}

enum DatabaseState {
    Up {
        since: Instant,
    },
    Down {
        since: Instant,
        /// The duration of the last connection.
        lasted: Duration,
        /// No connection has been attempted yet.
        is_first: bool,
        /// The connection error that was logged last.
        logged: Option<String>,
    },
}

impl<D: Queries> Database<D> {
    /// Creates a database without connecting to it.
    pub(super) fn new(data: D, random: impl FnMut() -> u64 + 'static) -> Self {
        Database {
            data,
            state: DatabaseState::Down {
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
    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, DatabaseState::Up { .. })
    }

    /// Runs a query, and returns `None` if the database is unavailable. A closed connection is
    /// often detected only when it is used, and the server may have restarted by then, so the query
    /// is retried once after a reconnect.
    pub(super) async fn query<T>(
        &mut self,
        operation: impl AsyncFn(&mut D) -> Result<T, Unavailable>,
    ) -> Option<T> {
        match operation(&mut self.data).await {
            Ok(answer) => return Some(answer),
            Err(unavailable) => self.reconnect_once(unavailable).await.ok()?,
        }
        match operation(&mut self.data).await {
            Ok(answer) => Some(answer),
            Err(unavailable) => {
                self.mark_unavailable(&unavailable);
                None
            }
        }
    }

    /// Reconnects if the connection has ended while idle.
    pub(super) async fn probe(&mut self) {
        if !self.data.is_connected() {
            // The database is either unavailable or available again now.
            let _ = self
                .reconnect_once(Unavailable("the connection ended".into()))
                .await;
        }
    }

    /// Reconnects once without delay. If that fails, the database is unavailable.
    async fn reconnect_once(&mut self, lost: Unavailable) -> Result<(), ()> {
        match timeout(RECONNECT_TIMEOUT, self.data.connect()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                self.mark_unavailable(&lost);
                Err(())
            }
        }
    }

    fn mark_unavailable(&mut self, unavailable: &Unavailable) {
        let DatabaseState::Up { since } = self.state else {
            return;
        };
        warn!("database unavailable: {unavailable}; rejecting authenticated handshakes with 503");
        self.state = DatabaseState::Down {
            since: Instant::now(),
            lasted: since.elapsed(),
            is_first: false,
            logged: None,
        };
    }

    /// Reconnects, and retries until that succeeds.
    pub(super) async fn reconnect(&mut self) {
        while let DatabaseState::Down {
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
                        info!("database available again: outage={seconds:.1}s");
                    }
                    let since = Instant::now();
                    self.state = DatabaseState::Up { since };
                }
                Err(unavailable) => {
                    // An outage may last long; only a new reason is logged.
                    let cause = unavailable.to_string();
                    if logged.as_ref() != Some(&cause) {
                        error!("cannot connect to the database: {cause}; retrying");
                        *logged = Some(cause);
                    }
                    (*lasted, *is_first) = (Duration::ZERO, false);
                }
            }
        }
    }
}

/// The timeout for reconnecting in place of a closed connection. Handshakes wait meanwhile.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(2);
