//! Reads the data of an annotation for one event, in one transaction.
//!
//! Owns: the statements in the transaction. Their number is constant, regardless of the number of
//! receivers. They take two round trips: first the row, and then the data that depends on it.

use log::debug;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, Row};

use super::annotation_state::{Annotation, AnnotationState};
use super::connection::{DatabaseConnection, cause};
use super::event::AnnotationEvent;
use super::ids::Uuid;
use super::{row, sql};
use crate::backend::DropReason;
use crate::backend::userid;
use crate::model::EventKind;
use crate::uri;

/// Reads the data of an annotation. An outer error means that the connection must be closed. An
/// inner one means that only this annotation cannot be read.
pub(super) async fn read_state(
    connection: &DatabaseConnection,
    event: &AnnotationEvent,
) -> Result<Result<AnnotationState, DropReason>, Error> {
    let id = event.uuid;
    let hex = id.to_hex();
    // A deletion needs neither mentions nor flags. Skip them: h has no index by which to find
    // mentions.
    let shown = (event.kind() != EventKind::Delete).then_some(&hex);
    let (begun, found) = tokio::join!(
        biased;
        connection.command(sql::BEGIN),
        connection.query(&connection.statements.annotation, [&hex]),
    );
    begun?;
    let read = match annotation_row(id, found) {
        Ok(annotation_row) => read_related(connection, shown, annotation_row).await,
        Err(ReadFailure::Event(reason)) => {
            connection.command(sql::ROLLBACK).await?;
            return Ok(Err(reason));
        }
        Err(failure) => Err(failure),
    };
    match read {
        Ok(state) => Ok(Ok(state)),
        Err(ReadFailure::Event(reason)) => Ok(Err(reason)),
        Err(ReadFailure::Connection(error)) => Err(error),
    }
}

/// The scope of a failure.
pub(super) enum ReadFailure {
    /// Only this event is affected.
    Event(DropReason),
    Connection(Error),
}

/// The annotation's row and the rows joined with it.
struct AnnotationRow {
    state: AnnotationState,
    group_id: Option<i32>,
}

fn annotation_row(id: Uuid, found: Result<Vec<Row>, Error>) -> Result<AnnotationRow, ReadFailure> {
    let rows = found.map_err(classify)?;
    let row = rows
        .first()
        .ok_or(ReadFailure::Event(DropReason::Missing))?;
    let read = || -> Result<AnnotationRow, Error> {
        Ok(AnnotationRow {
            state: row::state(id, row)?,
            group_id: row.try_get("group_id")?,
        })
    };
    read().map_err(unreadable)
}

/// Runs the second half of the transaction. All statements are sent, even those that cannot return
/// rows, for example because the group does not exist.
async fn read_related(
    connection: &DatabaseConnection,
    shown: Option<&String>,
    annotation_row: AnnotationRow,
) -> Result<AnnotationState, ReadFailure> {
    let statements = &connection.statements;
    let AnnotationRow {
        mut state,
        group_id,
    } = annotation_row;
    let document_id = state.document_id;
    let Annotation {
        userid,
        groupid,
        target_uri,
        ..
    } = &state.annotation;
    let (name, authority) = userid::split(userid).unzip();
    let page = target_uri.as_deref().map(uri::normalize);
    let page = page.and_then(Result::ok);
    let references: Vec<String> = state.annotation.references().map(Uuid::to_hex).collect();
    let (author, pages, mentions, flaggers, moderators, students, parents, done) = tokio::join!(
        biased;
        connection.query(&statements.author, [&name, &authority, &group_id]),
        connection.query(&statements.pages, [&page, &document_id, target_uri]),
        connection.query(&statements.mentions, [&shown]),
        connection.query(&statements.flaggers, [&shown]),
        connection.query(&statements.moderators, [&group_id]),
        connection.query(&statements.students, [&group_id, &document_id]),
        connection.query(&statements.parents, [&references, groupid]),
        connection.command(sql::COMMIT),
    );
    done.map_err(ReadFailure::Connection)?;
    let author = decode_rows(author, row::author)?;
    state.author = author.into_iter().next();
    state.pages = decode_rows(pages, row::page)?;
    state.mentions = decode_rows(mentions, row::mention)?;
    state.flaggers = decode_rows(flaggers, row::userid)?;
    state.moderators = decode_rows(moderators, row::userid)?;
    state.students = decode_rows(students, row::userid)?;
    state.parents = decode_rows(parents, |row| row.try_get("userid"))?;
    Ok(state)
}

/// Converts each row of an answer.
fn decode_rows<T>(
    answer: Result<Vec<Row>, Error>,
    read: impl Fn(&Row) -> Result<T, Error>,
) -> Result<Vec<T>, ReadFailure> {
    let rows = answer.map_err(classify)?;
    let read = rows.iter().map(read).collect::<Result<_, _>>();
    read.map_err(unreadable)
}

/// Classifies a failed query as a failure of the event or of the connection.
pub(super) fn classify(error: Error) -> ReadFailure {
    match error.code() {
        Some(code) if is_data_error(code) => unreadable(error),
        _ => ReadFailure::Connection(error),
    }
}

/// A failure caused by a value that cannot be decoded.
pub(super) fn unreadable(error: Error) -> ReadFailure {
    debug!(
        "cannot read an annotation: {}; dropping its event",
        cause(&error)
    );
    ReadFailure::Event(DropReason::Unreadable)
}

/// Returns whether an error code is caused by the data in the rows: it is invalid, exceeds a limit,
/// or is damaged.
fn is_data_error(code: &SqlState) -> bool {
    let code = code.code();
    code.starts_with("22") || code.starts_with("54") || ["XX001", "XX002"].contains(&code)
}
