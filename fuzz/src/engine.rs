//! The engine in the simulation of `tests/kit`, with operations decoded from bytes.

use crate::sim::Command;
use crate::sim::ops::{self, Op};

/// Input: a seed of two bytes for all random choices, then operations of four bytes each. The
/// simulation's oracles check the results.
pub fn engine_ops(input: &[u8]) {
    let &[high, low, ref rest @ ..] = input else {
        return;
    };
    let seed = u64::from(u16::from_be_bytes([high, low]));
    let (records, _) = rest.as_chunks::<4>();
    let mut large = 0;
    let ops = records.iter().take(MAX_OPS).map(|&record| op(record));
    let ops = ops.filter(|op| {
        let is_large = matches!(op, Op::Burst { .. } | Op::Flood);
        large += usize::from(is_large);
        !is_large || large <= MAX_LARGE
    });
    ops::run(seed, ops);
}

fn op([kind, client, high, low]: [u8; 4]) -> Op {
    let number = u16::from_be_bytes([high, low]);
    // The simulation's buffers and limits are a few thousand bytes.
    let size = number % 12_000;
    match kind % 20 {
        0..3 => Op::Connect {
            kind: client % 16,
            eager: high & 1 == 0,
            address: low % 6,
        },
        3..5 => Op::Deliver {
            client,
            bytes: number,
        },
        5..7 => Op::Listen {
            client,
            bytes: number,
        },
        7..10 => Op::Say {
            client,
            verb: kind / 20,
            size,
        },
        10 => Op::Fragment { client, size },
        11 => Op::Ping { client },
        12 => Op::Violate {
            client,
            how: low % 16,
        },
        13 => leave(client, low),
        14 | 15 => Op::Command(command(client, high, usize::from(size))),
        16 => Op::Turn,
        17 => Op::Settle,
        18 => Op::Wait { ms: number % 1500 },
        _ => match client % 16 {
            0 => Op::Jump,
            1 => Op::Drain { ms: number % 5000 },
            2 => Op::Burst { client: low },
            3 => Op::Flood,
            4 => Op::FailAccept {
                listener: low % 3,
                is_serious: high & 1 == 0,
            },
            _ => Op::Turn,
        },
    }
}

fn leave(client: u8, how: u8) -> Op {
    match how % 4 {
        0 => Op::Close { client },
        1 => Op::Finish { client },
        2 => Op::Reset { client },
        _ => Op::Vanish { client },
    }
}

fn command(pick: u8, kind: u8, size: usize) -> Command {
    let pick = usize::from(pick);
    match kind % 8 {
        0 | 1 => Command::Answer {
            pick,
            accept: kind & 1 == 0,
        },
        2..5 => Command::FanOut {
            percent: (pick % 101) as u32,
            size,
        },
        5 | 6 => Command::Send { pick, size },
        _ if pick.is_multiple_of(4) => Command::Noop,
        _ => Command::Close { pick, code: 4003 },
    }
}

/// Bounds the time of one input to about a second.
const MAX_OPS: usize = 500;
/// The limit on operations that cause hundreds of messages each.
const MAX_LARGE: usize = 5;
