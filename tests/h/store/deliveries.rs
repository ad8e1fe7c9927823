//! Recorded deliveries of h, compared with the plans that its tables yield here.

use h_realtime::model::Field;
use serde_json::{Value, json};

use super::world::{World, received, values};

// The recorded deliveries and their receivers.
#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn deliveries_match_recorded_deliveries_of_h() {
    let mut world = World::new();
    let recorded = include_str!("../../data/transcripts/deliveries.jsonl");
    let mut sent = 0;
    for line in recorded.lines() {
        let transcript: Value = serde_json::from_str(line).unwrap();
        let name = transcript["name"].as_str().unwrap();
        let steps = transcript["steps"].as_array().unwrap();
        let conns = steps[0]["conn"].as_array().unwrap();
        let tokens = steps[0]["tokens"].as_array().unwrap();
        let tokens: Vec<&str> = tokens.iter().map(|it| it.as_str().unwrap_or("")).collect();
        let identities = world.identities(&tokens);
        for step in steps.iter().filter(|step| step["op"] == "publish") {
            let event = &step["events"][0];
            let plan = world.event(event).unwrap();
            assert!(values(&plan, Field::Id).contains(event["annotation_id"].as_str().unwrap()));
            for (conn, identity) in conns.iter().zip(&identities) {
                let is_for = |expected: &&Value| match &expected["conn"] {
                    Value::Array(conns) => conns.contains(conn),
                    one => one == conn,
                };
                let expected = step["expect"].as_array();
                let expected = expected.and_then(|all| all.iter().find(is_for));
                let got = received(&plan, identity.as_ref());
                let difference = difference(name, event);
                let expected = match (expected, difference) {
                    (_, Some(Difference::Delivered)) => {
                        assert!(got.is_ok(), "{name}: {conn}");
                        continue;
                    }
                    (None, _) => {
                        assert!(got.is_err(), "{name}: {conn} got {got:?}");
                        continue;
                    }
                    (Some(expected), _) => expected,
                };
                let payload = expected["payload"].as_u64().unwrap();
                let mut payload = transcript["payloads"][payload as usize].clone();
                if let Some(Difference::Links) = difference {
                    for mention in payload["mentions"].as_array_mut().unwrap() {
                        if let Value::String(link) = &mut mention["link"] {
                            *link = link.replace("http://localhost/", "http://localhost:5000/");
                        }
                    }
                }
                let message = json!({
                    "type": "annotation-notification",
                    "options": {"action": expected["action"]},
                    "payload": [payload],
                });
                // The order of the keys is compared, too.
                let got = got.map(|got| got.to_string());
                assert_eq!(got, Ok(message.to_string()), "{name}: {conn}");
                sent += 1;
            }
        }
    }
    assert!(sent > 700, "only {sent} are compared");
}

/// Known differences from h.
#[derive(Clone, Copy)]
enum Difference {
    /// h delivers nothing.
    Delivered,
    /// h does not know its own URL.
    Links,
}

fn difference(name: &str, event: &Value) -> Option<Difference> {
    match name {
        "deliver_refs_null" | "deliver_uri_bad" | "deliver_uri_null" => Some(Difference::Delivered),
        "deliver_mention" if event["action"] != "delete" => Some(Difference::Links),
        _ => None,
    }
}
