//! The encoding of the receivers of a plan: its candidates and its rules.
//!
//! The stored states of a subject are compared byte by byte, so that the encoding of a value is
//! unique. It starts with a version. Lists and strings are preceded by their length.

use std::fmt;

use crate::model::{Candidates, Condition, Decision, DenyReason, Field, Plan, Rule, Term, Userids};

/// The receivers of a plan.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct State {
    pub candidates: Candidates,
    pub rules: Vec<Rule>,
}

/// Bytes that are not the encoding of a state.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InvalidState;

impl fmt::Display for InvalidState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid encoding of receivers")
    }
}

/// Returns the encoding of a plan's receivers.
pub(super) fn encode(candidates: &Candidates, rules: &[Rule]) -> Vec<u8> {
    let mut out = vec![VERSION];
    match candidates {
        Candidates::Terms(terms) => {
            out.push(0);
            number(&mut out, terms.len());
            for term in terms {
                out.push(tag_of(&FIELDS, term.field));
                string(&mut out, &term.value);
            }
        }
        Candidates::User(userid) => {
            out.push(1);
            string(&mut out, userid);
        }
    }
    number(&mut out, rules.len());
    for rule in rules {
        number(&mut out, rule.when.len());
        rule.when.iter().for_each(|when| condition(&mut out, when));
        match rule.then {
            Decision::Send(variant) => {
                out.push(0);
                number(&mut out, variant);
            }
            Decision::Deny(reason) => out.extend([1, tag_of(&REASONS, reason)]),
        }
    }
    out
}

/// Returns whether bytes are the state of a plan. A state that an earlier version of the server has
/// stored lacks the author and the tags.
pub(super) fn is_state_of(bytes: &[u8], plan: &Plan) -> bool {
    let encoded = |candidates: &Candidates| encode(candidates, &plan.rules) == bytes;
    encoded(&plan.candidates)
        || match &plan.candidates {
            Candidates::Terms(terms) => {
                let old = terms.iter().filter(|term| !is_new(term));
                encoded(&Candidates::Terms(old.cloned().collect()))
            }
            Candidates::User(_) => false,
        }
}

/// Adds the author and the tags of a plan to an earlier state of its subject, if an earlier version
/// of the server has stored that without them.
pub(super) fn complete(state: &mut Candidates, plan: &Plan) {
    if let (Candidates::Terms(terms), Candidates::Terms(newest)) = (state, &plan.candidates)
        && !terms.iter().any(|term| term.field == Field::User)
    {
        terms.extend(newest.iter().filter(|term| is_new(term)).cloned());
    }
}

/// Returns whether earlier versions of the server stored no such terms.
fn is_new(term: &Term) -> bool {
    matches!(term.field, Field::User | Field::Tags)
}

fn condition(out: &mut Vec<u8>, condition: &Condition) {
    let (tag, name) = match condition {
        Condition::User(name) => (0, name),
        Condition::Member(name) => (1, name),
        Condition::Moderator(name) => (2, name),
        Condition::OneOf(userids) => {
            out.push(3);
            number(out, userids.iter().count());
            return userids.iter().for_each(|userid| string(out, userid));
        }
    };
    out.push(tag);
    string(out, name);
}

