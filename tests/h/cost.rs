//! The number of database statements per event, which does not depend on the number of receivers.

use std::time::{Duration, Instant};

use h_realtime_engine::raise_open_files;

use crate::support::{
    Client, OF_GROUP, PATIENCE, PUBLIC, Publisher, Server, Site, action_and_id, annotation_event,
    eventually, user_event,
};

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn statement_count_does_not_depend_on_number_of_receivers() {
    raise_open_files();
    let site = Site::new();
    // Sweeps run statements, too, and these clients do not answer pings.
    let server = site.server("[auth]\nsweep = \"1h\"\n[timeouts]\nping = \"1h\"");
    let publisher = site.publisher();
    // Those that follow the start end six seconds after it.
    let (mut sweeps, mut since) = (0.0, Instant::now());
    eventually(PATIENCE, || {
        let done = server.metric("h_realtime_sweeps_total");
        if done != sweeps {
            (sweeps, since) = (done, Instant::now());
        }
        (since.elapsed() > Duration::from_secs(8)).then_some(())
    });
    let mut clients = vec![server.user_of_h("alice")];
    clients[0].subscribe_to_both();
    let one = measure(&server, &publisher, &mut clients);
    let users = ["alice", "bob", "carol", "dave"];
    while clients.len() < RECEIVERS {
        let mut client = server.user_of_h(users[clients.len() % users.len()]);
        client.subscribe_to_both();
        clients.push(client);
    }
    let many = measure(&server, &publisher, &mut clients);
    for (one, many) in one.iter().zip(&many) {
        let (statements, last) = (many.statements, many.last);
        println!(
            "{}: {statements} statements for {RECEIVERS} receivers, {} for one; latency of the last \
             {last:?}, of the only one {:?}",
            many.name, one.statements, one.last
        );
        assert_eq!(statements, one.statements, "{}", many.name);
        assert!(last < GENEROUS, "{last:?}");
    }
}

#[derive(Debug)]
struct Cost {
    name: &'static str,
    statements: f64,
    /// From publishing to the arrival at the last receiver.
    last: Duration,
}

fn measure(server: &Server, publisher: &Publisher, clients: &mut [Client]) -> Vec<Cost> {
    let mut costs = Vec::new();
    for (name, id) in [("a public annotation", PUBLIC), ("a group's", OF_GROUP)] {
        costs.push(cost(server, clients, name, |clients| {
            publisher.publish("annotation", &annotation_event("update", id));
            for client in clients {
                assert_eq!(action_and_id(&client.json()), ("update", id));
            }
        }));
    }
    costs.push(cost(server, clients, "a user's groups", |clients| {
        publisher.publish(
            "user",
            // She is a member already: a change that the database confirms is not read again later.
            &user_event("group-join", "acct:alice@localhost", "open1234"),
        );
        for client in clients.iter_mut().step_by(4) {
            assert_eq!(client.json()["action"], "group-join");
        }
    }));
    costs
}

fn cost(
    server: &Server,
    clients: &mut [Client],
    name: &'static str,
    event: impl FnOnce(&mut [Client]),
) -> Cost {
    let before = server.metric(STATEMENTS);
    let since = Instant::now();
    event(clients);
    Cost {
        name,
        last: since.elapsed(),
        statements: server.metric(STATEMENTS) - before,
    }
}

impl Client {
    fn subscribe_to_both(&mut self) {
        let ids = serde_json::json!([PUBLIC, OF_GROUP]);
        let clause = serde_json::json!({"field": "/id", "operator": "one_of", "value": ids});
        self.send(&crate::support::filter(serde_json::json!([clause])).to_string());
        assert_eq!(self.drain(), []);
    }
}

const RECEIVERS: usize = 10_000;
const STATEMENTS: &str = "h_realtime_database_statements_total";
/// Suitable for a debug build on a loaded machine.
const GENEROUS: Duration = Duration::from_secs(15);
