//! Evaluates the rules for each kind of receiver and annotation.

use serde_json::{Value, json};

use super::*;
use crate::backend::h::annotation_state::testing::state;
use crate::backend::h::annotation_state::{Author, Page};
use crate::backend::h::ids::Uuid;
use crate::backend::policy::Visibility;
use crate::model::{Condition, Decision, DenyReason, Field, Rule};

const AUTHOR: &str = "acct:author@example.org";
const OTHER: &str = "acct:other@example.org";
const MEMBER: &str = "acct:member@example.org";
const MODERATOR: &str = "acct:moderator@example.org";
const STUDENT: &str = "acct:student@example.org";

/// The members of the group: all users except [`OTHER`].
const MEMBERS: [&str; 4] = [AUTHOR, MEMBER, MODERATOR, STUDENT];

fn plan_for(action: &str, state: &AnnotationState) -> Result<Plan, DropReason> {
    let event = json!({
        "action": action, "annotation_id": "AAAAAREREeaAAAAAAAAAAQ", "src_client_id": "c",
    });
    let event = AnnotationEvent::parse(event.as_object().unwrap()).unwrap();
    let urls = UrlBuilder::new("example.org", "https://h.example.org", None);
    plan(&event, state, &urls)
}

/// Returns what a user receives of a plan, or the reason why it is withheld: the first matching
/// rule decides.
fn received(plan: &Plan, userid: Option<&str>) -> Result<Value, DenyReason> {
    received_among(plan, userid, &MEMBERS)
}

/// Like [`received`], with these members in the reactor.
fn received_among(
    plan: &Plan,
    userid: Option<&str>,
    members: &[&str],
) -> Result<Value, DenyReason> {
    let holds = |who: &Condition| match who {
        Condition::User(user) => userid == Some(user),
        Condition::Member(group) => {
            assert_eq!(&**group, "group");
            userid.is_some_and(|userid| members.contains(&userid))
        }
        Condition::Moderator(_) => panic!("moderators are named"),
        Condition::OneOf(userids) => userid.is_some_and(|userid| userids.contains(userid)),
    };
    let rule = plan.rules.iter().find(|rule| rule.when.iter().all(holds));
    match rule.expect("a rule for all users").then {
        Decision::Deny(reason) => Err(reason),
        Decision::Send(variant) => {
            let message: Value = serde_json::from_str(&plan.variants[variant]).unwrap();
            Ok(message["payload"][0].clone())
        }
    }
}

/// Summarizes a plan, one word for each receiver: the view (`M` may moderate, `F` has flagged, `H`
/// is told that it is hidden, `-` none of these), or the first letter of the reason in lower case.
fn outline(state: &AnnotationState, action: &str) -> String {
    let plan = plan_for(action, state).unwrap();
    let all = [None, Some(OTHER)].into_iter().chain(MEMBERS.map(Some));
    let outlines = all.map(|userid| match received(&plan, userid) {
        Err(reason) => match reason {
            DenyReason::Permission => "p",
            DenyReason::Muted => "m",
            DenyReason::Hidden => "h",
            DenyReason::Checkpoint => "c",
        }
        .to_owned(),
        Ok(payload) => {
            let is_moderator = payload["actions"] == json!(["moderate"]);
            assert_eq!(is_moderator, payload.get("moderation").is_some());
            let parts = [
                (is_moderator, "M"),
                (payload["flagged"] == true, "F"),
                (payload["hidden"] == true, "H"),
            ];
            let parts = parts.into_iter().filter(|(is_so, _)| *is_so);
            let parts = parts.map(|(_, letter)| letter).collect::<String>();
            if parts.is_empty() {
                "-".to_owned()
            } else {
                parts
            }
        }
    });
    outlines.collect::<Vec<_>>().join(" ")
}

/// An annotation by [`AUTHOR`] in the group, which [`MODERATOR`] moderates and [`MEMBER`] has
/// flagged.
fn shared() -> AnnotationState {
    let mut state = state(AUTHOR, "group");
    state.group = Some(Visibility::Members);
    state.moderators = vec![MODERATOR.to_owned()];
    state.flaggers = vec![MEMBER.to_owned()];
    state
}

fn hidden() -> AnnotationState {
    let mut state = shared();
    state.annotation.moderation_status = Some("DENIED".to_owned());
    state
}

fn muted(mut state: AnnotationState) -> AnnotationState {
    state.author = Some(Author {
        userid: AUTHOR.to_owned(),
        display_name: None,
        muted: true,
        instructs: false,
    });
    state
}

fn open(mut state: AnnotationState) -> AnnotationState {
    state.group = Some(Visibility::World);
    state
}

