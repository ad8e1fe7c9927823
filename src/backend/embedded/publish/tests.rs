//! Accepted bodies with the resulting plans, and rejected bodies.

use serde_json::{Value, json};

use super::*;
use crate::backend::embedded::Store;
use crate::model::Field;

const NOW: UnixMillis = 1_704_164_645_678;
const JOE: &str = "acct:joe@example.org";

fn store() -> Store {
    let store = Store::in_memory().unwrap();
    store.add_user(JOE, Some("Joe Bloggs"), 0).unwrap();
    store
}

fn published(body: &str) -> Result<Vec<Plan>, PublishError> {
    match plans(body.as_bytes(), &store().directory(), NOW) {
        Ok(planned) => Ok(planned.into_iter().map(|one| one.plan).collect()),
        Err(PublishFailure::Publisher(error)) => Err(error),
        Err(PublishFailure::Database(error)) => panic!("{error}"),
    }
}

/// Returns the line of an invalid body.
fn line_of(error: &PublishError) -> usize {
    match error {
        PublishError::Invalid { line, .. } => *line,
        other => panic!("{other:?}"),
    }
}

/// The smallest annotation that is accepted.
fn least() -> Value {
    json!({
        "id": "A", "user": JOE, "uri": "http://example.com/",
        "permissions": {"read": ["group:__world__"]},
    })
}

fn create(annotation: &Value) -> Value {
    json!({"topic": "annotation", "action": "create", "annotation": annotation})
}

fn join() -> Value {
    json!({
        "topic": "user", "type": "group-join", "userid": JOE, "group": "g",
        "session_model": {"userid": JOE, "groups": [], "features": {}, "preferences": {}},
    })
}

/// Returns a copy in which one member, named by the JSON pointer of its parent and a key, is set,
/// or removed if `value` is null.
fn with(original: &Value, parent: &str, key: &str, value: Value) -> Value {
    let mut changed = original.clone();
    let object = changed
        .pointer_mut(parent)
        .unwrap()
        .as_object_mut()
        .unwrap();
    object.remove(key);
    if !value.is_null() {
        object.insert(key.to_owned(), value);
    }
    changed
}

fn only(event: &Value) -> Plan {
    let mut plans = published(&event.to_string()).unwrap();
    assert_eq!(plans.len(), 1);
    plans.remove(0)
}

#[test]
fn annotation_is_completed_in_hs_order() {
    let plan = only(&create(&least()));
    let expected = concat!(
        r#"{"type":"annotation-notification","options":{"action":"create"},"payload":[{"#,
        r#""id":"A","created":"2024-01-02T03:04:05.678000+00:00","#,
        r#""updated":"2024-01-02T03:04:05.678000+00:00","user":"acct:joe@example.org","#,
        r#""uri":"http://example.com/","text":"","tags":[],"group":"__world__","#,
        r#""permissions":{"read":["group:__world__"],"admin":["acct:joe@example.org"],"#,
        r#""update":["acct:joe@example.org"],"delete":["acct:joe@example.org"]},"#,
        r#""target":[{"source":"http://example.com/"}],"document":{},"links":{},"#,
        r#""actions":[],"mentions":[],"user_info":{"display_name":"Joe Bloggs"},"#,
        r#""flagged":false,"hidden":false}]}"#,
    );
    let variants: Vec<&str> = plan.variants.iter().map(|v| &**v).collect();
    assert_eq!(variants, [expected]);
    assert_eq!((plan.kind, plan.exclude_client), (EventKind::Create, None));
}

#[test]
fn members_from_the_publisher_are_kept_verbatim() {
    let annotation = r#"{
        "extra": 1.50, "big": 123456789012345678901234567890, "exp": 1e300, "id": "A",
        "user": "acct:ghost@example.org", "uri": "urn:x-pdf:1", "text": "née \u0000 \"x\" 💬",
        "tags": ["a"], "group": "g", "created": "2020-01-01T00:00:00Z", "flagged": true,
        "permissions": {"read": ["acct:a@b"], "update": [], "more": [1]}, "references": ["R"],
        "target": [{"selector": [{"type": "TextQuoteSelector", "exact": "é"}]}, {"selector": null}],
        "document": {"title": ["T"]}, "links": {"html": "h"}, "actions": ["x"], "mentions": [{}],
        "user_info": {"display_name": null}, "moderation_status": null, "updated": null,
        "metadata": null
    }"#;
    let event = format!(r#"{{"topic":"annotation","action":"update","annotation":{annotation}}}"#);
    let plans = published(&event).unwrap();
    let payload = concat!(
        r#"[{"id":"A","created":"2020-01-01T00:00:00Z","updated":"2024-01-02T03:04:05.678000+00:00","#,
        r#""user":"acct:ghost@example.org","uri":"urn:x-pdf:1","text":"née \u0000 \"x\" 💬","#,
        r#""tags":["a"],"group":"g","moderation_status":null,"permissions":{"read":["acct:a@b"],"#,
        r#""admin":["acct:ghost@example.org"],"update":[],"delete":["acct:ghost@example.org"],"#,
        r#""more":[1]},"target":[{"selector":[{"type":"TextQuoteSelector","exact":"é"}]},"#,
        r#"{"selector":null}],"document":{"title":["T"]},"links":{"html":"h"},"actions":[],"#,
        r#""mentions":[{}],"user_info":{"display_name":null},"references":["R"],"flagged":false,"#,
        r#""hidden":false,"extra":1.50,"big":123456789012345678901234567890,"exp":1e+300,"#,
        r#""metadata":null}]}"#,
    );
    assert!(
        plans[0].variants[0].ends_with(payload),
        "{}",
        plans[0].variants[0]
    );
    assert_eq!(plans[0].kind, EventKind::Update);
}

