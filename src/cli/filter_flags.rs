//! The flags that select annotations, and the filter of the API that they make.
//!
//! Owns: the flags of every command that subscribes to events, their help, and their validity. Must
//! not know: the connection over which the filter is sent.
//!
//! To add a filter field: add a flag to [`FilterFlags`] and a row to [`FilterFlags::fields`].

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::{Value, json};

use crate::exit::Exit;

/// The flags that select annotations. Each command flattens them into its own arguments.
#[derive(clap::Args, Default)]
pub(crate) struct FilterFlags {
    /// Annotations of this document (may be repeated, like the next seven options)
    ///
    /// An annotation matches if any of these options matches it; with --all, if each one does.
    #[arg(long, value_name = "URI")]
    uri: Vec<String>,

    /// Annotations in this group, such as __world__
    #[arg(long, value_name = "GROUP")]
    group: Vec<String>,

    /// The annotation with this id
    // An id may begin with a hyphen: it is base64 in its URL-safe alphabet.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    id: Vec<String>,

    /// Replies to the annotation with this id
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    references: Vec<String>,

    /// Annotations by this user, such as acct:name@example.org
    #[arg(long, value_name = "USER", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    user: Vec<String>,

    /// Annotations with this tag; upper and lower case are the same
    #[arg(long, value_name = "TAG", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    tag: Vec<String>,

    /// Annotations of documents that match this pattern, such as https://example.org/*
    ///
    /// In the path and query of the pattern, * stands for any characters, and _ for one.
    #[arg(long, value_name = "PATTERN", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    wildcard_uri: Vec<String>,

    /// Without annotations that have this value, such as user=acct:name@example.org
    ///
    /// FIELD is one of the seven options above: uri, group, id, references, user, tag, or
    /// wildcard-uri. An annotation that any --not matches is left out, with or without --all.
    #[arg(long, value_name = "FIELD=VALUE")]
    not: Vec<Exclusion>,

    /// Only annotations that match each of the given options
    ///
    /// Of the values of one repeated option, any is enough: --user A --user B --tag x matches
    /// annotations with the tag x by A or B.
    #[arg(long)]
    all: bool,

    /// Only events of these actions, a list of: create, update, delete
    ///
    /// If an annotation becomes unreadable for the receiver, its deletion is sent in any case.
    #[arg(long, value_name = "ACTIONS", value_enum, value_delimiter = ',')]
    actions: Vec<FilterAction>,

    /// The filter, as JSON in a file, instead of the options above
    ///
    /// The file contains the value of "filter" in the message of the API, with match_policy,
    /// clauses, and actions, as in docs/PROTOCOL.md.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with_all = [
            "uri", "group", "id", "references", "user", "tag", "wildcard_uri", "not", "all", "actions",
        ],
    )]
    filter: Option<PathBuf>,
}

/// A value whose annotations are left out: the argument of `--not`.
#[derive(Clone, Debug)]
struct Exclusion {
    flag: &'static str,
    value: String,
}

/// An action of annotation events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum FilterAction {
    Create,
    Update,
    Delete,
}

/// A filter field, and the requested values.
struct FlagField<'a> {
    /// The name of the flag, without hyphens.
    flag: &'static str,
    pointer: &'static str,
    values: &'a [String],
    /// The member `case_sensitive` of the clause. It has no effect, and only clauses of the fields
    /// that h has contain it, as h's client sends them.
    case_sensitive: Option<bool>,
}

