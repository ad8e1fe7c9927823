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

use super::event::AnnotationEvent;
use super::links::Site;
use super::pending::Pending;
use super::session::{Session, cause};
use super::time::PgTime;
use super::url::{self, Target};
use super::{plan, read, row, userid};
use crate::backend::{Fate, Stats};
use crate::model::{EndCause, Identity, Membership, Plan, TokenId, UnixMillis};
use crate::trust;

/// The location of h's database, and the settings of the installation.
#[derive(Clone)]
pub struct Settings {
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
pub struct Away(pub(super) String);

/// h's database.
pub struct Store {
    target: Target,
    tls: MakeRustlsConnect,
    site: Site,
    stats: Arc<Stats>,
    /// Taken out during a query, so that it is dropped if the query fails.
    session: Option<Session>,
}

impl Store {
    /// Reads the settings without connecting.
    ///
    /// # Errors
    /// All errors in the URL and the files that it names, without secrets.
    pub fn new(settings: &Settings, stats: Arc<Stats>) -> Result<Store, Vec<String>> {
        let target = url::parse(&settings.database_url);
        let unreadable = url::unreadable_files(&settings.database_url);
        let target = match (target, unreadable.is_empty()) {
            (Ok(target), true) => target,
            (Ok(target), false) if target.is_without_tls() => target,
            (Ok(_), false) => return Err(unreadable),
            (Err(mut errors), _) => {
                errors.extend(unreadable);
                return Err(errors);
            }
        };
        let tls = trust::client_on(&target.check, &target.terms);
        let tls = tls.map_err(|error| vec![error.to_string()])?;
        let tls = MakeRustlsConnect::new(tls);
        let bouncer_url = settings.bouncer_url.as_deref();
        Ok(Store {
            target,
            tls,
            site: Site::new(&settings.authority, &settings.app_url, bouncer_url),
            stats,
            session: None,
        })
    }

    /// Connects, and replaces any existing connection.
    ///
    /// # Errors
    /// [`Away`] if no connection can be made, or the other end is not h's database.
    pub async fn connect(&mut self) -> Result<(), Away> {
        self.session = None;
        let mut failed = Away("no way to connect".to_owned());
        for sessions in self.target.sessions.clone() {
            match self.connect_any_way(sessions).await {
                Ok(()) => return Ok(()),
                Err(away) => failed = away,
            }
        }
        Err(Away(format!("{}: {failed}", self.target.server())))
    }

    /// Returns the options of the URL that have no effect, with reasons.
    pub fn warnings(&self) -> &[String] {
        &self.target.warnings
    }

    async fn connect_any_way(&mut self, sessions: TargetSessionAttrs) -> Result<(), Away> {
        let mut ways = self.target.ways.iter().peekable();
        while let Some(&way) = ways.next() {
            let mut config = self.target.config.clone();
            config.ssl_mode(way).target_session_attrs(sessions);
            let opened = Session::open(&config, self.tls.clone(), &self.stats);
            match timeout(self.target.patience(), opened).await {
                Ok(Ok(session)) => {
                    self.session = Some(session);
                    return Ok(());
                }
                Ok(Err(away)) if away.may_be_the_way && ways.peek().is_some() => {}
                Ok(Err(away)) => return Err(Away(away.cause)),
                Err(_) => return Err(Away("no connection in time".to_owned())),
            }
        }
        Err(Away("no way to connect".to_owned()))
    }

    /// Returns whether there is an open connection.
    pub fn is_connected(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_open)
    }

    /// Returns the identities of tokens, in the same order, with a single statement.
    ///
    /// # Errors
    /// [`Away`]
    pub async fn identities(
        &mut self,
        tokens: &[&str],
        now: UnixMillis,
    ) -> Result<Vec<Option<Identity>>, Away> {
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
            .ask(async |session| {
                let statement = &session.statements.identities;
                session.query(statement, [&values]).await
            })
            .await?;
        for row in &rows {
            let place: i64 = row.try_get("place").map_err(odd)?;
            let place = usize::try_from(place - 1).ok();
            let Some(identity) = place.and_then(|place| identities.get_mut(place)) else {
                continue;
            };
            let expires: Option<PgTime> = row.try_get("expires").map_err(odd)?;
            let expires = expires.and_then(PgTime::to_unix);
            if expires.is_none_or(|end| now < end) {
                *identity = Some(Identity {
                    userid: row::userid(row).map_err(odd)?.into(),
                    memberships: row::memberships(row).map_err(odd)?,
                    token: row::token(row).map_err(odd)?,
                    expires,
                });
            }
        }
        Ok(identities)
    }

