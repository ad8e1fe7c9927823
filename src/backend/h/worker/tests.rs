//! The worker over data that the tests make, in time that they make: what is answered when, in
//! which order, and what is kept.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Mutex, MutexGuard};

use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, channel};

use super::super::backlog::MAX_EVENTS;
use super::super::store::{Away, Standing};
use super::*;
use crate::model::{Identity, Membership, Receipt, Role};

/// A database as the tests have it.
#[derive(Default)]
struct Shelf {
    /// Whether it can be connected to.
    reachable: bool,
    /// Whether the connection there is works.
    connected: bool,
    /// How long everything takes.
    latency: Duration,
    people: HashMap<String, Identity>,
    members: HashMap<String, Vec<Membership>>,
    swept: VecDeque<Vec<(TokenId, Option<Standing>)>>,
    /// The annotation over which the connection always breaks.
    poison: Option<String>,
    asked: Vec<String>,
}

#[derive(Clone, Default)]
struct Fake(Arc<Mutex<Shelf>>);

impl Fake {
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.0.lock().unwrap()
    }

    async fn ask(&self, what: String) -> Result<(), Away> {
        let latency = self.shelf().latency;
        sleep(latency).await;
        let mut shelf = self.shelf();
        if !shelf.connected {
            return Err(Away("cut".into()));
        }
        shelf.asked.push(what);
        Ok(())
    }

    /// The server ends; whether it can be connected to again at once.
    fn restart(&self, reachable: bool) {
        let mut shelf = self.shelf();
        shelf.connected = false;
        shelf.reachable = reachable;
    }
}

impl Data for Fake {
    async fn connect(&mut self) -> Result<(), Away> {
        let mut shelf = self.shelf();
        shelf.connected = shelf.reachable;
        match shelf.reachable {
            true => Ok(()),
            false => Err(Away("refused".into())),
        }
    }

    fn is_connected(&self) -> bool {
        self.shelf().connected
    }

    async fn identities(
        &mut self,
        tokens: &[&str],
        _: UnixMillis,
    ) -> Result<Vec<Option<Identity>>, Away> {
        self.ask(format!("{} tokens", tokens.len())).await?;
        let shelf = self.shelf();
        let identities = tokens.iter().map(|token| shelf.people.get(*token).cloned());
        Ok(identities.collect())
    }

    async fn memberships(&mut self, userid: &str) -> Result<Option<Vec<Membership>>, Away> {
        self.ask(userid.to_owned()).await?;
        Ok(self.shelf().members.get(userid).cloned())
    }

    async fn sweep(
        &mut self,
        tokens: &[TokenId],
        _: UnixMillis,
    ) -> Result<Vec<(TokenId, Option<Standing>)>, Away> {
        self.ask(format!("sweep of {}", tokens.len())).await?;
        Ok(self.shelf().swept.pop_front().unwrap_or_default())
    }

    async fn annotation(&mut self, event: &AnnotationEvent) -> Result<Result<Plan, Fate>, Away> {
        self.ask(event.action.clone()).await?;
        let mut shelf = self.shelf();
        if shelf.poison.as_ref() == Some(&event.action) {
            shelf.connected = false;
            return Err(Away("crashed".into()));
        }
        if event.action == "missing" {
            return Ok(Err(Fate::Missing));
        }
        let user = json!({"type": event.action, "userid": "acct:a@b", "session_model": {}});
        let Value::Object(user) = user else {
            unreachable!("it is an object");
        };
        Ok(user_plan(&user).map(|(_, plan)| plan))
    }
}

/// A mailbox of the reactor's.
struct Mail(SyncSender<Tell>);

impl Way for Mail {
    fn tell(&self, _: Tell) -> Result<(), Closed> {
        panic!("the thread must not block");
    }

    fn try_tell(&self, tell: Tell) -> Result<(), Undelivered> {
        self.0.try_send(tell).map_err(|error| match error {
            TrySendError::Full(tell) => Undelivered::Full(tell),
            TrySendError::Disconnected(_) => Undelivered::Closed,
        })
    }
}

/// All that is around a worker.
struct Around {
    fake: Fake,
    stats: Arc<Stats>,
    asker: Sender<Ask>,
    events: Sender<Delivery>,
    mail: mpsc::Receiver<Tell>,
    handled: Arc<AtomicUsize>,
}

