//! What h was recorded to send to whom, against the plans that its tables make here.

use h_realtime::model::Field;
use serde_json::{Value, json};

use super::world::{World, received, values};

// What h was recorded to send, to whom.
#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn each_annotation_goes_to_those_to_whom_h_sends_it_as_h_sends_it() {
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

/// In what this is not h's.
#[derive(Clone, Copy)]
enum Difference {
    /// h sends nothing to anybody.
    Delivered,
    /// h does not know its own address.
    Links,
}

fn difference(name: &str, event: &Value) -> Option<Difference> {
    match name {
        "deliver_refs_null" | "deliver_uri_bad" | "deliver_uri_null" => Some(Difference::Delivered),
        "deliver_mention" if event["action"] != "delete" => Some(Difference::Links),
        _ => None,
    }
}