fn private(mut state: AnnotationState) -> AnnotationState {
    state.annotation.shared = false;
    state
}

#[test]
fn receivers_are_the_readers_of_the_group() {
    //                           anonymous, other, author, member, moderator, student
    assert_eq!(outline(&shared(), "create"), "p p - F M -");
    assert_eq!(outline(&open(shared()), "update"), "- - - F M -");
    for group in [None, Some(Visibility::Unreadable)] {
        let mut state = shared();
        state.group = group;
        assert_eq!(outline(&state, "create"), "p p p p p p");
        assert_eq!(outline(&state, "delete"), "p p p p p p");
    }
    assert_eq!(outline(&shared(), "delete"), "p p - - - -");
}

#[test]
fn former_member_does_not_moderate() {
    // The database does not have the transaction of the event yet.
    let among = |state: &AnnotationState, action, members| {
        received_among(&plan_for(action, state).unwrap(), Some(MODERATOR), members)
    };
    for action in ["update", "delete"] {
        assert!(among(&hidden(), action, &MEMBERS).is_ok());
        let left = among(&hidden(), action, &[AUTHOR]);
        assert_eq!(left, Err(DenyReason::Hidden));
    }
    let payload = among(&open(shared()), "update", &[AUTHOR]).unwrap();
    assert_eq!(payload["actions"], json!([]));
    assert_eq!(payload.get("moderation"), None);
}

#[test]
fn private_annotation_is_sent_only_to_its_author() {
    assert_eq!(outline(&private(shared()), "create"), "p p - p p p");
    assert_eq!(outline(&private(open(shared())), "delete"), "p p - p p p");
    // Private annotations are not moderated, even if they have a moderation status.
    assert_eq!(outline(&private(hidden()), "create"), "h h - h h h");
}

#[test]
fn hidden_annotation_is_sent_only_to_author_and_moderators() {
    for status in ["DENIED", "PENDING", "SPAM", "SOMETHING NEW"] {
        let mut state = open(shared());
        state.annotation.moderation_status = Some(status.to_owned());
        assert_eq!(outline(&state, "update"), "h h - h MH h", "{status}");
        assert_eq!(outline(&state, "delete"), "h h - h - h", "{status}");
        state.annotation.deleted = true;
        assert_eq!(outline(&state, "delete"), "h h - h - h", "{status}");
    }
    let mut approved = shared();
    approved.annotation.moderation_status = Some("APPROVED".to_owned());
    assert_eq!(outline(&approved, "update"), "p p - F M -");
    // Authors who moderate their own annotation are not told that it is hidden.
    let mut own = hidden();
    own.moderators = vec![AUTHOR.to_owned(), MEMBER.to_owned()];
    own.flaggers.push(AUTHOR.to_owned());
    assert_eq!(outline(&own, "update"), "h h MF MFH h h");
}

#[test]
fn muted_author_reaches_only_the_author() {
    assert_eq!(outline(&muted(shared()), "create"), "m m - m m m");
    assert_eq!(outline(&muted(open(shared())), "delete"), "m m - m m m");
    assert_eq!(outline(&muted(hidden()), "update"), "m m - m m m");
    assert_eq!(outline(&muted(private(shared())), "update"), "p p - p p p");
    // Not even the author gets it, in a group that the author is not in.
    let mut outside = muted(shared());
    outside.annotation.userid = OTHER.to_owned();
    assert_eq!(outline(&outside, "create"), "m p m m m m");
}

#[test]
fn deleted_annotation_causes_only_a_deletion() {
    let mut state = shared();
    state.annotation.deleted = true;
    for action in ["create", "update", "else"] {
        assert_eq!(plan_for(action, &state), Err(DropReason::Missing));
    }
    assert_eq!(outline(&state, "delete"), "p p - - - -");
}

#[test]
fn checkpoint_hides_other_users_annotations_from_students() {
    let mut state = shared();
    state.students = [STUDENT, AUTHOR, MODERATOR, OTHER]
        .map(str::to_owned)
        .into();
    assert_eq!(outline(&state, "create"), "p p - F c c");
    assert_eq!(outline(&state, "delete"), "p p - - c c");
    assert_eq!(outline(&open(state.clone()), "create"), "- c - F c c");
    let mut hidden = hidden();
    hidden.students = state.students.clone();
    assert_eq!(outline(&hidden, "update"), "h h - h c h");
    hidden.students = vec![STUDENT.to_owned()];
    assert_eq!(outline(&hidden, "update"), "h h - h MH h");
}

