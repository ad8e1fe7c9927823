//! Compares the table with a model.

use std::collections::BTreeMap;

use super::*;
use crate::realtime::testing::Random;

#[derive(Clone, Debug, Default, PartialEq)]
struct Name(u64);

#[derive(Clone, Copy, Default)]
struct Number {
    number: u64,
    links: Links,
}

impl Group for Name {
    /// Collides for every fourth name.
    fn table_hash(&self) -> u64 {
        self.0 % 4
    }

    fn has_same_key(&self, other: &Self) -> bool {
        self == other
    }
}

impl Member for Number {
    fn links(&self) -> &Links {
        &self.links
    }

    fn links_mut(&mut self) -> &mut Links {
        &mut self.links
    }
}

type Table = GroupTable<Name, Number>;

fn insert(table: &mut Table, name: u64, number: u64) -> u32 {
    let links = Links::default();
    table.insert(Name(name), Number { number, links }).1
}

fn find(table: &Table, name: u64) -> Option<u32> {
    table.find(Name(name).table_hash(), |group| group.0 == name)
}

fn numbers(table: &Table, name: u64) -> Vec<u64> {
    let group = find(table, name);
    let members = group.into_iter().flat_map(|group| table.members_of(group));
    members.map(|member| member.number).collect()
}

#[test]
fn group_exists_as_long_as_it_has_a_member() {
    let mut table = Table::default();
    let first = insert(&mut table, 1, 10);
    let second = insert(&mut table, 1, 11);
    let other = insert(&mut table, 5, 50);
    assert_eq!((table.len(), table.group_count()), (3, 2));
    assert_eq!(numbers(&table, 1), [11, 10]);
    let group = find(&table, 1).unwrap();
    assert_eq!(table.member(first).map(|m| table.group_of(m)), Some(group));
    assert!(table.only_member(group).is_none());
    assert_eq!(table.remove(second).map(|m| m.number), Some(11));
    assert_eq!(table.only_member(group).map(|m| m.number), Some(10));
    assert_eq!(table.group(group), Some(&Name(1)));
    table.remove(first);
    assert_eq!((find(&table, 1), table.group_count()), (None, 1));
    assert_eq!(numbers(&table, 5), [50]);
    assert_eq!(table.remove(other).map(|m| m.number), Some(50));
    assert!(table.remove(NONE).is_none());
    assert_eq!((table.len(), table.group_count()), (0, 0));
    assert_eq!(table.verify(), Ok(()));
}

#[test]
fn table_agrees_with_a_model_while_it_shrinks() {
    let mut moves = 0;
    for seed in 1..20 {
        let mut random = Random(seed);
        let mut table = Table::default();
        // The name and the index of each number.
        let mut model: BTreeMap<u64, (u64, u32)> = BTreeMap::new();
        for step in 0..3000 {
            // At first most operations insert, later most remove.
            if random.below(10) < if step < 1500 { 8 } else { 2 } {
                let name = random.below(30);
                model.insert(step, (name, insert(&mut table, name, step)));
            } else if let Some(&number) = model.keys().nth(random.below(9) as usize) {
                let (_, at) = model.remove(&number).unwrap();
                assert_eq!(table.remove(at).map(|m| m.number), Some(number));
            }
            if random.below(20) == 0 {
                let mut budget = 64 * random.below(100) as usize;
                while let Some((from, to)) = table.next_move(&mut budget) {
                    let number = table.member(to).unwrap().number;
                    let (_, at) = model.get_mut(&number).unwrap();
                    assert_eq!(*at, from, "seed {seed} step {step}");
                    *at = to;
                    moves += 1;
                }
            }
            if random.below(100) == 0 {
                assert_eq!(table.verify(), Ok(()), "seed {seed} step {step}");
            }
            let name = random.below(30);
            let mut found = numbers(&table, name);
            found.sort_unstable();
            let expected = model.iter().filter(|(_, (of, _))| *of == name);
            let expected: Vec<u64> = expected.map(|(number, _)| *number).collect();
            assert_eq!(found, expected, "seed {seed} step {step}");
        }
        assert_eq!(table.len(), model.len());
        assert_eq!(table.members().count(), model.len());
        assert_eq!(table.verify(), Ok(()));
    }
    assert!(moves > 20, "{moves} moves");
}

#[test]
fn large_group_moves_in_steps() {
    const MEMBERS: u64 = 10_000;
    const BUDGET: usize = 100 * MOVE_COST;
    let mut table = Table::default();
    let others: Vec<u32> = (0..4 * MEMBERS)
        .map(|n| insert(&mut table, n + 2, n))
        .collect();
    let mut members: Vec<u32> = (0..MEMBERS).map(|n| insert(&mut table, 1, n)).collect();
    let former = find(&table, 1).unwrap();
    for other in others {
        table.remove(other);
    }
    let mut steps = 0;
    let mut updated = 0;
    while table.members.bytes() > 2 * MEMBERS as usize * size_of::<Number>() {
        let mut budget = BUDGET;
        while let Some((from, to)) = table.next_move(&mut budget) {
            let number = table.member(to).unwrap().number as usize;
            assert_eq!(members[number], from);
            members[number] = to;
        }
        let before = updated;
        let all = members.iter().map(|at| table.member(*at).unwrap());
        updated = all.filter(|member| member.links.group != former).count();
        // One member has been removed and added since.
        let most = before + BUDGET / UPDATE_COST + 1;
        assert!(updated <= most, "step {steps}: {before}, then {updated}");
        steps += 1;
        // The group is used meanwhile.
        let group = find(&table, 1).unwrap();
        let all = members.iter().map(|at| table.member(*at).unwrap());
        assert!(
            all.map(|member| table.group_of(member))
                .all(|of| of == group)
        );
        assert_eq!((table.group_count(), table.len()), (1, members.len()));
        let at = members.pop().unwrap();
        assert!(table.remove(at).is_some());
        members.push(insert(&mut table, 1, members.len() as u64));
        assert_eq!(table.verify(), Ok(()));
    }
    assert!(
        updated as u64 == MEMBERS && steps > 40,
        "{updated} in {steps}"
    );
}

#[test]
fn group_may_end_while_it_moves() {
    let mut table = Table::default();
    let others: Vec<u32> = (0..2000).map(|n| insert(&mut table, n + 2, n)).collect();
    let members: Vec<u32> = (0..20).map(|n| insert(&mut table, 1, n)).collect();
    for other in others {
        table.remove(other);
    }
    while table.moving.from == NONE {
        let mut budget = UPDATE_COST;
        assert_eq!(table.next_move(&mut budget), None);
    }
    // The next member to update is among those that are removed.
    members
        .iter()
        .for_each(|at| assert!(table.remove(*at).is_some()));
    assert_eq!((table.group_count(), table.len()), (0, 0));
    insert(&mut table, 3, 30);
    while table.next_move(&mut (100 * MOVE_COST)).is_some() {}
    assert_eq!((numbers(&table, 3), numbers(&table, 1)), (vec![30], vec![]));
    assert_eq!(table.verify(), Ok(()));
}
