//! The queries of the history on the database: changes since a time, the rights on annotations, and
//! annotations in batches.

use std::collections::{HashMap, HashSet};

use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, Row};

use super::client::{DatabaseClient, Unavailable, add_joining};
use super::connection::DatabaseConnection;
use super::history::{
    ChangedRow, Changes, Facts, GroupRights, Hasher, PAGE, Page, Planned, Purpose, Rights, RowState,
};
use super::ids::Uuid;
use super::pending::Pending;
use super::plan::{self, Notification};
use super::{read_states, row, sql};
use crate::backend::DropReason;
use crate::backend::time::PgTime;
use crate::backend::userid;
use crate::model::{Cause, EventKind};

/// The result of a query that may take longer than the server permits. `None` if the server has
/// canceled a statement.
pub(super) type Answer<T> = Result<Option<T>, Unavailable>;

/// Decides whether an annotation is sent, and why.
pub(super) type Decide<'a> = &'a dyn Fn(&Facts) -> Option<Purpose>;

/// An annotation that was read for the history.
pub(super) struct Swept {
    pub id: Uuid,
    /// The plan; the facts alone if the decision was not to send it; or the reason why it cannot be
    /// read or sent, with the state of the row if it is known.
    pub result: Result<SweptPlan, (DropReason, Option<RowState>)>,
}

/// A plan, or the facts of an annotation that is not sent.
pub(super) enum SweptPlan {
    Send(Box<Planned>, Purpose),
    Skip(Box<Facts>),
}

impl DatabaseClient {
    /// Returns a page of changes, in one transaction.
    ///
    /// # Errors
    /// [`Unavailable`]
    pub(super) async fn changes(&mut self, page: Page) -> Answer<Changes> {
        let hasher = self.hasher.clone();
        self.run(async |connection| tolerate_timeout(read_changes(connection, page, &hasher).await))
            .await
    }

    /// Returns the current rights of authors and in groups, with one statement for each.
    ///
    /// # Errors
    /// [`Unavailable`]
    pub(super) async fn rights(&mut self, authors: &[&str], groups: &[&str]) -> Answer<Rights> {
        let hasher = self.hasher.clone();
        self.run(async |connection| {
            tolerate_timeout(read_rights(connection, (authors, groups), &hasher).await)
        })
        .await
    }

    /// Reads annotations in one transaction, and returns the plans of those that `decide` selects.
    ///
    /// # Errors
    /// [`Unavailable`]. An annotation that takes too long to read can cause it every time.
    pub(super) async fn annotations(
        &mut self,
        ids: &[Uuid],
        pending: &Pending,
        decide: Decide<'_>,
    ) -> Result<Vec<Swept>, Unavailable> {
        let read = self
            .run(async |connection| read_states::read_states(connection, ids).await)
            .await?;
        let swept = read.into_iter().map(|(id, state)| {
            let result = match state {
                Ok(state) => self.swept(state, pending, decide),
                Err(reason) => Err((reason, None)),
            };
            Swept { id, result }
        });
        Ok(swept.collect())
    }

    fn swept(
        &self,
        mut state: super::annotation_state::AnnotationState,
        pending: &Pending,
        decide: Decide<'_>,
    ) -> Result<SweptPlan, (DropReason, Option<RowState>)> {
        let mut facts = self.hasher.facts(&state);
        add_joining(&mut state, pending);
        let is_deleted = state.annotation.deleted;
        let access = plan::access(&state, kind(is_deleted, EventKind::Update));
        facts.rules = self.hasher.rules(&access.rules);
        let Some(purpose) = decide(&facts) else {
            return Ok(SweptPlan::Skip(Box::new(facts)));
        };
        let kind = match purpose {
            Purpose::RightsChange => kind(is_deleted, EventKind::Create),
            Purpose::Event if facts.is_new => kind(is_deleted, EventKind::Create),
            Purpose::Event => kind(is_deleted, EventKind::Update),
        };
        let id = facts.id.to_url_safe();
        let notification = Notification {
            kind,
            action: kind.as_str(),
            id: &id,
        };
        let planned = notification.plan(&state, &self.urls, access, None);
        let mut plan = planned.map_err(|reason| (reason, Some(facts.state)))?;
        if purpose == Purpose::RightsChange {
            plan.cause = Cause::RightsChange;
        }
        Ok(SweptPlan::Send(Box::new(Planned { plan, facts }), purpose))
    }
}

/// Returns the kind of a notification about an annotation that may have been deleted.
fn kind(is_deleted: bool, otherwise: EventKind) -> EventKind {
    match is_deleted {
        true => EventKind::Delete,
        false => otherwise,
    }
}

