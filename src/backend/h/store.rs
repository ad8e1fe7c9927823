//! What is asked of the database.
//!
//! Owns: how long an answer may take, and what becomes of a connection over which one did not
//! come. Must not know: when to connect again, or who waits for an answer.
//!
//! There is one connection, and whoever asks waits for the answer before asking again. A
//! connection over which anything went wrong is given up: what may still come over it could be
//! taken for the answer to something else.

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

/// Where h's database is, and what its installation is called.
#[derive(Clone)]
pub struct Settings {
    /// The URL of the database, with credentials.
    pub database_url: String,
    /// The authority of the installation's own users.
    pub authority: String,
    /// The base of links, without a slash at its end.
    pub app_url: String,
    /// The base of links to annotations in their context, if there are such links.
    pub bouncer_url: Option<String>,
}

/// The database cannot be asked now; the cause, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Away(pub(super) String);

/// h's database.
pub struct Store {
    target: Target,
    tls: MakeRustlsConnect,
    site: Site,
    stats: Arc<Stats>,
    /// Taken out while something is asked, so that it is gone when no answer has come.
    session: Option<Session>,
}

impl Store {
    /// Reads the settings. Connects to nothing.
    ///
    /// # Errors
    /// Everything that is wrong with the URL or the files that it names; nothing secret.
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

    /// Connects, in place of any connection there was.
    ///
    /// # Errors
    /// [`Away`] when there is no connection, or not what h's database has on its other end.
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

    /// Options of the URL that have no effect, and why.
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

    /// Whether there is a connection now.
    pub fn is_connected(&self) -> bool {
        self.session.as_ref().is_some_and(Session::is_open)
    }

    /// Who these tokens stand for, each in its place; one statement for all.
    ///
    /// # Errors
    /// [`Away`].
    pub async fn identities(
        &mut self,
        tokens: &[&str],
        now: UnixMillis,
    ) -> Result<Vec<Option<Identity>>, Away> {
        // PostgreSQL has no text with a NUL in it, so there is no such token.
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

    /// The groups of a user; `None` if there is no such user, or they are deleted.
    ///
    /// # Errors
    /// [`Away`].
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

    /// What is to be said now of tokens that connections have: their user and that user's groups,
    /// or why the token has ended. One statement for every [`SWEPT`] of them.
    ///
    /// # Errors
    /// [`Away`].
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

    /// The plan of an event, by what the database says of its annotation now, in one transaction.
    /// From users whose membership is `pending`, a checkpoint hides the annotation as from
    /// students, until the database says whether they are.
    ///
    /// # Errors
    /// [`Away`], after which the event can be tried again; and the [`Fate`] of an event that
    /// leads to nothing. Over one event a database may be away for ever, if that takes too long.
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

    /// Asks over the connection, which is gone when there is no answer.
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

/// Whose a token is now, by userid and groups, or why it has ended.
pub type Standing = Result<(Box<str>, Vec<Membership>), EndCause>;

/// An answer that is not of the type asked for, which can only be after the tables have changed.
fn odd(error: Error) -> Away {
    Away(cause(&error))
}

impl fmt::Display for Away {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Away {}

// There are passwords in both.

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

/// For all of what is asked together. Longer than the server itself allows for one statement,
/// and shorter than handshakes wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
/// Tokens that one statement of [`Store::sweep`] is about. That many take it some 50 ms.
pub const SWEPT: usize = 2000;