/// Has a worker work while `script` says what happens around it.
async fn play(room: usize, script: impl AsyncFnOnce(&mut Around)) {
    let (asker, questions) = channel(4096);
    let (events, deliveries) = channel(16);
    let (sender, mail) = mpsc::sync_channel(room);
    let mut around = Around {
        fake: Fake::default(),
        stats: Arc::default(),
        asker,
        events,
        mail,
        handled: Arc::default(),
    };
    around.fake.restart(true);
    let database = Database::new(around.fake.clone(), || 0);
    let stats = Arc::clone(&around.stats);
    let worker = Worker::new(database, Mail(sender), || 7, stats, questions, deliveries);
    tokio::select! {
        () = worker.run() => panic!("it ended"),
        () = script(&mut around) => {}
    }
}

impl Around {
    fn ask(&self, ask: Ask) {
        self.asker.try_send(ask).unwrap();
    }

    fn log_in(&self, ticket: u64, token: &str) {
        self.ask(Ask::Authenticate {
            ticket: Ticket(ticket),
            token: Secret(token.into()),
        });
    }

    async fn event(&self, topic: Topic, event: Value) {
        let Value::Object(event) = event else {
            panic!("no object");
        };
        let handled = Arc::clone(&self.handled);
        let receipt = Receipt::new(move || {
            handled.fetch_add(1, Ordering::Relaxed);
        });
        let size = 100;
        let delivery = Delivery {
            topic,
            event,
            size,
            receipt,
        };
        self.events.send(delivery).await.unwrap();
    }

    async fn annotation(&self, action: &str) {
        let id = "AAAAAREREeaAAAAAAAAAAQ";
        let event = json!({"action": action, "annotation_id": id, "src_client_id": null});
        self.event(Topic::Annotation, event).await;
    }

    async fn user(&self, userid: &str) {
        let event = json!({"type": "group-join", "userid": userid, "session_model": {}});
        self.event(Topic::User, event).await;
    }

    fn handled(&self) -> usize {
        self.handled.load(Ordering::Relaxed)
    }

    /// What has been told so far, in short.
    fn told(&self) -> Vec<String> {
        self.mail.try_iter().map(short).collect()
    }

    /// What is told within this time.
    async fn told_in(&self, millis: u64) -> Vec<String> {
        sleep(Duration::from_millis(millis)).await;
        self.told()
    }
}

fn short(tell: Tell) -> String {
    match tell {
        Tell::Health { ready } => format!("ready {ready}"),
        Tell::Authenticated { ticket, reply } => match reply {
            AuthReply::Known(identity) => format!("{} {}", ticket.0, identity.userid),
            AuthReply::Unknown => format!("{} unknown", ticket.0),
            AuthReply::Unavailable => format!("{} unavailable", ticket.0),
        },
        Tell::Published { ticket, result } => {
            format!("{} line {}", ticket.0, result.unwrap_err().line)
        }
        Tell::Happened { plans } => {
            let message: Value = serde_json::from_str(&plans[0].variants[0]).unwrap();
            message["action"].as_str().unwrap().to_owned()
        }
        Tell::Memberships {
            userid,
            memberships,
        } => format!("{userid} in {}", memberships.len()),
        Tell::UserGone { userid } => format!("{userid} gone"),
        Tell::TokenEnded { token } => format!("token {} ended", token.0),
    }
}

fn person(token: u64, userid: &str, groups: &[&str]) -> Identity {
    Identity {
        userid: userid.into(),
        memberships: members(groups),
        token: TokenId(token),
        expires: None,
    }
}

fn members(groups: &[&str]) -> Vec<Membership> {
    let membership = |group: &&str| Membership {
        group: (*group).into(),
        role: Role::Member,
    };
    groups.iter().map(membership).collect()
}

