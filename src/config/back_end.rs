//! Which back end, and where it finds the servers it needs.
//!
//! The settings of section `[h]` and that of `[amqp]` have h's own environment variables as well,
//! by which a server of h is told the same: see the table.

use super::ConfigError;
use super::values::Values;

/// What knows users, tokens and groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum BackEndKind {
    /// A SQLite file of our own.
    #[default]
    Embedded,
    /// The PostgreSQL database and the RabbitMQ of h.
    H,
}

/// Where the embedded back end has events from, besides its HTTP endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum EventSource {
    /// From nowhere else.
    #[default]
    Http,
    /// From RabbitMQ.
    Amqp,
}

/// What the server is to work with.
#[derive(Clone, Debug)]
pub enum BackEndSettings {
    /// The embedded back end, and the message queue it has events from as well, if any.
    Embedded(Option<BrokerSettings>),
    /// h's.
    H(HSettings),
}

/// Where RabbitMQ is.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerSettings {
    /// URLs with credentials, to be tried in turn; there is at least one.
    pub urls: Vec<String>,
}

/// What h's back end is to work with.
#[derive(Clone)]
pub struct HSettings {
    /// The URL of the database, with credentials.
    pub database_url: String,
    /// Where RabbitMQ is.
    pub broker: BrokerSettings,
    /// The authority of the users of this installation.
    pub authority: String,
    /// The base of links, without a slash at its end.
    pub app_url: String,
    /// The base of links to annotations in their context, if there are such links.
    pub bouncer_url: Option<String>,
}

/// What the settings come to.
pub(super) fn settle(values: &Values) -> Result<BackEndSettings, ConfigError> {
    let kind = values.choice(
        "backend",
        &[("embedded", BackEndKind::Embedded), ("h", BackEndKind::H)],
    )?;
    let events = values.choice(
        "events",
        &[("http", EventSource::Http), ("amqp", EventSource::Amqp)],
    )?;
    if kind == BackEndKind::H && events == EventSource::Amqp {
        let message = "events = \"amqp\" is for the embedded back end: h's always come from there";
        return Err(ConfigError(message.into()));
    }
    if kind == BackEndKind::Embedded && events == EventSource::Http {
        return Ok(BackEndSettings::Embedded(None));
    }
    let urls = values.word("amqp.url")?;
    let urls = urls.split(';').filter(|url| !url.is_empty());
    let broker = BrokerSettings {
        urls: urls.map(str::to_owned).collect(),
    };
    if broker.urls.is_empty() {
        return Err(ConfigError("amqp.url names no broker".into()));
    }
    if kind == BackEndKind::Embedded {
        return Ok(BackEndSettings::Embedded(Some(broker)));
    }
    let database_url = values.text("h.database_url").ok_or_else(|| {
        ConfigError("h's back end needs DATABASE_URL, or the setting h.database_url".into())
    })?;
    Ok(BackEndSettings::H(HSettings {
        database_url,
        broker,
        authority: values.word("h.authority")?,
        app_url: values.word("h.app_url")?.trim_end_matches('/').to_owned(),
        bouncer_url: values.text("h.bouncer_url"),
    }))
}

// Neither is shown with its URLs: there are passwords in them.

impl std::fmt::Debug for BrokerSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BrokerSettings").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for HSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HSettings")
            .field("authority", &self.authority)
            .field("app_url", &self.app_url)
            .field("bouncer_url", &self.bouncer_url)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::values;

    fn settled(text: &str) -> Result<BackEndSettings, String> {
        settle(&values(text)).map_err(|error| error.0)
    }

    #[test]
    fn h_is_told_where_its_servers_are() {
        let text = r#"
            backend = "h"
            [h]
            database_url = "postgresql://u:p@db/h"
            authority = "example.org"
            app_url = "https://file.example/"
            bouncer_url = ""
            [amqp]
            url = "amqp://a//;amqp://b//"
        "#;
        let Ok(BackEndSettings::H(h)) = settled(text) else {
            panic!("not settled");
        };
        assert_eq!(h.database_url, "postgresql://u:p@db/h");
        assert_eq!(h.broker.urls, ["amqp://a//", "amqp://b//"]);
        assert_eq!(
            (&*h.authority, &*h.app_url),
            ("example.org", "https://file.example")
        );
        assert_eq!(h.bouncer_url, None);
        assert!(!format!("{h:?}").contains("u:p"));
    }

    #[test]
    fn what_is_missing_or_cannot_be() {
        let error = settled("backend = \"h\"").unwrap_err();
        assert!(error.contains("DATABASE_URL"), "{error}");
        let database = "backend = \"h\"\nh.database_url = \"postgresql://db/h\"\n";
        assert!(settled(&format!("{database}events = \"amqp\"")).is_err());
        assert!(settled(&format!("{database}amqp.url = \";\"")).is_err());
        assert!(settled(database).is_ok());
    }

    #[test]
    fn the_embedded_back_end_needs_nothing() {
        assert!(matches!(
            settled("").unwrap(),
            BackEndSettings::Embedded(None)
        ));
        let BackEndSettings::Embedded(Some(broker)) = settled("events = \"amqp\"").unwrap() else {
            panic!("no broker");
        };
        assert_eq!(broker.urls, ["amqp://guest:guest@localhost:5672//"]);
    }
}
