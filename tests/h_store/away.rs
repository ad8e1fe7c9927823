//! What is when the database does not answer, or is none of h.

use std::sync::Arc;

use h_realtime::backend::Stats;
use h_realtime::backend::h::{AnnotationEvent, Pending, Settings, Store};
use serde_json::json;

use super::support::{Postgres, sql};
use super::world::{NOW, World, id};

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn what_the_server_refuses_to_say_can_be_asked_again() {
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
    for _ in 0..2 {
        let away = guest
            .runtime
            .block_on(guest.store.annotation(&event, &Pending::default()));
        let away = away.unwrap_err().to_string();
        assert!(away.contains("permission denied"), "{away}");
        assert!(!guest.store.is_connected());
        guest.connect();
    }
    assert!(guest.identity("alice").is_some());
    world.sql("GRANT SELECT ON flag TO guest");
    guest.update(0x01).unwrap();
    drop(guest);
    world.sql("DROP OWNED BY guest; DROP ROLE guest");
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn a_database_that_stops_is_away_until_it_is_connected_to_again() {
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

// It is told as soon as the connection's end is known, not when somebody asks.
#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn a_connection_that_is_cut_is_known_to_be_lost() {
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
fn what_is_no_database_of_h_is_no_connection() {
    let url = Postgres::shared().database();
    sql(&url, "DROP TABLE checkpoint");
    let settings = Settings {
        database_url: url,
        authority: String::new(),
        app_url: String::new(),
        bouncer_url: None,
    };
    let stats = Arc::new(Stats::needing(false, true));
    let mut store = Store::new(&settings, Arc::clone(&stats)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let away = runtime.block_on(store.connect()).unwrap_err().to_string();
    assert!(away.contains("checkpoint"), "{away}");
    assert!(!store.is_connected());
    assert_eq!(stats.database.connects(), 0);
}