#[tokio::test(start_paused = true)]
async fn who_logs_in_is_answered_in_order_and_many_at_once() {
    play(4096, async |around| {
        assert_eq!(around.told_in(2).await, ["ready true"]);
        let joe = person(1, "acct:joe@b", &[]);
        around.fake.shelf().people.insert("t".into(), joe);
        for ticket in 0..600 {
            around.log_in(ticket, if ticket % 2 == 0 { "t" } else { "x" });
        }
        let told = around.told_in(10).await;
        assert_eq!(told.len(), 600);
        for (ticket, told) in told.iter().enumerate() {
            let who = ["acct:joe@b", "unknown"][ticket % 2];
            assert_eq!(*told, format!("{ticket} {who}"));
        }
        let asked = &around.fake.shelf().asked;
        assert!(asked.len() <= 4, "{asked:?}");
        assert!(asked.contains(&"256 tokens".into()), "{asked:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_logs_in_does_not_wait_for_all_events_nor_events_for_all_logins() {
    play(4096, async |around| {
        around.fake.shelf().latency = Duration::from_millis(100);
        let many = async {
            for number in 0..50 {
                around.annotation(&number.to_string()).await;
            }
        };
        let script = async {
            sleep(Duration::from_millis(1_050)).await;
            assert_eq!(around.told().last().unwrap(), "9");
            for ticket in 0..600 {
                around.log_in(1000 + ticket, "x");
            }
            // The event under way, a batch, an event.
            let told = around.told_in(300).await;
            assert_eq!(told[0], "10");
            assert_eq!(told[1], "1000 unknown");
            assert_eq!(told[257], "11", "{told:?}");
            let told = around.told_in(10_000).await;
            assert_eq!(told.last().unwrap(), "49");
        };
        tokio::join!(many, script);
        assert_eq!(around.handled(), 50);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_event_is_held_until_the_reactor_has_taken_it() {
    play(2, async |around| {
        sleep(Duration::from_millis(2)).await;
        for number in 0..10 {
            around.annotation(&number.to_string()).await;
        }
        sleep(Duration::from_secs(60)).await;
        // The health and the first have filled the mailbox.
        assert_eq!(around.handled(), 1);
        let mut told = Vec::new();
        while told.len() < 11 {
            told.push(short(around.mail.recv().unwrap()));
            sleep(2 * RETRY).await;
            // What has been taken, and what is in the mailbox; the health is no event.
            assert_eq!(around.handled(), 10.min(told.len() + 2 - 1));
        }
        let expected = (0..10).map(|number| number.to_string());
        assert_eq!(told[1..], expected.collect::<Vec<_>>());
        assert_eq!(around.handled(), 10);
        assert_eq!(around.stats.dropped(Fate::Overflow), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn while_the_database_is_away_logins_are_refused_and_events_wait() {
    play(4096, async |around| {
        assert_eq!(around.told_in(2).await, ["ready true"]);
        around.fake.restart(false);
        around.log_in(1, "t");
        assert_eq!(around.told_in(2).await, ["1 unavailable", "ready false"]);
        for number in 0..40 {
            around.annotation(&number.to_string()).await;
        }
        around.user("acct:joe@b").await;
        around.annotation("last").await;
        around.log_in(2, "t");
        around.ask(Ask::Sweep { tokens: vec![] });
        around.ask(Ask::Publish {
            ticket: Ticket(3),
            body: Vec::new(),
        });
        assert_eq!(around.told_in(2).await, ["2 unavailable", "3 line 0"]);
        // However long it takes.
        assert_eq!(around.told_in(600_000).await, [""; 0]);
        assert_eq!(around.handled(), 0);
        around.fake.shelf().reachable = true;
        let told = around.told_in(31_000).await;
        assert_eq!(told[0], "ready true");
        let numbers = (0..40).map(|number| number.to_string());
        assert_eq!(told[1..41], numbers.collect::<Vec<_>>());
        assert_eq!(told[41..], ["acct:joe@b gone", "group-join", "last"]);
        assert_eq!(around.handled(), 42);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_of_the_database_that_is_over_costs_nobody_anything() {
    play(4096, async |around| {
        assert_eq!(around.told_in(2).await, ["ready true"]);
        let joe = person(1, "acct:joe@b", &[]);
        around.fake.shelf().people.insert("t".into(), joe);
        around.fake.restart(true);
        around.log_in(1, "t");
        around.fake.restart(true);
        around.annotation("create").await;
        assert_eq!(around.told_in(2).await, ["1 acct:joe@b", "create"]);
        around.fake.restart(true);
        around.annotation("update").await;
        assert_eq!(around.told_in(2).await, ["update"]);
        // Where nothing is asked, it is looked for.
        around.fake.restart(true);
        assert_eq!(around.told_in(1_100).await, [""; 0]);
        assert!(around.fake.shelf().connected);
        around.fake.restart(false);
        assert_eq!(around.told_in(1_100).await, ["ready false"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_oldest_events_go_when_too_many_wait_for_the_database() {
    play(2 * MAX_EVENTS, async |around| {
        sleep(Duration::from_millis(2)).await;
        around.fake.restart(false);
        around.log_in(1, "t");
        sleep(Duration::from_millis(2)).await;
        for number in 0..MAX_EVENTS + 10 {
            around.annotation(&number.to_string()).await;
        }
        sleep(Duration::from_millis(2)).await;
        assert_eq!(around.stats.dropped(Fate::Overflow), 10);
        assert_eq!(around.handled(), 10);
        around.fake.shelf().reachable = true;
        let told = around.told_in(31_000).await;
        assert_eq!(told[3..5], ["ready true", "10"]);
        assert_eq!(*told.last().unwrap(), (MAX_EVENTS + 9).to_string());
        assert_eq!(around.handled(), MAX_EVENTS + 10);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn groups_are_told_before_the_session_change_that_speaks_of_them() {
    play(4096, async |around| {
        let groups = members(&["g", "h"]);
        let mut shelf = around.fake.shelf();
        shelf.members.insert("acct:joe@b".into(), groups);
        drop(shelf);
        around.user("acct:joe@b").await;
        around.user("acct:nobody@b").await;
        let told = around.told_in(2).await;
        let expected = ["acct:joe@b in 2", "group-join"];
        assert_eq!(told[1..3], expected);
        assert_eq!(told[3..], ["acct:nobody@b gone", "group-join"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_leads_to_nothing_is_counted_and_forgotten() {
    play(4096, async |around| {
        around.event(Topic::Annotation, json!({})).await;
        around.event(Topic::User, json!({"userid": 5})).await;
        around.annotation("missing").await;
        around.annotation("create").await;
        assert_eq!(around.told_in(2).await, ["ready true", "create"]);
        assert_eq!(around.stats.dropped(Fate::Malformed), 2);
        assert_eq!(around.stats.dropped(Fate::Missing), 1);
        assert_eq!(around.handled(), 4);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_event_over_which_the_database_always_goes_away_does_not_stay() {
    play(4096, async |around| {
        around.fake.shelf().poison = Some("poison".into());
        around.annotation("poison").await;
        around.annotation("create").await;
        let told = around.told_in(120_000).await;
        assert_eq!(told.last().unwrap(), "create");
        assert_eq!(around.stats.dropped(Fate::Unreadable), 1);
        assert_eq!(around.handled(), 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_sweep_tells_what_no_event_has_told() {
    play(4096, async |around| {
        let mut shelf = around.fake.shelf();
        for (token, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "c")] {
            let identity = person(token, name, &["g"]);
            shelf.people.insert(token.to_string(), identity);
        }
        let standing = |name: &str, groups| Some((name.into(), members(groups)));
        let found = vec![
            (TokenId(1), standing("a", &["g"])),
            (TokenId(2), None),
            (TokenId(3), standing("c", &[])),
            (TokenId(4), standing("c", &[])),
        ];
        shelf.swept = [found.clone(), vec![]].into();
        drop(shelf);
        for token in 1..=4 {
            around.log_in(token, &token.to_string());
        }
        assert_eq!(around.told_in(2).await.len(), 5);
        let sweep = || Ask::Sweep {
            tokens: vec![TokenId(1)],
        };
        around.ask(sweep());
        assert_eq!(around.told_in(2).await, ["token 2 ended", "c in 0"]);
        // In vain, which must not be taken for an answer.
        around.fake.restart(false);
        around.ask(sweep());
        assert_eq!(around.told_in(2).await, ["ready false"]);
        around.fake.shelf().reachable = true;
        assert_eq!(around.told_in(31_000).await, ["ready true"]);
        let mut again = found;
        again.remove(1);
        around.fake.shelf().swept = [again].into();
        around.ask(sweep());
        assert_eq!(around.told_in(2).await, [""; 0]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_those_who_ask_and_with_those_who_listen() {
    for listens in [true, false] {
        let (asker, questions) = channel(1);
        let (_events, deliveries) = channel(1);
        let (sender, mail) = mpsc::sync_channel(8);
        let database = Database::new(Fake::default(), || 0);
        let way = Mail(sender);
        let worker = Worker::new(database, way, || 7, Arc::default(), questions, deliveries);
        let question = Ask::Publish {
            ticket: Ticket(1),
            body: Vec::new(),
        };
        match listens {
            true => drop(asker),
            false => {
                drop(mail);
                asker.try_send(question).unwrap();
            }
        }
        // It is not even connected.
        worker.run().await;
    }
}
