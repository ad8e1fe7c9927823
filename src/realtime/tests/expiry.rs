//! Ended credentials, with later changes of the wall clock and the settings.

use super::*;

const SPREAD: u64 = 30_000;
const HOUR: u64 = 3_600_000;
/// The wall clock at zero of the monotonic clock.
const WALL: u64 = 1_700_000_000_000;

fn settings(on_expiry: OnExpiry, expiry_spread: u64) -> ApiSettings {
    ApiSettings {
        on_expiry,
        expiry_spread,
        ..ApiSettings::default()
    }
}

/// Returns the clocks `mono` milliseconds after the start, with the wall clock set forward by
/// `offset`.
fn at(mono: u64, offset: i64) -> Now {
    let unix = (WALL + mono).saturating_add_signed(offset);
    Now { mono, unix }
}

/// Opens a connection of a member of `g` for each lifetime. Its token has the connection's number.
fn api(settings: ApiSettings, lifetimes: &[Option<u64>]) -> TestApi {
    let mut api = TestApi::new(settings);
    api.now = at(0, 0);
    for (number, lifetime) in (0..).zip(lifetimes) {
        let mut identity = identity("acct:a@x", number.into(), &[("g", Role::Member)]);
        identity.expires = lifetime.map(|lifetime| WALL + lifetime);
        api.open_as(number, identity);
    }
    api
}

fn reconfigure(api: &mut TestApi, settings: ApiSettings) -> Vec<Output> {
    api.call(|realtime, cx| realtime.reconfigure(cx, settings))
        .1
}

/// Returns the connections closed by the ticks within `millis` milliseconds.
fn closes(api: &mut TestApi, from: u64, millis: u64, offset: i64) -> Vec<Output> {
    let ticks = (from..=from + millis).step_by(500);
    ticks.flat_map(|mono| api.tick(at(mono, offset))).collect()
}

// W19, D1
#[test]
fn revoked_client_stays_silenced_and_is_closed_in_time_when_wall_clock_is_set() {
    for offset in [-2000, -(HOUR as i64), HOUR as i64] {
        let mut api = api(settings(OnExpiry::Close, SPREAD), &[None]);
        assert_eq!(for_members(&mut api, "g"), 1);
        assert_eq!(api.backend_event(revoked(0)), []);
        assert_eq!(for_members(&mut api, "g"), 0);
        api.now = at(1, offset);
        assert_eq!(for_members(&mut api, "g"), 0, "{offset}");
        let closed = closes(&mut api, 1, SPREAD, offset);
        assert_eq!(closed, [close(0, "token revoked")], "{offset}");
    }
}

// D1
#[test]
fn queued_events_are_dropped_when_a_token_is_revoked_but_not_when_it_expires() {
    for spread in [0, SPREAD] {
        let expires = [None, Some(10_000)];
        let mut api = api(settings(OnExpiry::Close, spread), &expires);
        api.backend_event(revoked(0));
        assert_eq!(api.muted, [0], "{spread}");
        closes(&mut api, 10_000, spread + 500, 0);
        assert_eq!(api.muted, [0], "{spread}");
    }
    let mut api = api(settings(OnExpiry::Keep, 0), &[None]);
    api.backend_event(revoked(0));
    assert!(api.muted.is_empty(), "it is served further");
}

// D1
#[test]
fn token_lasts_no_longer_than_its_lifetime_when_wall_clock_is_set_back() {
    for spread in [0, SPREAD] {
        let mut api = api(settings(OnExpiry::Close, spread), &[Some(10_000)]);
        assert_eq!(api.tick(at(500, -(HOUR as i64))), []);
        api.now = at(9_999, -(HOUR as i64));
        assert_eq!(for_members(&mut api, "g"), 1);
        api.now = at(10_000, -(HOUR as i64));
        let served = usize::from(spread > 0);
        assert_eq!(for_members(&mut api, "g"), served, "{spread}");
        let closed = closes(&mut api, 10_000, spread + 500, -(HOUR as i64));
        assert_eq!(closed, [close(0, "token expired")], "{spread}");
    }
}

// D1
#[test]
fn token_that_expired_by_wall_clock_stays_expired_when_it_is_set_back() {
    for (spread, served) in [(0, 0), (SPREAD, 1)] {
        let mut api = api(settings(OnExpiry::Close, spread), &[Some(HOUR / 2)]);
        api.now = at(100, HOUR as i64);
        assert_eq!(for_members(&mut api, "g"), served);
        api.now = at(200, 0);
        assert_eq!(for_members(&mut api, "g"), served);
        let closed = closes(&mut api, 200, spread + 500, 0);
        assert_eq!(closed, [close(0, "token expired")], "{spread}");
    }
}

/// A gain below one second would not count as a step.
#[test]
fn expired_token_is_not_served_by_a_wall_clock_that_gains_a_little() {
    let mut api = api(settings(OnExpiry::Close, 0), &[Some(10_000)]);
    api.now = at(9_500, 499);
    assert_eq!(for_members(&mut api, "g"), 1);
    api.now = at(9_500, 500);
    assert_eq!(for_members(&mut api, "g"), 0);
}

