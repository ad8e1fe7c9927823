//! The text of an Atom feed (RFC 4287). Must not know the stream or files.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::event::ForwardEvent;
use super::summary::{Summary, one_line, truncated};
use crate::model::UnixMillis;

/// The properties of a feed that do not depend on its entries.
#[derive(Clone, Debug)]
pub(super) struct FeedHead {
    pub id: String,
    pub title: String,
    /// The public address of the feed.
    pub self_url: Option<String>,
}

/// An entry of a feed. All texts are untrusted.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Entry {
    /// The id of the annotation.
    pub annotation: String,
    /// The IRI of the entry.
    id: String,
    /// In UNIX milliseconds.
    pub updated: UnixMillis,
    published: UnixMillis,
    author: String,
    title: String,
    quote: String,
    text: String,
    tags: Vec<String>,
    link: String,
    page: String,
}

impl FeedHead {
    /// Returns the head of a feed of a server's annotations. The id depends on the server and the
    /// filter alone.
    pub(super) fn new(
        server: &str,
        filter: &Value,
        title: Option<String>,
        self_url: Option<String>,
    ) -> Self {
        let digest = Sha256::digest(format!("{server}\n{filter}").as_bytes());
        let digest = URL_SAFE_NO_PAD.encode(digest.get(..16).unwrap_or_default());
        let host = server.split("://").nth(1).unwrap_or_default();
        let host = host.split(['/', ':']).next().unwrap_or_default();
        FeedHead {
            id: format!("tag:{},{TAG_DATE}:feed/{digest}", authority(host)),
            title: label(title.as_deref().unwrap_or_default(), "Annotations"),
            self_url,
        }
    }
}

impl Entry {
    /// Makes the entry of a created or updated annotation.
    pub(super) fn of(event: &ForwardEvent) -> Self {
        let found = Summary::of(event);
        let annotation: Value =
            serde_json::from_str(event.annotation().get()).unwrap_or(Value::Null);
        let user = annotation.get("user").and_then(Value::as_str);
        let domain = user.and_then(|user| user.rsplit('@').next());
        let domain = authority(domain.unwrap_or_default());
        let id = percent_encoded(&event.id);
        let updated = millis(&found.updated).unwrap_or(event.received);
        let title = match found.is_reply {
            true => format!("{} replied on {}", found.author, found.title_or_page()),
            false => format!("{} on {}", found.author, found.title_or_page()),
        };
        let tags = found.tags.iter().take(MAX_TAGS);
        let address = |url: String| match url.len() > MAX_URL {
            true => String::new(),
            false => url,
        };
        Entry {
            annotation: event.id.clone(),
            id: format!("tag:{domain},{TAG_DATE}:annotation/{id}"),
            updated,
            published: millis(&found.created).unwrap_or(updated),
            title: label(&title, "Annotation"),
            author: label(&found.author, "Someone"),
            quote: truncated(&found.quote, MAX_TEXT),
            text: truncated(&found.text, MAX_TEXT),
            tags: tags.map(|tag| label(tag, "")).collect(),
            link: address(found.link),
            page: address(found.page),
        }
    }

    fn write(&self, out: &mut String) {
        out.push_str("  <entry>\n");
        element(out, "    ", "id", "", &self.id);
        // Declared as HTML, since some readers interpret it so in any case.
        let title = escaped(&self.title);
        element(out, "    ", "title", " type=\"html\"", &title);
        element(out, "    ", "updated", "", &time(self.updated));
        element(out, "    ", "published", "", &time(self.published));
        out.push_str("    <author>\n");
        element(out, "      ", "name", "", &self.author);
        out.push_str("    </author>\n");
        let links = match self.link.is_empty() {
            true => [("alternate", &self.page), ("", &self.link)],
            false => [("alternate", &self.link), ("related", &self.page)],
        };
        for (relation, url) in links {
            if !url.is_empty() {
                let url = escaped(&iri(url));
                let _ = writeln!(out, "    <link rel=\"{relation}\" href=\"{url}\"/>");
            }
        }
        for tag in self.tags.iter().filter(|tag| !tag.is_empty()) {
            let tag = escaped(tag);
            let _ = writeln!(out, "    <category term=\"{tag}\"/>");
        }
        element(out, "    ", "content", " type=\"html\"", &self.html());
        out.push_str("  </entry>\n");
    }

