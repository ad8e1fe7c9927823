//! Requests for event streams: the query, and its translation into a filter.
//!
//! Owns: the names of parameters, and the JSON filter that they mean. Must not know: the validity of
//! filters and cursors, or connections.

use std::borrow::Cow;

use crate::http::Request;

use super::reply::push_string;

/// The parameters of a request for an event stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct StreamRequest {
    /// The values of each name, by its index in [`NAMES`].
    values: [Vec<String>; NAMES.len()],
    matches_any: bool,
    /// The names of [`ACTIONS`] that are wanted; `None` for all.
    actions: Option<[bool; ACTIONS.len()]>,
    pub client_id: Option<String>,
    /// The position from which to resume, and the name of its source.
    pub since: Option<(String, &'static str)>,
}

/// The reason why a parameter is rejected.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ParameterError {
    pub name: String,
    pub reason: Cow<'static, str>,
}

impl ParameterError {
    pub(super) fn new(name: &str, reason: impl Into<Cow<'static, str>>) -> Self {
        ParameterError {
            name: name.to_owned(),
            reason: reason.into(),
        }
    }
}

/// A parameter that selects annotations.
struct Name {
    text: &'static str,
    pointer: &'static str,
    is_excluding: bool,
}

impl StreamRequest {
    /// Parses the query and the header fields of a request. As in the query of `/ws`, the last of
    /// several values is used of a parameter that has only one.
    ///
    /// # Errors
    /// The first invalid parameter.
    pub(super) fn parse(request: &Request<'_>) -> Result<StreamRequest, ParameterError> {
        let mut parsed = StreamRequest::default();
        let (mut last_event_id, mut since) = (None, None);
        for (name, value) in request.params() {
            let invalid = |reason: &'static str| Err(ParameterError::new(&name, reason));
            if let Some(index) = NAMES.iter().position(|known| known.text == name) {
                if value.is_empty() {
                    return invalid("The value is empty.");
                }
                // It would match nothing that the client means.
                if value.contains(char::REPLACEMENT_CHARACTER) {
                    return invalid("The value is not valid UTF-8, or contains U+FFFD.");
                }
                parsed.values[index].push(value.into_owned());
                continue;
            }
            match &*name {
                // Parts of every request, for its credentials and for tracing.
                "access_token" | "debug" => {}
                "match" => match &*value {
                    "all" => parsed.matches_any = false,
                    "any" => parsed.matches_any = true,
                    _ => return invalid("The value must be all or any."),
                },
                "actions" => match actions(&value) {
                    Some(actions) => parsed.actions = Some(actions),
                    None => {
                        return invalid("The value must be a list of create, update, and delete.");
                    }
                },
                "client_id" => parsed.client_id = Some(value.into_owned()),
                "last_event_id" => last_event_id = Some(value.into_owned()),
                "since" => since = Some(value.into_owned()),
                _ => return invalid("The parameter is unknown."),
            }
        }
        let is_positive =
            |(name, values): (&Name, &Vec<_>)| !name.is_excluding && !values.is_empty();
        if !NAMES.iter().zip(&parsed.values).any(is_positive) {
            let reason = "The request needs at least one of uri, group, id, references, user, tag, \
                          and wildcard_uri.";
            return Err(ParameterError::new("uri", reason));
        }
        // A client that has a position sends it in the header, also if its URL has an older one.
        parsed.since = match header(request)? {
            Some(id) => Some((id, HEADER)),
            None => last_event_id
                .filter(|id| !id.is_empty())
                .map(|id| (id, "last_event_id"))
                .or(since.map(|since| (since, "since"))),
        };
        Ok(parsed)
    }

    /// Returns the filter as the JSON text of a WebSocket client.
    pub(super) fn filter(&self) -> String {
        let mut filter = self.start(self.matches_any);
        let mut separator = "";
        for (name, values) in NAMES.iter().zip(&self.values) {
            if !values.is_empty() {
                filter.push_str(separator);
                name.write_clause(values, &mut filter);
                separator = ",";
            }
        }
        filter.push_str("]}");
        filter
    }

    /// Returns the name of each parameter that selects annotations, with a filter of it alone.
    pub(super) fn clauses(&self) -> impl Iterator<Item = (&'static str, String)> {
        let used = NAMES.iter().zip(&self.values);
        used.filter(|(_, values)| !values.is_empty())
            .map(|(name, values)| {
                let mut filter = self.start(true);
                name.write_clause(values, &mut filter);
                filter.push_str("]}");
                (name.text, filter)
            })
    }

