//! A database of one test, and queries on it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use h_realtime::backend::h::{AnnotationEvent, DatabaseClient, DatabaseSettings, Pending};
use h_realtime::backend::{DropReason, Stats};
use h_realtime::model::{
    Candidates, Condition, Decision, DenyReason, Field, Identity, Plan, Role, UnixMillis,
};
use serde_json::{Value, json};

use crate::support::{Postgres, sql};

/// A database of one test, and a connection to it.
pub struct World {
    pub url: String,
    pub store: DatabaseClient,
    pub stats: Arc<Stats>,
    pub runtime: tokio::runtime::Runtime,
}

impl World {
    pub fn new() -> World {
        World::of(&Postgres::shared().database())
    }

    pub fn of(url: &str) -> World {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let stats = Arc::new(Stats::requiring(false, true));
        let settings = DatabaseSettings {
            database_url: url.to_owned(),
            authority: "localhost".to_owned(),
            app_url: "http://localhost:5000".to_owned(),
            bouncer_url: Some("http://localhost:8000".to_owned()),
        };
        let store = DatabaseClient::new(&settings, Arc::clone(&stats)).unwrap();
        let mut world = World {
            url: url.to_owned(),
            store,
            stats,
            runtime,
        };
        world.connect();
        world
    }

    pub fn connect(&mut self) {
        self.runtime.block_on(self.store.connect()).unwrap();
        assert!(self.store.is_connected());
    }

    pub fn sql(&self, statements: &str) {
        sql(&self.url, statements);
    }

    pub fn identities(&mut self, tokens: &[&str]) -> Vec<Option<Identity>> {
        let asked = self.store.identities(tokens, NOW);
        self.runtime.block_on(asked).unwrap()
    }

    pub fn identity(&mut self, user: &str) -> Option<Identity> {
        let token = format!("6879-{user}-developer-token");
        self.identities(&[&token]).pop().unwrap()
    }

    pub fn event(&mut self, event: &Value) -> Result<Plan, DropReason> {
        let event = AnnotationEvent::parse(event.as_object().unwrap())?;
        let planned = self
            .runtime
            .block_on(self.store.annotation(&event, &Pending::default()));
        planned.unwrap().map(|planned| planned.plan)
    }

    /// Returns the plan for a change of the annotation with this number.
    pub fn update(&mut self, number: u32) -> Result<Plan, DropReason> {
        self.event(&json!({"action": "update", "annotation_id": id(number), "src_client_id": null}))
    }

    /// Returns the message for each user, or the reason for none.
    pub fn received(&mut self, plan: &Plan, users: &[&str]) -> Vec<Result<Value, DenyReason>> {
        let identities = users.iter().map(|user| self.identity(user));
        let identities: Vec<_> = identities.collect();
        let received = identities
            .iter()
            .map(|identity| received(plan, identity.as_ref()));
        received.collect()
    }

    pub fn statements(&self) -> u64 {
        self.stats.statements.load(Ordering::Relaxed)
    }
}

/// Returns the id of the seed's annotation with this number.
pub fn id(number: u32) -> String {
    use base64::Engine as _;
    let uuid = format!("{number:08x}111111e68000{number:012x}");
    let uuid = u128::from_str_radix(&uuid, 16).unwrap().to_be_bytes();
    base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(uuid)
}

/// Returns the message for a recipient: the first matching rule decides.
pub fn received(plan: &Plan, identity: Option<&Identity>) -> Result<Value, DenyReason> {
    let role = |group: &str| {
        let mut memberships = identity?.memberships.iter();
        let membership = memberships.find(|membership| *membership.group == *group);
        membership.map(|membership| membership.role)
    };
    let userid = identity.map(|identity| &*identity.userid);
    let holds = |who: &Condition| match who {
        Condition::User(user) => userid == Some(user),
        Condition::Member(group) => role(group).is_some(),
        Condition::Moderator(group) => role(group).is_some_and(Role::moderates),
        Condition::OneOf(userids) => userid.is_some_and(|userid| userids.contains(userid)),
    };
    let rule = plan.rules.iter().find(|rule| rule.when.iter().all(holds));
    match rule.expect("a rule for all recipients").then {
        Decision::Deny(reason) => Err(reason),
        Decision::Send(variant) => Ok(serde_json::from_str(&plan.variants[variant]).unwrap()),
    }
}

pub fn values(plan: &Plan, field: Field) -> BTreeSet<&str> {
    let Candidates::Terms(terms) = &plan.candidates else {
        panic!("{plan:?}");
    };
    let terms = terms.iter().filter(|term| term.field == field);
    terms.map(|term| &*term.value).collect()
}

/// 2026-01-01.
pub const NOW: UnixMillis = 1_767_225_600_000;
