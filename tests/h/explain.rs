//! Explanations with h's backend, compared with notifications.

use serde_json::{Value, json};

use crate::support::{
    BEHIND_CHECKPOINT, Client, PATIENCE, Received, Server, Site, annotation_event, eventually,
};

/// Returns the answer of the command to the arguments, as JSON.
fn explain(server: &Server, args: &[&str]) -> Value {
    let output = server.command(&[&["explain", "--json"], args].concat());
    let stderr = String::from_utf8_lossy(&output.stderr);
    let answer = serde_json::from_slice(&output.stdout);
    answer.unwrap_or_else(|error| panic!("{args:?}: {error}: {stderr}"))
}

/// Returns the ids of all annotations in the database.
fn all_annotations(site: &Site) -> Vec<String> {
    let ids = site.sql(
        "SELECT translate(rtrim(encode(uuid_send(id), 'base64'), '='), '+/', '-_')
         FROM annotation WHERE NOT deleted ORDER BY id",
    );
    ids.lines().map(|id| id.trim().to_owned()).collect()
}

fn received(client: &mut Client) -> Vec<Value> {
    let read = |received| match received {
        Received::Text(text) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?}"),
    };
    client.drain().into_iter().map(read).collect()
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn answers_equal_notifications_for_all_annotations_of_h() {
    let site = Site::new();
    let server = site.server("");
    let publisher = site.publisher();
    let ids = all_annotations(&site);
    assert!(ids.len() > 10, "{ids:?}");
    let clause = json!({"field": "/id", "operator": "one_of", "value": ids});
    let filter = json!({"match_policy": "include_any", "clauses": [clause], "actions": {}});
    let text = filter.to_string();
    let mut clients = Vec::new();
    for name in ["", "alice", "carol", "luis"] {
        let mut client = match name {
            "" => server.anonymous(),
            name => server.user_of_h(name),
        };
        let whoami = client.ask(r#"{"type":"whoami","id":1}"#);
        let whoami: Value = serde_json::from_str(&whoami).unwrap();
        client.send(&json!({"filter": filter}).to_string());
        client.drain();
        clients.push((whoami["userid"].as_str().map(str::to_owned), client));
    }
    let (mut sent, mut withheld) = (0, 0);
    for (number, id) in ids.iter().enumerate() {
        let answers: Vec<Value> = clients
            .iter()
            .map(|(user, _)| {
                let user = match user {
                    None => vec!["--anonymous"],
                    Some(user) => vec!["--user", user.as_str()],
                };
                let event = ["--filter", &text, "--annotation", id, "--action", "update"];
                explain(&server, &[&user[..], &event].concat())
            })
            .collect();
        publisher.publish("annotation", &annotation_event("update", id));
        let count = (number + 1) as f64;
        eventually(PATIENCE, || {
            let received = server.metric("h_realtime_events_received_total");
            (received == count).then_some(())
        });
        for ((user, client), answer) in clients.iter_mut().zip(answers) {
            let messages = received(client);
            let would_notify = answer["would_notify"] == true;
            assert_eq!(would_notify, messages.len() == 1, "{id} {user:?}: {answer}");
            match &messages[..] {
                [message] => {
                    assert_eq!(answer["variant"]["message"], *message);
                    sent += 1;
                }
                _ => withheld += 1,
            }
        }
    }
    assert!(sent > 10 && withheld > 5, "{sent} {withheld}");
}

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn reasons_follow_the_database() {
    let site = Site::new();
    let server = site.server("");
    let on = |user: &str, id: &str| {
        let filter = json!({"match_policy": "include_any", "actions": {},
            "clauses": [{"field": "/id", "value": id}]});
        let filter = filter.to_string();
        explain(
            &server,
            &["--user", user, "--filter", &filter, "--annotation", id],
        )
    };
    let unknown = "AAAAAREREeaAAAAAAAAA_w";
    assert_eq!(
        on("acct:alice@localhost", unknown)["reason"],
        "unknown_annotation"
    );
    assert_eq!(
        on("acct:nobody@localhost", BEHIND_CHECKPOINT)["reason"],
        "unknown_user"
    );
    // h treats names that differ in dots and case as equal.
    let luis = on("acct:luissilva@localhost", BEHIND_CHECKPOINT);
    assert_eq!(luis["user"]["userid"], "acct:Luis.Silva@localhost");
    assert_eq!(luis["reason"], "permission");
    // The key permits explanations, and nobody can publish over HTTP.
    assert_eq!(server.publish("{}").0, 404);

    let mut client = server.anonymous();
    client.send(r#"{"type":"client_id","value":"c"}"#);
    client.drain();
    assert_eq!(explain(&server, &["--client", "c"])["open_connections"], 1);
}
