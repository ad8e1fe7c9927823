//! Messages for chats. Texts of annotations are untrusted: they can neither mention people nor
//! disguise links.

use serde_json::{Value, json};

use super::event::{Action, ForwardEvent};
use super::summary::{Summary, one_line, truncated};

/// Returns the message for an incoming webhook of Slack.
pub(super) fn slack(events: &[ForwardEvent]) -> Value {
    let most = MAX_TEXT / events.len().max(1);
    let messages = events.iter().map(|event| slack_text(event, most));
    let messages: Vec<String> = messages.collect();
    json!({
        "text": messages.join("\n\n"),
        "unfurl_links": false,
        "unfurl_media": false,
    })
}

fn slack_text(event: &ForwardEvent, most: usize) -> String {
    if event.action == Action::Delete {
        return deleted(&slack_escaped(&event.id));
    }
    let found = Summary::of(event);
    let page = slack_link(&found.page, found.title_or_page());
    let host = slack_escaped(&in_parentheses(&found.host()));
    let author = slack_escaped(&one_line(&undirected(&found.author), MAX_NAME));
    let mut text = format!("*{author}* {} {page}{host}", verb(event.action, &found));
    if !found.quote.is_empty() {
        text.push_str("\n> ");
        text.push_str(&slack_escaped(&one_line(&found.quote, MAX_QUOTE.min(most))));
    }
    if !found.text.is_empty() {
        text.push('\n');
        text.push_str(&slack_escaped(&truncated(&found.text, most)));
    }
    if !found.tags.is_empty() {
        text.push_str("\nTags: ");
        text.push_str(&slack_escaped(&one_line(&found.tags.join(", "), MAX_TAGS)));
    }
    if !found.link.is_empty() {
        text.push('\n');
        text.push_str(&slack_link(&found.link, "View"));
    }
    text
}

/// Escapes the three characters that have a meaning: links, mentions, and commands such as
/// `<!channel>` are between `<` and `>`.
fn slack_escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;");
    text.replace('<', "&lt;").replace('>', "&gt;")
}

fn slack_link(url: &str, label: &str) -> String {
    let label = slack_escaped(&one_line(&undirected(label), MAX_TITLE)).replace('|', "¦");
    if url.is_empty() || url.chars().count() > MAX_URL {
        return label;
    }
    let url = url.replace('|', "%7C");
    let url = url.replace('<', "%3C").replace('>', "%3E");
    format!("<{}|{label}>", slack_escaped(&url))
}

/// Returns the message for a webhook of Discord: each event is an embed, and nothing is a mention.
pub(super) fn discord(events: &[ForwardEvent]) -> Value {
    // The texts of all embeds together have a limit.
    let most = MAX_DISCORD_TOTAL / events.len().max(1);
    let most = most.saturating_sub(MAX_NAME + MAX_TITLE + MAX_TAGS);
    let embeds: Vec<Value> = events.iter().map(|event| embed(event, most)).collect();
    json!({"allowed_mentions": {"parse": []}, "embeds": embeds})
}

fn embed(event: &ForwardEvent, most: usize) -> Value {
    if event.action == Action::Delete {
        let text = deleted(&discord_escaped(&event.id));
        return json!({"description": within(&text, most)});
    }
    let found = Summary::of(event);
    let mut description = String::new();
    if !found.quote.is_empty() {
        let quote = discord_escaped(&one_line(&found.quote, MAX_QUOTE));
        description.push_str(&format!("> {quote}\n"));
    }
    description.push_str(&discord_escaped(&truncated(&found.text, MAX_TEXT)));
    let author = format!(
        "{} {}",
        one_line(&undirected(&found.author), MAX_NAME / 2),
        verb(event.action, &found)
    );
    let title = one_line(&undirected(found.title_or_page()), MAX_TITLE);
    let host = discord_escaped(&in_parentheses(&found.host()));
    let mut embed = json!({
        "author": {"name": within(&author, MAX_NAME)},
        "title": within(&discord_escaped(&title), MAX_TITLE - host.encode_utf16().count()) + &host,
        "description": within(&description, most.min(MAX_DESCRIPTION)),
    });
    let link = match found.link.is_empty() {
        true => &found.page,
        false => &found.link,
    };
    if let Some(members) = embed.as_object_mut() {
        if !link.is_empty() && link.chars().count() <= MAX_URL {
            members.insert("url".to_owned(), link.as_str().into());
        }
        if !found.tags.is_empty() {
            let tags = one_line(&found.tags.join(", "), MAX_TAGS);
            members.insert(
                "footer".to_owned(),
                json!({"text": within(&tags, MAX_TAGS)}),
            );
        }
    }
    embed
}

