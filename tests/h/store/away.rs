//! Behavior when the database is unavailable, or is not a database of h.

use std::sync::Arc;

use h_realtime::backend::Stats;
use h_realtime::backend::h::{AnnotationEvent, DatabaseClient, DatabaseSettings, Pending};
use serde_json::json;

use super::world::{NOW, World, id};
use crate::support::{Postgres, sql};

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn denied_query_can_be_retried() {
    let world = World::new();
    world.sql(
        "DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN;
         GRANT SELECT ON ALL TABLES IN SCHEMA public TO guest",
    );
    let mut guest = World::of(&world.url.replace("postgres@", "guest@"));
    guest.update(0x01).unwrap();
    world.sql("REVOKE SELECT ON flag FROM guest");
    let event = json!({"action": "update", "annotation_id": id(0x01), "src_client_id": null});
    let event = AnnotationEvent::parse(event.as_object().unwrap()).unwrap();
    let away = guest
        .runtime
        .block_on(guest.store.annotation(&event, &Pending::default()));
    let away = away.unwrap_err().to_string();
    assert!(away.contains("permission denied"), "{away}");
    assert!(!guest.store.is_connected());
    // From now on the problem is detected before an event is lost.
    for _ in 0..2 {
        let away = guest.runtime.block_on(guest.store.connect()).unwrap_err();
        let expected = "the role guest may not read flag: run GRANT SELECT ON flag TO guest";
        assert!(away.to_string().ends_with(expected), "{away}");
        assert!(!guest.store.is_connected());
    }
    world.sql("GRANT SELECT ON flag TO guest");
    guest.connect();
    assert!(guest.identity("alice").is_some());
    guest.update(0x01).unwrap();
    drop(guest);
    world.sql("DROP OWNED BY guest; DROP ROLE guest");
}

