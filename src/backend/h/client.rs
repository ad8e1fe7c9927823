//! The queries on the database.
//!
//! Owns: the timeout of queries, and closing the connection after a failure. Must not know: when to
//! reconnect, or the callers that wait for answers.
//!
//! There is one connection, and queries run one at a time. The connection is closed after any
//! failure, since a late answer could be mistaken for that of another query.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tokio_postgres::Error;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres_rustls::MakeRustlsConnect;

use super::annotation_state::AnnotationState;
use super::connection::{DatabaseConnection, cause};
use super::event::AnnotationEvent;
use super::history::{Hasher, Planned};
use super::pending::Pending;
use super::url::{self, ConnectionSpec};
use super::urls::UrlBuilder;
use super::{plan, read_state, row};
use crate::backend::time::PgTime;
use crate::backend::userid;
use crate::backend::{DropReason, Stats};
use crate::model::{EndCause, FoundUser, Identity, Membership, TokenId, UnixMillis};
use crate::trust;

/// The location of h's database, and the settings of the installation.
#[derive(Clone)]
pub struct DatabaseSettings {
    /// The URL of the database, with credentials.
    pub database_url: String,
    /// The authority of the installation's own users.
    pub authority: String,
    /// The base of links, without a trailing slash.
    pub app_url: String,
    /// The base of links to annotations in context, if there are such links.
    pub bouncer_url: Option<String>,
}

/// The database is unavailable. Contains the cause, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unavailable(pub(super) String);

/// h's database.
pub struct DatabaseClient {
    spec: ConnectionSpec,
    tls: MakeRustlsConnect,
    pub(super) urls: UrlBuilder,
    pub(super) hasher: Hasher,
    stats: Arc<Stats>,
    /// Taken out during a query, so that it is dropped if the query fails.
    connection: Option<DatabaseConnection>,
}

impl DatabaseClient {
    /// Reads the settings without connecting.
    ///
    /// # Errors
    /// All errors in the URL and the files that it names, without secrets.
    pub fn new(
        settings: &DatabaseSettings,
        stats: Arc<Stats>,
    ) -> Result<DatabaseClient, Vec<String>> {
        let spec = url::parse(&settings.database_url);
        let unreadable = url::unreadable_files(&settings.database_url);
        let spec = match (spec, unreadable.is_empty()) {
            (Ok(spec), true) => spec,
            (Ok(spec), false) if spec.is_without_tls() => spec,
            (Ok(_), false) => return Err(unreadable),
            (Err(mut errors), _) => {
                errors.extend(unreadable);
                return Err(errors);
            }
        };
        let tls = trust::client_config_with(&spec.verification, &spec.tls_options);
        let tls = tls.map_err(|error| vec![error.to_string()])?;
        let tls = MakeRustlsConnect::new(tls);
        let bouncer_url = settings.bouncer_url.as_deref();
        Ok(DatabaseClient {
            spec,
            tls,
            urls: UrlBuilder::new(&settings.authority, &settings.app_url, bouncer_url),
            hasher: Hasher::default(),
            stats,
            connection: None,
        })
    }

    /// Connects, and replaces any existing connection.
    ///
    /// # Errors
    /// [`Unavailable`] if no connection can be made, or the other end is not h's database.
    pub async fn connect(&mut self) -> Result<(), Unavailable> {
        self.connection = None;
        let mut failed = Unavailable("no host to connect to".to_owned());
        for server_kinds in self.spec.server_kinds.clone() {
            match self.connect_to(server_kinds).await {
                Ok(()) => return Ok(()),
                Err(unavailable) => failed = unavailable,
            }
        }
        Err(Unavailable(format!("{}: {failed}", self.spec.server())))
    }

    /// Returns the options of the URL that have no effect, with reasons.
    pub fn warnings(&self) -> &[String] {
        &self.spec.warnings
    }

