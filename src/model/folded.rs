//! The forms in which userids and tags are compared, as in h's search API: regardless of case.

/// Returns the form in which a text is compared: without case, and with single spaces between words.
/// Characters that differ only in case have equal forms, and so have `ß` and `ss`.
pub fn folded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        for char in word.chars() {
            match char.is_ascii() {
                true => out.push(char.to_ascii_lowercase()),
                false => out.extend(char.to_uppercase().flat_map(char::to_lowercase)),
            }
        }
    }
    out
}

/// Returns the form of a userid in a filter: `acct:Name@Authority`, `Name@Authority`, and `Name` are
/// accepted.
pub fn folded_userid(value: &str) -> String {
    let mut value = folded(value);
    if value.starts_with(ACCT) {
        value.drain(..ACCT.len());
    }
    value
}

/// Returns the forms under which filters may name the author of an annotation: with the authority,
/// and without.
pub fn folded_userids(userid: &str) -> Vec<String> {
    if userid.is_empty() {
        return Vec::new();
    }
    let full = folded_userid(userid);
    match full.rsplit_once('@') {
        Some((name, _)) => vec![name.to_owned(), full],
        None => vec![full],
    }
}

const ACCT: &str = "acct:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn case_and_spaces_are_folded() {
        for (text, expected) in [
            ("To Do", "to do"),
            ("  To\t\n Do ", "to do"),
            ("STRASSE", "strasse"),
            ("Straße", "strasse"),
            ("ΟΔΟΣ", "οδοσ"),
            ("οδος", "οδοσ"),
            ("Ångström", "ångström"),
            ("", ""),
            (" ", ""),
        ] {
            assert_eq!(folded(text), expected, "{text}");
            assert_eq!(folded(&folded(text)), expected, "{text}");
        }
    }

    #[test]
    fn all_forms_of_a_userid_are_found() {
        let forms = folded_userids("acct:Luis.Silva@Example.org");
        for value in [
            "acct:luis.silva@example.org",
            "ACCT:Luis.Silva@example.org",
            "Luis.Silva@Example.org",
            "luis.silva",
            "acct:luis.silva",
        ] {
            assert!(forms.contains(&folded_userid(value)), "{value}");
        }
        for other in ["luissilva", "silva", "acct:luis.silva@example.com", ""] {
            assert!(!forms.contains(&folded_userid(other)), "{other}");
        }
        assert_eq!(folded_userids(""), Vec::<String>::new());
        assert_eq!(folded_userids("joe"), ["joe"]);
    }
}
