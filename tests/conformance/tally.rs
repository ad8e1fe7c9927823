//! Counts transcripts that are equal, intentionally different, or wrong.

use std::fmt::Write as _;

use super::differences::Listed;
use super::player::Found;
use super::transcript::Transcript;

/// The results of the transcripts so far.
pub struct Tally {
    /// The intended differences of the transcripts that have not run yet.
    listed: Listed,
    /// A listed transcript must differ.
    is_strict: bool,
    pub same: usize,
    pub intended: usize,
    pub wrong: usize,
    /// The output of both servers for wrong transcripts.
    report: String,
    pub left_out: Vec<String>,
}

/// The result of a transcript.
#[derive(Debug, PartialEq)]
pub enum Verdict {
    Same,
    /// It differs as listed, for this reason.
    Intended(&'static str),
    /// A description, in several lines.
    Wrong(String),
}

impl Tally {
    /// Starts with the differences that the server must have.
    pub fn new(listed: Listed) -> Tally {
        Tally {
            listed,
            is_strict: true,
            same: 0,
            intended: 0,
            wrong: 0,
            report: String::new(),
            left_out: Vec::new(),
        }
    }

    /// Starts with the differences that the server may have.
    pub fn lenient(listed: Listed) -> Tally {
        Tally {
            is_strict: false,
            ..Tally::new(listed)
        }
    }

    /// Counts a transcript that was run.
    pub fn count(&mut self, transcript: &Transcript, found: Found) -> Verdict {
        let name = &transcript.name;
        let verdict = match self.listed.remove(name.as_str()) {
            None if found.here.is_empty() => Verdict::Same,
            Some(_) if found.here.is_empty() && !self.is_strict => Verdict::Same,
            Some(listed) if found.here == listed.here && !found.here.is_empty() => {
                Verdict::Intended(listed.reason)
            }
            Some(_) if found.here.is_empty() => {
                Verdict::Wrong(format!("{name} is listed as different, but is equal\n"))
            }
            listed => {
                let Found { here, both } = found;
                let listed = listed.map(|listed| listed.here);
                Verdict::Wrong(format!("{name}: {here}\n  listed: {listed:?}\n{both}"))
            }
        };
        match &verdict {
            Verdict::Same => self.same += 1,
            Verdict::Intended(_) => self.intended += 1,
            Verdict::Wrong(text) => {
                self.wrong += 1;
                self.report.push_str(text);
                writeln!(self.report).unwrap();
            }
        }
        verdict
    }

    /// Counts a skipped transcript.
    pub fn skip(&mut self, transcript: &Transcript, reason: &str) {
        self.listed.remove(transcript.name.as_str());
        self.left_out.push(format!("{}: {reason}", transcript.name));
    }

    /// Prints the result, and fails if any transcript was wrong.
    pub fn finish(self) {
        for line in &self.left_out {
            println!("skipped: {line}");
        }
        let (same, intended, wrong) = (self.same, self.intended, self.wrong);
        println!("{same} equal, {intended} intended differences, {wrong} wrong");
        assert_eq!(wrong, 0, "\n\n{}", self.report);
        assert!(
            self.listed.is_empty(),
            "listed, but there are no such transcripts: {:?}",
            self.listed
        );
    }
}
