//! A breadth-first search. A state is reached by the operations that lead to it, since the API
//! cannot be copied.

use std::collections::HashSet;
use std::time::Instant;

use super::operations::Op;
use super::world::{Instance, World};

/// Checks all states that `depth` operations can reach, each with all clients connected and up to
/// date in the end. `DEEPER=…` adds operations.
pub(super) fn search(name: &str, instance: &Instance, ops: &[Op], depth: usize) {
    let (mut known, mut count, begun) = (HashSet::new(), 0_usize, Instant::now());
    let mut paths: Vec<Vec<u8>> = vec![Vec::new()];
    let deeper = std::env::var("DEEPER").ok();
    let deeper: usize = deeper.map_or(0, |number| number.parse().expect("a number"));
    for length in 1..=depth + deeper {
        let mut next = Vec::new();
        for path in paths {
            let world = reach(instance, ops, &path);
            let possible = (0..ops.len()).filter(|op| world.is_possible(ops[*op]));
            for op in possible.collect::<Vec<_>>() {
                let mut world = reach(instance, ops, &path);
                let mut longer = path.clone();
                longer.push(op as u8);
                if let Err(problem) = world.apply(ops[op]) {
                    fail(name, ops, &longer, &problem);
                }
                count += 1;
                if !known.insert(world.fingerprint()) {
                    continue;
                }
                if let Err(problem) = world.settle() {
                    fail(name, ops, &longer, &format!("in the end: {problem}"));
                }
                next.push(longer);
            }
        }
        paths = next;
        println!(
            "{name}: {} states by {count} transitions to depth {length} in {:?}",
            known.len(),
            begun.elapsed()
        );
    }
}

fn reach<'a>(instance: &'a Instance, ops: &[Op], path: &[u8]) -> World<'a> {
    let mut world = World::new(instance);
    for op in path {
        let result = world.apply(ops[usize::from(*op)]);
        result.expect("the path has been checked");
    }
    world
}

fn fail(name: &str, ops: &[Op], path: &[u8], problem: &str) -> ! {
    let path: Vec<Op> = path.iter().map(|op| ops[usize::from(*op)]).collect();
    panic!("{name}: {problem}\nafter {path:?}");
}
