//! Tests of the output queue.

use super::*;
use crate::conn::output::Part;

/// Sends `step` bytes at a time. Returns all bytes sent.
fn drain(queue: &mut TxQueue, step: usize, ledger: &mut Ledger) -> Vec<u8> {
    let mut out = Vec::new();
    while queue.len() > 0 {
        let mut slices = [IoSlice::new(&[]); 3];
        let count = queue.slices(&mut slices);
        let all: Vec<u8> = slices[..count].iter().flat_map(|s| s.to_vec()).collect();
        let taken = step.min(all.len());
        assert!(taken > 0, "bytes are counted that are not offered");
        out.extend_from_slice(&all[..taken]);
        queue.advance(taken, 0, ledger);
    }
    out
}

#[test]
fn bytes_leave_in_order_for_any_write_size() {
    let ledger = &mut Ledger::default();
    for step in 1..20 {
        let mut queue = TxQueue::default();
        queue.push_shared(Frame::text("one"), 2, 0, ledger);
        for part in [&b"two"[..], b"", b"three"] {
            queue.push_owned(part, false, 0, ledger);
        }
        queue.push_shared(Frame::text("four"), 0, 0, ledger);
        assert_eq!(drain(&mut queue, step, ledger), b"onetwothree\x81\x04four");
    }
}

#[test]
fn pong_follows_the_frame_in_progress() {
    let ledger = &mut Ledger::default();
    for step in 1..20 {
        let mut queue = TxQueue::default();
        queue.push_owned(b"rest", true, 0, ledger);
        queue.push_owned(b"next", false, 0, ledger);
        queue.set_pong(b"old", ledger);
        queue.set_pong(b"PONG", ledger);
        assert_eq!(drain(&mut queue, step, ledger), b"restPONGnext");
    }
    let mut queue = TxQueue::default();
    queue.push_owned(b"next", false, 0, ledger);
    queue.set_pong(b"PONG", ledger);
    assert_eq!(drain(&mut queue, 3, ledger), b"PONGnext");
}

#[test]
fn partially_sent_pong_keeps_pace() {
    let ledger = &mut Ledger::default();
    let mut queue = TxQueue::default();
    queue.push_owned(b"rest", true, 1000, ledger);
    queue.set_pong(b"PONG", ledger);
    queue.advance(4, 1000, ledger);
    queue.advance(1, 1001, ledger);
    assert!(queue.keeps_pace(1005, 5, 100));
    assert!(!queue.keeps_pace(1007, 5, 100));
}

#[test]
fn offered_pong_is_replaceable_until_a_byte_is_sent() {
    let ledger = &mut Ledger::default();
    let mut queue = TxQueue::default();
    queue.set_pong(b"old", ledger);
    queue.advance(0, 0, ledger);
    queue.set_pong(b"PONG", ledger);
    assert_eq!(drain(&mut queue, 9, ledger), b"PONG");
}

#[test]
fn pong_follows_the_rest_of_a_part() {
    let ledger = &mut Ledger::default();
    let mut queue = TxQueue::default();
    (&b"reply"[..]).queue(&mut queue, 2, 0, ledger);
    queue.set_pong(b"PONG", ledger);
    assert_eq!(drain(&mut queue, 9, ledger), b"plyPONG");
}

#[test]
fn dropped_messages_leave_the_pong() {
    let ledger = &mut Ledger::default();
    let mut queue = TxQueue::default();
    queue.push_shared(Frame::text("event"), 0, 0, ledger);
    queue.set_pong(b"PONG", ledger);
    queue.drop_messages(ledger);
    assert_eq!(queue.verify(), Ok(()));
    assert_eq!(drain(&mut queue, 9, ledger), b"PONG");
}

#[test]
fn front_is_behind_only_after_the_grace() {
    let ledger = &mut Ledger::default();
    let mut queue = TxQueue::default();
    assert!(!queue.is_behind(1000, 0));
    queue.push_owned(b"reply", false, 1000, ledger);
    assert!(!queue.is_behind(1005, 5));
    assert!(queue.is_behind(1006, 5));
}

#[test]
fn large_message_may_take_longer_at_a_steady_pace() {
    let ledger = &mut Ledger::default();
    let mut queue = TxQueue::default();
    let frame = Frame::binary(&vec![0; 4 * PACE]);
    let len = frame.bytes().len();
    queue.push_shared(Rc::clone(&frame), 0, 1000, ledger);
    queue.push_shared(frame, 0, 1000, ledger);
    queue.advance(2 * PACE, 1006, ledger);
    assert!(queue.keeps_pace(1007, 5, len - 1));
    assert!(!queue.keeps_pace(1007, 5, len), "it is not large");
    assert!(!queue.keeps_pace(1008, 5, len - 1), "it is too slow");
    queue.advance(len - 2 * PACE, 1010, ledger);
    assert!(queue.keeps_pace(1012, 5, len - 1), "the next one has begun");
}

