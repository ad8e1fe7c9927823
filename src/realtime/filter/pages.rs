//! The addresses of an annotated page, with which patterns are compared.
//!
//! Owns: their place in the terms of an event. Must not know: patterns.

use crate::model::{Candidates, Field, Term};
use crate::uri::{Version, page_of_key, scope_key};

/// The addresses of an annotated page.
#[derive(Clone, Copy, Debug)]
pub enum Pages<'a> {
    /// Those in the terms of an event.
    Of(&'a Candidates),
    /// A list.
    List(&'a [Box<str>]),
}

impl<'a> Pages<'a> {
    /// Returns whether any address meets a condition.
    pub fn any(self, mut condition: impl FnMut(&str) -> bool) -> bool {
        match self {
            Pages::Of(Candidates::Terms(terms)) => pages_of(terms).any(condition),
            Pages::Of(Candidates::User(_)) => false,
            Pages::List(pages) => pages.iter().any(|page| condition(page)),
        }
    }

    /// Returns the addresses as a list.
    pub fn to_list(self) -> Box<[Box<str>]> {
        let mut list = Vec::new();
        self.any(|page| {
            list.push(page.into());
            false
        });
        list.into()
    }
}

/// Returns the addresses in the terms of an annotation, which are sorted.
pub(in crate::realtime) fn pages_of(terms: &[Term]) -> impl Iterator<Item = &str> {
    let has = move |page: &str| {
        let place = |term: &Term| (term.field, &*term.value).cmp(&(Field::Uri, page));
        terms.binary_search_by(place).is_ok()
    };
    let uris = terms.iter().filter(|term| term.field == Field::Uri);
    uris.filter_map(move |term| {
        let page = page_of_key(&term.value)?;
        // An address may itself look like the key of all versions of another one.
        let is_address = !has(page) && has(&scope_key(&term.value, &Version::All));
        (!is_address).then_some(page)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uri::annotation_keys;

    #[test]
    fn address_that_looks_like_a_key_is_no_page_of_its_own() {
        for (uris, version, expected) in [
            (&["http://a/x"][..], None, &["httpx://a/x"][..]),
            (&["http://a/x"], Some(2), &["httpx://a/x"]),
            (&["http://a/x__vall"], None, &["httpx://a/x__vall"]),
            (&["http://a/x__vall"], Some(2), &["httpx://a/x__vall"]),
            (
                &["http://a/x", "http://a/x__vall"],
                None,
                &["httpx://a/x", "httpx://a/x__vall"],
            ),
            (&["http://a/x__v1"], None, &["httpx://a/x__v1"]),
            (&[], None, &[]),
        ] {
            let keys = annotation_keys(uris.iter().copied(), version);
            let term = |key: String| Term {
                field: Field::Uri,
                value: key.into(),
            };
            let terms: Vec<Term> = keys.into_iter().map(term).collect();
            let pages: Vec<&str> = pages_of(&terms).collect();
            assert_eq!(pages, expected, "{uris:?} {version:?}");
            let candidates = Candidates::Terms(terms);
            let list = Pages::Of(&candidates).to_list();
            assert_eq!(
                list.iter().map(|page| &**page).collect::<Vec<_>>(),
                expected
            );
        }
    }
}
