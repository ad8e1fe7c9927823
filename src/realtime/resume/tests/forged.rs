//! Cursors that this server has not issued.

use super::*;
use crate::model::EpochScope;
use crate::net::Now;

// D1, D12
#[test]
fn forged_cursors_reveal_nothing() {
    let extremes = [0, 2, 6, 7, 5000, u64::MAX - 1, u64::MAX];
    for scope in [EpochScope::Stored, EpochScope::Process] {
        for floor in [0, 3] {
            let mut server = Server::unready();
            server
                .api
                .backend_event(BackendEvent::History(HistoryEvent::Start(HistoryStart {
                    scope,
                    floor,
                    floor_time: floor * 1000,
                    head: floor,
                    ..START
                })));
            let mut server = server.ready();
            server.api.now = Now {
                mono: 1_000_000,
                unix: 10_000,
            };
            server.position = floor;
            server.create("a");
            server.event(EventKind::Create, "secret", members("g"));
            server.create("b");
            server.change_rights("a", members("g"));
            server.event(EventKind::Update, "b", public());
            server.event(EventKind::Update, "secret", unreadable());
            let mut index = 10;
            for epoch in [START.epoch, START.epoch + 1, u64::MAX, 0] {
                for position in extremes {
                    for time in extremes {
                        for from in extremes {
                            let cursor = Cursor {
                                epoch,
                                position,
                                time,
                            };
                            let text = ReplayCursor { cursor, from }.encode();
                            index += 1;
                            let mut texts = Vec::new();
                            let mut add = |outputs: Vec<Output>| {
                                for output in outputs {
                                    match output {
                                        Output::Reply(text) => texts.push(text),
                                        Output::Deliver(to) => {
                                            texts.extend(to.into_iter().map(|it| it.1))
                                        }
                                        _ => {}
                                    }
                                }
                            };
                            add(server.api.open(index));
                            add(server.api.text(index, &page_since(&text)));
                            if index % 7 == 0 {
                                let mut now = server.api.now;
                                now.mono += 3000;
                                add(server.api.tick(now));
                            }
                            texts.extend(server.api.replay().into_iter().map(|it| it.1));
                            server.api.lose(index, 0);
                            for text in &texts {
                                assert!(
                                    !text.contains("secret"),
                                    "{epoch} {position} {time} {from}: {text}"
                                );
                                let value: Value = serde_json::from_str(text).unwrap();
                                if let Some(given) = value["cursor"].as_str() {
                                    assert!(ReplayCursor::parse(given).is_some());
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
