//! Several servers on one data directory.

use super::*;

#[test]
fn servers_exchange_events_in_order() {
    let site = Site::new();
    let (mut one, first) = site.started();
    let (mut other, second) = site.started();
    assert_eq!(first.start.epoch, second.start.epoch);
    let published = one.publish(&[create("a"), create("b")].join("\n"));
    assert_eq!(other.poll(), published);
    assert!(other.poll().is_empty());

    // The events of the other server come first.
    let published = one.publish(&create("c"));
    let messages = other.try_publish(&create("d"), NOW);
    let [
        BackendEvent::Replanned { plans },
        BackendEvent::Published {
            result: Ok(own), ..
        },
    ] = &messages[..]
    else {
        panic!("{messages:?}");
    };
    assert_eq!(*plans, published);
    assert!(own[0].stamp.position > plans[0].stamp.position);
    assert_eq!(one.poll(), *own);
    assert!(other.poll().is_empty() && one.poll().is_empty());
}

/// A client may connect before the backend's thread has started.
#[test]
fn event_that_is_stored_during_the_start_of_another_server_is_live() {
    let site = Site::new();
    let (mut one, _) = site.started();
    one.publish(&create("a"));
    let mut other = site.server();
    let published = one.publish(&create("b"));
    let messages = other.turn(Vec::new(), NOW);
    let [.., BackendEvent::Replanned { plans }] = &messages[..] else {
        panic!("{messages:?}");
    };
    assert_eq!(*plans, published);
    let restored = Restored::of(messages);
    assert_eq!(restored.ids(), ["a"]);
    assert!(restored.start.head < published[0].stamp.position);
}

#[test]
fn event_that_every_server_receives_from_the_queue_is_stored_once() {
    let site = Site::new();
    let (mut one, _) = site.started();
    let (mut other, _) = site.started();
    let update = event("update", "a", &["group:__world__"], "new");
    let sent = plans(one.turn(vec![queue_event(&create("a")), queue_event(&update)], NOW));
    assert_eq!(sent.len(), 2);
    // The other server is late. It has the newest state already.
    let got = plans(other.turn(vec![queue_event(&create("a"))], NOW));
    assert_eq!(got, sent[1..]);
    assert!(plans(other.turn(vec![queue_event(&update)], NOW)).is_empty());
    assert!(one.poll().is_empty());
    // An equal event of the same server is another event.
    assert_eq!(plans(one.turn(vec![queue_event(&update)], NOW)).len(), 1);
}

#[test]
fn change_of_rights_is_stored_by_one_server_and_sent_by_both() {
    let site = Site::new();
    let (mut one, _) = site.started();
    let (mut other, _) = site.started();
    one.publish(&create("a"));
    assert_eq!(other.poll().len(), 1);
    site.users().set_muted(JOE, true).unwrap();
    let plans = one.poll();
    assert_eq!(plans.len(), 1);
    assert!(!is_public(&plans[0]));
    assert_eq!(other.poll(), plans);
    assert!(one.poll().is_empty() && other.poll().is_empty());
}

#[test]
fn event_of_another_server_is_never_sent_with_older_rights() {
    let site = Site::new();
    let (mut one, _) = site.started();
    let (mut other, _) = site.started();
    one.publish(&create("a"));
    site.users().set_muted(JOE, true).unwrap();
    assert!(other.poll().iter().all(|plan| !is_public(plan)));
}

#[test]
fn concurrent_servers_store_all_events_at_distinct_positions() {
    let site = Site::new();
    drop(site.started());
    let threads: Vec<_> = (0..3)
        .map(|number| {
            let mut server = site.server();
            std::thread::spawn(move || {
                let mut own = Vec::new();
                let mut foreign = Vec::new();
                for at in 0..40 {
                    let body = create(&format!("{number}-{at}"));
                    for message in server.try_publish(&body, NOW) {
                        match message {
                            BackendEvent::Published { result, .. } => own.extend(result.unwrap()),
                            BackendEvent::Replanned { plans } => foreign.extend(plans),
                            BackendEvent::History(HistoryEvent::Restored(plans)) => {
                                foreign.extend(plans.into_iter().map(|one| one.plan));
                            }
                            _ => {}
                        }
                    }
                }
                (server, own, foreign)
            })
        })
        .collect();
    let mut ended: Vec<_> = threads.into_iter().map(|one| one.join().unwrap()).collect();
    let mut all: Vec<u64> = Vec::new();
    for (server, own, foreign) in &mut ended {
        foreign.extend(server.poll());
        let positions =
            |plans: &[Plan]| -> Vec<u64> { plans.iter().map(|plan| plan.stamp.position).collect() };
        assert!(positions(own).is_sorted() && positions(foreign).is_sorted());
        assert_eq!((own.len(), foreign.len()), (40, 80));
        all.extend(positions(own));
    }
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 120);
}