#[test]
fn wall_clock_set_forward_and_back_ends_no_other_token_early_or_late() {
    let mut api = api(settings(OnExpiry::Close, 0), &[Some(HOUR), Some(HOUR / 4)]);
    let expected = [close(1, "token expired")];
    assert_eq!(api.tick(at(1000, HOUR as i64 / 2)), expected);
    api.close(1);
    assert_eq!(api.tick(at(2000, 0)), []);
    // A token issued after the step back is unaffected by it.
    let mut later = identity("acct:a@x", 2, &[]);
    later.expires = Some(WALL + HOUR);
    api.open_as(2, later);
    assert_eq!(api.tick(at(HOUR - 1, 0)), []);
    let expected = [close(0, "token expired"), close(2, "token expired")];
    assert_eq!(api.tick(at(HOUR, 0)), expected);
}

// D1
#[test]
fn credentials_that_ended_while_kept_are_closed_once_reload_says_so() {
    for spread in [0, SPREAD] {
        let lifetimes = [None, Some(1000), None, Some(HOUR)];
        let mut api = api(settings(OnExpiry::Keep, spread), &lifetimes);
        let mut other = identity("acct:b@x", 4, &[("g", Role::Member)]);
        other.expires = Some(WALL + 1000);
        api.open_as(4, other);
        assert_eq!(api.backend_event(revoked(0)), []);
        let userid = "acct:b@x".into();
        assert_eq!(api.tick(at(2000, 0)), []);
        assert_eq!(api.backend_event(BackendEvent::UserDeleted { userid }), []);
        assert_eq!(api.tick(at(2 * SPREAD, 0)), []);
        assert_eq!(for_members(&mut api, "g"), 1, "still served");

        let mut closed = reconfigure(&mut api, settings(OnExpiry::Close, spread));
        assert_eq!(for_members(&mut api, "g"), 0, "revoked");
        closed.extend(closes(&mut api, 2 * SPREAD, spread, 0));
        closed.sort_by_key(|outputs| format!("{outputs:?}"));
        let expected = [
            close(0, "token revoked"),
            close(1, "token expired"),
            close(4, "user deleted"),
        ];
        assert_eq!(closed, expected, "{spread}");
        assert_eq!(api.realtime.counters().credentials_ended, 3);
        assert_eq!(api.tick(at(HOUR - 1, 0)), []);
    }
}

#[test]
fn close_that_is_due_later_is_spread_when_reload_ends_kept_credentials() {
    let mut api = api(settings(OnExpiry::Keep, SPREAD), &[Some(1000); 300]);
    assert_eq!(api.tick(at(1000, 0)), []);
    assert_eq!(reconfigure(&mut api, settings(OnExpiry::Close, SPREAD)), []);
    let ticks = (1000..=1000 + SPREAD + 500).step_by(500);
    let closed: Vec<_> = ticks.map(|mono| api.tick(at(mono, 0)).len()).collect();
    assert_eq!(closed.iter().sum::<usize>(), 300);
    assert!(closed.iter().all(|count| *count < 20), "{closed:?}");
}

/// A silenced connection may have missed events, and its client must reconnect to get them.
#[test]
fn reload_that_keeps_ended_credentials_leaves_due_closes_in_force() {
    let lifetimes = [None, Some(1000), Some(2000)];
    let mut api = api(settings(OnExpiry::Close, SPREAD), &lifetimes);
    assert_eq!(api.tick(at(1000, 0)), []);
    assert_eq!(api.backend_event(revoked(0)), []);
    assert_eq!(reconfigure(&mut api, settings(OnExpiry::Keep, 0)), []);
    assert_eq!(for_members(&mut api, "g"), 0);
    let mut closed = closes(&mut api, 1000, SPREAD, 0);
    closed.sort_by_key(|outputs| format!("{outputs:?}"));
    let expected = [close(0, "token revoked"), close(1, "token expired")];
    assert_eq!(closed, expected);
    assert_eq!(
        api.tick(at(HOUR, 0)),
        [],
        "expired after the reload, and stays open"
    );
}

#[test]
fn close_reason_names_the_cause_of_the_end() {
    for spread in [0, SPREAD] {
        let mut api = api(settings(OnExpiry::Close, spread), &[None, None, Some(1000)]);
        api.open_as(3, identity("acct:b@x", 3, &[]));
        let mut closed = Vec::new();
        for (token, cause) in [(0, EndCause::Revoked), (1, EndCause::UserDeleted)] {
            let token = TokenId(token);
            closed.extend(api.backend_event(BackendEvent::TokenEnded { token, cause }));
        }
        let userid = "acct:b@x".into();
        closed.extend(api.backend_event(BackendEvent::UserDeleted { userid }));
        for number in (0..4).filter(|number| *number != 2 && spread == 0) {
            api.close(number);
        }
        closed.extend(closes(&mut api, 0, 1000 + spread, 0));
        closed.sort_by_key(|outputs| format!("{outputs:?}"));
        let expected = [
            close(0, "token revoked"),
            close(1, "user deleted"),
            close(2, "token expired"),
            close(3, "user deleted"),
        ];
        assert_eq!(closed, expected, "{spread}");
    }
}
