//! Which back end, and where it finds the servers it needs.
//!
//! Owns: h's own environment variables, by which a server of h is told the same. They win over
//! the configuration file, as the environment does everywhere.

use serde::Deserialize;

use super::ConfigError;

/// What knows users, tokens and groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum BackEndKind {
    /// A SQLite file of our own.
    #[default]
    Embedded,
    /// The PostgreSQL database and the RabbitMQ of h.
    H,
}

/// Where the embedded back end has events from, besides its HTTP endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EventSource {
    /// From nowhere else.
    #[default]
    Http,
    /// From RabbitMQ.
    Amqp,
}

/// `[h]`: what h's servers have in their environment.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HSection {
    /// `DATABASE_URL`: PostgreSQL.
    pub database_url: Option<String>,
    /// `AUTHORITY`: the authority of the users of this installation.
    pub authority: Option<String>,
    /// `APP_URL`: where h's web pages are; the base of links.
    pub app_url: Option<String>,
    /// `BOUNCER_URL`: the base of links to annotations in their context.
    pub bouncer_url: Option<String>,
}

/// `[amqp]`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AmqpSection {
    /// `BROKER_URL`: RabbitMQ. Several, separated by `;`, are tried in turn.
    pub url: Option<String>,
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

/// What the settings come to, with the process's environment.
pub(super) fn settle(
    kind: BackEndKind,
    events: EventSource,
    h: HSection,
    amqp: AmqpSection,
) -> Result<BackEndSettings, ConfigError> {
    settle_with(kind, events, h, amqp, |name| std::env::var(name).ok())
}

fn settle_with(
    kind: BackEndKind,
    events: EventSource,
    h: HSection,
    amqp: AmqpSection,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<BackEndSettings, ConfigError> {
    // A variable that is set to nothing counts as one that is not set, as in h.
    let chosen = |name, setting: Option<String>| {
        let value = environment(name).or(setting);
        value.filter(|value| !value.is_empty())
    };
    if kind == BackEndKind::H && events == EventSource::Amqp {
        let message = "events = \"amqp\" is for the embedded back end: h's always come from there";
        return Err(ConfigError(message.into()));
    }
    if kind == BackEndKind::Embedded && events == EventSource::Http {
        return Ok(BackEndSettings::Embedded(None));
    }
    let urls = chosen("BROKER_URL", amqp.url);
    let urls = urls.as_deref().unwrap_or(DEFAULT_BROKER);
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
    let database_url = chosen("DATABASE_URL", h.database_url).ok_or_else(|| {
        ConfigError("h's back end needs DATABASE_URL, or the setting h.database_url".into())
    })?;
    let app_url = chosen("APP_URL", h.app_url).unwrap_or_else(|| DEFAULT_APP.into());
    Ok(BackEndSettings::H(HSettings {
        database_url,
        broker,
        authority: chosen("AUTHORITY", h.authority).unwrap_or_else(|| DEFAULT_AUTHORITY.into()),
        app_url: app_url.trim_end_matches('/').to_owned(),
        bouncer_url: chosen("BOUNCER_URL", h.bouncer_url),
    }))
}

// None of these is shown with its URLs: there are passwords in them.

impl std::fmt::Debug for HSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HSection").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AmqpSection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AmqpSection").finish_non_exhaustive()
    }
}

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

/// h's own defaults.
const DEFAULT_BROKER: &str = "amqp://guest:guest@localhost:5672//";
const DEFAULT_APP: &str = "http://localhost:5000";
const DEFAULT_AUTHORITY: &str = "localhost";

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(
        kind: BackEndKind,
        events: EventSource,
        environment: &[(&str, &str)],
    ) -> Result<BackEndSettings, String> {
        let h = HSection {
            app_url: Some("https://file.example/".into()),
            authority: Some("file.example".into()),
            ..HSection::default()
        };
        let variable = |name: &str| {
            let found = environment.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        settle_with(kind, events, h, AmqpSection::default(), variable).map_err(|error| error.0)
    }

    #[test]
    fn h_is_told_by_its_own_environment() {
        let Ok(BackEndSettings::H(h)) = settled(
            BackEndKind::H,
            EventSource::Http,
            &[
                ("DATABASE_URL", "postgresql://u:p@db/h"),
                ("BROKER_URL", "amqp://a//;amqp://b//"),
                ("AUTHORITY", "example.org"),
                ("BOUNCER_URL", ""),
            ],
        ) else {
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
        let error = settled(BackEndKind::H, EventSource::Http, &[]).unwrap_err();
        assert!(error.contains("DATABASE_URL"), "{error}");
        let database = ("DATABASE_URL", "postgresql://db/h");
        assert!(settled(BackEndKind::H, EventSource::Amqp, &[database]).is_err());
        let no_broker = [database, ("BROKER_URL", ";")];
        assert!(settled(BackEndKind::H, EventSource::Http, &no_broker).is_err());
    }

    #[test]
    fn the_embedded_back_end_needs_nothing() {
        let settled = |events| settled(BackEndKind::Embedded, events, &[]).unwrap();
        assert!(matches!(
            settled(EventSource::Http),
            BackEndSettings::Embedded(None)
        ));
        let BackEndSettings::Embedded(Some(broker)) = settled(EventSource::Amqp) else {
            panic!("no broker");
        };
        assert_eq!(broker.urls, [DEFAULT_BROKER]);
    }
}
