//! One connection to the database, from connecting to closing.
//!
//! Owns: the connection's task, its settings, and its prepared statements. Must not know: the
//! queries.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use log::{info, warn};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Error, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::sql::{self, Moderated, Statements};
use crate::backend::Stats;
use crate::backend::amqp::connect_error::connect_error;

/// A connection that is ready for queries.
pub(super) struct DatabaseConnection {
    pub statements: Statements,
    client: Client,
    stats: Arc<Stats>,
    _driver: AbortOnDrop,
}

/// The reason why a connection failed.
pub(super) struct ConnectError {
    /// For the log; contains no secrets.
    pub cause: String,
    /// Whether another SSL mode might succeed.
    pub retry_in_other_ssl_mode: bool,
}

impl DatabaseConnection {
    /// Connects, and prepares the statements.
    pub(super) async fn open(
        config: &Config,
        tls: MakeRustlsConnect,
        stats: &Arc<Stats>,
    ) -> Result<DatabaseConnection, ConnectError> {
        let (client, connection) = config.connect(tls).await?;
        // Parameters are UTF-8. Another server encoding may lack characters, and a token with such
        // a character would fail the whole batch of tokens in the same query.
        let encoding = connection.parameter("server_encoding").unwrap_or_default();
        if encoding != "UTF8" {
            let cause =
                format!("the database has the encoding {encoding} instead of UTF8, which h uses");
            return Err(ConnectError {
                cause,
                retry_in_other_ssl_mode: false,
            });
        }
        let task = tokio::spawn(connection);
        let driver = AbortOnDrop(task.abort_handle());
        stats.statements.fetch_add(sql::SETTINGS, Ordering::Relaxed);
        let ((), mut statements) = tokio::try_join!(
            client.batch_execute(sql::SET_UP),
            Statements::prepare(&client)
        )?;
        statements.history.moderated = moderation_log(&client, stats).await?;
        if let Some(cause) = missing_privileges(&client, stats).await? {
            return Err(ConnectError {
                cause,
                retry_in_other_ssl_mode: false,
            });
        }
        tokio::spawn(watch(task, UpGuard::new(Arc::clone(stats))));
        Ok(DatabaseConnection {
            statements,
            client,
            stats: Arc::clone(stats),
            _driver: driver,
        })
    }

    /// Returns whether the connection is open.
    pub(super) fn is_open(&self) -> bool {
        !self.client.is_closed()
    }

    /// Runs a statement and returns its rows. It is sent when the future is first polled, so that
    /// statements can be pipelined.
    pub(super) async fn query<const N: usize>(
        &self,
        statement: &Statement,
        parameters: [&(dyn ToSql + Sync); N],
    ) -> Result<Vec<Row>, Error> {
        self.count();
        self.client.query(statement, &parameters).await
    }

    /// Runs a command without parameters and rows. It is sent like those of
    /// [`DatabaseConnection::query`].
    pub(super) async fn command(&self, statement: &str) -> Result<(), Error> {
        self.count();
        self.client.batch_execute(statement).await
    }

    fn count(&self) {
        self.stats.statements.fetch_add(1, Ordering::Relaxed);
    }
}

/// Prepares the statements on `moderation_log`, if the table exists and the role may read it.
async fn moderation_log(client: &Client, stats: &Stats) -> Result<Option<Moderated>, Error> {
    stats.statements.fetch_add(1, Ordering::Relaxed);
    let row = client.query_one(sql::MODERATION_LOG, &[]).await?;
    match row.try_get("exists")? && row.try_get("readable")? {
        true => Ok(Some(Moderated::prepare(client).await?)),
        false => Ok(None),
    }
}

/// Returns the tables that the role may not read, with a `GRANT` that fixes this. Otherwise, events
/// would fail one by one: PostgreSQL checks privileges only when a statement is executed.
async fn missing_privileges(client: &Client, stats: &Stats) -> Result<Option<String>, Error> {
    let (mut tables, mut columns) = (Vec::new(), Vec::new());
    for (table, parts) in sql::READ {
        for part in *parts {
            tables.push(*table);
            columns.push(*part);
        }
    }
    stats.statements.fetch_add(1, Ordering::Relaxed);
    let rows = client
        .query(sql::MISSING_PRIVILEGES, &[&tables, &columns])
        .await?;
    let mut names: Vec<String> = Vec::new();
    let mut role = String::new();
    for row in &rows {
        names.push(row.try_get("name")?);
        role = row.try_get("role")?;
    }
    let names = names.join(", ");
    Ok((!names.is_empty()).then(|| {
        format!("the role {role} may not read {names}: run GRANT SELECT ON {names} TO {role}")
    }))
}

/// Aborts the task of a connection when dropped.
struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Counts a connection as up in the metrics until dropped.
struct UpGuard(Arc<Stats>);

impl UpGuard {
    fn new(stats: Arc<Stats>) -> UpGuard {
        stats.database.connected();
        UpGuard(stats)
    }
}

impl Drop for UpGuard {
    fn drop(&mut self) {
        self.0.database.lost();
    }
}

/// Waits for the end of a connection's task, and logs the cause.
async fn watch(task: JoinHandle<Result<(), Error>>, _up: UpGuard) {
    match task.await {
        Ok(Err(error)) => warn!(
            "lost the connection to the database: {}; reconnecting",
            cause(&error)
        ),
        Ok(Ok(())) => info!("closed the connection to the database"),
        // The connection was closed on purpose, which the caller logs.
        Err(_) => {}
    }
}

impl From<Error> for ConnectError {
    fn from(error: Error) -> Self {
        // A wrong password has another code.
        let refused = error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
        let is_tls = error.code().is_none() && error.to_string().contains("TLS");
        let mut cause = cause(&error);
        // PostgreSQL reports tables in a schema without USAGE as undefined.
        if error.code() == Some(&SqlState::UNDEFINED_TABLE) {
            cause.push_str("; is this the database of h, and has the role USAGE on its schema?");
        }
        if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
            cause.push_str(
                "; the role needs CONNECT on the database, USAGE on the schema, and SELECT on the \
                 tables",
            );
        }
        ConnectError {
            cause,
            retry_in_other_ssl_mode: refused || is_tls,
        }
    }
}

/// Describes an error for the log. The server's message is about statements and its own state, and
/// contains no secrets. Its details may quote rows and are omitted.
pub(super) fn cause(error: &Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", error.message(), error.code().code());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        source = inner.source();
    }
    connect_error(error, text, "h.database_url")
}
