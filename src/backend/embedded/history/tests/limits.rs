//! The limits on age, size, and memory.

use super::*;

const DAY: UnixMillis = 24 * 3600 * 1000;

#[test]
fn events_beyond_the_window_are_deleted_and_raise_the_floor() {
    let mut site = Site::new();
    site.options.window = 7 * DAY;
    let (mut server, first) = site.started();
    let old = server.publish_at(&create("old"), NOW)[0].stamp;
    server.publish_at(&create("new"), NOW + 3 * DAY);
    drop(server);
    let mut server = site.server_at(NOW + 8 * DAY);
    let restored = Restored::of(server.turn(Vec::new(), NOW + 8 * DAY));
    assert_eq!(restored.ids(), ["new"]);
    assert_eq!(restored.start.floor, old.position);
    assert_eq!(restored.start.floor_time, old.time);
    assert_eq!(restored.start.epoch, first.start.epoch);
    let count: i64 = site
        .file()
        .query_row("SELECT count(*) FROM event", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 1);
}

#[test]
fn idle_server_deletes_old_events() {
    let mut site = Site::new();
    site.options.window = DAY;
    let (mut server, _) = site.started();
    server.publish_at(&create("a"), NOW);
    for _ in 0..2 {
        server.turn(Vec::new(), NOW + 2 * DAY);
    }
    let count: i64 = site
        .file()
        .query_row("SELECT count(*) FROM event", [], |row| row.get(0))
        .unwrap();
    assert_eq!(count, 0);
}

#[test]
fn size_on_disk_is_bounded_and_the_newest_events_are_kept() {
    let mut site = Site::new();
    site.options.disk = 1 << 20;
    let (mut server, _) = site.started();
    let text = "x".repeat(2000);
    let mut largest = 0;
    for batch in 0..60 {
        let events: Vec<_> = (0..50)
            .map(|n| {
                event(
                    "create",
                    &format!("{batch}-{n}"),
                    &["group:__world__"],
                    &text,
                )
            })
            .collect();
        server.publish_at(&events.join("\n"), NOW + batch);
        let size = fs::metadata(site.path()).unwrap().len();
        largest = largest.max(size);
    }
    assert!(largest < (1 << 20) + (512 << 10), "{largest}");
    let log = fs::metadata(site.path().with_extension("db-wal"))
        .unwrap()
        .len();
    assert!(log <= 9 << 20, "{log}");
    drop(server);
    let (_, restored) = site.started();
    assert!(restored.plans.len() > 200, "{}", restored.plans.len());
    assert_eq!(restored.ids().last(), Some(&"59-49"));
    let positions = restored.positions();
    assert!(positions.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    assert_eq!(positions[0], restored.start.floor + 1);
    assert!(restored.start.floor_time >= NOW && restored.start.floor_time < NOW + 60);
}

#[test]
fn event_larger_than_the_limit_is_accepted_and_not_kept() {
    let mut site = Site::new();
    site.options.disk = 64 << 10;
    let (mut server, _) = site.started();
    let large = event("create", "a", &["group:__world__"], &"x".repeat(1 << 20));
    let plans = server.publish(&large);
    assert_eq!(plans.len(), 1);
    drop(server);
    let (_, restored) = site.started();
    assert!(restored.plans.is_empty());
    assert_eq!(restored.start.floor, plans[0].stamp.position);
}

#[test]
fn reduced_limit_returns_space_to_the_file_system() {
    let mut site = Site::new();
    let (mut server, _) = site.started();
    let text = "x".repeat(100_000);
    for number in 0..40 {
        let id = format!("{number}");
        server.publish(&event("create", &id, &["group:__world__"], &text));
    }
    drop(server);
    let before = fs::metadata(site.path()).unwrap().len();
    site.options.disk = 400_000;
    let mut server = site.server();
    for turn in 0..40 {
        server.turn(Vec::new(), NOW + turn * 10_000);
    }
    drop(server);
    let after = fs::metadata(site.path()).unwrap().len();
    assert!(before > 4_000_000 && after < 600_000, "{before} {after}");
    assert_eq!(site.started().1.ids().last(), Some(&"39"));
}

#[test]
fn only_events_that_fit_into_memory_are_restored() {
    let mut site = Site::new();
    site.options.memory = 100_000;
    let (mut server, _) = site.started();
    let text = "x".repeat(1000);
    let mut stamps = Vec::new();
    for number in 0..200 {
        let id = format!("{number}");
        let plans = server.publish(&event("create", &id, &["group:__world__"], &text));
        stamps.push(plans[0].stamp);
    }
    drop(server);
    let (_, restored) = site.started();
    let count = restored.plans.len();
    assert!((40..100).contains(&count), "{count}");
    assert_eq!(restored.start.floor, stamps[199 - count].position);
    assert_eq!(restored.start.floor_time, stamps[199 - count].time);
    assert_eq!(restored.plans[count - 1].plan.stamp, stamps[199]);
}

#[test]
fn log_begins_again_after_its_limit() {
    const LIMIT: u64 = 8 << 20;
    let mut site = Site::new();
    site.options.disk = 1 << 20;
    let (mut server, _) = site.started();
    let text = "x".repeat(100_000);
    for number in 0..300 {
        let id = format!("{number}");
        server.publish(&event("create", &id, &["group:__world__"], &text));
        let log = fs::metadata(site.path().with_extension("db-wal")).unwrap();
        assert!(log.len() < LIMIT + (1 << 20), "{number} {}", log.len());
    }
}
