//! Bodies of publish requests, parsed by the embedded backend.

use std::cell::RefCell;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use tempfile::TempDir;

use h_realtime::backend::embedded::{Embedded, HistoryOptions, ReadableBy, Store};
use h_realtime::backend::{Backend, DataDir};
use h_realtime::model::{
    BackendEvent, BackendRequest, Candidates, Decision, EventKind, Plan, PublishError, RequestId,
    Role, UnixMillis,
};

/// Input: a body.
pub fn event_body(input: &[u8]) {
    match publish(input) {
        Ok(plans) => {
            assert!(!plans.is_empty());
            plans.iter().for_each(check_plan);
        }
        Err(error) => {
            // Line 0 would indicate a database error.
            let lines = input.iter().filter(|&&byte| byte == b'\n').count() + 1;
            let PublishError::Invalid { line, reason } = &error else {
                panic!("{error:?}");
            };
            assert!((1..=lines).contains(line), "{error:?}");
            assert!(!reason.is_empty());
        }
    }
}

fn publish(body: &[u8]) -> Result<Vec<Plan>, PublishError> {
    thread_local! {
        static BACKEND: RefCell<Option<(Embedded, TempDir)>> = const { RefCell::new(None) };
    }
    let ask = BackendRequest::Publish {
        request_id: RequestId(1),
        body: body.to_vec(),
        claim: h_realtime::model::PublishClaim::default(),
    };
    let told = BACKEND.with_borrow_mut(|backend| {
        let (backend, _) = backend.get_or_insert_with(open);
        backend.turn(vec![ask], NOW)
    });
    let mut told = told.into_iter().filter_map(|tell| match tell {
        BackendEvent::Published { result, .. } => Some(result),
        _ => None,
    });
    let answer = told.next().expect("a reply");
    assert!(told.next().is_none(), "one reply");
    answer
}

/// Returns a backend with a user, a muted user, a group with a moderator, and an open group. The
/// directory must outlive the backend.
fn open() -> (Embedded, TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let data = DataDir::open(dir.path()).expect("a data directory");
    let fill = || {
        let store = Store::open(&data.database())?;
        store.add_user("acct:joe@example.org", Some("Joe"), NOW)?;
        store.add_user("acct:muted@example.org", None, NOW)?;
        store.set_muted("acct:muted@example.org", true)?;
        store.add_group("open", ReadableBy::World, NOW)?;
        store.add_group("closed", ReadableBy::Members, NOW)?;
        store.set_member("closed", "acct:joe@example.org", Role::Owner)?;
        let history = HistoryOptions {
            memory: 0,
            ..HistoryOptions::default()
        };
        Embedded::open(&data, history, Default::default(), NOW)
    };
    (fill().expect("a backend"), dir)
}

fn check_plan(plan: &Plan) {
    assert!(!plan.rules.is_empty());
    for rule in &plan.rules {
        if let Decision::Send(variant) = rule.then {
            assert!(variant < plan.variants.len());
        }
    }
    let is_for_all = (plan.rules.iter())
        .any(|rule| rule.when.is_empty() && matches!(rule.then, Decision::Send(_)));
    for variant in &plan.variants {
        assert!(!variant.contains('\n'));
        let message = members(variant);
        match plan.kind {
            EventKind::SessionChange => check_session_change(&message),
            _ => check_notification(plan.kind, &message, is_for_all),
        }
    }
    if plan.kind == EventKind::SessionChange {
        assert!(matches!(plan.candidates, Candidates::User(_)) && !is_for_all);
    }
}

fn check_notification(kind: EventKind, message: &Members<'_>, is_for_all: bool) {
    assert_eq!(message.text("type"), r#""annotation-notification""#);
    let options = members(message.text("options"));
    let action = options.text("action");
    let payload: Vec<&RawValue> = serde_json::from_str(message.text("payload")).expect("a list");
    let [annotation] = payload.as_slice() else {
        panic!("{} annotations", payload.len());
    };
    let annotation = members(annotation.get());
    assert!(string(annotation.text("id")).is_some_and(|id| !id.is_empty()));
    if kind == EventKind::Delete {
        assert_eq!((action, annotation.0.len()), (r#""delete""#, 1));
        return;
    }
    assert_eq!(
        action,
        if kind == EventKind::Create {
            r#""create""#
        } else {
            r#""update""#
        }
    );
    check_annotation(&annotation);
    let permissions = members(annotation.text("permissions"));
    let read: Vec<String> = serde_json::from_str(permissions.text("read")).expect("names");
    // Recipients without an identity only receive public annotations.
    let is_public = |entry: &String| entry == "group:__world__" || entry == "group:open";
    assert!(!is_for_all || read.iter().any(is_public), "{read:?}");
}

/// Checks the members that the official client requires.
fn check_annotation(annotation: &Members<'_>) {
    for key in ["created", "updated", "user", "uri", "text", "group"] {
        assert!(string(annotation.text(key)).is_some(), "{key}");
    }
    let strings = |key| serde_json::from_str::<Vec<String>>(annotation.text(key));
    assert!(strings("tags").is_ok());
    for key in ["document", "links"] {
        members(annotation.text(key));
    }
    for key in ["flagged", "hidden"] {
        assert!(matches!(annotation.text(key), "true" | "false"), "{key}");
    }
    if annotation.get("references").is_some() {
        assert!(strings("references").is_ok_and(|ids| !ids.is_empty()));
    }
    let targets: Vec<&RawValue> = serde_json::from_str(annotation.text("target")).expect("a list");
    assert!(!targets.is_empty());
    for target in targets {
        let target = members(target.get());
        if let Some(selectors) = target.get("selector").filter(|text| *text != "null") {
            let selectors: Vec<&RawValue> = serde_json::from_str(selectors).expect("a list");
            for selector in selectors {
                members(selector.get());
            }
        }
    }
}

fn check_session_change(message: &Members<'_>) {
    assert_eq!(message.text("type"), r#""session-change""#);
    let model = members(message.text("model"));
    assert!(string(model.text("userid")).is_some());
    assert!(serde_json::from_str::<Vec<&RawValue>>(model.text("groups")).is_ok());
    members(model.text("features"));
    members(model.text("preferences"));
}

/// The members of an object; duplicate keys are rejected.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'a> Members<'a> {
    fn get(&self, key: &str) -> Option<&'a str> {
        let mut named = self.0.iter().filter(|member| member.0 == key);
        named.next().map(|member| member.1.get())
    }

    fn text(&self, key: &str) -> &'a str {
        self.get(key).unwrap_or_else(|| panic!("{key} is missing"))
    }
}

fn members(text: &str) -> Members<'_> {
    let members: Members<'_> = serde_json::from_str(text).expect("an object");
    let mut keys: Vec<&String> = members.0.iter().map(|member| &member.0).collect();
    keys.sort_unstable();
    assert!(keys.windows(2).all(|pair| pair[0] != pair[1]), "{keys:?}");
    members
}

fn string(text: &str) -> Option<String> {
    serde_json::from_str(text).ok()
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(All)
    }
}

const NOW: UnixMillis = 1_704_164_645_678;