    /// Returns the content as HTML. It is escaped a second time as a text of the feed.
    fn html(&self) -> String {
        let mut html = String::new();
        if !self.quote.is_empty() {
            let _ = write!(html, "<blockquote>{}</blockquote>", escaped(&self.quote));
        }
        for paragraph in self.text.split("\n\n").map(str::trim) {
            if !paragraph.is_empty() {
                let lines = escaped(paragraph).replace('\n', "<br>");
                let _ = write!(html, "<p>{lines}</p>");
            }
        }
        if html.is_empty() {
            let _ = write!(html, "<p>{}</p>", escaped(&self.title));
        }
        html
    }
}

/// Renders a feed.
pub(super) fn render(head: &FeedHead, entries: &[Entry], updated: UnixMillis) -> String {
    let mut out = String::from(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<feed xmlns=\"http://www.w3.org/2005/Atom\">\n",
    );
    element(&mut out, "  ", "id", "", &head.id);
    element(&mut out, "  ", "title", "", &head.title);
    element(&mut out, "  ", "updated", "", &time(updated));
    if let Some(url) = &head.self_url {
        let url = escaped(&iri(url));
        let _ = writeln!(out, "  <link rel=\"self\" href=\"{url}\"/>");
    }
    let version = env!("CARGO_PKG_VERSION");
    let attribute = format!(" version=\"{version}\"");
    element(&mut out, "  ", "generator", &attribute, "h-realtime");
    for entry in entries {
        entry.write(&mut out);
    }
    out.push_str("</feed>\n");
    out
}

fn element(out: &mut String, indent: &str, name: &str, attributes: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(out, "{indent}<{name}{attributes}>{text}</{name}>");
}

/// Returns a text on one line, or a substitute if nothing of it can be displayed.
fn label(text: &str, substitute: &str) -> String {
    let displayed = text.chars();
    let displayed = displayed.filter(|&c| is_permitted(c) || c.is_whitespace());
    match one_line(&displayed.collect::<String>(), MAX_TITLE) {
        text if text.is_empty() => substitute.to_owned(),
        text => text,
    }
}

/// Returns whether XML 1.0 permits a character other than white space, and does not discourage it.
fn is_permitted(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{fffe}' | '\u{ffff}')
}

/// Escapes a text for XML or HTML, and removes characters that XML does not permit.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\t' | '\n' => escaped.push(c),
            c if is_permitted(c) => escaped.push(c),
            _ => {}
        }
    }
    escaped
}

/// Escapes the characters of a web address that are not permitted in an IRI.
fn iri(url: &str) -> String {
    let mut iri = String::with_capacity(url.len());
    for c in url.chars() {
        match c {
            '"' | '<' | '>' | '\\' | '^' | '`' | '{' | '|' | '}' => {
                let _ = write!(iri, "%{:02X}", u32::from(c));
            }
            c => iri.push(c),
        }
    }
    iri
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => {
                encoded.push(byte.into());
            }
            byte => {
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
    }
    encoded
}