    async fn connect_to(&mut self, server_kinds: TargetSessionAttrs) -> Result<(), Unavailable> {
        let mut ssl_modes = self.spec.ssl_modes.iter().peekable();
        while let Some(&ssl_mode) = ssl_modes.next() {
            let mut config = self.spec.config.clone();
            config.ssl_mode(ssl_mode).target_session_attrs(server_kinds);
            let opened = DatabaseConnection::open(&config, self.tls.clone(), &self.stats);
            match timeout(self.spec.connect_timeout(), opened).await {
                Ok(Ok(connection)) => {
                    self.connection = Some(connection);
                    return Ok(());
                }
                Ok(Err(error)) if error.retry_in_other_ssl_mode && ssl_modes.peek().is_some() => {}
                Ok(Err(error)) => return Err(Unavailable(error.cause)),
                Err(_) => return Err(Unavailable("connecting timed out".to_owned())),
            }
        }
        Err(Unavailable("no host to connect to".to_owned()))
    }

    /// Returns whether there is an open connection.
    pub fn is_connected(&self) -> bool {
        self.connection
            .as_ref()
            .is_some_and(DatabaseConnection::is_open)
    }

    /// Returns the identities of tokens, in the same order, with a single statement.
    ///
    /// # Errors
    /// [`Unavailable`]
    pub async fn identities(
        &mut self,
        tokens: &[&str],
        now: UnixMillis,
    ) -> Result<Vec<Option<Identity>>, Unavailable> {
        // PostgreSQL's text cannot contain NUL, so no such token exists.
        let values = tokens.iter().map(|&token| match token.contains('\0') {
            true => "",
            false => token,
        });
        let values: Vec<&str> = values.collect();
        let mut identities = vec![None; tokens.len()];
        if values.iter().all(|value| value.is_empty()) {
            return Ok(identities);
        }
        let rows = self
            .run(async |connection| {
                let statement = &connection.statements.identities;
                connection.query(statement, [&values]).await
            })
            .await?;
        for row in &rows {
            let place: i64 = row.try_get("place").map_err(unexpected_row)?;
            let place = usize::try_from(place - 1).ok();
            let Some(identity) = place.and_then(|place| identities.get_mut(place)) else {
                continue;
            };
            let expires: Option<PgTime> = row.try_get("expires").map_err(unexpected_row)?;
            let expires = expires.and_then(PgTime::to_unix);
            if expires.is_none_or(|end| now < end) {
                *identity = Some(Identity {
                    userid: row::userid(row).map_err(unexpected_row)?.into(),
                    memberships: row::memberships(row).map_err(unexpected_row)?,
                    token: row::token(row).map_err(unexpected_row)?,
                    expires,
                });
            }
        }
        Ok(identities)
    }

    /// Returns the memberships of a user; `None` if the user does not exist or has been deleted.
    ///
    /// # Errors
    /// [`Unavailable`]
    pub async fn memberships(
        &mut self,
        userid: &str,
    ) -> Result<Option<Vec<Membership>>, Unavailable> {
        let user = self.user(userid).await?;
        Ok(user.map(|user| user.memberships))
    }

    /// Returns a user with the stored spelling of the userid; `None` if the user does not exist or has
    /// been deleted.
    ///
    /// # Errors
    /// [`Unavailable`]
    pub async fn user(&mut self, userid: &str) -> Result<Option<FoundUser>, Unavailable> {
        let parts = userid::split(userid).filter(|_| !userid.contains('\0'));
        let Some((name, authority)) = parts else {
            return Ok(None);
        };
        let rows = self
            .run(async |connection| {
                let statement = &connection.statements.memberships;
                connection.query(statement, [&name, &authority]).await
            })
            .await?;
        let row = rows.first();
        row.map(|row| {
            Ok(FoundUser {
                userid: row::userid(row)?.into(),
                memberships: row::memberships(row)?,
            })
        })
        .transpose()
        .map_err(unexpected_row)
    }

    /// Returns the current status of tokens: the user and the memberships, or the reason why the
    /// token has ended. Uses one statement for every [`SWEEP_BATCH`] tokens.
    ///
    /// # Errors
    /// [`Unavailable`]
    pub async fn sweep(
        &mut self,
        tokens: &[TokenId],
        now: UnixMillis,
    ) -> Result<Vec<(TokenId, TokenStatus)>, Unavailable> {
        let mut swept = Vec::with_capacity(tokens.len());
        for chunk in tokens.chunks(SWEEP_BATCH) {
            self.sweep_chunk(chunk, now, &mut swept).await?;
        }
        Ok(swept)
    }

