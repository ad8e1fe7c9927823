//! Reads the data of an annotation for one event, in one transaction.
//!
//! Owns: the statements in the transaction. Their number is constant, regardless of the number of
//! receivers. They take two round trips: first the row, and then the data that depends on it.

use log::debug;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, Row};

use super::event::AnnotationEvent;
use super::facts::{Annotation, Facts};
use super::ids::Uuid;
use super::session::{Session, cause};
use super::{row, sql, userid};
use crate::backend::Fate;
use crate::model::EventKind;
use crate::uri;

/// Reads the data of an annotation. An outer error means that the connection must be closed. An
/// inner one means that only this annotation cannot be read.
pub(super) async fn facts(
    session: &Session,
    event: &AnnotationEvent,
) -> Result<Result<Facts, Fate>, Error> {
    let id = event.uuid;
    let hex = id.to_hex();
    // A deletion needs neither mentions nor flags. Skip them: h has no index by which to find
    // mentions.
    let shown = (event.kind() != EventKind::Delete).then_some(&hex);
    let (begun, found) = tokio::join!(
        biased;
        session.command(sql::BEGIN),
        session.query(&session.statements.annotation, [&hex]),
    );
    begun?;
    let read = match first(id, found) {
        Ok(first) => rest(session, shown, first).await,
        Err(Failure::Event(fate)) => {
            session.command(sql::ROLLBACK).await?;
            return Ok(Err(fate));
        }
        Err(failure) => Err(failure),
    };
    match read {
        Ok(facts) => Ok(Ok(facts)),
        Err(Failure::Event(fate)) => Ok(Err(fate)),
        Err(Failure::Connection(error)) => Err(error),
    }
}

/// The scope of a failure.
enum Failure {
    /// Only this event is affected.
    Event(Fate),
    Connection(Error),
}

/// The annotation's row and the rows joined with it.
struct First {
    facts: Facts,
    group_id: Option<i32>,
    document_id: i32,
}

fn first(id: Uuid, found: Result<Vec<Row>, Error>) -> Result<First, Failure> {
    let rows = answered(found)?;
    let row = rows.first().ok_or(Failure::Event(Fate::Missing))?;
    let read = || -> Result<First, Error> {
        Ok(First {
            facts: Facts {
                annotation: row::annotation(id, row)?,
                group: row::group(row)?,
                title: row.try_get("title")?,
                web_address: row.try_get("web_address")?,
                author: None,
                pages: Vec::new(),
                mentions: Vec::new(),
                flaggers: Vec::new(),
                moderators: Vec::new(),
                has_checkpoint: row.try_get("has_checkpoint")?,
                students: Vec::new(),
                parents: Vec::new(),
            },
            group_id: row.try_get("group_id")?,
            document_id: row.try_get("document_id")?,
        })
    };
    read().map_err(unreadable)
}

/// Runs the second half of the transaction. All statements are sent, even those that cannot return
/// rows, for example because the group does not exist.
async fn rest(session: &Session, shown: Option<&String>, first: First) -> Result<Facts, Failure> {
    let statements = &session.statements;
    let (mut facts, group_id, document_id) = (first.facts, first.group_id, first.document_id);
    let Annotation {
        userid,
        groupid,
        target_uri,
        ..
    } = &facts.annotation;
    let (name, authority) = userid::split(userid).unzip();
    let page = target_uri.as_deref().map(uri::normalize);
    let page = page.and_then(Result::ok);
    let references: Vec<String> = facts.annotation.references().map(Uuid::to_hex).collect();
    let (author, pages, mentions, flaggers, moderators, students, parents, done) = tokio::join!(
        biased;
        session.query(&statements.author, [&name, &authority, &group_id]),
        session.query(&statements.pages, [&page, &document_id, target_uri]),
        session.query(&statements.mentions, [&shown]),
        session.query(&statements.flaggers, [&shown]),
        session.query(&statements.moderators, [&group_id]),
        session.query(&statements.students, [&group_id, &document_id]),
        session.query(&statements.parents, [&references, groupid]),
        session.command(sql::COMMIT),
    );
    done.map_err(Failure::Connection)?;
    let author = each(author, row::author)?;
    facts.author = author.into_iter().next();
    facts.pages = each(pages, row::page)?;
    facts.mentions = each(mentions, row::mention)?;
    facts.flaggers = each(flaggers, row::userid)?;
    facts.moderators = each(moderators, row::userid)?;
    facts.students = each(students, row::userid)?;
    facts.parents = each(parents, |row| row.try_get("userid"))?;
    Ok(facts)
}

/// Converts each row of an answer.
fn each<T>(
    answer: Result<Vec<Row>, Error>,
    read: impl Fn(&Row) -> Result<T, Error>,
) -> Result<Vec<T>, Failure> {
    let rows = answered(answer)?;
    let read = rows.iter().map(read).collect::<Result<_, _>>();
    read.map_err(unreadable)
}

/// Classifies a failed query as a failure of the event or of the connection.
fn answered(answer: Result<Vec<Row>, Error>) -> Result<Vec<Row>, Failure> {
    answer.map_err(|error| match error.code() {
        Some(code) if is_of_rows(code) => unreadable(error),
        _ => Failure::Connection(error),
    })
}

/// A failure caused by a value that cannot be decoded.
fn unreadable(error: Error) -> Failure {
    debug!("an annotation cannot be read: {}", cause(&error));
    Failure::Event(Fate::Unreadable)
}

/// Returns whether an error code is caused by the data in the rows: it is invalid, exceeds a limit,
/// or is damaged.
fn is_of_rows(code: &SqlState) -> bool {
    let code = code.code();
    code.starts_with("22") || code.starts_with("54") || ["XX001", "XX002"].contains(&code)
}