// The official client sends such annotations for a note about a page, and for a quote that is
// truncated within a surrogate pair.
#[test]
fn annotations_of_the_official_client_are_accepted() {
    let mut annotation = least();
    annotation["target"] = json!([]);
    let plan = only(&create(&annotation));
    let target = r#""target":[{"source":"http://example.com/"}]"#;
    assert!(plan.variants[0].contains(target), "{}", plan.variants[0]);

    annotation["target"] = json!([{"selector": [{"prefix": "CUT", "suffix": "end"}]}]);
    let body = create(&annotation).to_string().replace("CUT", r"a \ud83d");
    let plans = published(&body).unwrap();
    let prefix = r#"{"prefix":"a \u{fffd}","suffix":"end"}"#.replace(r"\u{fffd}", "\u{fffd}");
    assert!(
        plans[0].variants[0].contains(&prefix),
        "{}",
        plans[0].variants[0]
    );
}

#[test]
fn nesting_is_limited_to_127_levels() {
    let nested = |depth: usize| {
        let mut annotation = least();
        annotation["x"] = json!("NESTED");
        // The event and the annotation are two of the levels.
        let lists = format!("{}{}", "[".repeat(depth - 2), "]".repeat(depth - 2));
        create(&annotation)
            .to_string()
            .replace(r#""NESTED""#, &lists)
    };
    assert_eq!(published(&nested(127)).map(|plans| plans.len()), Ok(1));
    let error = published(&nested(128)).unwrap_err();
    assert!(
        error.reason().contains("recursion limit"),
        "{}",
        error.reason()
    );
}

#[test]
fn delete_sends_the_id_to_the_receivers_of_the_annotation() {
    let mut event = create(&least());
    event["action"] = json!("delete");
    event["annotation_id"] = json!("A");
    event["src_client_id"] = json!("me");
    let plan = only(&event);
    assert_eq!(
        &*plan.variants[0],
        r#"{"type":"annotation-notification","options":{"action":"delete"},"payload":[{"id":"A"}]}"#
    );
    assert_eq!(plan.kind, EventKind::Delete);
    assert_eq!(plan.exclude_client.as_deref(), Some("me"));
    assert_eq!(plan.candidates, only(&create(&least())).candidates);
}

#[test]
fn annotation_matches_by_its_fields_and_every_uri() {
    let mut event = create(&least());
    event["annotation"]["references"] = json!(["R", "S", "R"]);
    event["annotation"]["tags"] = json!(["To  Do", "moon", "MOON"]);
    event["annotation"]["version"] = json!(2);
    event["uris"] = json!(["https://example.com", "urn:x-pdf:1", "http://[bad/"]);
    let Candidates::Terms(terms) = only(&event).candidates else {
        panic!("terms");
    };
    let of = |wanted: Field| -> Vec<&str> {
        let terms = terms.iter().filter(|term| term.field == wanted);
        terms.map(|term| &*term.value).collect()
    };
    assert_eq!(of(Field::Id), ["A"]);
    assert_eq!(of(Field::Group), ["__world__"]);
    assert_eq!(of(Field::References), ["R", "S"]);
    assert_eq!(of(Field::User), ["joe", "joe@example.org"]);
    assert_eq!(of(Field::Tags), ["moon", "to do"]);
    let pages = ["http://example.com/", "urn:x-pdf:1"];
    let keys = uri::annotation_keys(pages.into_iter(), Some(2));
    assert_eq!(of(Field::Uri), keys);
    // An invalid URI does not affect the other terms.
    let bad = with(&least(), "", "uri", json!("http://[bad/"));
    let Candidates::Terms(terms) = only(&create(&bad)).candidates else {
        panic!("terms");
    };
    assert!(terms.iter().all(|term| term.field != Field::Uri));
    assert_eq!(terms.len(), 4);
}

#[test]
fn missing_group_or_id_is_inferred() {
    let group_of = |read: Value| {
        let annotation = with(&least(), "/permissions", "read", read);
        let plan = only(&create(&annotation));
        let message: Value = serde_json::from_str(&plan.variants[0]).unwrap_or_default();
        message["payload"][0]["group"].clone()
    };
    assert_eq!(group_of(json!(["group:__world__"])), "__world__");
    assert_eq!(group_of(json!([JOE])), "__world__");
    assert_eq!(group_of(json!([JOE, "group:g"])), "g");

    let mut event = create(&with(&least(), "", "id", Value::Null));
    event["annotation_id"] = json!("B");
    assert!(only(&event).variants[0].contains(r#""id":"B""#));
}

#[test]
fn session_change_is_sent_only_to_its_user() {
    let plan = only(&join());
    assert_eq!(plan.candidates, Candidates::User(JOE.into()));
    assert_eq!(plan.kind, EventKind::SessionChange);
    let rule = Rule {
        when: vec![Condition::User(JOE.into())],
        then: Decision::Send(0),
    };
    assert_eq!(plan.rules, [rule]);
    assert_eq!(
        &*plan.variants[0],
        concat!(
            r#"{"type":"session-change","action":"group-join","model":{"userid":"acct:joe@example.org","#,
            r#""groups":[],"features":{},"preferences":{}}}"#
        )
    );
}

#[test]
fn invalid_events_are_refused_with_a_reason() {
    let event = create(&least());
    // The event; the parent, key, and new value of the changed member; a part of the reason.
    #[rustfmt::skip]
    let cases = [
        (&event, "", "topic", json!(null), "topic is missing"),
        (&event, "", "topic", json!("x"), "topic must be annotation or user, not \"x\""),
        (&event, "", "topic", json!(["annotation"]), "topic must be a string"),
        (&event, "", "action", json!(null), "action is missing"),
        (&event, "", "action", json!("flag"), "action must be create, update or delete, not \"flag\""),
        (&event, "", "annotation", json!(null), "annotation is missing"),
        (&event, "", "annotation", json!([]), "annotation must be an object"),
        (&event, "", "annotation_id", json!("B"), "annotation.id is not the event's annotation_id"),
        (&event, "", "annotation_id", json!(1), "annotation_id must be a string"),
        (&event, "", "src_client_id", json!(1), "src_client_id must be a string"),
        (&event, "", "uris", json!("u"), "uris must be a list of strings"),
        (&event, "/annotation", "id", json!(null), "annotation.id is missing"),
        (&event, "/annotation", "id", json!(""), "annotation.id is empty"),
        (&event, "/annotation", "id", json!(7), "annotation.id must be a string"),
        (&event, "/annotation", "user", json!(null), "annotation.user is missing"),
        (&event, "/annotation", "user", json!("joe"), "annotation.user must look like"),
        (&event, "/annotation", "uri", json!(null), "annotation.uri is missing"),
        (&event, "/annotation", "uri", json!(""), "annotation.uri is empty"),
        (&event, "/annotation", "uri", json!({}), "annotation.uri must be a string"),
        (&event, "/annotation", "group", json!(""), "annotation.group is not a valid group id"),
        (&event, "/annotation", "group", json!(1), "annotation.group must be a string"),
        (&event, "/annotation", "permissions", json!(null), "annotation.permissions.read is missing"),
        (&event, "/annotation", "permissions", json!([]), "annotation.permissions must be an object"),
        (&event, "/annotation/permissions", "read", json!(null), "annotation.permissions.read is missing"),
        (&event, "/annotation/permissions", "read", json!([]), "annotation.permissions.read is empty"),
        (&event, "/annotation/permissions", "read", json!([1]), "permissions.read must be a list of strings"),
        (&event, "/annotation/permissions", "read", json!(["everyone"]), "read has \"everyone\", which is neither"),
        (&event, "/annotation/permissions", "read", json!(["group:"]), "read has \"group:\", which is neither"),
        (&event, "/annotation/permissions", "read", json!(["acct:joe"]), "read has \"acct:joe\", which is neither"),
        (&event, "/annotation/permissions", "read", json!(vec!["group:a"; 101]), "read has more than 100 entries"),
        (&event, "/annotation/permissions", "update", json!("x"), "permissions.update must be a list of strings"),
        (&event, "/annotation/permissions", "delete", json!([{}]), "permissions.delete must be a list of strings"),
        (&event, "/annotation/permissions", "admin", json!(true), "permissions.admin must be a list of strings"),
        (&event, "/annotation", "text", json!(1), "annotation.text must be a string"),
        (&event, "/annotation", "tags", json!("a"), "annotation.tags must be a list of strings"),
        (&event, "/annotation", "tags", json!([1]), "annotation.tags must be a list of strings"),
        (&event, "/annotation", "target", json!({}), "annotation.target must be a list of objects"),
        (&event, "/annotation", "target", json!([1]), "annotation.target must be a list of objects"),
        (&event, "/annotation", "target", json!([{"selector": {}}]), "annotation.target has a selector"),
        (&event, "/annotation", "target", json!([{"selector": [null]}]), "annotation.target has a selector"),
        (&event, "/annotation", "references", json!("R"), "annotation.references must be a list of strings"),
        (&event, "/annotation", "document", json!("d"), "annotation.document must be an object"),
        (&event, "/annotation", "links", json!([]), "annotation.links must be an object"),
        (&event, "/annotation", "mentions", json!([1]), "annotation.mentions must be a list of objects"),
        (&event, "/annotation", "user_info", json!("Joe"), "annotation.user_info must be an object"),
        (&event, "/annotation", "moderation", json!(1), "annotation.moderation must be an object"),
        (&event, "/annotation", "moderation_status", json!(1), "annotation.moderation_status must be a string"),
        (&event, "/annotation", "hidden", json!("no"), "annotation.hidden must be true or false"),
        (&event, "/annotation", "created", json!("today"), "annotation.created must look like"),
        (&event, "/annotation", "updated", json!(1), "annotation.updated must be a string"),
        (&join(), "", "type", json!(null), "type is missing"),
        (&join(), "", "type", json!("x"), "type must be group-join or group-leave"),
        (&join(), "", "userid", json!(null), "userid is missing"),
        (&join(), "", "userid", json!("joe"), "userid must look like"),
        (&join(), "", "session_model", json!(null), "session_model is missing"),
        (&join(), "", "session_model", json!([]), "session_model must be an object"),
        (&join(), "/session_model", "userid", json!(null), "session_model.userid is missing"),
        (&join(), "/session_model", "groups", json!({}), "session_model.groups must be a list of objects"),
        (&join(), "/session_model", "features", json!(null), "session_model.features is missing"),
        (&join(), "/session_model", "preferences", json!(null), "session_model.preferences is missing"),
    ];
    for (event, parent, key, value, reason) in cases {
        let body = with(event, parent, key, value).to_string();
        let error = published(&body).unwrap_err();
        assert!(
            error.reason().contains(reason),
            "{reason}: {}",
            error.reason()
        );
        assert_eq!(line_of(&error), 1);
    }
}

#[test]
fn body_is_one_object_or_one_object_per_line() {
    let event = create(&least());
    let line = event.to_string();
    let pretty = serde_json::to_string_pretty(&event).unwrap();
    for (body, count) in [
        (line.clone(), 1),
        (format!("\r\n\n  {pretty}\n\n"), 1),
        (format!("{line}\n{line}"), 2),
        (format!("\n{line}\r\n \t\r\n{line}\r\n{}\n", join()), 3),
    ] {
        assert_eq!(
            published(&body).map(|plans| plans.len()),
            Ok(count),
            "{body}"
        );
    }
}

#[test]
fn invalid_body_is_refused_with_line_and_reason() {
    let line = create(&least()).to_string();
    let pretty = serde_json::to_string_pretty(&create(&least())).unwrap();
    let deep = "[".repeat(100_000);
    #[rustfmt::skip]
    let cases = [
        (String::new(), 1, "the body contains no event"),
        ("\n \r\n".to_owned(), 1, "the body contains no event"),
        ("{".to_owned(), 1, "not JSON at column 1: EOF"),
        ("[]".to_owned(), 1, "not a JSON object"),
        ("\n42".to_owned(), 2, "not a JSON object"),
        (format!("{line}\nnot json"), 2, "not JSON at column 2: expected"),
        (format!("{line}\r\n\r\n{line}\r\n{{}}\r\n{line}"), 4, "topic is missing"),
        (format!("{line}{line}"), 1, "not JSON at column"),
        (format!("{pretty}\n{pretty}"), 15, "trailing characters"),
        ("{\n  \"topic\": \"annotation\",\n}".to_owned(), 3, "trailing comma"),
        (format!("{line}\n{{\"topic\":NaN}}"), 2, "not JSON at column 10"),
        (format!("{line}\n\"\\ud800\""), 2, "not a JSON object"),
        (format!("{line}\n{deep}"), 2, "recursion limit"),
    ];
    for (body, line, reason) in cases {
        let error = published(&body).unwrap_err();
        assert_eq!(line_of(&error), line, "{} {reason}", error.reason());
        assert!(
            error.reason().contains(reason),
            "{reason}: {}",
            error.reason()
        );
    }
    let not_utf8 = [line.as_bytes(), b"\n{\"topic\":\"\xff\"}"].concat();
    let Err(PublishFailure::Publisher(error)) = plans(&not_utf8, &store().directory(), NOW) else {
        panic!("taken");
    };
    assert_eq!(line_of(&error), 2);
}
