//! What came out the same, different as it is meant to be, and wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::player::Found;
use super::transcript::Transcript;

pub struct Tally {
    /// What is meant to come, by the names of the transcripts that were not played yet.
    listed: BTreeMap<&'static str, &'static str>,
    same: usize,
    intended: usize,
    wrong: usize,
    /// Of those that came out wrong, both sides.
    report: String,
    left_out: Vec<String>,
}

impl Tally {
    pub fn new(listed: BTreeMap<&'static str, &'static str>) -> Tally {
        Tally {
            listed,
            same: 0,
            intended: 0,
            wrong: 0,
            report: String::new(),
            left_out: Vec::new(),
        }
    }

    /// One that was played.
    pub fn count(&mut self, transcript: &Transcript, found: Found) {
        let name = &transcript.name;
        match self.listed.remove(name.as_str()) {
            None if found.here.is_empty() => self.same += 1,
            Some(here) if found.here == here && !here.is_empty() => self.intended += 1,
            Some(_) if found.here.is_empty() => {
                self.wrong += 1;
                let line = format!("{name} is listed as different, and is the same\n");
                self.report.push_str(&line);
            }
            listed => {
                self.wrong += 1;
                let Found { here, both } = found;
                writeln!(self.report, "{name}: {here}\n  listed: {listed:?}\n{both}").unwrap();
            }
        }
    }

    /// One that cannot be played here.
    #[cfg(feature = "h")]
    pub fn leave_out(&mut self, transcript: &Transcript, reason: &str) {
        self.listed.remove(transcript.name.as_str());
        self.left_out.push(format!("{}: {reason}", transcript.name));
    }

    /// Says how it went, and fails if anything went wrong.
    pub fn finish(self) {
        for line in &self.left_out {
            println!("left out: {line}");
        }
        let (same, intended, wrong) = (self.same, self.intended, self.wrong);
        println!("{same} the same, {intended} intended differences, {wrong} wrong");
        assert_eq!(wrong, 0, "\n\n{}", self.report);
        assert!(
            self.listed.is_empty(),
            "listed, but there are no such transcripts: {:?}",
            self.listed
        );
    }
}
