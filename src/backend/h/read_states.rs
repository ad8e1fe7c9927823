//! Reads the data of several annotations in one transaction: the same as
//! [`read_state`](super::read_state), with the same number of statements and round trips.
//!
//! Owns: the assignment of rows to annotations, and the isolation of unreadable annotations.

use std::collections::{HashMap, HashSet};

use tokio_postgres::error::SqlState;
use tokio_postgres::{Error, Row};

use super::annotation_state::AnnotationState;
use super::connection::DatabaseConnection;
use super::ids::Uuid;
use super::read_state::{ReadFailure, classify, unreadable};
use super::{row, sql};
use crate::backend::DropReason;
use crate::backend::userid;
use crate::uri;

/// The data of an annotation, or the reason why it cannot be read.
pub(super) type ReadResult = (Uuid, Result<AnnotationState, DropReason>);

/// Reads the data of annotations, in any order. An outer error means that the connection must be
/// closed. An inner one means that only this annotation cannot be read. If one cannot, the others
/// are read again without it.
pub(super) async fn read_states(
    connection: &DatabaseConnection,
    ids: &[Uuid],
) -> Result<Vec<ReadResult>, Error> {
    let mut done = Vec::with_capacity(ids.len());
    let mut parts = vec![ids];
    while let Some(part) = parts.pop() {
        match read_part(connection, part).await {
            Ok(read) => done.extend(read),
            Err(ReadFailure::Event(reason)) => match part {
                [] => {}
                [id] => done.push((*id, Err(reason))),
                _ => {
                    let (left, right) = part.split_at(part.len() / 2);
                    parts.extend([right, left]);
                }
            },
            Err(ReadFailure::Connection(error)) => return Err(error),
        }
    }
    Ok(done)
}

/// An annotation, with the key of its group.
struct BatchRow {
    state: AnnotationState,
    group_id: Option<i32>,
}

async fn read_part(
    connection: &DatabaseConnection,
    ids: &[Uuid],
) -> Result<Vec<ReadResult>, ReadFailure> {
    let hex: Vec<String> = ids.iter().map(|id| id.to_hex()).collect();
    let (begun, found) = tokio::join!(
        biased;
        connection.command(sql::BEGIN),
        connection.query(&connection.statements.history.annotations, [&hex]),
    );
    begun.map_err(ReadFailure::Connection)?;
    let is_batch = ids.len() > 1;
    let rows = match found.map_err(|error| classify_in_batch(error, is_batch)) {
        Ok(rows) => rows,
        Err(failure) => {
            let rolled_back = connection.command(sql::ROLLBACK).await;
            rolled_back.map_err(ReadFailure::Connection)?;
            return Err(failure);
        }
    };
    let (mut batch, mut failed) = (Vec::with_capacity(rows.len()), Vec::new());
    for row in &rows {
        let id: Uuid = row.try_get("id").map_err(unreadable)?;
        let group_id = row.try_get("group_id").map_err(unreadable)?;
        match row::state(id, row).map_err(unreadable) {
            Ok(state) => batch.push(BatchRow { state, group_id }),
            Err(ReadFailure::Event(reason)) => failed.push((id, Err(reason))),
            Err(failure) => return Err(failure),
        }
    }
    read_related(connection, &mut batch, is_batch).await?;
    let found: HashSet<Uuid> = batch
        .iter()
        .map(|one| one.state.annotation.id)
        .chain(failed.iter().map(|(id, _)| *id))
        .collect();
    let missing = ids.iter().filter(|id| !found.contains(*id));
    failed.extend(missing.map(|id| (*id, Err(DropReason::Missing))));
    let read = batch
        .into_iter()
        .map(|one| (one.state.annotation.id, Ok(one.state)));
    Ok(read.chain(failed).collect())
}

/// The parameters of the statements on related rows.
#[derive(Default)]
struct Parameters {
    /// Annotations that are not deleted: deletions need neither mentions nor flags.
    shown: Vec<String>,
    names: Vec<Option<String>>,
    authorities: Vec<Option<String>>,
    group_ids: Vec<Option<i32>>,
    pages: Vec<Option<String>>,
    documents: Vec<i32>,
    addresses: Vec<Option<String>>,
    groups: Vec<i32>,
    concealing: Vec<i32>,
    references: Vec<String>,
    groupids: Vec<String>,
    places: Vec<i64>,
}