#[test]
fn checkpoint_hides_only_instructor_replies_to_other_students() {
    let mut state = shared();
    state.students = vec![STUDENT.to_owned(), MEMBER.to_owned()];
    state.flaggers.clear();
    let author = |userid: &str, instructs| {
        Some(Author {
            userid: userid.to_owned(),
            display_name: None,
            muted: false,
            instructs,
        })
    };
    state.author = author(AUTHOR, true);
    assert_eq!(outline(&state, "create"), "p p - - M -");
    state.annotation.references = None;
    assert_eq!(outline(&state, "create"), "p p - - M -");
    state.annotation.references = Some(vec![Some(Uuid([1; 16]))]);
    assert_eq!(outline(&state, "create"), "p p - c M c");
    state.parents = vec![STUDENT.to_owned(), OTHER.to_owned()];
    assert_eq!(outline(&state, "create"), "p p - c M -");
    // A student's reply to a student, and an instructor with a different spelling.
    for not_an_instructor in [
        author(AUTHOR, false),
        author("acct:Author@example.org", true),
    ] {
        state.author = not_an_instructor;
        assert_eq!(outline(&state, "create"), "p p - c M c");
    }
}

#[test]
fn rules_omit_conditions_without_members() {
    let mut state = open(shared());
    state.moderators.clear();
    state.flaggers.clear();
    let plan = plan_for("create", &state).unwrap();
    assert_eq!(plan.variants.len(), 1);
    let send = Rule {
        when: Vec::new(),
        then: Decision::Send(0),
    };
    assert_eq!(plan.rules, [send]);
    let plan = plan_for("delete", &open(shared())).unwrap();
    assert_eq!((plan.rules.len(), plan.variants.len()), (1, 1));
}

fn pages_of(state: &AnnotationState) -> Vec<String> {
    let Candidates::Terms(terms) = plan_for("create", state).unwrap().candidates else {
        panic!("no terms");
    };
    let pages = terms.into_iter().filter(|term| term.field == Field::Uri);
    pages.map(|term| term.value.into()).collect()
}

#[test]
fn page_matches_all_addresses_of_its_document() {
    let page = |normalized: &str, is_canonical| Page {
        normalized: normalized.to_owned(),
        is_canonical,
    };
    let mut state = shared();
    let own = ["httpx://example.com/a", "httpx://example.com/a__vall"];
    assert_eq!(pages_of(&state), own);
    state.pages = vec![page("httpx://example.com/a", false), page("urn:b", false)];
    let all = [own[0], own[1], "urn:b", "urn:b__vall"];
    assert_eq!(pages_of(&state), all);
    state.annotation.version = Some(0);
    assert_eq!(pages_of(&state), all);
    state.annotation.version = Some(2);
    assert_eq!(
        pages_of(&state),
        [
            "httpx://example.com/a__v2",
            own[1],
            "urn:b__v2",
            "urn:b__vall"
        ]
    );
    state.annotation.version = Some(-1);
    assert_eq!(pages_of(&state), [""; 0]);
    state.annotation.version = None;
    state.pages[0].is_canonical = true;
    assert_eq!(pages_of(&state), own);
}

#[test]
fn without_a_page_the_other_terms_remain() {
    let mut state = shared();
    state.annotation.references = Some(vec![Some(Uuid([1; 16])), None]);
    state.annotation.tags = Some(vec![
        Some("To Do".to_owned()),
        None,
        Some("moon".to_owned()),
    ]);
    for uri in [None, Some("http://[::1".to_owned())] {
        state.annotation.target_uri = uri;
        let plan = plan_for("create", &state).unwrap();
        let term = |field, value: &str| Term {
            field,
            value: value.into(),
        };
        let terms = vec![
            term(Field::Id, "AAAAAREREeaAAAAAAAAAAQ"),
            term(Field::Group, "group"),
            term(Field::References, "AQEBAQEBAQEBAQEBAQEBAQ"),
            term(Field::User, "author"),
            term(Field::User, "author@example.org"),
            term(Field::Tags, "moon"),
            term(Field::Tags, "to do"),
        ];
        assert_eq!(plan.candidates, Candidates::Terms(terms));
    }
}

#[test]
fn notification_length_is_limited() {
    let mut state = shared();
    state.annotation.text = Some("a".repeat(MAX_NOTIFICATION));
    assert_eq!(plan_for("create", &state), Err(DropReason::TooLarge));
    assert!(plan_for("delete", &state).is_ok());
    state.annotation.text = Some("a".repeat(MAX_NOTIFICATION - 2000));
    assert!(plan_for("create", &state).is_ok());
}

#[test]
fn originating_client_is_excluded() {
    let plan = plan_for("create", &shared()).unwrap();
    assert_eq!(plan.exclude_client.as_deref(), Some("c"));
}
