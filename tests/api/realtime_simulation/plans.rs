//! Users and their memberships, and random events, including plans that no backend would produce.

use h_realtime::model::{
    Candidates, Cause, Condition, Decision, DenyReason, EventKind, Field, Membership, Plan, Role,
    Rule, Stamp, Subject, Term,
};

use crate::sim::pad;
use crate::sim::rng::Rng;

use super::client_messages::{
    AUTHORS, CLIENT_IDS, GROUPS, IDS, PAGES, TAGS, VERSIONS, page_key, pick, term,
};

/// Userids, two of which differ only in case.
pub const USERS: &[&str] = &["acct:ann@x", "acct:Ann@x", "acct:bob@x", "acct:zoë@x"];

/// Returns a userid as Python writes it in JSON.
pub fn in_json(userid: &str) -> String {
    format!("\"{}\"", userid.replace('ë', "\\u00eb"))
}

/// Returns random memberships in random order.
pub fn memberships(rng: &mut Rng) -> Vec<Membership> {
    let mut groups = GROUPS.to_vec();
    rng.shuffle(&mut groups);
    groups.truncate(rng.below(GROUPS.len() + 1));
    let roles = [Role::Member, Role::Moderator, Role::Admin, Role::Owner];
    let membership = |group: &str| Membership {
        group: group.into(),
        role: roles[rng.below(4)],
    };
    groups.into_iter().map(membership).collect()
}

/// Returns a random event, with a unique `number`.
pub fn any(rng: &mut Rng, number: u64) -> Plan {
    let size = match rng.below(6) {
        0 => rng.below(6000),
        _ => rng.below(100),
    };
    let count = 1 + rng.below(3);
    let kinds = [EventKind::Create, EventKind::Update, EventKind::Delete];
    let (kind, candidates) = match rng.chance(25) {
        true => (
            EventKind::SessionChange,
            Candidates::User(pick(rng, USERS).into()),
        ),
        false => (kinds[rng.below(3)], Candidates::Terms(terms(rng))),
    };
    let about = match kind {
        EventKind::SessionChange => PRIVATE,
        _ => "all",
    };
    let variant = |variant: usize| {
        format!(
            r#"{{"event": {number}, "variant": {variant}, "for": "{about}", "pad": "{}"}}"#,
            pad(size)
        )
        .into()
    };
    Plan {
        kind,
        subject: Subject::Annotation("a".into()),
        stamp: Stamp::default(),
        cause: Cause::Event,
        candidates,
        exclude_client: rng.chance(30).then(|| pick(rng, CLIENT_IDS).into()),
        rules: rules(rng, kind, count),
        variants: (0..count).map(variant).collect(),
    }
}

/// Contained in texts that only a single user may receive.
pub const PRIVATE: &str = "you alone";

fn rules(rng: &mut Rng, kind: EventKind, variants: usize) -> Vec<Rule> {
    if kind == EventKind::SessionChange && rng.chance(70) {
        let then = Decision::Send(0);
        return vec![Rule { when: vec![], then }];
    }
    (0..rng.below(4)).map(|_| rule(rng, variants)).collect()
}

fn terms(rng: &mut Rng) -> Vec<Term> {
    let count = rng.below(7);
    let any = |rng: &mut Rng| match rng.below(6) {
        4 => term(Field::User, pick(rng, AUTHORS)),
        5 => term(Field::Tags, pick(rng, TAGS)),
        0 => term(Field::Id, pick(rng, IDS)),
        1 => term(Field::References, pick(rng, IDS)),
        2 => term(Field::Group, pick(rng, GROUPS)),
        _ => {
            let page = pick(rng, PAGES);
            term(Field::Uri, &page_key(page, pick(rng, VERSIONS)))
        }
    };
    (0..count).map(|_| any(rng)).collect()
}

fn rule(rng: &mut Rng, variants: usize) -> Rule {
    let when = (0..rng.below(3)).map(|_| match rng.below(4) {
        0 => Condition::User(pick(rng, USERS).into()),
        1 => Condition::Member(pick(rng, GROUPS).into()),
        2 => Condition::Moderator(pick(rng, GROUPS).into()),
        _ => {
            let count = rng.below(4);
            Condition::OneOf((0..count).map(|_| pick(rng, USERS)).collect())
        }
    });
    let when = when.collect();
    let reasons = [
        DenyReason::Permission,
        DenyReason::Muted,
        DenyReason::Hidden,
        DenyReason::Checkpoint,
    ];
    let then = match rng.below(10) {
        0..7 => Decision::Send(rng.below(variants)),
        // A variant that does not exist.
        7 if rng.chance(20) => Decision::Send(variants),
        _ => Decision::Deny(reasons[rng.below(reasons.len())]),
    };
    Rule { when, then }
}