impl Parameters {
    fn new(batch: &[BatchRow]) -> Parameters {
        let mut all = Parameters::default();
        for (place, one) in (1..).zip(batch) {
            let annotation = &one.state.annotation;
            if !annotation.deleted {
                all.shown.push(annotation.id.to_hex());
            }
            let (name, authority) = userid::split(&annotation.userid).unzip();
            all.names.push(name.map(str::to_owned));
            all.authorities.push(authority.map(str::to_owned));
            all.group_ids.push(one.group_id);
            let page = annotation.target_uri.as_deref().map(uri::normalize);
            all.pages.push(page.and_then(Result::ok));
            all.documents.push(one.state.document_id);
            all.addresses.push(annotation.target_uri.clone());
            all.groups.extend(one.group_id);
            if one.state.has_checkpoint {
                all.concealing.extend(one.group_id);
            }
            for reference in annotation.references() {
                all.references.push(reference.to_hex());
                all.groupids.push(annotation.groupid.clone());
                all.places.push(place);
            }
        }
        for groups in [&mut all.groups, &mut all.concealing] {
            groups.sort_unstable();
            groups.dedup();
        }
        all
    }
}

/// Runs the second half of the transaction.
async fn read_related(
    connection: &DatabaseConnection,
    batch: &mut [BatchRow],
    is_batch: bool,
) -> Result<(), ReadFailure> {
    let statements = &connection.statements.history;
    let all = Parameters::new(batch);
    let (authors, pages, mentions, flaggers, moderators, students, parents, done) = tokio::join!(
        biased;
        connection.query(&statements.authors, [&all.names, &all.authorities, &all.group_ids]),
        connection.query(&statements.pages, [&all.pages, &all.documents, &all.addresses]),
        connection.query(&statements.mentions, [&all.shown]),
        connection.query(&statements.flaggers, [&all.shown]),
        connection.query(&statements.moderators, [&all.groups]),
        connection.query(&statements.students, [&all.concealing]),
        connection.query(&statements.parents, [&all.references, &all.groupids, &all.places]),
        connection.command(sql::COMMIT),
    );
    done.map_err(ReadFailure::Connection)?;
    let failure = |error| classify_in_batch(error, is_batch);
    let authors = keyed(authors.map_err(failure)?, place, row::author)?;
    let pages = keyed(pages.map_err(failure)?, place, row::page)?;
    let id = |row: &Row| row.try_get::<_, Uuid>("annotation_id");
    let mentions = keyed(mentions.map_err(failure)?, id, row::mention)?;
    let flaggers = keyed(flaggers.map_err(failure)?, id, row::userid)?;
    let group = |row: &Row| row.try_get::<_, i32>("group_id");
    let moderators = keyed(moderators.map_err(failure)?, group, row::userid)?;
    let students = keyed(students.map_err(failure)?, group, row::userid)?;
    let parents = keyed(parents.map_err(failure)?, place, |row| {
        row.try_get("userid")
    })?;
    for (place, one) in (1..).zip(batch) {
        let state = &mut one.state;
        state.author = taken(&authors, &place).pop();
        state.pages = taken(&pages, &place);
        state.mentions = taken(&mentions, &state.annotation.id);
        state.flaggers = taken(&flaggers, &state.annotation.id);
        state.parents = taken(&parents, &place);
        if let Some(group_id) = one.group_id {
            state.moderators = taken(&moderators, &group_id);
            if state.has_checkpoint {
                state.students = taken(&students, &group_id);
            }
        }
    }
    Ok(())
}

fn place(row: &Row) -> Result<i64, Error> {
    row.try_get("place")
}

/// Converts each row of an answer, grouped by a key.
fn keyed<K: std::hash::Hash + Eq, T>(
    rows: Vec<Row>,
    key: impl Fn(&Row) -> Result<K, Error>,
    read: impl Fn(&Row) -> Result<T, Error>,
) -> Result<HashMap<K, Vec<T>>, ReadFailure> {
    let mut by_key: HashMap<K, Vec<T>> = HashMap::new();
    for row in &rows {
        let (key, value) = (
            key(row).map_err(unreadable)?,
            read(row).map_err(unreadable)?,
        );
        by_key.entry(key).or_default().push(value);
    }
    Ok(by_key)
}

fn taken<K: std::hash::Hash + Eq, T: Clone>(found: &HashMap<K, Vec<T>>, key: &K) -> Vec<T> {
    found.get(key).cloned().unwrap_or_default()
}

/// Classifies a failed query. A statement that has been canceled by the server's timeout fails the
/// batch: a smaller one may take less time. For a single annotation, the timeout may be due to the
/// state of the server.
fn classify_in_batch(error: Error, is_batch: bool) -> ReadFailure {
    match error.code() {
        Some(&SqlState::QUERY_CANCELED) if is_batch => unreadable(error),
        _ => classify(error),
    }
}
