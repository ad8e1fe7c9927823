//! Compares the rules with an oracle for every combination of facts and receiver.
//!
//! The oracle states the contract of docs/PROTOCOL.md and docs/replacing-h.md for one receiver at a
//! time, without rules or conditions.

use super::*;
use crate::model::Role;

const AUTHOR: &str = "acct:author@example.org";
const OTHER: &str = "acct:other@example.org";
const GROUP: &str = "group";

/// The annotation, as far as its own attributes are concerned.
#[derive(Clone, Copy, Debug)]
struct Annotation {
    is_shared: bool,
    visibility: Visibility,
    is_hidden: bool,
    is_muted: bool,
    is_deletion: bool,
    author: AuthorRole,
    thread: Thread,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AuthorRole {
    Student,
    Instructor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Thread {
    TopLevel,
    /// A reply to an annotation of the receiver.
    ReplyToReceiver,
    /// A reply to an annotation of a third user.
    ReplyToThird,
}

/// A receiver, with its relation to the annotation.
#[derive(Clone, Copy, Debug)]
struct Receiver {
    user: User,
    /// The role in the annotation's group, according to the reactor; `None` for other users.
    role: Option<Role>,
    /// Whether the list of moderators has the receiver, where there is a list.
    is_listed: bool,
    has_flagged: bool,
    /// Whether an active checkpoint applies to the receiver.
    is_student: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum User {
    Anonymous,
    Author,
    Other,
}

/// The differences between the backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Producer {
    /// Moderators by their role in the reactor; neither flags nor checkpoints.
    Embedded,
    /// A list of moderators, of which only members count.
    H,
}

const BOTH: [bool; 2] = [false, true];
const ROLES: [Option<Role>; 5] = [
    None,
    Some(Role::Member),
    Some(Role::Moderator),
    Some(Role::Admin),
    Some(Role::Owner),
];

fn annotations() -> Vec<Annotation> {
    let mut all = Vec::new();
    for visibility in [
        Visibility::World,
        Visibility::Members,
        Visibility::Unreadable,
    ] {
        for author in [AuthorRole::Student, AuthorRole::Instructor] {
            for thread in [
                Thread::TopLevel,
                Thread::ReplyToReceiver,
                Thread::ReplyToThird,
            ] {
                for bits in 0..16 {
                    all.push(Annotation {
                        visibility,
                        author,
                        thread,
                        is_shared: bits & 1 != 0,
                        is_hidden: bits & 2 != 0,
                        is_muted: bits & 4 != 0,
                        is_deletion: bits & 8 != 0,
                    });
                }
            }
        }
    }
    all
}

fn receivers() -> Vec<Receiver> {
    let anonymous = Receiver {
        user: User::Anonymous,
        role: None,
        is_listed: false,
        has_flagged: false,
        is_student: false,
    };
    let mut all = vec![anonymous];
    for user in [User::Author, User::Other] {
        for role in ROLES {
            for bits in 0..8 {
                all.push(Receiver {
                    user,
                    role,
                    is_listed: bits & 1 != 0,
                    has_flagged: bits & 2 != 0,
                    is_student: bits & 4 != 0,
                });
            }
        }
    }
    all
}

impl Receiver {
    fn userid(&self) -> Option<&'static str> {
        match self.user {
            User::Anonymous => None,
            User::Author => Some(AUTHOR),
            User::Other => Some(OTHER),
        }
    }

    fn meets(&self, condition: &Condition) -> bool {
        match condition {
            Condition::User(userid) => self.userid() == Some(userid),
            Condition::Member(group) => &**group == GROUP && self.role.is_some(),
            Condition::Moderator(group) => {
                &**group == GROUP && self.role.is_some_and(Role::moderates)
            }
            Condition::OneOf(userids) => self.userid().is_some_and(|user| userids.contains(user)),
        }
    }
}

/// Returns the variant that a receiver must get, or the reason why it must get none.
fn oracle(
    annotation: &Annotation,
    receiver: &Receiver,
    producer: Producer,
) -> Result<Variant, DenyReason> {
    let is_author = receiver.user == User::Author;
    let is_h = producer == Producer::H;
    let moderates = annotation.is_shared
        && match producer {
            Producer::Embedded => receiver.role.is_some_and(|role| role != Role::Member),
            Producer::H => receiver.is_listed && receiver.role.is_some(),
        };
    let reads_group = match annotation.visibility {
        Visibility::World => true,
        Visibility::Members => receiver.role.is_some(),
        Visibility::Unreadable => false,
    };
    let reads = if annotation.is_shared {
        reads_group
    } else {
        is_author
    };
    let is_revealed =
        annotation.author == AuthorRole::Instructor && annotation.thread != Thread::ReplyToThird;
    let is_concealed =
        is_h && annotation.is_shared && receiver.is_student && !is_author && !is_revealed;

    let reason = if annotation.is_hidden {
        if is_author {
            None
        } else if annotation.is_muted {
            Some(DenyReason::Muted)
        } else if is_concealed && annotation.is_shared && is_candidate(receiver, producer) {
            Some(DenyReason::Checkpoint)
        } else if moderates {
            None
        } else {
            Some(DenyReason::Hidden)
        }
    } else if annotation.is_muted && !is_author {
        let is_for_others = annotation.is_shared && annotation.visibility != Visibility::Unreadable;
        Some(match is_h && !is_for_others {
            true => DenyReason::Permission,
            false => DenyReason::Muted,
        })
    } else if !reads {
        Some(DenyReason::Permission)
    } else if is_concealed {
        Some(DenyReason::Checkpoint)
    } else {
        None
    };
    match reason {
        Some(reason) => Err(reason),
        None if annotation.is_deletion => Ok(Variant::default()),
        None => Ok(Variant {
            moderates,
            flagged: is_h && receiver.has_flagged,
            hidden: annotation.is_hidden && !is_author,
        }),
    }
}

/// Returns whether the receiver is in the producer's list of moderators, be it a member or not.
fn is_candidate(receiver: &Receiver, producer: Producer) -> bool {
    producer == Producer::H && receiver.is_listed
}

/// Returns the outcome of the rules for a receiver: the first one that matches decides.
fn outcome(access: &AccessRules, receiver: &Receiver) -> Result<Variant, DenyReason> {
    let meets_all = |rule: &&Rule| rule.when.iter().all(|condition| receiver.meets(condition));
    let rule = access.rules.iter().find(meets_all);
    match rule.expect("the last rule has no conditions").then {
        Decision::Send(index) => Ok(access.variants[index]),
        Decision::Deny(reason) => Err(reason),
    }
}

/// Builds the facts of an annotation that has this receiver among others.
fn with_facts<T>(
    annotation: &Annotation,
    receiver: &Receiver,
    producer: Producer,
    work: impl FnOnce(&AnnotationFacts<'_>) -> T,
) -> T {
    let receiver_if = |is_in: bool| {
        let userid = receiver.userid().filter(|_| is_in);
        // Sets of users contain a third user too, so that they are never empty.
        [Some("acct:third@example.org"), userid]
            .into_iter()
            .flatten()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let is_h = producer == Producer::H;
    let (listed, flaggers, students, answered) = (
        receiver_if(receiver.is_listed),
        receiver_if(receiver.has_flagged),
        receiver_if(receiver.is_student),
        receiver_if(annotation.thread == Thread::ReplyToReceiver),
    );
    let facts = AnnotationFacts {
        author: AUTHOR,
        is_muted: annotation.is_muted,
        readers: match annotation.is_shared {
            true => vec![Reader::Group {
                id: GROUP,
                visibility: annotation.visibility,
            }],
            false => vec![Reader::User(AUTHOR)],
        },
        is_hidden: annotation.is_hidden,
        moderators: match producer {
            Producer::Embedded => Moderators::ByRole { group: GROUP },
            Producer::H => Moderators::Listed {
                group: GROUP,
                userids: &listed,
            },
        },
        flaggers: if is_h { &flaggers } else { &[] },
        checkpoint: match is_h {
            true => Checkpoint {
                students: &students,
                author_is_instructor: annotation.author == AuthorRole::Instructor,
                answered: (annotation.thread != Thread::TopLevel).then_some(&*answered),
            },
            false => Checkpoint::default(),
        },
        is_deletion: annotation.is_deletion,
        permission_precedes_mute: is_h,
    };
    work(&facts)
}

#[test]
fn rules_agree_with_the_contract_for_every_combination() {
    let mut count = 0;
    for producer in [Producer::Embedded, Producer::H] {
        for annotation in annotations() {
            for receiver in receivers() {
                with_facts(&annotation, &receiver, producer, |facts| {
                    let access = access_rules(facts);
                    assert_eq!(
                        outcome(&access, &receiver),
                        oracle(&annotation, &receiver, producer),
                        "{producer:?} {annotation:?} {receiver:?}\n{access:#?}"
                    );
                });
                count += 1;
            }
        }
    }
    assert_eq!(count, 2 * (3 * 2 * 3 * 16) * (1 + 2 * 5 * 8));
}

#[test]
fn every_rule_and_variant_is_used() {
    for producer in [Producer::Embedded, Producer::H] {
        for annotation in annotations() {
            for receiver in receivers() {
                with_facts(&annotation, &receiver, producer, |facts| {
                    let access = access_rules(facts);
                    let last = access.rules.last().unwrap();
                    assert!(last.when.is_empty());
                    for (index, rule) in access.rules.iter().enumerate() {
                        let is_shadowed = access.rules[..index]
                            .iter()
                            .any(|earlier| earlier.when.iter().all(|one| rule.when.contains(one)));
                        assert!(!is_shadowed, "{annotation:?} {access:#?}");
                    }
                    for index in 0..access.variants.len() {
                        let sends = |rule: &Rule| rule.then == Decision::Send(index);
                        assert!(access.rules.iter().any(sends), "{access:#?}");
                    }
                    if annotation.is_deletion {
                        assert!(access.variants.len() <= 1, "{access:#?}");
                    }
                });
            }
        }
    }
}

// Only `permissions.read` of published annotations lists several readers.
#[test]
fn receiver_needs_to_be_one_of_several_readers() {
    let closed = Reader::Group {
        id: GROUP,
        visibility: Visibility::Members,
    };
    let missing = Reader::Group {
        id: "missing",
        visibility: Visibility::Unreadable,
    };
    // The readers; whether anonymous, other, member, and author may read.
    let cases: [(&[Reader<'_>], [bool; 4]); 8] = [
        (&[], [false, false, false, false]),
        (&[Reader::World], [true, true, true, true]),
        (&[missing], [false, false, false, false]),
        (&[missing, Reader::User(OTHER)], [false, true, true, false]),
        (&[closed], [false, false, true, false]),
        (&[closed, Reader::User(AUTHOR)], [false, false, true, true]),
        (&[closed, missing, Reader::World], [true, true, true, true]),
        (&[closed, Reader::User(OTHER)], [false, true, true, false]),
    ];
    let user = |user, role| Receiver {
        user,
        role,
        is_listed: false,
        has_flagged: false,
        is_student: false,
    };
    let receivers = [
        user(User::Anonymous, None),
        user(User::Other, None),
        user(User::Other, Some(Role::Member)),
        user(User::Author, None),
    ];
    let annotation = annotations()[0];
    for (readers, expected) in cases {
        for is_muted in BOTH {
            with_facts(&annotation, &receivers[0], Producer::Embedded, |facts| {
                let facts = AnnotationFacts {
                    readers: readers.to_vec(),
                    is_muted,
                    ..facts.clone()
                };
                let access = access_rules(&facts);
                for (receiver, reads) in receivers.iter().zip(expected) {
                    let is_author = receiver.user == User::Author;
                    let gets = reads && (is_author || !is_muted);
                    let outcome = outcome(&access, receiver);
                    assert_eq!(outcome.is_ok(), gets, "{readers:?} {receiver:?}");
                    if is_muted && !is_author {
                        assert_eq!(outcome, Err(DenyReason::Muted));
                    }
                }
            });
        }
    }
}

/// The reason that is counted; the receivers are the same.
#[test]
fn muted_annotation_is_denied_for_permission_if_only_its_author_may_read_it() {
    let annotation = annotations()[0];
    let receiver = Receiver {
        user: User::Other,
        role: None,
        is_listed: false,
        has_flagged: false,
        is_student: false,
    };
    for (reader, reason) in [
        (Reader::World, DenyReason::Muted),
        (Reader::User(OTHER), DenyReason::Muted),
        (Reader::User(AUTHOR), DenyReason::Permission),
    ] {
        with_facts(&annotation, &receiver, Producer::Embedded, |facts| {
            let facts = AnnotationFacts {
                readers: vec![reader],
                is_muted: true,
                permission_precedes_mute: true,
                ..facts.clone()
            };
            let outcome = outcome(&access_rules(&facts), &receiver);
            assert_eq!(outcome, Err(reason), "{reader:?}");
        });
    }
}