impl FilterFlags {
    /// Returns the filter, as in the message `filter` of the API.
    ///
    /// # Errors
    /// 64 for flags that make no filter, 65 and 66 for an invalid or unreadable file.
    pub(crate) fn to_filter(&self) -> Result<Value, Exit> {
        if let Some(file) = &self.filter {
            return read_filter(file);
        }
        if self.is_empty() {
            self.check_dependent_flags()?;
        }
        let clauses = self.fields().into_iter().filter_map(|field| field.clause());
        let exclusions = self.fields().into_iter().filter_map(|field| {
            let values: Vec<&str> = self.excluded(field.flag).collect();
            (!values.is_empty())
                .then(|| json!({"field": field.pointer, "operator": "not_one_of", "value": values}))
        });
        let clauses: Vec<Value> = clauses.chain(exclusions).collect();
        let match_policy = match self.all {
            true => "include_all",
            false => "include_any",
        };
        let sends = |action| self.actions.is_empty() || self.actions.contains(&action);
        let actions = json!({
            "create": sends(FilterAction::Create),
            "update": sends(FilterAction::Update),
            "delete": sends(FilterAction::Delete),
        });
        Ok(json!({"match_policy": match_policy, "clauses": clauses, "actions": actions}))
    }

    /// Returns the filter as the parameters of `GET /sse`, for flags without `--filter`.
    pub(crate) fn to_query(&self) -> String {
        let mut query = String::new();
        for field in self.fields() {
            let name = field.flag.replace('-', "_");
            for value in field.values {
                push_parameter(&mut query, &name, value);
            }
            for value in self.excluded(field.flag) {
                push_parameter(&mut query, &format!("not_{name}"), value);
            }
        }
        if query.is_empty() {
            return query;
        }
        // The default of the server is the opposite of the default of the flags.
        push_parameter(&mut query, "match", if self.all { "all" } else { "any" });
        if !self.actions.is_empty() {
            let names = self.actions.iter().map(|action| action.name());
            push_parameter(&mut query, "actions", &names.collect::<Vec<_>>().join(","));
        }
        query
    }

    /// Returns whether no annotations are requested.
    pub(crate) fn is_empty(&self) -> bool {
        self.filter.is_none() && self.fields().iter().all(|field| field.values.is_empty())
    }

    /// Returns whether servers without the extended filter language, such as h, would misunderstand
    /// the filter.
    pub(crate) fn is_extended(&self) -> bool {
        let extended = [&self.user, &self.tag, &self.wildcard_uri];
        self.filter.is_some()
            || self.all
            || !self.not.is_empty()
            || !self.actions.is_empty()
            || extended.iter().any(|values| !values.is_empty())
    }

    /// Returns an error for a flag that only restricts others, if there are no others.
    fn check_dependent_flags(&self) -> Result<(), Exit> {
        let dependent = [
            ("--not", !self.not.is_empty()),
            ("--all", self.all),
            ("--actions", !self.actions.is_empty()),
        ];
        match dependent.iter().find(|(_, is_given)| *is_given) {
            None => Ok(()),
            Some((flag, _)) => Err(Exit::new(
                Exit::USAGE,
                format!(
                    "{flag} restricts the annotations of other options: give also one of --uri, \
                     --group, --id, --references, --user, --tag, or --wildcard-uri"
                ),
            )),
        }
    }

    /// Returns the values of `--not` for a field.
    fn excluded<'a>(&'a self, flag: &str) -> impl Iterator<Item = &'a str> {
        let of_field = self.not.iter().filter(move |not| not.flag == flag);
        of_field.map(|not| not.value.as_str())
    }

    /// Returns all fields, in the order of their clauses.
    fn fields(&self) -> [FlagField<'_>; FLAGS.len()] {
        let field = |at: usize, pointer, values, case_sensitive| FlagField {
            flag: FLAGS.get(at).copied().unwrap_or_default(),
            pointer,
            values,
            case_sensitive,
        };
        [
            // URIs are the only field of h that is compared after normalization.
            field(0, "/uri", &self.uri, Some(false)),
            field(1, "/group", &self.group, Some(true)),
            field(2, "/id", &self.id, Some(true)),
            field(3, "/references", &self.references, Some(true)),
            field(4, "/user", &self.user, None),
            field(5, "/tags", &self.tag, None),
            field(6, "/wildcard_uri", &self.wildcard_uri, None),
        ]
    }
}

