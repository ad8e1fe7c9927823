//! Look-ups for explanations.

use super::*;
use crate::model::{ExplainedEvent, Lookup};

fn lookup(user: &str, event: Option<ExplainedEvent>) -> Lookup {
    Lookup {
        user: Some(user.into()),
        event,
    }
}

fn on(id: &str, action: &str) -> Option<ExplainedEvent> {
    Some(ExplainedEvent::Annotation {
        id: id.into(),
        action: Some(action.into()),
    })
}

fn published(event: serde_json::Value) -> Option<ExplainedEvent> {
    Some(ExplainedEvent::Published(event.to_string().into()))
}

const ID: &str = "AAAAAREREeaAAAAAAAAAAQ";

#[tokio::test(start_paused = true)]
async fn lookups_are_answered_without_publishing() {
    run_worker(4096, async |harness| {
        let joe = ("acct:joe@b".to_owned(), members(&["g"]));
        harness.fake.state().members.extend([joe]);
        let of_annotation = json!({"topic": "annotation", "action": "create",
            "annotation": {"id": ID}});
        let of_user = json!({"topic": "user", "type": "group-join", "userid": "acct:joe@b",
            "session_model": {}});
        for (number, lookup) in [
            lookup("acct:joe@b", on(ID, "create")),
            lookup("acct:nobody@b", on(ID, "delete")),
            lookup("acct:joe@b", on(ID, "missing")),
            lookup("acct:joe@b", on("not an id", "create")),
            lookup("acct:joe@b", published(of_annotation)),
            lookup("acct:joe@b", published(of_user)),
            lookup("acct:joe@b", published(json!({"topic": "user"}))),
            lookup("acct:joe@b", published(json!({"topic": "annotation"}))),
        ]
        .into_iter()
        .enumerate()
        {
            let request_id = RequestId(number as u64);
            harness.ask(BackendRequest::LookUp { request_id, lookup });
        }
        assert_eq!(
            harness.reported_in(10).await,
            [
                "ready true",
                "0 found acct:joe@b and create",
                "1 found nobody and delete",
                "2 found acct:joe@b and nothing",
                "3 found acct:joe@b and nothing",
                "4 found acct:joe@b and create",
                "5 found acct:joe@b and session-change",
                "6 Invalid(\"the event on a user needs type, userid, and session_model\")",
                "7 Invalid(\"the annotation has no id\")",
            ]
        );
        assert_eq!(harness.handled(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn lookup_is_refused_while_the_database_is_unavailable() {
    run_worker(4096, async |harness| {
        assert_eq!(harness.reported_in(2).await, ["ready true"]);
        harness.fake.restart(false);
        let unavailable = "Unavailable(\"the database is unavailable\")";
        for number in 1..3 {
            let (request_id, lookup) = (RequestId(number), lookup("acct:joe@b", None));
            harness.ask(BackendRequest::LookUp { request_id, lookup });
            let reported = harness.reported_in(2).await;
            assert_eq!(reported[0], format!("{number} {unavailable}"));
        }
    })
    .await;
}
