//! The identities of tokens, and the groups of users.

use std::collections::BTreeSet;

use h_realtime::model::{EndCause, Role, TokenId};

use super::world::{NOW, World};

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn one_statement_resolves_many_tokens() {
    let mut world = World::new();
    let before = world.statements();
    let identities = world.identities(&[
        "6879-alice-developer-token",
        "6879-nope",
        "",
        "6879-alice\0-developer-token",
        "5768-alice-oauth",
        "5768-alice-oauth-expired",
        "5768-alice-oauth-noexpiry-refreshexpired",
        "4657-alice-refresh",
        "6879-erin-developer-token",
        "6879-üñí",
        "6879-luis-developer-token",
        "6879-alice-developer-token",
    ]);
    assert_eq!(world.statements() - before, 1);
    let userids = identities
        .iter()
        .map(|identity| Some(&*identity.as_ref()?.userid));
    let alice = Some("acct:alice@localhost");
    assert_eq!(
        userids.collect::<Vec<_>>(),
        [
            alice,
            None,
            None,
            None,
            alice,
            None,
            alice,
            None,
            None,
            Some("acct:carol@localhost"),
            Some("acct:Luis.Silva@localhost"),
            alice,
        ]
    );
    let [first, .., last] = &*identities else {
        panic!("no identities");
    };
    assert_eq!(first, last);
    let first = first.as_ref().unwrap();
    assert_eq!((first.token, first.expires), (TokenId(1), None));
    let mut groups: Vec<_> = first
        .memberships
        .iter()
        .map(|it| (&*it.group, it.role))
        .collect();
    groups.sort_unstable();
    let owner = |group| (group, Role::Owner);
    assert_eq!(
        groups,
        ["nullread", "open1234", "priv1234", "rest1234"].map(owner)
    );
    let temporary = identities[4].as_ref().unwrap();
    assert_eq!(temporary.token, TokenId(12));
    assert_eq!(temporary.expires, Some(4_070_908_800_000)); // 2099
    assert_eq!(world.identities(&["", "\0"]), [None, None]);
    assert_eq!(
        world.statements() - before,
        1,
        "empty lists of tokens are not queried"
    );
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn token_expiry_has_millisecond_precision() {
    let mut world = World::new();
    world.sql("UPDATE token SET expires = '2026-01-01 00:00:00.000900' WHERE id = 1");
    let end = 1_767_225_600_000;
    for (now, is_known) in [(end - 1, true), (end, false), (end + 1, false)] {
        let asked = world.store.identities(&["6879-alice-developer-token"], now);
        let identities = world.runtime.block_on(asked).unwrap();
        assert_eq!(identities[0].is_some(), is_known, "{now}");
    }
    world.sql("UPDATE token SET expires = 'infinity' WHERE id = 1");
    assert_eq!(world.identity("alice").unwrap().expires, None);
    world.sql("UPDATE token SET expires = '-infinity' WHERE id = 1");
    assert_eq!(world.identity("alice"), None);
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn memberships_are_current() {
    let mut world = World::new();
    let mut groups = |userid: &str| {
        let memberships = world.runtime.block_on(world.store.memberships(userid));
        let memberships = memberships.unwrap()?;
        let groups = memberships
            .iter()
            .map(|it| format!("{} {}", it.group, it.role.as_str()));
        Some(
            groups
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
                .join(", "),
        )
    };
    let bob = "acct:bob@localhost";
    assert_eq!(
        groups(bob).as_deref(),
        Some("priv1234 moderator, priv5678 owner, rest1234 admin")
    );
    assert_eq!(groups("acct:nogroups@localhost").as_deref(), Some(""));
    // Dots and letter case do not match another name.
    assert_eq!(groups("acct:LuisSilva@localhost").as_deref(), Some(""));
    for nobody in [
        "acct:erin@localhost",
        "acct:bob@example.com",
        "acct:nobody@localhost",
        "bob",
        "acct:b\0ob@localhost",
    ] {
        assert_eq!(groups(nobody), None, "{nobody:?}");
    }
}

#[test]
#[ignore = "needs PostgreSQL: run tests/run"]
fn one_statement_checks_many_tokens() {
    let mut world = World::new();
    world.sql(
        "DELETE FROM token WHERE id = 2;
         UPDATE token SET expires = '2001-01-01' WHERE id = 3;
         UPDATE \"user\" SET deleted = true WHERE username = 'dave';
         UPDATE \"user\" SET username = 'other' WHERE username = 'mallory';
         DELETE FROM user_group WHERE user_id = 1 AND group_id = 4",
    );
    let before = world.statements();
    let tokens = [1, 2, 3, 4, 7, 11, 5000, u64::MAX].map(TokenId);
    let swept = world.store.sweep(&tokens, NOW);
    let swept = world.runtime.block_on(swept).unwrap();
    assert_eq!(world.statements() - before, 1);
    assert_eq!(
        swept.iter().map(|(token, _)| *token).collect::<Vec<_>>(),
        tokens
    );
    let standing = |place: usize| swept[place].1.as_ref();
    let (userid, memberships) = standing(0).unwrap();
    assert_eq!(&**userid, "acct:alice@localhost");
    let groups: BTreeSet<&str> = memberships.iter().map(|it| &*it.group).collect();
    assert_eq!(groups, BTreeSet::from(["nullread", "open1234", "rest1234"]));
    for (place, cause) in [
        (1, EndCause::Revoked),
        (2, EndCause::Expired),
        (3, EndCause::UserDeleted),
        (6, EndCause::Revoked),
        (7, EndCause::Revoked),
    ] {
        assert_eq!(standing(place), Err(&cause), "{place}");
    }
    assert_eq!(&*standing(4).unwrap().0, "acct:other@example.com");
    assert_eq!(standing(5).unwrap().1, []);
}