#[test]
fn nothing_overtakes_sealed_output() {
    let ledger = &mut Ledger::default();
    for step in 1..20 {
        let mut queue = TxQueue::default();
        queue.push_owned(b"answer", false, 0, ledger);
        queue.push_owned(b"switch", false, 0, ledger);
        queue.advance(2, 0, ledger);
        queue.seal(ledger);
        assert_eq!(queue.verify(), Ok(()));
        queue.set_pong(b"PONG", ledger);
        queue.push_owned(b"next", false, 0, ledger);
        assert_eq!(drain(&mut queue, step, ledger), b"swerswitchPONGnext");
    }
    let mut queue = TxQueue::default();
    queue.push_owned(b"switch", false, 0, ledger);
    queue.seal(ledger);
    queue.push_owned(b"next", false, 0, ledger);
    queue.drop_unstarted(ledger);
    assert_eq!(drain(&mut queue, 100, ledger), b"switch");
    queue.seal(ledger);
    assert_eq!(queue.len(), 0);
}

#[test]
fn drop_unstarted_keeps_the_frame_in_progress() {
    let ledger = &mut Ledger::default();
    let mut queue = TxQueue::default();
    queue.push_owned(b"first", false, 0, ledger);
    queue.push_owned(b"second", false, 0, ledger);
    queue.set_pong(b"PONG", ledger);
    queue.drop_unstarted(ledger);
    assert_eq!(queue.len(), 0);
    queue.push_owned(b"first", false, 0, ledger);
    queue.push_owned(b"second", false, 0, ledger);
    queue.advance(2, 0, ledger);
    queue.drop_unstarted(ledger);
    queue.push_owned(b"close", false, 0, ledger);
    assert_eq!(drain(&mut queue, 4, ledger), b"rstclose");
}

#[test]
fn drop_messages_keeps_replies_and_the_frame_in_progress() {
    let ledger = &mut Ledger::default();
    let mut queue = TxQueue::default();
    queue.push_shared(Frame::text("event"), 3, 0, ledger);
    queue.push_owned(b"reply", false, 0, ledger);
    queue.push_shared(Frame::text("event"), 0, 0, ledger);
    queue.drop_messages(ledger);
    assert_eq!(queue.verify(), Ok(()));
    assert_eq!(drain(&mut queue, 20, ledger), b"ventreply");
}

// M11
#[test]
fn sent_part_of_a_long_chunk_is_released() {
    let ledger = &mut Ledger::default();
    let mut queue = TxQueue::default();
    let bytes: Vec<u8> = (0..100_000).map(|byte| byte as u8).collect();
    queue.push_owned(&bytes, false, 0, ledger);
    let overhead = ledger.queues - 100_000;
    let mut out = Vec::new();
    while queue.len() > 0 {
        let mut slices = [IoSlice::new(&[]); 1];
        assert_eq!(queue.slices(&mut slices), 1);
        let taken = slices[0].len().min(1500);
        out.extend_from_slice(&slices[0][..taken]);
        queue.advance(taken, 0, ledger);
        let most = 2 * queue.len() + WORTH_SHRINKING;
        assert!(ledger.queues - overhead <= most as u64);
        assert!(queue.len() == 0 || queue.verify() == Ok(()));
    }
    assert_eq!(out, bytes);
    queue.release(ledger);
    assert_eq!(*ledger, Ledger::default());
}

// M6
#[test]
fn shared_frame_is_counted_once() {
    let ledger = &mut Ledger::default();
    let frame = Frame::text(&"x".repeat(10_000));
    let mut queues: Vec<_> = (0..10).map(|_| TxQueue::default()).collect();
    for queue in &mut queues {
        queue.push_shared(Rc::clone(&frame), 0, 0, ledger);
    }
    assert_eq!(ledger.frames, frame.memory() as u64);
    for queue in &mut queues {
        assert_eq!(ledger.frames, frame.memory() as u64);
        queue.release(ledger);
    }
    assert_eq!(*ledger, Ledger::default());
}

#[test]
fn memory_is_that_of_the_queue_its_private_output_and_the_pong() {
    let ledger = &mut Ledger::default();
    let mut queue = TxQueue::default();
    let frame = Frame::text("event");
    queue.push_shared(Rc::clone(&frame), 0, 0, ledger);
    queue.push_owned(b"reply", false, 0, ledger);
    queue.set_pong(b"PONG", ledger);
    let entries = queue.entries.capacity() * size_of::<Entry>();
    let memory = size_of::<TxQueue>() + entries + 5 + 4;
    assert_eq!((queue.private(), ledger.queues), (memory, memory as u64));
    assert_eq!((queue.own(), queue.messages()), (5, 1));
    assert_eq!(queue.len(), frame.bytes().len() + 9);
    let frames: Vec<_> = queue.frames().map(Rc::as_ptr).collect();
    assert_eq!(frames, [Rc::as_ptr(&frame)]);
    queue.push_shared(frame, 0, 0, ledger);
    assert_eq!(queue.messages(), 2);
}

#[test]
fn only_accepted_bytes_are_progress() {
    let ledger = &mut Ledger::default();
    let mut queue = TxQueue::default();
    queue.push_owned(b"reply", false, 1000, ledger);
    queue.advance(0, 1050, ledger);
    assert!(queue.uptake.stalls(1031, 30));
    queue.advance(1, 1031, ledger);
    assert!(!queue.uptake.stalls(1061, 30));
}

#[test]
fn capacity_of_a_long_queue_is_released() {
    let ledger = &mut Ledger::default();
    let mut queue = TxQueue::default();
    for _ in 0..1000 {
        queue.push_owned(b"a", false, 0, ledger);
    }
    queue.advance(990, 0, ledger);
    assert!(queue.entries.capacity() < 64);
    assert_eq!(queue.verify(), Ok(()));
    queue.release(ledger);
    assert_eq!(*ledger, Ledger::default());
}