fn string(out: &mut Vec<u8>, text: &str) {
    number(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Appends a number in base 128, low digits first.
fn number(out: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn tag_of<T: PartialEq>(values: &[T], value: T) -> u8 {
    let tag = values.iter().position(|known| *known == value);
    tag.and_then(|tag| u8::try_from(tag).ok())
        .unwrap_or(u8::MAX)
}

/// Decodes a state.
///
/// # Errors
/// The bytes are not the encoding of a state.
pub(super) fn decode(bytes: &[u8]) -> Result<State, InvalidState> {
    let mut input = Input(bytes);
    if input.byte()? != VERSION {
        return Err(InvalidState);
    }
    let candidates = match input.byte()? {
        0 => Candidates::Terms(input.list(Input::term)?),
        1 => Candidates::User(input.string()?),
        _ => return Err(InvalidState),
    };
    let rules = input.list(Input::rule)?;
    match input.0 {
        [] => Ok(State { candidates, rules }),
        _ => Err(InvalidState),
    }
}

/// The remaining bytes.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Result<u8, InvalidState> {
        let (&first, rest) = self.0.split_first().ok_or(InvalidState)?;
        self.0 = rest;
        Ok(first)
    }

    fn number(&mut self) -> Result<usize, InvalidState> {
        let mut number = 0_usize;
        for shift in (0..usize::BITS).step_by(7) {
            let byte = self.byte()?;
            let digit = usize::from(byte & 0x7f);
            number |= digit.checked_shl(shift).ok_or(InvalidState)?;
            if number >> shift != digit {
                return Err(InvalidState);
            }
            if byte < 0x80 {
                // The encoding is unique: the last digit is not 0, except in 0 itself.
                let is_shortest = byte != 0 || shift == 0;
                return is_shortest.then_some(number).ok_or(InvalidState);
            }
        }
        Err(InvalidState)
    }

    fn string<T: From<&'a str>>(&mut self) -> Result<T, InvalidState> {
        let len = self.number()?;
        let (text, rest) = self.0.split_at_checked(len).ok_or(InvalidState)?;
        self.0 = rest;
        let text = std::str::from_utf8(text).map_err(|_| InvalidState)?;
        Ok(text.into())
    }

    /// Every item takes at least a byte, so that a list is not longer than the input.
    fn list<T>(
        &mut self,
        item: fn(&mut Self) -> Result<T, InvalidState>,
    ) -> Result<Vec<T>, InvalidState> {
        let len = self.number()?;
        if len > self.0.len() {
            return Err(InvalidState);
        }
        (0..len).map(|_| item(self)).collect()
    }

    fn term(&mut self) -> Result<Term, InvalidState> {
        Ok(Term {
            field: self.tag(&FIELDS)?,
            value: self.string()?,
        })
    }

    fn rule(&mut self) -> Result<Rule, InvalidState> {
        let when = self.list(Input::condition)?;
        let then = match self.byte()? {
            0 => Decision::Send(self.number()?),
            1 => Decision::Deny(self.tag(&REASONS)?),
            _ => return Err(InvalidState),
        };
        Ok(Rule { when, then })
    }

    fn condition(&mut self) -> Result<Condition, InvalidState> {
        Ok(match self.byte()? {
            0 => Condition::User(self.string()?),
            1 => Condition::Member(self.string()?),
            2 => Condition::Moderator(self.string()?),
            3 => {
                let userids: Vec<Box<str>> = self.list(Input::string)?;
                if !userids.is_sorted_by(|one, next| one < next) {
                    return Err(InvalidState);
                }
                Condition::OneOf(userids.into_iter().collect::<Userids>())
            }
            _ => return Err(InvalidState),
        })
    }

    fn tag<T: Copy>(&mut self, values: &[T]) -> Result<T, InvalidState> {
        let tag = usize::from(self.byte()?);
        values.get(tag).copied().ok_or(InvalidState)
    }
}

