//! Several servers for one installation of h, on one port of one host.

use crate::support::{
    Client, PATIENCE, PUBLIC, Server, Site, action_and_id, annotation_event, eventually, free_port,
    user_event,
};

#[test]
#[ignore = "needs PostgreSQL and RabbitMQ: run tests/run"]
fn instances_share_a_port_and_each_client_receives_an_event_once() {
    let site = Site::new();
    let listen = format!("ws://127.0.0.1:{}", free_port());
    let mut instances: Vec<Server> = (0..3)
        .map(|_| site.server_at(&listen, "reuse_port = true"))
        .collect();
    let address = instances[0].address();
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| Client::open(address, "/ws", ALICE))
        .collect();
    for client in &mut clients {
        client.subscribe("/id", PUBLIC);
    }
    // The kernel distributes the connections; an instance without any is practically impossible.
    let served: Vec<f64> = instances.iter().map(logged_in).collect();
    assert_eq!(served.iter().sum::<f64>(), CLIENTS as f64);
    assert!(served.iter().all(|&clients| clients > 0.0), "{served:?}");

    let publisher = site.publisher();
    publisher.publish("annotation", &annotation_event("create", PUBLIC));
    for client in &mut clients {
        assert_eq!(action_and_id(&client.json()), ("create", PUBLIC));
    }
    publisher.publish("user", &user_event("group-join", USERID, "open1234"));
    for client in &mut clients {
        assert_eq!(client.json()["action"], "group-join");
        assert_eq!(client.drain(), []);
    }
    for (instance, clients) in instances.iter().zip(served) {
        let sent = instance.metric("h_realtime_notifications_sent_total");
        assert_eq!(sent, 2.0 * clients);
    }

    // One instance ends: its clients reconnect to the others and receive the next event.
    let stopped = instances.pop().unwrap();
    drop(stopped);
    let mut clients: Vec<Client> = (0..CLIENTS)
        .map(|_| Client::open(address, "/ws", ALICE))
        .collect();
    for client in &mut clients {
        client.subscribe("/id", PUBLIC);
    }
    publisher.publish("annotation", &annotation_event("update", PUBLIC));
    for client in &mut clients {
        assert_eq!(action_and_id(&client.json()), ("update", PUBLIC));
    }
    eventually(PATIENCE, || {
        let left: f64 = instances.iter().map(logged_in).sum();
        (left >= CLIENTS as f64).then_some(())
    });
}

fn logged_in(server: &Server) -> f64 {
    server.metric("h_realtime_connections_logged_in")
}

const CLIENTS: usize = 60;
const USERID: &str = "acct:alice@localhost";
const ALICE: &str = "Authorization: Bearer 6879-alice-developer-token\r\n";
