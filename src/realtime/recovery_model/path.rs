//! Paths: sequences of operations that can be repeated and shortened.

use super::operations::Op;
use super::world::{Instance, World};

/// A step of a path.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    Do(Op),
    /// All clients connect and read everything, and what they have is checked.
    Settle,
}

/// Returns the problem that a path leads to, if any. Steps that are not possible are left out.
pub(super) fn play(instance: &Instance, path: &[Step]) -> Option<String> {
    let mut world = World::new(instance);
    let mut steps = path.iter().copied();
    let result = steps.try_for_each(|step| match step {
        Step::Do(op) if world.is_possible(op) => world.apply(op),
        Step::Do(_) => Ok(()),
        Step::Settle => world.settle(),
    });
    result.err()
}

/// Leaves steps out of a path for as long as a check fails, first many at a time.
pub(super) fn shortest(path: &[Step], fails: impl Fn(&[Step]) -> bool) -> Vec<Step> {
    let mut path = path.to_vec();
    let mut size = path.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < path.len() {
            let end = (at + size).min(path.len());
            let shorter = [&path[..at], &path[end..]].concat();
            match fails(&shorter) {
                true => path = shorter,
                false => at = end,
            }
        }
        size /= 2;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::super::annotation::State;
    use super::super::operations::Crash;
    use super::super::{of_conditional_filters, of_processes, of_slow_readers, of_walks};
    use super::*;

    fn check(instance: &Instance, path: &[Step]) {
        assert_eq!(play(instance, path), None);
    }

    // D13
    #[test]
    fn retraction_is_sent_if_a_membership_ends_after_it_was_queued_in_a_replay() {
        use Op::{Connect, Event, Member, Read, Rights, Turn, Wait};
        let path = [
            Step::Do(Event(0, State::Group, None)),
            Step::Do(Event(3, State::Public, None)),
            Step::Do(Wait),
            Step::Do(Event(2, State::Public, None)),
            Step::Do(Member(true)),
            Step::Settle,
            Step::Do(Connect(1)),
            Step::Do(Turn),
            Step::Do(Rights(0, State::Private)),
            Step::Do(Read(1)),
            Step::Do(Turn),
            Step::Do(Member(false)),
            Step::Settle,
        ];
        check(&of_slow_readers(), &path);
        let path = [
            Step::Do(Member(true)),
            Step::Do(Event(1, State::Group, None)),
            Step::Do(Event(2, State::Group, None)),
            Step::Do(Event(3, State::Public, None)),
            Step::Settle,
            Step::Do(Rights(2, State::Private)),
            Step::Do(Wait),
            Step::Do(Wait),
            Step::Do(Wait),
            Step::Do(Connect(2)),
            Step::Do(Member(false)),
            Step::Settle,
        ];
        check(&of_processes(), &path);
    }

    // D12
    #[test]
    fn replay_resumes_partway_as_if_it_had_not_been_interrupted() {
        use Op::{Connect, Event, Read, Ready, Shutdown, Turn};
        let path = [
            Step::Do(Event(2, State::Public, None)),
            Step::Do(Event(0, State::Public, None)),
            Step::Settle,
            // The second change of the annotation replaces the first in the history.
            Step::Do(Event(2, State::Private, None)),
            Step::Do(Event(0, State::Group, None)),
            Step::Do(Event(2, State::Deleted, None)),
            Step::Do(Op::Crash(Crash::Truncated)),
            Step::Do(Connect(0)),
            Step::Do(Ready),
            Step::Do(Read(0)),
            Step::Do(Turn),
            Step::Do(Read(0)),
            Step::Do(Shutdown),
            Step::Settle,
        ];
        check(&of_slow_readers(), &path);
    }

    /// The membership changes while the appearance is on its way, and the connection ends before the
    /// client has read it: the replay cannot know by which memberships the client has read its last
    /// message. See "Changes of rights" in docs/PROTOCOL.md.
    #[test]
    fn unread_appearance_is_only_due_while_connected_if_the_membership_changes() {
        use Op::{Event, Member, Read, ReadOne, Rights, Turn, Wait};
        let path = [
            Step::Do(Event(1, State::Group, None)),
            Step::Do(Member(true)),
            Step::Settle,
            Step::Do(Event(2, State::Group, None)),
            Step::Do(Member(false)),
            Step::Do(Read(2)),
            Step::Do(Turn),
            Step::Do(Read(2)),
            Step::Do(Turn),
            Step::Do(Rights(2, State::Public)),
            Step::Do(Member(true)),
            Step::Do(Wait),
            Step::Do(Wait),
            Step::Do(ReadOne(2)),
            Step::Do(Wait),
            Step::Settle,
        ];
        check(&of_slow_readers(), &path);
    }

    // D13
    #[test]
    fn appearance_is_sent_after_a_membership_ends_and_begins_again() {
        use Op::{Event, Member, Turn};
        let path = [
            Step::Do(Event(0, State::Public, None)),
            Step::Settle,
            Step::Do(Event(2, State::Group, None)),
            Step::Do(Member(true)),
            Step::Do(Event(1, State::Public, Some(1))),
            Step::Do(Member(false)),
            Step::Do(Turn),
            Step::Do(Turn),
            Step::Do(Member(true)),
            Step::Settle,
        ];
        check(&of_walks(), &path);
    }

    // D13
    #[test]
    fn deletion_is_sent_if_a_membership_ends_and_begins_again_around_it() {
        let path = [
            Step::Do(Op::Member(true)),
            Step::Do(Op::Event(2, State::Group, None)),
            Step::Settle,
            Step::Do(Op::Member(false)),
            Step::Do(Op::Event(2, State::Deleted, None)),
            Step::Do(Op::Member(true)),
            Step::Settle,
        ];
        check(&of_walks(), &path);
        check(&of_processes(), &path);
    }

    // D13
    #[test]
    fn own_annotation_appears_again_after_it_was_retracted_in_a_replay() {
        let path = [
            Step::Settle,
            Step::Do(Op::Event(0, State::Public, Some(1))),
            Step::Do(Op::Event(1, State::Group, None)),
            Step::Do(Op::Rights(0, State::Group)),
            Step::Settle,
            Step::Do(Op::Connect(1)),
            Step::Do(Op::Member(true)),
            Step::Settle,
        ];
        check(&of_slow_readers(), &path);
    }

    // D13
    #[test]
    fn own_event_is_not_sent_after_a_membership_has_ended_and_begun_again() {
        let path = [
            Step::Do(Op::Event(2, State::Public, None)),
            Step::Do(Op::Connect(1)),
            Step::Do(Op::Member(true)),
            Step::Do(Op::Event(3, State::Group, Some(1))),
            Step::Do(Op::Member(false)),
            Step::Do(Op::Member(true)),
            Step::Settle,
        ];
        check(&of_slow_readers(), &path);
    }

    // D12
    #[test]
    fn annotation_appears_once_if_a_membership_ends_and_begins_again_twice() {
        use Op::{Event, Member, Turn};
        let path = [
            Step::Do(Member(true)),
            Step::Settle,
            Step::Do(Event(1, State::Group, Some(1))),
            Step::Do(Member(false)),
            Step::Do(Turn),
            Step::Do(Member(true)),
            Step::Do(Turn),
            // Nothing is sent in between.
            Step::Do(Member(false)),
            Step::Do(Member(true)),
            Step::Settle,
        ];
        check(&of_walks(), &path);
        check(&of_conditional_filters(), &path);
    }

    // D12
    #[test]
    fn own_event_is_not_sent_if_a_membership_changes_twice_after_it_was_examined() {
        use Op::{Connect, Event, Member, Turn};
        let after = |start: &[Step]| {
            let rest = [
                Step::Do(Connect(1)),
                Step::Do(Member(true)),
                Step::Do(Event(1, State::Group, Some(1))),
                Step::Do(Turn),
                Step::Do(Turn),
                Step::Do(Member(false)),
                Step::Do(Member(true)),
                Step::Settle,
            ];
            [start, &rest].concat()
        };
        let event = Step::Do(Event(0, State::Public, None));
        // Without a replay, and after one.
        for start in [&[event][..], &[event, Step::Settle]] {
            check(&of_walks(), &after(start));
            check(&of_conditional_filters(), &after(start));
        }
    }

    // D12
    #[test]
    fn own_event_is_not_sent_if_a_later_change_has_examined_less() {
        use Op::{Event, Member, Turn};
        let path = [
            Step::Settle,
            Step::Do(Event(0, State::Public, None)),
            Step::Do(Event(2, State::Public, None)),
            Step::Do(Member(true)),
            Step::Do(Event(1, State::Group, Some(1))),
            Step::Do(Event(3, State::Public, None)),
            // All but the last event are examined by this membership, and only the first by the next.
            Step::Do(Turn),
            Step::Do(Turn),
            Step::Do(Turn),
            Step::Do(Member(false)),
            Step::Do(Turn),
            Step::Do(Member(true)),
            Step::Settle,
        ];
        check(&of_walks(), &path);
        check(&of_conditional_filters(), &path);
    }

    // D13
    #[test]
    fn annotation_appears_if_its_rights_change_after_the_replay() {
        use Op::{Connect, Event, Member, Rights, Turn};
        let path = [
            Step::Do(Connect(1)),
            Step::Do(Event(1, State::Group, None)),
            Step::Do(Event(0, State::Private, None)),
            Step::Do(Event(2, State::Public, None)),
            Step::Do(Event(3, State::Public, None)),
            Step::Do(Connect(1)),
            Step::Do(Turn),
            Step::Do(Rights(3, State::Group)),
            Step::Do(Turn),
            Step::Do(Turn),
            Step::Do(Turn),
            Step::Do(Member(true)),
            Step::Do(Turn),
            Step::Do(Rights(3, State::Public)),
            Step::Settle,
        ];
        check(&of_conditional_filters(), &path);
    }

    #[test]
    fn shortest_path_fails_like_the_whole_one() {
        let instance = of_walks();
        let path = [Step::Settle, Step::Do(Op::Turn), Step::Settle];
        let fails = |path: &[Step]| path.iter().any(|step| matches!(step, Step::Do(_)));
        assert!(matches!(shortest(&path, fails)[..], [Step::Do(Op::Turn)]));
        check(&instance, &path);
    }
}