/// The columns that are read, by table.
const COLUMNS: &[(&str, &str)] = &[
    (
        "annotation",
        "id created updated userid groupid text tags shared target_uri target_selectors references \
         extra deleted document_id moderation_status target_description version",
    ),
    ("checkpoint", "group_id document_id reveal_date"),
    ("document", "id title"),
    (
        "document_uri",
        "document_id uri uri_normalized type updated",
    ),
    ("flag", "annotation_id user_id"),
    ("\"group\"", "id pubid readable_by"),
    ("mention", "id annotation_id user_id username"),
    ("token", "id value expires user_id"),
    (
        "\"user\"",
        "id username authority display_name description activation_date nipsa deleted",
    ),
    ("user_group", "user_id group_id roles lms_role"),
];

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn every_missing_privilege_is_named_at_connect() {
    let world = World::new();
    world.sql("DROP ROLE IF EXISTS \"Reader\"; CREATE ROLE \"Reader\" LOGIN");
    let url = world.url.replace("postgres@", "Reader@");
    let connect = || {
        let stats = Arc::new(Stats::requiring(false, true));
        let mut store = DatabaseClient::new(&settings(&url), stats).unwrap();
        let connected = world.runtime.block_on(store.connect());
        connected.map_err(|away| away.to_string())
    };
    let mut all: Vec<&str> = COLUMNS.iter().map(|(table, _)| *table).collect();
    all.sort_unstable();
    let expected = format!("run GRANT SELECT ON {} TO \"Reader\"", all.join(", "));
    let away = connect().unwrap_err();
    assert!(away.ends_with(&expected), "{away}");
    // Privileges on these columns are sufficient ...
    let columns = COLUMNS
        .iter()
        .flat_map(|(table, columns)| columns.split(' ').map(move |column| (*table, column)));
    for (table, column) in columns.clone() {
        world.sql(&format!(
            "GRANT SELECT (\"{column}\") ON {table} TO \"Reader\""
        ));
    }
    // ... also without the optional ones on `moderation_log` ...
    let mut reader = World::of(&url);
    for number in [
        0x01, 0x05, 0x15, 0x1c, 0x1d, 0x1f, 0x21, 0x25, 0x28, 0x29, 0x2b,
    ] {
        reader.update(number).unwrap();
    }
    assert!(reader.identity("alice").is_some());
    drop(reader);
    // ... and each of them is necessary.
    for (table, column) in columns {
        world.sql(&format!(
            "REVOKE SELECT (\"{column}\") ON {table} FROM \"Reader\""
        ));
        let away = connect().unwrap_err();
        let expected = format!("run GRANT SELECT ON {table} TO \"Reader\"");
        assert!(away.ends_with(&expected), "{column}: {away}");
        world.sql(&format!(
            "GRANT SELECT (\"{column}\") ON {table} TO \"Reader\""
        ));
    }
    world.sql("DROP OWNED BY \"Reader\"; DROP ROLE \"Reader\"");
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn urls_with_options_and_several_hosts_connect() {
    let url = Postgres::shared().database();
    let (_, rest) = url.split_once("://").unwrap();
    let (login, place) = rest.split_once('@').unwrap();
    let (host, name) = place.split_once('/').unwrap();
    let port = host.rsplit(':').next().unwrap();
    // Nothing listens on port 1.
    for url in [
        format!(
            "postgresql+psycopg2://{login}@{host}/{name}?client_encoding=utf8&keepalives=1&keepalives_idle=30&keepalives_count=3&gssencmode=prefer&krbsrvname=x&sslsni=1&target_session_attrs=read-write"
        ),
        format!(
            "postgresql://{login}@127.0.0.1:1,{host}/{name}?target_session_attrs=prefer-standby"
        ),
        format!(
            "postgresql:///{name}?user={login}&host=127.0.0.1:1&host={host}&application_name=a"
        ),
        format!("postgresql://{login}@/{name}?host=127.0.0.1,127.0.0.1&port=1,{port}"),
        format!("postgresql://{login}@db.invalid/{name}?hostaddr=127.0.0.1&port={port}"),
    ] {
        drop(World::of(&url));
    }
    let refused = |query: &str| {
        let stats = Arc::new(Stats::requiring(false, true));
        let mut store = DatabaseClient::new(&settings(&format!("{url}?{query}")), stats).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime
            .unwrap()
            .block_on(store.connect())
            .unwrap_err()
            .to_string()
    };
    // The server has no TLS and is not a standby.
    for query in [
        "sslmode=require",
        "sslmode=verify-full",
        "channel_binding=require",
    ] {
        assert!(!refused(query).is_empty(), "{query}");
    }
    assert!(refused("target_session_attrs=standby").contains("not read only"));
}

fn settings(url: &str) -> DatabaseSettings {
    DatabaseSettings {
        database_url: url.to_owned(),
        authority: "localhost".to_owned(),
        app_url: "http://localhost:5000".to_owned(),
        bouncer_url: None,
    }
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn stopped_database_is_unavailable_until_reconnect() {
    let postgres = Postgres::start();
    let mut world = World::of(&postgres.database());
    world.update(0x01).unwrap();
    assert_eq!(world.stats.database.connects(), 1);
    postgres.stop();
    let away = world.store.identities(&["6879-alice-developer-token"], NOW);
    let away = world.runtime.block_on(away).unwrap_err().to_string();
    assert!(!away.is_empty());
    assert!(!world.store.is_connected());
    let away = world
        .runtime
        .block_on(world.store.memberships("acct:bob@localhost"));
    assert_eq!(away.unwrap_err().to_string(), "not connected");
    let refused = world.runtime.block_on(world.store.connect()).unwrap_err();
    assert!(refused.to_string().contains("connect"), "{refused}");
    assert!(!world.stats.database.is_up());
    assert_eq!(world.stats.database.losses(), 1);
    postgres.start_again();
    world.connect();
    world.update(0x01).unwrap();
    assert_eq!(world.stats.database.connects(), 2);
    assert!(world.stats.database.is_up());
}

// The loss is reported when the connection ends, not at the next request.
#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn lost_connection_is_detected_without_a_request() {
    let mut world = World::new();
    world.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'h-realtime' AND datname = current_database()");
    world.runtime.block_on(async {
        while world.store.is_connected() {
            tokio::task::yield_now().await;
        }
        while world.stats.database.is_up() {
            tokio::task::yield_now().await;
        }
    });
    world.connect();
    assert!(world.identity("alice").is_some());
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn connecting_to_another_database_fails() {
    let url = Postgres::shared().database();
    sql(&url, "DROP TABLE checkpoint");
    let settings = DatabaseSettings {
        database_url: url,
        authority: String::new(),
        app_url: String::new(),
        bouncer_url: None,
    };
    let stats = Arc::new(Stats::requiring(false, true));
    let mut store = DatabaseClient::new(&settings, Arc::clone(&stats)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let away = runtime.block_on(store.connect()).unwrap_err().to_string();
    assert!(away.contains("checkpoint"), "{away}");
    assert!(away.contains("USAGE on its schema"), "{away}");
    assert!(!store.is_connected());
    assert_eq!(stats.database.connects(), 0);
}
