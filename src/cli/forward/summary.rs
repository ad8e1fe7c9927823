//! The parts of an annotation that people read, for chat messages and feeds. Must not know formats.

use serde_json::Value;

use super::event::ForwardEvent;

/// An annotation, as far as it is displayed. All texts are untrusted.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Summary {
    /// The display name, or else the user name.
    pub author: String,
    /// The title of the document. Empty if it has none.
    pub title: String,
    /// The document. Empty unless it is a web page.
    pub page: String,
    /// The annotated passage.
    pub quote: String,
    pub text: String,
    pub tags: Vec<String>,
    /// A page that shows the annotation. Empty if there is none.
    pub link: String,
    pub is_reply: bool,
    pub created: String,
    pub updated: String,
}

impl Summary {
    /// Reads an annotation. Missing and invalid members are empty.
    pub(super) fn of(event: &ForwardEvent) -> Self {
        let annotation: Value =
            serde_json::from_str(event.annotation().get()).unwrap_or(Value::Null);
        let text = |pointer: &str| -> String {
            let value = annotation.pointer(pointer).and_then(Value::as_str);
            value.unwrap_or_default().trim().to_owned()
        };
        let web = |pointer: &str| Some(text(pointer)).filter(|url| is_web(url));
        let name = text("/user_info/display_name");
        let author = match name.is_empty() {
            true => user_name(&text("/user")),
            false => name,
        };
        let tags = annotation.pointer("/tags").and_then(Value::as_array);
        let tags = tags.into_iter().flatten().filter_map(Value::as_str);
        let selectors = annotation
            .pointer("/target/0/selector")
            .and_then(Value::as_array);
        let quote = selectors.into_iter().flatten().find_map(|selector| {
            let is_quote = selector.get("type")?.as_str()? == "TextQuoteSelector";
            selector.get("exact")?.as_str().filter(|_| is_quote)
        });
        let references = annotation.pointer("/references").and_then(Value::as_array);
        Summary {
            author,
            title: text("/document/title/0"),
            page: web("/uri").unwrap_or_default(),
            quote: quote.unwrap_or_default().trim().to_owned(),
            text: text("/text"),
            tags: tags.map(str::to_owned).collect(),
            link: web("/links/html")
                .or_else(|| web("/links/incontext"))
                .unwrap_or_default(),
            is_reply: references.is_some_and(|references| !references.is_empty()),
            created: text("/created"),
            updated: text("/updated"),
        }
    }

    /// Returns the host of the page, at most [`MAX_HOST`] characters from its end, which says whose it
    /// is. A title can be the address of another page, so a link with a title needs it. Empty if the
    /// title or the page is missing.
    pub(super) fn host(&self) -> String {
        if self.title.is_empty() || self.page.is_empty() {
            return String::new();
        }
        let host = host(&self.page);
        match host.chars().count().checked_sub(MAX_HOST) {
            None | Some(0) => host.to_owned(),
            Some(cut) => ['…']
                .into_iter()
                .chain(host.chars().skip(cut + 1))
                .collect(),
        }
    }

    /// Returns the title of the document, or else its address.
    pub(super) fn title_or_page(&self) -> &str {
        match (self.title.is_empty(), self.page.is_empty()) {
            (false, _) => &self.title,
            (true, false) => &self.page,
            (true, true) => "a document",
        }
    }
}

/// Returns the host of a web address, as browsers find it: after a user name, and with any number of
/// slashes before it.
fn host(url: &str) -> &str {
    let (_, rest) = url.split_once(':').unwrap_or_default();
    let rest = rest.trim_start_matches(['/', '\\']);
    let authority = rest.split(['/', '\\', '?', '#']).next().unwrap_or_default();
    authority.rsplit('@').next().unwrap_or_default()
}

/// Returns the name in a userid such as `acct:name@example.org`.
fn user_name(userid: &str) -> String {
    let name = userid.strip_prefix("acct:").unwrap_or(userid);
    let name = name.split('@').next().unwrap_or_default();
    match name.is_empty() {
        true => "Someone".to_owned(),
        false => name.to_owned(),
    }
}

/// Returns whether a link to `url` is safe: other schemes, such as `javascript:`, are not.
fn is_web(url: &str) -> bool {
    let scheme = url.split(':').next().unwrap_or_default();
    let is_plain = url.chars().all(|c| !c.is_control() && !c.is_whitespace());
    is_plain
        && ["http", "https"]
            .iter()
            .any(|web| scheme.eq_ignore_ascii_case(web))
}

/// Returns at most `most` characters of `text`, the last one an ellipsis if it was longer.
pub(super) fn truncated(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        None => text.to_owned(),
        Some(_) => {
            let kept: String = text.chars().take(most.saturating_sub(1)).collect();
            format!("{}…", kept.trim_end())
        }
    }
}

/// Returns at most `most` characters of `text` on one line.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    truncated(&words.join(" "), most)
}

/// The maximum length of a displayed host, in characters.
const MAX_HOST: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(annotation: &str) -> Summary {
        let line = format!(
            r#"{{"type":"annotation-notification","options":{{"action":"create"}},"payload":[{annotation}]}}"#
        );
        let event = ForwardEvent::parse(&line, "c", 0).unwrap_or_else(|_| panic!("an event"));
        Summary::of(&event)
    }

    #[test]
    fn displayed_members_are_read() {
        let found = summary(
            r#"{"id":"A","user":"acct:joe@example.org","uri":"https://example.org/","text":" Hi ","tags":["a",1],
            "document":{"title":["Title"]},"links":{"html":"https://h.example/a/A"},"references":["R"],
            "target":[{"selector":[{"type":"RangeSelector"},{"type":"TextQuoteSelector","exact":"quoted"}]}],
            "user_info":{"display_name":"Joe"},"created":"c","updated":"u"}"#,
        );
        let expected = Summary {
            author: "Joe".to_owned(),
            title: "Title".to_owned(),
            page: "https://example.org/".to_owned(),
            quote: "quoted".to_owned(),
            text: "Hi".to_owned(),
            tags: vec!["a".to_owned()],
            link: "https://h.example/a/A".to_owned(),
            is_reply: true,
            created: "c".to_owned(),
            updated: "u".to_owned(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn missing_and_dangerous_members_are_omitted() {
        let found = summary(
            r#"{"id":"A","user":"acct:joe@example.org","uri":"javascript:alert(1)","links":{"html":"https://a b"},"target":{}}"#,
        );
        assert_eq!(
            (&*found.author, &*found.page, &*found.link),
            ("joe", "", "")
        );
        assert_eq!(found.title_or_page(), "a document");
    }

    #[test]
    fn host_is_the_one_that_browsers_open() {
        let long = format!("https://{}evil.example/", "good.example.".repeat(9));
        for (page, host) in [
            ("https://evil.example/good.example", "evil.example"),
            (
                "https://good.example@evil.example:8443?x",
                "evil.example:8443",
            ),
            ("https:evil.example\\@good.example", "evil.example"),
            ("HTTP:///evil.example#@good.example", "evil.example"),
            (&long, ".evil.example"),
        ] {
            let summary = Summary {
                title: "https://good.example/".to_owned(),
                page: page.to_owned(),
                ..Summary::default()
            };
            let found = summary.host();
            assert!(found.ends_with(host), "{found}");
            assert!(found == host || found.chars().count() == MAX_HOST);
        }
        assert_eq!(Summary::default().host(), "");
    }

    #[test]
    fn long_texts_end_with_an_ellipsis() {
        assert_eq!(truncated("äöü", 3), "äöü");
        assert_eq!(truncated("äöüx", 3), "äö…");
    }
}