    fn start(&self, matches_any: bool) -> String {
        let policy = if matches_any {
            "include_any"
        } else {
            "include_all"
        };
        let mut filter = format!(r#"{{"match_policy":"{policy}","actions":{{"#);
        let wanted = self.actions.unwrap_or([true; ACTIONS.len()]);
        for (index, (name, is_wanted)) in ACTIONS.iter().zip(wanted).enumerate() {
            let separator = if index == 0 { "" } else { "," };
            filter.push_str(&format!(r#"{separator}"{name}":{is_wanted}"#));
        }
        filter.push_str(r#"},"clauses":["#);
        filter
    }
}

impl Name {
    fn write_clause(&self, values: &[String], out: &mut String) {
        let operator = if self.is_excluding {
            "not_one_of"
        } else {
            "one_of"
        };
        let pointer = self.pointer;
        out.push_str(&format!(
            r#"{{"field":"{pointer}","operator":"{operator}","value":["#
        ));
        for (index, value) in values.iter().enumerate() {
            out.push_str(if index == 0 { "" } else { "," });
            push_string(out, value);
        }
        out.push_str("]}");
    }
}

/// Returns the id in the header field of a client that reconnects.
fn header(request: &Request<'_>) -> Result<Option<String>, ParameterError> {
    let mut fields = request.headers("last-event-id");
    let Some(field) = fields.next().filter(|field| !field.is_empty()) else {
        return Ok(None);
    };
    match std::str::from_utf8(field) {
        Ok(text) if fields.next().is_none() => Ok(Some(text.to_owned())),
        _ => Err(ParameterError::new(HEADER, "The field is not one text.")),
    }
}

fn actions(value: &str) -> Option<[bool; ACTIONS.len()]> {
    let mut wanted = [false; ACTIONS.len()];
    for action in value.split(',') {
        let index = ACTIONS.iter().position(|known| *known == action.trim())?;
        wanted[index] = true;
    }
    Some(wanted)
}

const HEADER: &str = "Last-Event-ID";
/// The actions of annotations.
const ACTIONS: [&str; 3] = ["create", "update", "delete"];

const fn name(text: &'static str, pointer: &'static str, is_excluding: bool) -> Name {
    Name {
        text,
        pointer,
        is_excluding,
    }
}

/// The parameters that select annotations, with the fields of filters that they mean.
const NAMES: [Name; 14] = [
    name("uri", "/uri", false),
    name("group", "/group", false),
    name("id", "/id", false),
    name("references", "/references", false),
    name("user", "/user", false),
    name("tag", "/tags", false),
    name("wildcard_uri", "/wildcard_uri", false),
    name("not_uri", "/uri", true),
    name("not_group", "/group", true),
    name("not_id", "/id", true),
    name("not_references", "/references", true),
    name("not_user", "/user", true),
    name("not_tag", "/tags", true),
    name("not_wildcard_uri", "/wildcard_uri", true),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Head, parse_head};

    fn parse(query: &str, fields: &str) -> Result<StreamRequest, ParameterError> {
        let head = format!("GET /sse?{query} HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        match parse_head(head.as_bytes(), 8192, StreamRequest::parse) {
            Ok(Head::Complete(parsed)) => parsed,
            _ => panic!("no whole head"),
        }
    }

    #[test]
    fn query_becomes_a_filter_with_one_clause_for_each_name() {
        let parsed = parse("uri=https://x/%22a%22&group=g&uri=b+c&not_tag=%C3%A9", "").unwrap();
        let clauses = r#"{"field":"/uri","operator":"one_of","value":["https://x/\"a\"","b c"]},{"field":"/group","operator":"one_of","value":["g"]},{"field":"/tags","operator":"not_one_of","value":["\u00e9"]}"#;
        assert_eq!(
            parsed.filter(),
            format!(
                r#"{{"match_policy":"include_all","actions":{{"create":true,"update":true,"delete":true}},"clauses":[{clauses}]}}"#
            )
        );
        let parsed = parse("match=any&id=1&actions=delete,create", "").unwrap();
        assert_eq!(
            parsed.filter(),
            r#"{"match_policy":"include_any","actions":{"create":true,"update":false,"delete":true},"clauses":[{"field":"/id","operator":"one_of","value":["1"]}]}"#
        );
        let names: Vec<_> = parsed.clauses().map(|(name, _)| name).collect();
        assert_eq!(names, ["id"]);
    }

    #[test]
    fn every_name_has_an_excluding_one() {
        for name in &NAMES[..7] {
            let excluding = NAMES
                .iter()
                .find(|other| other.is_excluding && other.text == format!("not_{}", name.text));
            assert_eq!(excluding.map(|other| other.pointer), Some(name.pointer));
        }
    }

    #[test]
    fn invalid_parameters_are_named() {
        for (query, name) in [
            ("", "uri"),
            ("not_user=a", "uri"),
            ("uri=a&match=some", "match"),
            ("uri=a&match", "match"),
            ("uri=a&actions=", "actions"),
            ("uri=a&actions=create,,delete", "actions"),
            ("uri=a&actions=Create", "actions"),
            ("uri=", "uri"),
            ("uri=a&group=%ff", "group"),
            ("uri=a&not_group", "not_group"),
            ("uri=a&URI=b", "URI"),
            ("uri=a&tags=b", "tags"),
            ("uri=a&=b", ""),
        ] {
            let error = parse(query, "").unwrap_err();
            assert_eq!(error.name, name, "{query}");
        }
        assert!(parse("uri=a&access_token=t&debug=1&client_id=c", "").is_ok());
        for (query, matches_any) in [("any", true), ("all", false), ("any&match=all", false)] {
            let parsed = parse(&format!("uri=a&match={query}"), "").unwrap();
            assert_eq!(parsed.matches_any, matches_any, "{query}");
        }
    }

    #[test]
    fn header_precedes_parameters_as_the_position() {
        for (query, fields, since) in [
            ("", "", None),
            ("&since=now", "", Some(("now", "since"))),
            ("&last_event_id=&since=now", "", Some(("now", "since"))),
            (
                "&last_event_id=a&since=now",
                "",
                Some(("a", "last_event_id")),
            ),
            (
                "&last_event_id=a&last_event_id=b",
                "",
                Some(("b", "last_event_id")),
            ),
            (
                "&last_event_id=a",
                "Last-Event-ID: c\r\n",
                Some(("c", HEADER)),
            ),
            ("&since=now", "last-event-id:\r\n", Some(("now", "since"))),
        ] {
            let parsed = parse(&format!("uri=a{query}"), fields).unwrap();
            let got = parsed.since.as_ref().map(|(text, name)| (&**text, *name));
            assert_eq!(got, since, "{query} {fields}");
        }
        let twice = "Last-Event-ID: a\r\nLast-Event-ID: b\r\n";
        assert_eq!(parse("uri=a", twice).unwrap_err().name, HEADER);
    }
}
