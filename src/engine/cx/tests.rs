//! Tests of the actions that handler calls record.

use super::*;
use crate::http::{Block, Response};
use crate::testing::Recorder;

const KEY: ConnKey = ConnKey {
    index: 3,
    generation: 1,
};
const OTHER: ConnKey = ConnKey {
    index: 4,
    generation: 1,
};
const NOW: Now = Now {
    mono: 5000,
    unix: 7000,
};

/// One connection, [`KEY`], with these properties.
struct One(char);

impl Sessions<char> for One {
    fn session(&mut self, key: ConnKey) -> Option<&mut char> {
        (key == KEY).then_some(&mut self.0)
    }

    fn buffered(&mut self, key: ConnKey) -> usize {
        if key == KEY { 17 } else { 0 }
    }

    fn last_activity(&mut self, key: ConnKey) -> Option<LastActivity> {
        (key == KEY).then_some(LastActivity {
            at: 4000,
            is_ping: true,
        })
    }

    fn awaits_event_stream(&mut self, key: ConnKey) -> bool {
        key == KEY
    }

    fn next_open(&mut self, slot: u32) -> Option<ConnKey> {
        (slot <= KEY.slot()).then_some(KEY)
    }

    fn peer(&mut self, key: ConnKey) -> Option<SocketAddr> {
        (key == KEY).then_some(([127, 0, 0, 1], 7).into())
    }
}

/// Sessions without information on connections.
struct Unknown;

impl Sessions<char> for Unknown {
    fn session(&mut self, _: ConnKey) -> Option<&mut char> {
        None
    }
}

fn long() -> Rc<Frame> {
    Frame::text(&"x".repeat(1000))
}

#[test]
fn time_before_a_ping_is_the_last_sign_of_life() {
    let outbox = Outbox::new(300);
    let last = |is_ping| LastActivity { at: 4000, is_ping };
    assert_eq!(outbox.last_received(last(false)), 4000);
    assert_eq!(outbox.last_received(last(true)), 3700);
}

#[test]
fn short_messages_are_copied_and_long_ones_shared() {
    let mut outbox = Outbox::default();
    outbox.collect(Frame::text("ab"));
    let frame = long();
    outbox.collect(Rc::clone(&frame));
    outbox.collect(Frame::text("c"));
    outbox.collect(Rc::clone(&frame));
    // Of the other transport.
    outbox.collect(Frame::block(&Block::default()));
    assert_eq!((outbox.replies, outbox.cork.len()), (2, 7));
    assert_eq!(outbox.corked(), 7 + 2 * frame.bytes().len());
    let corked = outbox.uncork();
    assert_eq!(corked.own, b"\x81\x02ab\x81\x01c");
    let at: Vec<usize> = corked.shared.iter().map(|(at, _)| *at).collect();
    assert_eq!(at, [4, 7]);
    assert_eq!(outbox.corked(), 0);
    assert!(outbox.uncork().shared.is_empty());
    outbox.serves_stream = true;
    outbox.collect(Frame::text("ab"));
    outbox.collect(Frame::block(&Block::default()));
    assert_eq!(outbox.uncork().own, b"\n");
}

#[test]
fn messages_to_the_served_connection_leave_with_its_replies() {
    let (mut recorder, mut one) = (Recorder::default(), One('a'));
    let mut cx = recorder.conn_cx(NOW, &mut one, KEY);
    cx.reply(Message::Text("a"));
    cx.send(KEY, Frame::text("b"));
    cx.send(OTHER, Frame::text("c"));
    cx.reply(Message::Binary(b"d"));
    assert_eq!(cx.outbox.replies, 3);
    cx.close(OTHER, CloseCode::NORMAL, "");
    cx.send(KEY, Frame::text("e"));
    // Later messages are dropped when the effects are applied.
    cx.close(KEY, CloseCode::NORMAL, "bye");
    cx.send(KEY, Frame::text("f"));
    assert_eq!((cx.key(), *cx.session_mut()), (KEY, 'a'));
    let replies = recorder.take_replies();
    assert_eq!(replies, b"\x81\x01a\x81\x01b\x82\x01d\x81\x01e");
    let effects = recorder.take_effects();
    assert!(matches!(
        effects[..],
        [
            Effect::Send(OTHER, _),
            Effect::Close(OTHER, ..),
            Effect::Close(KEY, CloseCode::NORMAL, _),
            Effect::Send(KEY, _)
        ]
    ));
}