/// Escapes Markdown, so that links cannot be disguised, and mentions are not displayed.
fn discord_escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\*_~`|[]<>#@".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// Returns a text without characters that change the direction of the text after them.
fn undirected(text: &str) -> String {
    let is_directional = |c| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.replace(is_directional, "")
}

fn in_parentheses(host: &str) -> String {
    match host {
        "" => String::new(),
        host => format!(" ({host})"),
    }
}

/// Returns a text of at most `most` UTF-16 units.
fn within(text: &str, most: usize) -> String {
    let mut kept = truncated(text, most);
    while kept.encode_utf16().count() > most {
        kept = truncated(&kept, kept.chars().count().saturating_sub(1));
    }
    kept
}

/// The description of a deletion, which has only the id.
fn deleted(id: &str) -> String {
    format!("Annotation {id} was deleted, or is no longer visible")
}

fn verb(action: Action, found: &Summary) -> &'static str {
    match (action, found.is_reply) {
        (Action::Create, false) => "annotated",
        (Action::Create, true) => "replied on",
        (Action::Update | Action::Delete, false) => "edited an annotation of",
        (Action::Update | Action::Delete, true) => "edited a reply on",
    }
}

/// The maximum numbers of events in one message. Discord permits ten embeds.
pub(super) const MAX_SLACK_EVENTS: usize = 10;
pub(super) const MAX_DISCORD_EVENTS: usize = 10;
/// Limits on texts, in characters. Slack permits 40,000 for a message.
const MAX_NAME: usize = 60;
const MAX_TITLE: usize = 150;
const MAX_QUOTE: usize = 300;
const MAX_TAGS: usize = 100;
const MAX_TEXT: usize = 2000;
const MAX_URL: usize = 2000;
/// Discord's limits on the description of an embed, and on all texts of the embeds of a message.
const MAX_DESCRIPTION: usize = 4096;
const MAX_DISCORD_TOTAL: usize = 6000;

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str, annotation: &Value) -> ForwardEvent {
        let line = json!({"type": "annotation-notification", "options": {"action": action},
            "payload": [annotation]});
        ForwardEvent::parse(&line.to_string(), "c", 0).unwrap_or_else(|_| panic!("an event"))
    }

    fn annotation(text: &str) -> Value {
        json!({"id": "A", "user": "acct:joe@example.org", "uri": "https://example.org/?a|b&c",
            "text": text, "document": {"title": [text]}, "tags": [text],
            "user_info": {"display_name": text}, "links": {"html": "https://h.example/a/A"},
            "target": [{"selector": [{"type": "TextQuoteSelector", "exact": text}]}]})
    }

    #[test]
    fn slack_message_describes_the_annotation() {
        let event = event(
            "create",
            &json!({"id": "A", "user": "acct:joe@example.org", "uri": "https://example.org/",
                "text": "Hello", "links": {"html": "https://h.example/a/A"}}),
        );
        let text = "*joe* annotated <https://example.org/|https://example.org/>\nHello\n\
                    <https://h.example/a/A|View>";
        assert_eq!(slack(&[event])["text"], text);
    }

    #[test]
    fn slack_text_contains_no_commands_and_no_disguised_links() {
        let hostile = "<!channel> <@U1> <https://evil.example|Click> & x|y>";
        let message = slack(&[event("update", &annotation(hostile))]);
        let text = message["text"].as_str().expect("text");
        let allowed = [
            "<https://example.org/?a%7Cb&amp;c|",
            "<https://h.example/a/A|View>",
        ];
        assert_eq!(text.matches('<').count(), allowed.len(), "{text}");
        for link in allowed {
            assert!(text.contains(link), "{text}");
        }
        assert!(text.contains("&lt;!channel&gt; &lt;@U1&gt;"), "{text}");
    }

    #[test]
    fn discord_message_mentions_no_one_and_escapes_markdown() {
        let hostile = "@everyone <@1> [text](https://evil.example) `x` *y*";
        let message = discord(&[event("create", &annotation(hostile))]);
        assert_eq!(message["allowed_mentions"], json!({"parse": []}));
        let embed = &message["embeds"][0];
        let description = embed["description"].as_str().expect("text");
        let escaped = r"\@everyone \<\@1\> \[text\](https://evil.example) \`x\` \*y\*";
        assert_eq!(description, format!("> {escaped}\n{escaped}"));
        assert_eq!(embed["url"], "https://h.example/a/A");
    }

    #[test]
    fn links_with_titles_show_their_host() {
        let other = "https://good.example/\u{202e}".repeat(50);
        let annotation = json!({"id": "A", "user": "acct:joe@example.org",
            "uri": "https://good.example@evil_1.example/", "document": {"title": [other]},
            "user_info": {"display_name": "\u{202e}Joe"}});
        let event = event("create", &annotation);
        let message = slack(std::slice::from_ref(&event));
        let text = message["text"].as_str().expect("text");
        assert!(text.ends_with("…> (evil_1.example)"), "{text}");
        let message = discord(&[event]);
        let embed = &message["embeds"][0];
        let title = embed["title"].as_str().expect("a title");
        assert!(title.ends_with("… (evil\\_1.example)"), "{title}");
        for text in [
            text,
            title,
            embed["author"]["name"].as_str().expect("a name"),
        ] {
            assert!(!text.contains('\u{202e}'), "{text}");
        }
    }

    #[test]
    fn deletions_name_the_id_alone() {
        let event = event("delete", &json!({"id": "A-<b>"}));
        let text = "Annotation A-&lt;b&gt; was deleted, or is no longer visible";
        assert_eq!(slack(std::slice::from_ref(&event))["text"], text);
        let text = r"Annotation A-\<b\> was deleted, or is no longer visible";
        assert_eq!(discord(&[event])["embeds"][0]["description"], text);
    }

    #[test]
    fn messages_stay_within_the_limits_of_the_chats() {
        for text in ["x", "\\", "&", "𝄞", "é"] {
            let long = annotation(&text.repeat(10_000));
            for count in [1, 2, MAX_DISCORD_EVENTS] {
                let events = vec![event("create", &long); count];
                let message = slack(&events);
                let text = message["text"].as_str().expect("text");
                assert!(text.chars().count() <= 40_000, "{count}");
                let message = discord(&events);
                let length = |value: &Value| value.as_str().unwrap_or("").encode_utf16().count();
                let embeds = message["embeds"].as_array().expect("embeds");
                let mut total = 0;
                for embed in embeds {
                    assert!(length(&embed["title"]) <= 256);
                    assert!(length(&embed["author"]["name"]) <= 256);
                    assert!(length(&embed["description"]) <= 4096);
                    total += length(&embed["title"]) + length(&embed["author"]["name"]);
                    total += length(&embed["description"]) + length(&embed["footer"]["text"]);
                }
                assert!(total <= MAX_DISCORD_TOTAL, "{count}: {total}");
            }
        }
    }
}