    /// Returns the memberships of a user; `None` if the user does not exist or has been deleted.
    ///
    /// # Errors
    /// [`Away`]
    pub async fn memberships(&mut self, userid: &str) -> Result<Option<Vec<Membership>>, Away> {
        let parts = userid::split(userid).filter(|_| !userid.contains('\0'));
        let Some((name, authority)) = parts else {
            return Ok(None);
        };
        let rows = self
            .ask(async |session| {
                let statement = &session.statements.memberships;
                session.query(statement, [&name, &authority]).await
            })
            .await?;
        let row = rows.first();
        row.map(row::memberships).transpose().map_err(odd)
    }

    /// Returns the current status of tokens: the user and the memberships, or the reason why the
    /// token has ended. Uses one statement for every [`SWEPT`] tokens.
    ///
    /// # Errors
    /// [`Away`]
    pub async fn sweep(
        &mut self,
        tokens: &[TokenId],
        now: UnixMillis,
    ) -> Result<Vec<(TokenId, Standing)>, Away> {
        let mut swept = Vec::with_capacity(tokens.len());
        for some in tokens.chunks(SWEPT) {
            self.sweep_some(some, now, &mut swept).await?;
        }
        Ok(swept)
    }

    async fn sweep_some(
        &mut self,
        tokens: &[TokenId],
        now: UnixMillis,
        swept: &mut Vec<(TokenId, Standing)>,
    ) -> Result<(), Away> {
        let ids = tokens
            .iter()
            .filter_map(|token| i32::try_from(token.0).ok());
        let ids: Vec<i32> = ids.collect();
        let rows = self
            .ask(async |session| {
                let statement = &session.statements.sweep;
                session.query(statement, [&ids]).await
            })
            .await?;
        let mut found = HashMap::with_capacity(rows.len());
        for row in &rows {
            let expires: Option<PgTime> = row.try_get("expires").map_err(odd)?;
            let expires = expires.and_then(PgTime::to_unix);
            let standing = if row.try_get("deleted").map_err(odd)? {
                Err(EndCause::UserDeleted)
            } else if expires.is_some_and(|end| end <= now) {
                Err(EndCause::Expired)
            } else {
                let userid = row::userid(row).map_err(odd)?.into();
                Ok((userid, row::memberships(row).map_err(odd)?))
            };
            found.insert(row::token(row).map_err(odd)?, standing);
        }
        let mut standing = |token| found.remove(token).unwrap_or(Err(EndCause::Revoked));
        swept.extend(tokens.iter().map(|token| (*token, standing(token))));
        Ok(())
    }

    /// Returns the plan of an event, given the current data of its annotation, which is read in one
    /// transaction. For a checkpoint, users with a `pending` membership count as students until the
    /// database knows their role.
    ///
    /// # Errors
    /// [`Away`], after which the event can be retried, or the [`Fate`] of a dropped event. An event
    /// that takes too long to process can cause [`Away`] every time.
    pub async fn annotation(
        &mut self,
        event: &AnnotationEvent,
        pending: &Pending,
    ) -> Result<Result<Plan, Fate>, Away> {
        let facts = self
            .ask(async |session| read::facts(session, event).await)
            .await?;
        Ok(facts.and_then(|mut facts| {
            if facts.has_checkpoint {
                let joining = pending.joining(&facts.annotation.groupid);
                facts.students.extend(joining.map(str::to_owned));
            }
            plan::plan(event, &facts, &self.site)
        }))
    }

    /// Runs a query on the connection, which is closed if the query fails.
    async fn ask<T>(
        &mut self,
        work: impl AsyncFnOnce(&Session) -> Result<T, Error>,
    ) -> Result<T, Away> {
        let open = self.session.take().filter(Session::is_open);
        let session = open.ok_or_else(|| Away("not connected".to_owned()))?;
        let answer = timeout(ANSWER_TIMEOUT, work(&session)).await;
        let answer = answer.map_err(|_| Away("no answer in time".to_owned()))?;
        let answer = answer.map_err(|error| Away(cause(&error)))?;
        self.session = Some(session);
        Ok(answer)
    }
}

/// The current status of a token: userid and memberships, or the reason why it has ended.
pub type Standing = Result<(Box<str>, Vec<Membership>), EndCause>;

/// An answer with unexpected types, which can only occur after the tables have changed.
fn odd(error: Error) -> Away {
    Away(cause(&error))
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Away {}

// Both contain passwords.

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("authority", &self.authority)
            .field("app_url", &self.app_url)
            .field("bouncer_url", &self.bouncer_url)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store")
            .field("site", &self.site)
            .field("is_connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

/// The timeout for all statements of a query together. Longer than the server's timeout for one
/// statement, and shorter than that of handshakes.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
/// The number of tokens per statement in [`Store::sweep`]. Such a statement takes about 50 ms.
pub const SWEPT: usize = 2000;