/// Returns the authority of a tag IRI (RFC 4151): a domain name.
fn authority(domain: &str) -> String {
    let is_label = |label: &str| {
        !label.is_empty()
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    match domain.split('.').all(is_label) {
        true => domain.to_ascii_lowercase(),
        false => "localhost".to_owned(),
    }
}

fn millis(time: &str) -> Option<UnixMillis> {
    let time: Timestamp = time.parse().ok()?;
    u64::try_from(time.as_millisecond()).ok()
}

fn time(millis: UnixMillis) -> String {
    let millis = i64::try_from(millis).unwrap_or_default();
    let time = Timestamp::from_millisecond(millis).unwrap_or_default();
    time.to_string()
}

/// The date of all tag IRIs: the owners of the domains are those of this day.
const TAG_DATE: &str = "2026-01-01";
/// The maximum length of a title, in characters.
const MAX_TITLE: usize = 200;
/// The maximum length of a text and of a quote, in characters: all entries are in memory.
const MAX_TEXT: usize = 20_000;
/// The maximum number of tags of an entry, and of bytes of a web address. A longer address is omitted.
const MAX_TAGS: usize = 50;
const MAX_URL: usize = 8000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    pub(in crate::cli::forward) fn entry(annotation: &Value) -> Entry {
        let line = json!({"type": "annotation-notification", "options": {"action": "create"},
            "payload": [annotation]});
        let event = ForwardEvent::parse(&line.to_string(), "c", 1_700_000_000_000);
        Entry::of(&event.unwrap_or_else(|_| panic!("an event")))
    }

    fn head() -> FeedHead {
        FeedHead::new("ws://h.example:5001/ws", &json!({}), None, None)
    }

    #[test]
    fn entry_has_stable_id_links_and_escaped_content() {
        let entry = entry(
            &json!({"id": "A/b", "user": "acct:joe@Example.org", "uri": "https://example.org/?a&b|c",
            "text": "<b>1</b>\n2\n\n3", "created": "2024-01-02T03:04:05.678901+00:00",
            "updated": "2024-01-03T03:04:05+01:00", "tags": ["x & y", " "],
            "links": {"html": "https://h.example/a/A"}}),
        );
        let text = render(&head(), &[entry], 0);
        for part in [
            "<id>tag:example.org,2026-01-01:annotation/A%2Fb</id>",
            "<updated>2024-01-03T02:04:05Z</updated>",
            "<published>2024-01-02T03:04:05.678Z</published>",
            "<name>joe</name>",
            "<link rel=\"alternate\" href=\"https://h.example/a/A\"/>",
            "<link rel=\"related\" href=\"https://example.org/?a&amp;b%7Cc\"/>",
            "<category term=\"x &amp; y\"/>",
            "&lt;p&gt;&amp;lt;b&amp;gt;1&amp;lt;/b&amp;gt;&lt;br&gt;2&lt;/p&gt;&lt;p&gt;3&lt;/p&gt;",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert_eq!(text.matches("<category").count(), 1);
    }

    #[test]
    fn characters_that_xml_does_not_permit_are_removed() {
        let text: String = (0..0x11_0000).filter_map(char::from_u32).collect();
        let entry = entry(&json!({"id": text.chars().take(50).collect::<String>(), "text": text}));
        let text = render(&head(), &[entry], 0);
        let permitted = |c: char| {
            matches!(c, '\t' | '\n' | ' '..='\u{7e}' | '\u{a0}'..='\u{d7ff}'
                | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
        };
        assert_eq!(text.chars().find(|&c| !permitted(c)), None);
    }

    #[test]
    fn names_without_displayable_characters_have_substitutes() {
        let user = json!({"display_name": "\u{1}\u{2}"});
        let entry = entry(&json!({"id": "A", "user": "acct:j@b", "user_info": user}));
        assert_eq!(entry.author, "Someone");
        let head = FeedHead::new("ws://h/ws", &json!({}), Some(" \u{7f}".to_owned()), None);
        assert_eq!(head.title, "Annotations");
    }

    #[test]
    fn invalid_times_and_domains_have_substitutes() {
        let entry = entry(&json!({"id": "A", "user": "acct:joe@a b", "updated": "now"}));
        assert_eq!(entry.updated, 1_700_000_000_000);
        assert!(entry.id.starts_with("tag:localhost,"), "{}", entry.id);
    }

    #[test]
    fn parts_of_entries_have_a_maximum_size() {
        let long = "é".repeat(1_000_000);
        let url = format!("https://h.example/{long}");
        let entry = entry(
            &json!({"id": "A", "user": long, "uri": url, "text": long, "created": long,
            "tags": vec![&long; 100], "links": {"html": url}, "document": {"title": [long]},
            "target": [{"selector": [{"type": "TextQuoteSelector", "exact": long}]}]}),
        );
        let size = serde_json::to_string(&entry).expect("JSON").len();
        assert!(
            size < 4 * (2 * MAX_TEXT + (MAX_TAGS + 3) * MAX_TITLE),
            "{size}"
        );
    }

    #[test]
    fn feed_id_depends_on_server_and_filter() {
        let id = |server, filter| FeedHead::new(server, &filter, None, None).id;
        let first = id("ws://h.example:5001/ws", json!({"a": 1}));
        assert!(
            first.starts_with("tag:h.example,2026-01-01:feed/"),
            "{first}"
        );
        assert_eq!(first, id("ws://h.example:5001/ws", json!({"a": 1})));
        assert_ne!(first, id("ws://h.example:5001/ws", json!({"a": 2})));
        assert_ne!(first, id("ws://h.example:5002/ws", json!({"a": 1})));
    }
}