    async fn sweep_chunk(
        &mut self,
        tokens: &[TokenId],
        now: UnixMillis,
        swept: &mut Vec<(TokenId, TokenStatus)>,
    ) -> Result<(), Unavailable> {
        let ids = tokens
            .iter()
            .filter_map(|token| i32::try_from(token.0).ok());
        let ids: Vec<i32> = ids.collect();
        let rows = self
            .run(async |connection| {
                let statement = &connection.statements.sweep;
                connection.query(statement, [&ids]).await
            })
            .await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            let expires: Option<PgTime> = row.try_get("expires").map_err(unexpected_row)?;
            let expires = expires.and_then(PgTime::to_unix);
            let status = if row.try_get("deleted").map_err(unexpected_row)? {
                Err(EndCause::UserDeleted)
            } else if expires.is_some_and(|end| end <= now) {
                Err(EndCause::Expired)
            } else {
                let userid = row::userid(row).map_err(unexpected_row)?.into();
                Ok((userid, row::memberships(row).map_err(unexpected_row)?))
            };
            found.insert(row::token(row).map_err(unexpected_row)?, status);
        }
        let mut status = |token| found.remove(token).unwrap_or(Err(EndCause::Revoked));
        swept.extend(tokens.iter().map(|token| (*token, status(token))));
        Ok(())
    }

    /// Returns the plan of an event, given the current data of its annotation, which is read in one
    /// transaction. For a checkpoint, users with a `pending` membership count as students until the
    /// database knows their role.
    ///
    /// # Errors
    /// [`Unavailable`], after which the event can be retried, or the [`DropReason`] of a dropped
    /// event. An event that takes too long to process can cause [`Unavailable`] every time.
    pub async fn annotation(
        &mut self,
        event: &AnnotationEvent,
        pending: &Pending,
    ) -> Result<Result<Planned, DropReason>, Unavailable> {
        let state = self
            .run(async |connection| read_state::read_state(connection, event).await)
            .await?;
        Ok(state.and_then(|mut state| {
            let mut facts = self.hasher.facts(&state);
            add_joining(&mut state, pending);
            let plan = plan::plan(event, &state, &self.urls)?;
            facts.rules = self.hasher.rules(&plan.rules);
            Ok(Planned { plan, facts })
        }))
    }

    /// Runs a query on the connection, which is closed if the query fails.
    pub(super) async fn run<T>(
        &mut self,
        work: impl AsyncFnOnce(&DatabaseConnection) -> Result<T, Error>,
    ) -> Result<T, Unavailable> {
        let open = self.connection.take().filter(DatabaseConnection::is_open);
        let connection = open.ok_or_else(|| Unavailable("not connected".to_owned()))?;
        let answer = timeout(ANSWER_TIMEOUT, work(&connection)).await;
        let answer = answer.map_err(|_| Unavailable("query timed out".to_owned()))?;
        let answer = answer.map_err(|error| Unavailable(cause(&error)))?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

/// Adds users with an unconfirmed membership to those to which a checkpoint applies.
pub(super) fn add_joining(state: &mut AnnotationState, pending: &Pending) {
    if state.has_checkpoint {
        let joining = pending.joining(&state.annotation.groupid);
        state.students.extend(joining.map(str::to_owned));
    }
}

/// The current status of a token: userid and memberships, or the reason why it has ended.
pub type TokenStatus = Result<(Box<str>, Vec<Membership>), EndCause>;

/// An answer with unexpected types, which can only occur after the tables have changed.
pub(super) fn unexpected_row(error: Error) -> Unavailable {
    Unavailable(cause(&error))
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unavailable {}

// Both contain passwords.

impl fmt::Debug for DatabaseSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseSettings")
            .field("authority", &self.authority)
            .field("app_url", &self.app_url)
            .field("bouncer_url", &self.bouncer_url)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for DatabaseClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DatabaseClient")
            .field("urls", &self.urls)
            .field("is_connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

/// The timeout for all statements of a query together. Longer than the server's timeout for one
/// statement, and shorter than that of handshakes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
/// The number of tokens per statement in [`DatabaseClient::sweep`]. Such a statement takes about 50
/// ms.
pub const SWEEP_BATCH: usize = 2000;