#[test]
fn event_streams_get_no_replies() {
    let (mut recorder, mut one) = (Recorder::default(), One('a'));
    let mut cx = recorder.stream_cx(NOW, &mut one, KEY);
    cx.reply(Message::Text("a"));
    assert_eq!(cx.outbox.replies, 0);
    cx.send(KEY, Frame::block(&Block::default()));
    assert_eq!(recorder.take_replies(), b"\n");
}

#[test]
fn calls_are_recorded_in_order() {
    let (mut recorder, mut one) = (Recorder::default(), One('a'));
    let mut cx = recorder.request_cx(NOW, &mut one, KEY, ListenerId(2));
    assert_eq!((cx.key(), cx.listener()), (KEY, ListenerId(2)));
    cx.mute(KEY);
    cx.accept(KEY);
    cx.respond(KEY, Response::json(404, ""));
    cx.mark_authenticated(KEY);
    cx.shut_down(Duration::from_secs(1));
    cx.charge(3);
    cx.charge(4);
    assert!(!cx.outbox.wants_turn);
    cx.request_turn();
    assert!(cx.outbox.wants_turn);
    assert!(matches!(
        recorder.take_effects()[..],
        [
            Effect::Mute(KEY),
            Effect::Accept(KEY),
            Effect::Respond(KEY, _),
            Effect::MarkAuthenticated(KEY),
            Effect::ShutDown(_)
        ]
    ));
    assert_eq!(recorder.take_work(), 7);
}

#[test]
fn backlog_counts_the_receivers_of_this_call() {
    let (mut recorder, mut one) = (Recorder::default(), One('a'));
    let mut set = ConnSet::default();
    set.insert(KEY);
    set.insert(OTHER);
    let mut cx = recorder.cx(NOW, &mut one);
    cx.broadcast(&set, Frame::text("a"));
    assert_eq!(cx.backlog(), 2);
    cx.fan_out(Delivery {
        to: vec![(KEY, 0)],
        ..Delivery::default()
    });
    assert_eq!(cx.backlog(), 3);
    let effects = recorder.take_effects();
    assert!(matches!(
        effects[..],
        [Effect::FanOut(_), Effect::FanOut(_)]
    ));
}

#[test]
fn state_of_connections_is_that_of_the_sessions() {
    let (mut recorder, mut one) = (Recorder::default(), One('a'));
    recorder.counters.accepted += 1;
    recorder.set_lost(9);
    let mut cx = recorder.cx(NOW, &mut one);
    assert_eq!(cx.session(KEY), Some(&mut 'a'));
    assert_eq!(cx.now(), NOW);
    assert_eq!((cx.buffered(KEY), cx.buffered(OTHER)), (17, 0));
    assert_eq!(
        (cx.last_received(KEY), cx.last_received(OTHER)),
        (Some(4000), None)
    );
    assert!(cx.awaits_event_stream(KEY) && !cx.awaits_event_stream(OTHER));
    assert_eq!((cx.next_open(0), cx.next_open(4)), (Some(KEY), None));
    assert!(cx.peer(KEY).is_some() && cx.peer(OTHER).is_none());
    assert_eq!(cx.counters().accepted, 1);
    assert_eq!(cx.close_info().map(|info| info.last_received), Some(9));
}

#[test]
fn sessions_know_nothing_by_default() {
    let (mut recorder, mut unknown) = (Recorder::default(), Unknown);
    let mut cx = recorder.cx(NOW, &mut unknown);
    assert_eq!((cx.buffered(KEY), cx.last_received(KEY)), (0, None));
    assert!(!cx.awaits_event_stream(KEY));
    assert_eq!((cx.next_open(0), cx.peer(KEY)), (None, None));
    assert!(cx.close_info().is_none());
}
