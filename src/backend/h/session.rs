//! One connection to the database, from its making to its end.
//!
//! Owns: the connection's task, its settings and its statements. Must not know: what is asked.

use std::error::Error as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use log::{info, warn};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Error, Row, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::sql::{self, Statements};
use crate::backend::Stats;
use crate::backend::amqp::reach::unreachable;

/// A connection, ready to be asked.
pub(super) struct Session {
    pub statements: Statements,
    client: Client,
    stats: Arc<Stats>,
    _driver: Driver,
}

/// Why there is no connection.
pub(super) struct Unopened {
    /// For the log; nothing secret.
    pub cause: String,
    /// Whether it may be for the way that was tried: with TLS, or without.
    pub may_be_the_way: bool,
}

impl Session {
    /// Makes a connection.
    pub async fn open(
        config: &Config,
        tls: MakeRustlsConnect,
        stats: &Arc<Stats>,
    ) -> Result<Session, Unopened> {
        let (client, connection) = config.connect(tls).await?;
        // What is asked is UTF-8. In another encoding there may be characters missing, and then
        // one token that has them would spoil the answer for all that are asked with it.
        let encoding = connection.parameter("server_encoding").unwrap_or_default();
        if encoding != "UTF8" {
            let cause = format!("the database's encoding is {encoding}, where h has UTF8");
            return Err(Unopened {
                cause,
                may_be_the_way: false,
            });
        }
        let task = tokio::spawn(connection);
        let driver = Driver(task.abort_handle());
        stats.statements.fetch_add(sql::SETTINGS, Ordering::Relaxed);
        let ((), statements) = tokio::try_join!(
            client.batch_execute(sql::SET_UP),
            Statements::prepare(&client)
        )?;
        if let Some(cause) = missing_privileges(&client, stats).await? {
            return Err(Unopened {
                cause,
                may_be_the_way: false,
            });
        }
        tokio::spawn(watch(task, Up::new(Arc::clone(stats))));
        Ok(Session {
            statements,
            client,
            stats: Arc::clone(stats),
            _driver: driver,
        })
    }

    /// Whether the connection has not ended.
    pub fn is_open(&self) -> bool {
        !self.client.is_closed()
    }

    /// The rows of a statement. It is sent when this is first polled, so that several can be
    /// under way.
    pub async fn query<const N: usize>(
        &self,
        statement: &Statement,
        parameters: [&(dyn ToSql + Sync); N],
    ) -> Result<Vec<Row>, Error> {
        self.count();
        self.client.query(statement, &parameters).await
    }

    /// A statement without parameters and rows; sent as those of [`Session::query`].
    pub async fn command(&self, statement: &str) -> Result<(), Error> {
        self.count();
        self.client.batch_execute(statement).await
    }

    fn count(&self) {
        self.stats.statements.fetch_add(1, Ordering::Relaxed);
    }
}

/// What the role may not read, and how to grant it: without, events would be lost one by one. No
/// statement has been refused yet, since PostgreSQL checks privileges when one is executed.
async fn missing_privileges(client: &Client, stats: &Stats) -> Result<Option<String>, Error> {
    let (mut tables, mut columns) = (Vec::new(), Vec::new());
    for (table, parts) in sql::READ {
        for part in *parts {
            tables.push(*table);
            columns.push(*part);
        }
    }
    stats.statements.fetch_add(1, Ordering::Relaxed);
    let rows = client.query(sql::WITHHELD, &[&tables, &columns]).await?;
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

/// The task of a connection, which ends with this.
struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection that is up, for the metrics.
struct Up(Arc<Stats>);

impl Up {
    fn new(stats: Arc<Stats>) -> Up {
        stats.database.connected();
        Up(stats)
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.0.database.lost();
    }
}

/// Waits for the end of a connection's task, and says why it ended.
async fn watch(task: JoinHandle<Result<(), Error>>, _up: Up) {
    match task.await {
        Ok(Err(error)) => warn!("the connection to the database ended: {}", cause(&error)),
        Ok(Ok(())) => info!("the connection to the database ended"),
        // It was given up, of which the asker speaks.
        Err(_) => {}
    }
}

impl From<Error> for Unopened {
    fn from(error: Error) -> Self {
        // With a wrong password the code is another.
        let refused = error.code() == Some(&SqlState::INVALID_AUTHORIZATION_SPECIFICATION);
        let is_tls = error.code().is_none() && error.to_string().contains("TLS");
        let mut cause = cause(&error);
        // A table in a schema that the role may not use is one that does not exist.
        if error.code() == Some(&SqlState::UNDEFINED_TABLE) {
            cause.push_str("; is this the database of h, and has the role USAGE on its schema?");
        }
        if error.code() == Some(&SqlState::INSUFFICIENT_PRIVILEGE) {
            cause.push_str(
                "; the role needs CONNECT on the database, USAGE on the schema, and SELECT on the \
                 tables",
            );
        }
        Unopened {
            cause,
            may_be_the_way: refused || is_tls,
        }
    }
}

/// What went wrong, for the log. The server's words are of statements and of its own state, so
/// there is nothing secret in them; its details, which may quote rows, are left out.
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
    unreachable(error, text, "h.database_url")
}
