//! The interpretations of filters that wait for the history with their connections, within a limit
//! on their total size.

use std::cell::Cell;
use std::rc::Rc;

use crate::realtime::reply;

/// The total size of all texts that are held.
#[derive(Default)]
pub(super) struct HeldTexts {
    total: Rc<Cell<usize>>,
}

/// A text, which counts until it is dropped.
pub(in crate::realtime) struct HeldText {
    text: Box<str>,
    total: Rc<Cell<usize>>,
}

impl HeldTexts {
    /// Holds an interpretation. Beyond the limit, it is replaced by a mark.
    pub(super) fn hold(&self, text: &str) -> HeldText {
        let is_within = self.total.get() + text.len() <= MAX_HELD;
        let text = match is_within || text.is_empty() {
            true => text,
            false => reply::TRUNCATED,
        };
        self.total.set(self.total.get() + text.len());
        HeldText {
            text: text.into(),
            total: Rc::clone(&self.total),
        }
    }
}

impl HeldText {
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

impl Drop for HeldText {
    fn drop(&mut self) {
        self.total.set(self.total.get() - self.text.len());
    }
}

/// The maximum size of all texts together, in bytes.
const MAX_HELD: usize = 4 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn total_size_is_limited() {
        let held = HeldTexts::default();
        let long = "x".repeat(MAX_HELD / 2);
        let texts = [&long, &long, &long, ""].map(|text| held.hold(text));
        let lens = texts.each_ref().map(|text| text.text().len());
        assert_eq!(lens, [long.len(), long.len(), reply::TRUNCATED.len(), 0]);
        drop(texts);
        assert_eq!(held.total.get(), 0);
        assert_eq!(held.hold(&long).text(), long);
    }
}
