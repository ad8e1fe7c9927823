//! The messages, key by key.

use serde_json::{Value, json};

use super::*;
use crate::backend::annotation_json::{KEYS, deletion};
use crate::backend::h::annotation_state::testing::state;
use crate::backend::h::annotation_state::{Author, Mention};
use crate::backend::h::ids::Uuid;
use crate::backend::time::PgTime;

const USERID: &str = "acct:alice@example.org";

fn urls() -> UrlBuilder {
    let bouncer = Some("https://hyp.is/");
    UrlBuilder::new("example.org", "https://h.example.org", bouncer)
}

fn text(state: &AnnotationState, variant: Variant) -> String {
    let mut messages = notifications("create", state, &urls(), &[variant]).unwrap();
    assert_eq!(messages.len(), 1);
    messages.remove(0).into()
}

fn payload(state: &AnnotationState) -> Value {
    let message: Value = serde_json::from_str(&text(state, Variant::default())).unwrap();
    message["payload"][0].clone()
}

fn known(display_name: Option<&str>) -> Option<Author> {
    Some(Author {
        userid: USERID.to_owned(),
        display_name: display_name.map(str::to_owned),
        muted: false,
        instructs: false,
    })
}

#[test]
fn notification_has_hs_keys_in_hs_order() {
    let mut state = state(USERID, "group");
    state.author = known(Some("Alice"));
    state.title = Some("A page".to_owned());
    state.flaggers = vec![String::new(), String::new()];
    state.annotation.references = Some(vec![Some(Uuid([1; 16]))]);
    state.annotation.target_description = Some("words".to_owned());
    state.annotation.target_selectors = Some(r#"[{"type": "Other"}]"#.to_owned());
    state.annotation.extra = r#"{"b": 1, "a": {"c": 2.50}}"#.to_owned();
    let variant = Variant {
        moderates: true,
        flagged: true,
        hidden: true,
    };
    let expected = concat!(
        r#"{"type":"annotation-notification","options":{"action":"create"},"payload":[{"b":1,"a":{"c": 2.50},"#,
        r#""id":"AAAAAREREeaAAAAAAAAAAQ","created":"2000-01-01T00:00:00.000000+00:00","#,
        r#""updated":"2000-01-01T00:00:01.500000+00:00","user":"acct:alice@example.org","#,
        r#""uri":"http://example.com/a","text":"Hello","tags":[],"group":"group","#,
        r#""moderation_status":"APPROVED","permissions":{"read":["group:group"],"#,
        r#""admin":["acct:alice@example.org"],"update":["acct:alice@example.org"],"delete":["acct:alice@example.org"]},"#,
        r#""target":[{"source":"http://example.com/a","description":"words","selector":[{"type": "Other"}]}],"#,
        r#""document":{"title":["A page"]},"links":{"html":"https://h.example.org/a/AAAAAREREeaAAAAAAAAAAQ","#,
        r#""incontext":"https://hyp.is/AQEBAQEBAQEBAQEBAQEBAQ/example.com/a","#,
        r#""json":"https://h.example.org/api/annotations/AAAAAREREeaAAAAAAAAAAQ"},"actions":["moderate"],"#,
        r#""mentions":[],"user_info":{"display_name":"Alice"},"references":["AQEBAQEBAQEBAQEBAQEBAQ"],"#,
        r#""flagged":true,"moderation":{"flagCount":2},"hidden":true}]}"#,
    );
    assert_eq!(text(&state, variant), expected);
}

#[test]
fn deletion_contains_the_id_as_sent() {
    assert_eq!(
        &*deletion("delete", "AAAAAREREeaAAAAAAAAAAR"),
        r#"{"type":"annotation-notification","options":{"action":"delete"},"payload":[{"id":"AAAAAREREeaAAAAAAAAAAR"}]}"#
    );
}

#[test]
fn null_columns_become_empty_or_absent_as_in_h() {
    let mut state = state(USERID, "group");
    let annotation = &mut state.annotation;
    annotation.text = None;
    annotation.tags = None;
    annotation.references = None;
    annotation.target_selectors = None;
    annotation.target_uri = None;
    annotation.shared = false;
    state.title = Some(String::new());
    let payload = payload(&state);
    for (key, value) in [
        ("text", json!("")),
        ("tags", json!([])),
        ("uri", json!("")),
        ("target", json!([{"source": ""}])),
        ("document", json!({})),
        ("moderation_status", json!(null)),
        ("actions", json!([])),
        ("flagged", json!(false)),
        ("hidden", json!(false)),
    ] {
        assert_eq!(payload.get(key), Some(&value), "{key}");
    }
    for key in ["references", "moderation", "user_info"] {
        assert_eq!(payload.get(key), None, "{key}");
    }
    state.author = known(None);
    let info = json!({"display_name": null});
    assert_eq!(super::tests::payload(&state)["user_info"], info);
}

#[test]
fn permissions_read_names_the_readers() {
    let read = |groupid: &str, group, shared, status: Option<&str>| {
        let mut state = state(USERID, groupid);
        state.group = group;
        state.annotation.shared = shared;
        state.annotation.moderation_status = status.map(str::to_owned);
        let payload = payload(&state);
        let shown_status = payload["moderation_status"].as_str().map(str::to_owned);
        assert_eq!(
            shown_status.as_deref(),
            status.or(shared.then_some("APPROVED"))
        );
        payload["permissions"]["read"][0]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let (world, members) = (Some(Visibility::World), Some(Visibility::Members));
    assert_eq!(read("g", members, true, None), "group:g");
    assert_eq!(read("g", world, true, None), "group:__world__");
    assert_eq!(read("g", world, true, Some("APPROVED")), "group:__world__");
    assert_eq!(read("g", world, true, Some("SPAM")), "group:g");
    assert_eq!(
        read("__world__", world, true, Some("SPAM")),
        "group:__world__"
    );
    assert_eq!(read("g", None, true, None), "group:g");
    assert_eq!(read("g", world, false, None), USERID);
    assert_eq!(read("g", world, false, Some("DENIED")), USERID);
}

#[test]
fn extra_keys_do_not_override_own_keys() {
    let mut state = state(USERID, "group");
    let forged: String = KEYS
        .iter()
        .map(|key| format!(r#""{key}": "forged", "#))
        .collect();
    // The length and depth exceed common parser limits, but not PostgreSQL's.
    let number = format!("1{}", "0".repeat(300));
    let deep = format!("{}1{}", "[".repeat(2000), "]".repeat(2000));
    state.annotation.extra =
        format!(r#"{{{forged}"zzz": {number}, "deep": {deep}, "foo": {{"id": "kept"}}}}"#);
    let text = text(&state, Variant::default());
    assert!(!text.contains("forged"));
    let tail =
        format!(r#","hidden":false,"zzz":{number},"deep":{deep},"foo":{{"id": "kept"}}}}]}}"#);
    assert!(text.ends_with(&tail), "{text}");
    // As in h, such a key keeps its stored position and gets h's value.
    state.annotation.extra = r#"{"text": 1, "user_info": {"x": 1}, "b": 2, "id": []}"#.to_owned();
    state.author = known(None);
    let text = super::tests::text(&state, Variant::default());
    let start = r#""payload":[{"text":"Hello","user_info":{"display_name":null},"b":2,"id":"AAAAAREREeaAAAAAAAAAAQ","created":"#;
    assert!(text.contains(start), "{text}");
    assert_eq!(text.matches("user_info").count(), 1);
    for no_object in ["[1]", "null", "5", r#""text""#] {
        state.annotation.extra = no_object.to_owned();
        assert!(payload(&state).is_object(), "{no_object}");
    }
}

#[test]
fn selectors_are_kept_and_nul_is_restored() {
    let selector = |json: &str| {
        let mut state = state(USERID, "group");
        state.annotation.target_selectors = Some(json.to_owned());
        payload(&state)["target"][0].get("selector").cloned()
    };
    let quote = json!([
        {"type": "TextQuoteSelector", "exact": "a\0b", "prefix": "p\0", "suffix": null, "other": r"\u0000"},
        {"type": "Other", "exact": r"a\u0000b"},
        {"exact": r"a\u0000b"},
    ]);
    let stored = r#"[
        {"type": "TextQuoteSelector", "exact": "a\\u0000b", "prefix": "p\\u0000", "suffix": null, "other": "\\u0000"},
        {"type": "Other", "exact": "a\\u0000b"},
        {"exact": "a\\u0000b"}
    ]"#;
    assert_eq!(selector(stored), Some(quote));
    let unexpected_row = r#"[{"type": "TextQuoteSelector", "exact": 5, "prefix": "\\u0000"}]"#;
    let odd_shown = json!([{"type": "TextQuoteSelector", "exact": 5, "prefix": "\0"}]);
    assert_eq!(selector(unexpected_row), Some(odd_shown));
    // The official client fails on a selector that is not an object.
    assert_eq!(
        selector(r#"[5, {"a": 1}, "b", null, []]"#),
        Some(json!([{"a": 1}]))
    );
    for none in ["[]", "{}", "null", r#"{"type": "Other"}"#, "[1]", r#""a""#] {
        assert_eq!(selector(none), None, "{none}");
    }
}

#[test]
fn mention_has_original_and_current_userid() {
    let mut state = state(USERID, "group");
    let mention = |username: &str, authority: &str| Mention {
        original_username: "old.name".to_owned(),
        username: username.to_owned(),
        authority: authority.to_owned(),
        display_name: None,
        description: Some("words".to_owned()),
        joined: (authority == "example.org").then_some(PgTime(0)),
    };
    state.mentions = vec![
        mention("Luis.Silva", "example.org"),
        mention("eve", "other"),
    ];
    assert_eq!(
        payload(&state)["mentions"],
        json!([
            {
                "userid": "acct:Luis.Silva@example.org",
                "original_userid": "acct:old.name@example.org",
                "username": "Luis.Silva",
                "display_name": null,
                "link": "https://h.example.org/users/Luis.Silva",
                "description": "words",
                "joined": "2000-01-01T00:00:00.000000+00:00",
            },
            {
                "userid": "acct:eve@other",
                "original_userid": "acct:old.name@other",
                "username": "eve",
                "display_name": null,
                "link": null,
                "description": "words",
                "joined": null,
            },
        ])
    );
}

#[test]
fn time_out_of_range_is_unreadable() {
    let mut state = state(USERID, "group");
    state.annotation.updated = PgTime(i64::MAX);
    let result = notifications("create", &state, &urls(), &[Variant::default()]);
    assert_eq!(result, Err(DropReason::Unreadable));
}

#[test]
fn action_is_escaped_as_json_string() {
    let mut state = state(USERID, "group");
    state.annotation.text = Some("a \"quoted\" \u{0} \u{2028} text".to_owned());
    let action = "a \"b\" \\ \n";
    let messages = notifications(action, &state, &urls(), &[Variant::default()]).unwrap();
    let message: Value = serde_json::from_str(&messages[0]).unwrap();
    assert_eq!(message["options"]["action"], action);
    assert_eq!(
        message["payload"][0]["text"],
        "a \"quoted\" \u{0} \u{2028} text"
    );
}
