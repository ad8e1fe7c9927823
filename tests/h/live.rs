//! Changes in h's database while clients are connected.

use std::time::{Duration, Instant};

use crate::support::{
    BEHIND_CHECKPOINT, Client, OF_GROUP, PATIENCE, PUBLIC, Publisher, Received, Server, Site,
    action_and_id, annotation_event, eventually, user_event,
};

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn membership_changes_take_effect_with_their_event() {
    let site = Site::new();
    // Without sweeps, only events announce changes.
    let server = site.server("[auth]\nsweep = \"1h\"");
    let publisher = site.publisher();
    let mut client = subscribed(server.user_of_h("luis"));
    assert!(!receives_group_event(&publisher, &mut client));

    site.sql("INSERT INTO user_group (user_id, group_id) VALUES (6, 4)");
    let luis = "acct:Luis.Silva@localhost";
    publisher.publish("user", &user_event("group-join", luis, "priv1234"));
    assert_eq!(session_change(&mut client), "group-join");
    assert!(receives_group_event(&publisher, &mut client));

    site.sql("DELETE FROM user_group WHERE user_id = 6");
    publisher.publish("user", &user_event("group-leave", luis, "priv1234"));
    assert_eq!(session_change(&mut client), "group-leave");
    assert!(!receives_group_event(&publisher, &mut client));
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn leave_takes_effect_before_commit() {
    let site = Site::new();
    // Reads between the event and the commit return the old state.
    let server = site.server(SWEPT);
    let publisher = site.publisher();
    let mut carol = subscribed(server.user_of_h("carol"));
    assert!(receives_group_event(&publisher, &mut carol));

    let transaction = site.begin("DELETE FROM user_group WHERE user_id = 3 AND group_id = 4");
    publisher.publish("user", &user_event("group-leave", CAROL, "priv1234"));
    assert_eq!(session_change(&mut carol), "group-leave");
    assert!(!receives_group_event(&publisher, &mut carol));
    // Both a second connection and sweeps read the memberships again.
    let mut other = subscribed(server.user_of_h("carol"));
    std::thread::sleep(Duration::from_millis(1_500));
    for client in [&mut carol, &mut other] {
        assert!(!receives_group_event(&publisher, client));
        client.drain();
    }
    transaction.commit();
    assert!(!receives_group_event(&publisher, &mut carol));
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn join_takes_effect_before_commit_and_is_undone_by_rollback() {
    let site = Site::new();
    let server = site.server(SWEPT);
    let publisher = site.publisher();
    let mut luis = subscribed(server.user_of_h("luis"));
    assert!(!receives_group_event(&publisher, &mut luis));
    for commits in [false, true] {
        let join = "INSERT INTO user_group (user_id, group_id) VALUES (6, 4)";
        let transaction = site.begin(join);
        publisher.publish("user", &user_event("group-join", LUIS, "priv1234"));
        assert_eq!(session_change(&mut luis), "group-join");
        assert!(receives_group_event(&publisher, &mut luis));
        std::thread::sleep(Duration::from_millis(1_500));
        assert!(receives_group_event(&publisher, &mut luis));
        match commits {
            true => transaction.commit(),
            false => {
                transaction.roll_back();
                eventually(PATIENCE, || {
                    (!receives_group_event(&publisher, &mut luis)).then_some(())
                });
            }
        }
    }
    // Longer than an unconfirmed join counts.
    std::thread::sleep(Duration::from_secs(16));
    assert!(receives_group_event(&publisher, &mut luis));
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn checkpoint_applies_to_new_member_until_role_is_read() {
    let site = Site::new();
    let server = site.server("[auth]\nsweep = \"1h\"");
    let publisher = site.publisher();
    let mut luis = server.user_of_h("luis");
    luis.subscribe("/id", BEHIND_CHECKPOINT);
    let transaction = site.begin(
        "INSERT INTO user_group (user_id, group_id, lms_role) VALUES (6, 6, 'lms_instructor')",
    );
    publisher.publish("user", &user_event("group-join", LUIS, "lmsgrp12"));
    assert_eq!(session_change(&mut luis), "group-join");
    let publish = || {
        let event = annotation_event("update", BEHIND_CHECKPOINT);
        publisher.publish("annotation", &event);
    };
    publish();
    publish();
    eventually(PATIENCE, || {
        let rule = "h_realtime_notifications_suppressed_total{rule=\"checkpoint\"}";
        (server.metric(rule) == 2.0).then_some(())
    });
    assert_eq!(luis.drain(), []);
    transaction.commit();
    eventually(PATIENCE, || {
        publish();
        (!luis.drain().is_empty()).then_some(())
    });
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn sweep_detects_membership_changes_without_events() {
    let site = Site::new();
    let server = site.server(SWEPT);
    let publisher = site.publisher();
    let mut carol = subscribed(server.user_of_h("carol"));
    let mut luis = subscribed(server.user_of_h("luis"));
    assert!(receives_group_event(&publisher, &mut carol));
    site.sql(
        "DELETE FROM user_group WHERE user_id = 3 AND group_id = 4;
         INSERT INTO user_group (user_id, group_id) VALUES (6, 4)",
    );
    eventually(PATIENCE, || {
        (!receives_group_event(&publisher, &mut carol)).then_some(())
    });
    eventually(PATIENCE, || {
        receives_group_event(&publisher, &mut luis).then_some(())
    });
    assert_eq!(userid(&mut carol), "acct:carol@localhost");
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn sweep_closes_connections_with_ended_credentials() {
    let site = Site::new();
    let server = site.server(SWEPT);
    let mut stays = server.user_of_h("alice");
    for (name, change, cause) in [
        (
            "carol",
            "DELETE FROM token WHERE user_id = 3",
            "token revoked",
        ),
        (
            "bob",
            "UPDATE \"user\" SET deleted = true WHERE id = 2",
            "user deleted",
        ),
        (
            "dave",
            "UPDATE token SET expires = '2001-01-01' WHERE user_id = 4",
            "token expired",
        ),
    ] {
        let mut client = server.user_of_h(name);
        assert_eq!(userid(&mut client), format!("acct:{name}@localhost"));
        site.sql(change);
        let Received::Close(Some((3000, reason))) = client.receive() else {
            panic!("{name} is not closed for reauthentication");
        };
        assert_eq!(reason, cause, "{name}");
        // A new connection with the same token is anonymous.
        assert_eq!(userid(&mut server.user_of_h(name)), "");
    }
    assert_eq!(userid(&mut stays), "acct:alice@localhost");
    assert_eq!(server.metric("h_realtime_credentials_ended_total"), 3.0);
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn token_expires_on_time() {
    let site = Site::new();
    let server = site.server("[auth]\nsweep = \"1h\"\nexpiry_spread = \"0s\"");
    let mut client = with_short_token(&site, &server);
    let mut stays = server.user_of_h("carol");
    let end = Received::Close(Some((3000, "token expired".into())));
    assert_eq!(client.receive(), end);
    assert_eq!(userid(&mut stays), "acct:carol@localhost");
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn simultaneous_expiries_are_spread() {
    let site = Site::new();
    let server = site.server("[auth]\nsweep = \"1h\"\nexpiry_spread = \"2s\"");
    let mut clients = vec![with_short_token(&site, &server)];
    clients.extend((1..50).map(|_| server.logged_in(SHORT)));
    let mut ends = Vec::new();
    // The expiry times are randomized; the connections are polled in turn.
    eventually(PATIENCE, || {
        clients.retain_mut(|client| {
            if client.is_quiet(Duration::from_millis(1)) {
                return true;
            }
            let end = Received::Close(Some((3000, "token expired".into())));
            assert_eq!(client.receive(), end);
            ends.push(Instant::now());
            false
        });
        clients.is_empty().then_some(())
    });
    // Fifty random times over two seconds do not fall within a tenth of that.
    assert!(ends[49] - ends[0] > Duration::from_millis(200), "{ends:?}");
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn expired_connections_are_kept_if_configured() {
    let site = Site::new();
    let server = site.server("[auth]\nsweep = \"100ms\"\non_expiry = \"keep\"");
    let publisher = site.publisher();
    let mut expires = with_short_token(&site, &server);
    let mut revoked = server.user_of_h("carol");
    let mut luis = subscribed(server.user_of_h("luis"));
    // The last change that the sweep finds shows that it has processed the others.
    eventually(PATIENCE, || {
        let count =
            "SELECT count(*) FROM token WHERE expires < now() AT TIME ZONE 'utc' AND id > 18";
        (site.sql(count).trim() == "1").then_some(())
    });
    site.sql(
        "DELETE FROM token WHERE user_id = 3;
         INSERT INTO user_group (user_id, group_id) VALUES (6, 4)",
    );
    eventually(PATIENCE, || {
        receives_group_event(&publisher, &mut luis).then_some(())
    });
    assert_eq!(userid(&mut revoked), "acct:carol@localhost");
    assert_eq!(userid(&mut expires), "acct:alice@localhost");
    assert_eq!(server.metric("h_realtime_credentials_ended_total"), 0.0);
}

/// Connects a client with a token of alice's that expires in two seconds.
fn with_short_token(site: &Site, server: &Server) -> Client {
    site.sql(&format!(
        "INSERT INTO token (value, user_id, expires)
         VALUES ('{SHORT}', 1, now() AT TIME ZONE 'utc' + interval '2 seconds')"
    ));
    let mut client = server.logged_in(SHORT);
    assert_eq!(userid(&mut client), "acct:alice@localhost");
    client
}

fn subscribed(mut client: Client) -> Client {
    let ids = serde_json::json!([PUBLIC, OF_GROUP]);
    let clause = serde_json::json!({"field": "/id", "operator": "one_of", "value": ids});
    let filter = crate::support::filter(serde_json::json!([clause]));
    client.send(&filter.to_string());
    assert_eq!(client.drain(), []);
    client
}

/// Returns the action of the next session change. Annotations that appear or are retracted with the
/// change of rights may precede it.
fn session_change(client: &mut Client) -> String {
    loop {
        let message = client.json();
        if message["type"] == "session-change" {
            return message["action"].as_str().unwrap().to_owned();
        }
        let (action, id) = action_and_id(&message);
        assert!(
            ["create", "delete"].contains(&action) && id == OF_GROUP,
            "{message}"
        );
    }
}

/// Returns whether a client receives an event of the group. A public event is published after it as
/// a fence.
fn receives_group_event(publisher: &Publisher, client: &mut Client) -> bool {
    for id in [OF_GROUP, PUBLIC] {
        publisher.publish("annotation", &annotation_event("update", id));
    }
    let mut of_group = 0;
    loop {
        match action_and_id(&client.json()) {
            // Retractions of earlier events.
            ("delete", OF_GROUP) => {}
            (_, OF_GROUP) => of_group += 1,
            _ => return of_group > 0,
        }
    }
}

/// Returns the userid that a client is served as, empty for anonymous. Events may still be in
/// flight.
fn userid(client: &mut Client) -> String {
    client.send(r#"{"type": "whoami", "id": 1}"#);
    loop {
        let answer = client.json();
        if answer["reply_to"] == 1 {
            return answer["userid"].as_str().unwrap_or("").to_owned();
        }
    }
}

const CAROL: &str = "acct:carol@localhost";
const LUIS: &str = "acct:Luis.Silva@localhost";
const SWEPT: &str = "[auth]\nsweep = \"100ms\"\nexpiry_spread = \"0s\"";
const SHORT: &str = "5768-alice-short";
