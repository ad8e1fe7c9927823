//! Selection of the backend, and the addresses and credentials of its servers.
//!
//! The settings of the sections `[h]` and `[amqp]` can also be set by the environment variables
//! that h itself reads: see the table.

use super::conflicts::Conflicts;
use super::error::ConfigError;
use super::values::Values;

/// The source of users, tokens, and groups.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum BackendKind {
    /// A local SQLite file.
    #[default]
    Embedded,
    /// The PostgreSQL database and the RabbitMQ of h.
    H,
}

/// Additional source of events for the embedded backend, besides its HTTP endpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum EventSource {
    /// HTTP only.
    #[default]
    Http,
    /// RabbitMQ.
    Amqp,
}

/// Resolved settings of the backend.
#[derive(Clone, Debug)]
pub enum BackendSettings {
    /// The embedded backend, with the optional message queue that delivers events to it.
    Embedded(Option<BrokerSettings>),
    /// h's backend.
    H(HSettings),
}

/// Connection settings of RabbitMQ.
#[derive(Clone, PartialEq, Eq)]
pub struct BrokerSettings {
    /// URLs with credentials, tried in turn. Never empty.
    pub urls: Vec<String>,
}

/// Settings of h's backend.
#[derive(Clone)]
pub struct HSettings {
    /// The URL of the database, with credentials.
    pub database_url: String,
    /// Connection settings of RabbitMQ.
    pub broker: BrokerSettings,
    /// The authority of this installation's users.
    pub authority: String,
    /// The base of links, without a trailing slash.
    pub app_url: String,
    /// The base of links to annotations in context, if such links are configured.
    pub bouncer_url: Option<String>,
}

/// The optional features of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// The embedded backend.
    pub embedded: bool,
    /// h's backend.
    pub h: bool,
    /// Events from RabbitMQ for the embedded backend.
    pub amqp: bool,
}

impl Features {
    /// Every feature.
    pub const ALL: Features = Features {
        embedded: true,
        h: true,
        amqp: true,
    };
    /// The features of this build.
    pub const BUILT: Features = Features {
        embedded: cfg!(feature = "sqlite"),
        h: cfg!(feature = "h"),
        amqp: cfg!(feature = "amqp"),
    };
}

/// Resolves the settings of the backend. Checks first whether this build includes it.
pub(super) fn resolve(
    values: &Values,
    features: Features,
    conflicts: &mut Conflicts<'_>,
) -> Result<BackendSettings, ConfigError> {
    let kind = values.choice(
        "backend",
        &[("embedded", BackendKind::Embedded), ("h", BackendKind::H)],
    )?;
    let events = values.choice(
        "events",
        &[("http", EventSource::Http), ("amqp", EventSource::Amqp)],
    )?;
    let is_built = is_built(features, kind, events, conflicts);
    if kind == BackendKind::H && events == EventSource::Amqp {
        let text = "events = \"amqp\" applies to the embedded backend only: h's events always arrive from \
                    RabbitMQ";
        conflicts.add(&["backend", "events"], text);
    }
    if kind == BackendKind::Embedded && events == EventSource::Http {
        return Ok(BackendSettings::Embedded(None));
    }
    let urls = values.text("amqp.url").unwrap_or_default();
    let urls = urls.split(';').filter(|url| !url.is_empty());
    let broker = BrokerSettings {
        urls: urls.map(str::to_owned).collect(),
    };
    if broker.urls.is_empty() {
        conflicts.add(&["amqp.url"], "amqp.url contains no URL of a broker");
    }
    if kind == BackendKind::Embedded {
        return Ok(BackendSettings::Embedded(Some(broker)));
    }
    let database_url = values.text("h.database_url").unwrap_or_default();
    if database_url.is_empty() && is_built {
        let text = "h's backend requires DATABASE_URL or the setting h.database_url";
        conflicts.add(&["backend", "h.database_url"], text);
    }
    for name in ["h.authority", "h.app_url"] {
        if values.text(name).is_none() {
            conflicts.add(&[name], format!("{name} must not be empty"));
        }
    }
    let app_url = values.text("h.app_url").unwrap_or_default();
    Ok(BackendSettings::H(HSettings {
        database_url,
        broker,
        authority: values.text("h.authority").unwrap_or_default(),
        app_url: app_url.trim_end_matches('/').to_owned(),
        bouncer_url: values.text("h.bouncer_url"),
    }))
}

/// Returns whether a build includes the configured backend and event source.
fn is_built(
    features: Features,
    kind: BackendKind,
    events: EventSource,
    conflicts: &mut Conflicts<'_>,
) -> bool {
    let mut need = |is_there: bool, setting: &str, text: &str| {
        if !is_there {
            conflicts.add(&[setting], text);
        }
        is_there
    };
    match kind {
        BackendKind::H => need(
            features.h,
            "backend",
            "this build does not include h's backend; rebuild it with the feature h",
        ),
        BackendKind::Embedded => {
            let has_embedded = need(
                features.embedded,
                "backend",
                "this build does not include the embedded backend; rebuild it with the feature sqlite",
            );
            let has_events = need(
                features.amqp || events == EventSource::Http,
                "events",
                "this build cannot receive events from RabbitMQ; rebuild it with the feature amqp",
            );
            has_embedded && has_events
        }
    }
}

// Hand-written `Debug` implementations that omit the URLs, which contain passwords.

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

    fn resolved(text: &str) -> Result<BackendSettings, String> {
        let values = values(text);
        let mut conflicts = Conflicts::new(&values);
        let settings = resolve(&values, Features::ALL, &mut conflicts).map_err(|error| error.0)?;
        match conflicts.into_lines() {
            lines if lines.is_empty() => Ok(settings),
            lines => Err(lines.join("\n")),
        }
    }

    #[test]
    fn h_backend_uses_configured_servers() {
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
        let Ok(BackendSettings::H(h)) = resolved(text) else {
            panic!("not resolved");
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
    fn missing_and_invalid_backend_settings_are_reported() {
        let error = resolved("backend = \"h\"").unwrap_err();
        assert!(error.contains("DATABASE_URL"), "{error}");
        let database = "backend = \"h\"\nh.database_url = \"postgresql://db/h\"\n";
        assert!(resolved(&format!("{database}events = \"amqp\"")).is_err());
        assert!(resolved(&format!("{database}amqp.url = \";\"")).is_err());
        assert!(resolved(database).is_ok());
    }

    #[test]
    fn backend_missing_from_build_is_the_only_error() {
        let values = values("backend = \"h\"");
        let mut conflicts = Conflicts::new(&values);
        let features = Features {
            h: false,
            ..Features::ALL
        };
        resolve(&values, features, &mut conflicts).unwrap();
        let expected = "this build does not include h's backend; rebuild it with the feature h: backend = \"h\" \
                        (file, line 1)";
        assert_eq!(conflicts.into_lines(), [expected]);
    }

    #[test]
    fn embedded_backend_requires_no_settings() {
        assert!(matches!(
            resolved("").unwrap(),
            BackendSettings::Embedded(None)
        ));
        let BackendSettings::Embedded(Some(broker)) = resolved("events = \"amqp\"").unwrap() else {
            panic!("no broker");
        };
        assert_eq!(broker.urls, ["amqp://guest:guest@localhost:5672//"]);
    }
}