/// Turns the cancellation of a statement by the server's timeout into `None`. The connection
/// remains usable.
fn tolerate_timeout<T>(read: Result<T, Error>) -> Result<Option<T>, Error> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.code() == Some(&SqlState::QUERY_CANCELED) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn read_changes(
    connection: &DatabaseConnection,
    page: Page,
    hasher: &Hasher,
) -> Result<Changes, Error> {
    let statements = &connection.statements.history;
    let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
    let changed = async {
        match page {
            Page::After((time, id), _) => {
                let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] =
                    [&time.0, &id.to_hex(), &limit];
                connection
                    .query(&statements.changed_after, parameters)
                    .await
            }
            Page::Before((time, id), since, _) => {
                let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 4] =
                    [&time.0, &id.to_hex(), &limit, &since.0];
                connection
                    .query(&statements.changed_before, parameters)
                    .await
            }
        }
    };
    let moderated = async {
        match (&statements.moderated, page) {
            (Some(statements), Page::After(_, Some(log_id))) => {
                connection.query(&statements.after, [&log_id, &limit]).await
            }
            (Some(statements), Page::Before(_, _, true)) => {
                connection.query(&statements.newest, [&limit]).await
            }
            _ => Ok(Vec::new()),
        }
    };
    let (begun, now, changed, moderated, done) = tokio::join!(
        biased;
        connection.command(sql::BEGIN),
        connection.query(&statements.clock, []),
        changed,
        moderated,
        connection.command(sql::COMMIT),
    );
    begun?;
    let (now, changed, moderated) = (now?, changed?, moderated?);
    done?;
    let mut logged = Vec::with_capacity(moderated.len());
    for row in &moderated {
        let created: PgTime = row.try_get("created")?;
        let mut changed = changed_row(row, hasher)?;
        changed.changed = changed.changed.max(created);
        logged.push((row.try_get("log_id")?, changed));
    }
    Ok(Changes {
        now: now
            .first()
            .map_or(Ok(PgTime(0)), |row| row.try_get("now"))?,
        rows: changed
            .iter()
            .map(|row| changed_row(row, hasher))
            .collect::<Result<_, _>>()?,
        moderated: logged,
        knows_moderation: statements.moderated.is_some(),
    })
}

fn changed_row(row: &Row, hasher: &Hasher) -> Result<ChangedRow, Error> {
    let updated: PgTime = row.try_get("updated")?;
    let size: i64 = row.try_get("size")?;
    Ok(ChangedRow {
        id: row.try_get("id")?,
        state: RowState {
            updated,
            deleted: row.try_get("deleted")?,
            status: hasher.status(row.try_get("moderation_status")?),
        },
        changed: updated,
        size: usize::try_from(size).unwrap_or(0),
    })
}

async fn read_rights(
    connection: &DatabaseConnection,
    (authors, groups): (&[&str], &[&str]),
    hasher: &Hasher,
) -> Result<Rights, Error> {
    let statements = &connection.statements.history;
    let (names, authorities): (Vec<_>, Vec<_>) = authors
        .iter()
        .map(|author| userid::split(author).unzip())
        .unzip();
    let (muted, found) = tokio::join!(
        biased;
        connection.query(&statements.muted, [&names, &authorities]),
        connection.query(&statements.groups, [&groups]),
    );
    let (muted, found) = (muted?, found?);
    let name = |row: &Row, names: &[&str]| -> Result<Option<String>, Error> {
        let place: i64 = row.try_get("place")?;
        let place = usize::try_from(place - 1).ok();
        Ok(place
            .and_then(|place| names.get(place))
            .map(|&name| name.to_owned()))
    };
    let (mut is_muted, mut rights) = (HashSet::new(), HashMap::new());
    for row in &muted {
        is_muted.extend(name(row, authors)?);
    }
    for row in &found {
        if let Some(group) = name(row, groups)? {
            rights.insert(group, group_rights(row, hasher)?);
        }
    }
    Ok(Rights {
        muted: is_muted,
        groups: rights,
    })
}

fn group_rights(row: &Row, hasher: &Hasher) -> Result<GroupRights, Error> {
    let documents: Option<Vec<i32>> = row.try_get("documents")?;
    let students: Option<Vec<String>> = row.try_get("students")?;
    Ok(GroupRights {
        rights: hasher.group_rights(row::group(row)?, row.try_get("moderators")?),
        checkpoint: hasher.checkpoint(students.unwrap_or_default()),
        documents: documents.unwrap_or_default(),
    })
}