const VERSION: u8 = 1;
/// The fields in the order of their tags. New ones are appended.
const FIELDS: [Field; 6] = [
    Field::Id,
    Field::Group,
    Field::Uri,
    Field::References,
    Field::User,
    Field::Tags,
];
/// The reasons in the order of their tags. New ones are appended.
const REASONS: [DenyReason; 4] = [
    DenyReason::Permission,
    DenyReason::Muted,
    DenyReason::Hidden,
    DenyReason::Checkpoint,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Cause, EventKind, Stamp, Subject};

    fn states() -> Vec<State> {
        let term = |field, value: &str| Term {
            field,
            value: value.into(),
        };
        let rule = |when: Vec<Condition>, then| Rule { when, then };
        let userids = ["acct:b@x", "acct:a@x"].into_iter().collect();
        vec![
            State {
                candidates: Candidates::User("acct:joe@example.org".into()),
                rules: Vec::new(),
            },
            State {
                candidates: Candidates::Terms(Vec::new()),
                rules: vec![rule(Vec::new(), Decision::Send(0))],
            },
            State {
                candidates: Candidates::Terms(vec![
                    term(Field::Id, "a\0b"),
                    term(Field::Group, "__world__"),
                    term(Field::Uri, &"é".repeat(300)),
                    term(Field::References, ""),
                    term(Field::User, "joe"),
                    term(Field::Tags, "to do"),
                ]),
                rules: vec![
                    rule(
                        vec![
                            Condition::User("acct:joe@example.org".into()),
                            Condition::Member("g".into()),
                            Condition::Moderator("g".into()),
                            Condition::OneOf(userids),
                        ],
                        Decision::Send(300),
                    ),
                    rule(Vec::new(), Decision::Deny(DenyReason::Permission)),
                    rule(Vec::new(), Decision::Deny(DenyReason::Muted)),
                    rule(Vec::new(), Decision::Deny(DenyReason::Hidden)),
                    rule(Vec::new(), Decision::Deny(DenyReason::Checkpoint)),
                ],
            },
        ]
    }

    #[test]
    fn decoded_state_equals_the_encoded_one() {
        for state in states() {
            let bytes = encode(&state.candidates, &state.rules);
            assert_eq!(decode(&bytes), Ok(state));
        }
    }

    #[test]
    fn truncated_extended_and_unknown_states_are_rejected() {
        for state in states() {
            let bytes = encode(&state.candidates, &state.rules);
            for len in 0..bytes.len() {
                assert_eq!(decode(&bytes[..len]), Err(InvalidState), "{len}");
            }
            assert_eq!(decode(&[&bytes[..], &[0]].concat()), Err(InvalidState));
            assert_eq!(decode(&[&[2], &bytes[1..]].concat()), Err(InvalidState));
        }
    }

    #[test]
    fn altered_state_is_rejected_or_has_another_encoding() {
        for state in states() {
            let bytes = encode(&state.candidates, &state.rules);
            for at in 0..bytes.len() {
                for value in 0..=u8::MAX {
                    let mut altered = bytes.clone();
                    altered[at] = value;
                    if let Ok(other) = decode(&altered) {
                        assert_eq!(encode(&other.candidates, &other.rules), altered);
                    }
                }
            }
        }
    }

    #[test]
    fn long_lists_and_numbers_allocate_nothing() {
        // A list of 2^63 terms, and a number of more than 64 bits.
        let digits = [0xff; 9];
        for tail in [&[0x7f][..], &[0xff, 0x01], &[0xff, 0xff, 0x01]] {
            let bytes = [&[VERSION, 0][..], &digits, tail].concat();
            assert_eq!(decode(&bytes), Err(InvalidState));
        }
    }

    #[test]
    fn states_of_earlier_versions_are_recognized_and_completed() {
        let term = |field, value: &str| Term {
            field,
            value: value.into(),
        };
        let old = vec![term(Field::Id, "a"), term(Field::Group, "g")];
        let mut new = old.clone();
        new.extend([term(Field::User, "joe"), term(Field::Tags, "moon")]);
        let plan = Plan {
            kind: EventKind::Create,
            subject: Subject::Annotation("a".into()),
            stamp: Stamp::default(),
            cause: Cause::Event,
            candidates: Candidates::Terms(new.clone()),
            exclude_client: None,
            rules: vec![Rule {
                when: Vec::new(),
                then: Decision::Send(0),
            }],
            variants: Vec::new(),
        };
        let of = |terms: &[Term], rules| encode(&Candidates::Terms(terms.to_vec()), rules);
        assert!(is_state_of(&of(&old, &plan.rules), &plan));
        assert!(is_state_of(&of(&new, &plan.rules), &plan));
        assert!(!is_state_of(&of(&old, &[]), &plan));
        assert!(!is_state_of(&of(&old[1..], &plan.rules), &plan));
        let other = [&old[..], &[term(Field::User, "ann")]].concat();
        assert!(!is_state_of(&of(&other, &plan.rules), &plan));
        for (stored, expected) in [(&old, &new), (&other, &other)] {
            let mut state = Candidates::Terms(stored.clone());
            complete(&mut state, &plan);
            assert_eq!(state, Candidates::Terms(expected.clone()));
        }
    }
}