impl FilterAction {
    fn name(self) -> &'static str {
        match self {
            FilterAction::Create => "create",
            FilterAction::Update => "update",
            FilterAction::Delete => "delete",
        }
    }
}

impl FlagField<'_> {
    /// Returns the clause that any of the values matches, or `None` without values.
    fn clause(&self) -> Option<Value> {
        if self.values.is_empty() {
            return None;
        }
        let mut clause = json!({"field": self.pointer, "operator": "one_of", "value": self.values});
        if let (Some(case_sensitive), Some(members)) = (self.case_sensitive, clause.as_object_mut())
        {
            members.insert("case_sensitive".to_owned(), case_sensitive.into());
        }
        Some(clause)
    }
}

impl FromStr for Exclusion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or("expected FIELD=VALUE, such as user=acct:name@example.org")?;
        let flag = FLAGS
            .into_iter()
            .find(|flag| *flag == name)
            .ok_or_else(|| {
                format!(
                    "unknown field {name:?}: expected one of {}",
                    FLAGS.join(", ")
                )
            })?;
        match value {
            "" => Err(format!("the value of {flag} is empty")),
            value => Ok(Exclusion {
                flag,
                value: value.to_owned(),
            }),
        }
    }
}

/// Appends a parameter to the query of a URL. All characters except the unreserved ones of RFC 3986
/// are percent-encoded; commas stay, since they separate the values of a list.
pub(crate) fn push_parameter(query: &mut String, name: &str, value: &str) {
    if !query.is_empty() {
        query.push('&');
    }
    query.push_str(name);
    query.push('=');
    for byte in value.bytes() {
        match byte {
            b'-' | b'.' | b'_' | b'~' | b',' => query.push(char::from(byte)),
            _ if byte.is_ascii_alphanumeric() => query.push(char::from(byte)),
            _ => query.push_str(&format!("%{byte:02X}")),
        }
    }
}

/// Reads a filter from a file. The server validates its clauses: only their presence is checked.
fn read_filter(file: &Path) -> Result<Value, Exit> {
    let name = file.display();
    let mut text = Vec::new();
    let read =
        File::open(file).and_then(|opened| opened.take(MAX_FILE as u64 + 1).read_to_end(&mut text));
    read.map_err(|error| Exit::new(Exit::NO_INPUT, format!("{name}: {error}")))?;
    let invalid = |reason: &str| Exit::new(Exit::DATA, format!("{name}: {reason}"));
    if text.len() > MAX_FILE {
        let most = MAX_FILE / 1024;
        return Err(invalid(&format!(
            "a filter has at most {most} KiB: select fewer annotations"
        )));
    }
    let filter: Value = serde_json::from_slice(&text)
        .map_err(|error| invalid(&format!("not valid JSON: {error}")))?;
    if !filter.is_object() {
        return Err(invalid("a filter is a JSON object"));
    }
    if filter.get("filter").is_some_and(Value::is_object) {
        return Err(invalid(
            "it contains a message: give only the value of its member \"filter\"",
        ));
    }
    let policy = filter.get("match_policy").and_then(Value::as_str);
    if !matches!(policy, Some("include_any" | "include_all")) {
        return Err(invalid(
            "\"match_policy\" must be \"include_any\" or \"include_all\"",
        ));
    }
    if !filter.get("clauses").is_some_and(Value::is_array) {
        return Err(invalid("\"clauses\" must be a list"));
    }
    match filter.get("actions") {
        Some(_) => Ok(filter),
        None => Err(invalid(
            "\"actions\" is missing: add {\"create\": true, \"update\": true, \"delete\": true}",
        )),
    }
}

/// The flags of filter fields, which are also the fields of `--not`, in the order of their clauses.
const FLAGS: [&str; 7] = [
    "uri",
    "group",
    "id",
    "references",
    "user",
    "tag",
    "wildcard-uri",
];

/// The maximum size of a filter file in bytes: that of a message to the server.
const MAX_FILE: usize = 64 * 1024;

#[cfg(test)]
mod tests;
