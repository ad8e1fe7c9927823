//! Counts transcripts that are equal, intentionally different, or wrong.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::player::Found;
use super::transcript::Transcript;

pub struct Tally {
    /// The expected output, by the names of the transcripts not run yet.
    listed: BTreeMap<&'static str, &'static str>,
    same: usize,
    intended: usize,
    wrong: usize,
    /// The output of both servers for wrong transcripts.
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

    /// Counts a transcript that was run.
    pub fn count(&mut self, transcript: &Transcript, found: Found) {
        let name = &transcript.name;
        match self.listed.remove(name.as_str()) {
            None if found.here.is_empty() => self.same += 1,
            Some(here) if found.here == here && !here.is_empty() => self.intended += 1,
            Some(_) if found.here.is_empty() => {
                self.wrong += 1;
                let line = format!("{name} is listed as different, but is equal\n");
                self.report.push_str(&line);
            }
            listed => {
                self.wrong += 1;
                let Found { here, both } = found;
                writeln!(self.report, "{name}: {here}\n  listed: {listed:?}\n{both}").unwrap();
            }
        }
    }

    /// Counts a skipped transcript.
    #[cfg(feature = "h")]
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
