//! Kinds of settings and their syntax.
//!
//! Owns: the syntax of values, in TOML and in the environment, and whether a value is valid for a
//! kind. Their resolution is in `settings`.

use toml::de::{DeTable, DeValue};

use super::address::{parse_admin, parse_listen};
use super::suggest::nearest;
use super::units::{parse_duration, parse_mode, parse_size};
use crate::http::{Origin, Proxies};

/// A value as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// `5`.
    Number(u64),
    /// `"text"`, including sizes and durations.
    Text(String),
    /// `["text", "text"]`.
    List(Vec<String>),
}

/// The kind of value that a setting takes.
#[derive(Clone, Copy, Debug)]
pub enum ValueKind {
    /// A boolean.
    Bool,
    /// A number.
    Number {
        /// The minimum.
        min: u64,
        /// The maximum.
        max: u64,
    },
    /// A number of bytes, such as `64KiB`.
    Size {
        /// The minimum.
        min: usize,
    },
    /// A duration, such as `30s`.
    Duration {
        /// The minimum, in milliseconds.
        min: u64,
    },
    /// File permissions, such as `0660`.
    Mode,
    /// Any text.
    Text,
    /// The path of a file or directory.
    Path,
    /// One of the given words.
    OneOf(&'static [&'static str]),
    /// An address to serve the admin interface on.
    AdminAddress,
    /// Addresses to serve WebSockets on, at least one.
    ListenAddresses,
    /// Addresses to serve WebSockets on, possibly none.
    OptionalListenAddresses,
    /// A list of arbitrary names.
    Names,
    /// Proxies: IP addresses, networks, and the word `unix`.
    Proxies,
    /// Origins of pages.
    Origins,
}

impl Value {
    /// Parses a value in the syntax of the configuration file.
    pub fn from_toml(text: &str) -> Option<Value> {
        let document = format!("x = {text}");
        let table = DeTable::parse(&document).ok()?;
        Value::of(table.get_ref().values().next()?.get_ref())
    }

    /// Converts a value of a configuration file. `None` for TOML types that no setting has.
    pub fn of(value: &DeValue<'_>) -> Option<Value> {
        let text = |value: &DeValue<'_>| value.as_str().map(str::to_owned);
        match value {
            DeValue::Boolean(flag) => Some(Value::Bool(*flag)),
            DeValue::Integer(number) => {
                let number = u64::from_str_radix(number.as_str(), number.radix());
                number.ok().map(Value::Number)
            }
            DeValue::String(text) => Some(Value::Text(text.to_string())),
            DeValue::Array(items) => {
                let items = items.iter().map(|item| text(item.get_ref()));
                items.collect::<Option<_>>().map(Value::List)
            }
            _ => None,
        }
    }

    /// Formats the value for a configuration file.
    pub fn to_toml(&self) -> String {
        match self {
            Value::Bool(flag) => flag.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Text(text) => toml::Value::from(text.as_str()).to_string(),
            Value::List(items) => toml::Value::from(items.clone()).to_string(),
        }
    }
}

impl ValueKind {
    /// Parses a value from the environment or a flag: without quotes, and lists separated by
    /// commas.
    ///
    /// # Errors
    /// A description of the problem.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        let value = match self {
            ValueKind::Bool => text.parse().map(Value::Bool).ok(),
            ValueKind::Number { .. } => text.parse().map(Value::Number).ok(),
            ValueKind::ListenAddresses
            | ValueKind::OptionalListenAddresses
            | ValueKind::Names
            | ValueKind::Proxies
            | ValueKind::Origins => {
                let items = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                Some(Value::List(items.map(str::to_owned).collect()))
            }
            _ => Some(Value::Text(text.to_owned())),
        };
        let value = value.ok_or_else(|| format!("{text:?} is not {}", self.form()))?;
        self.accept(value)
    }

    /// Checks that a value is valid for this kind, and returns it.
    ///
    /// # Errors
    /// A description of the problem.
    pub fn accept(&self, value: Value) -> Result<Value, String> {
        let wrong = match (self, &value) {
            (ValueKind::Bool, Value::Bool(_)) | (ValueKind::Text, Value::Text(_)) => None,
            (ValueKind::Names, Value::List(_)) => None,
            (ValueKind::Number { min, max }, Value::Number(number)) => outside(*number, *min, *max),
            (ValueKind::Size { min }, Value::Text(text)) => match parse_size(text) {
                Some(size) if size >= *min => None,
                Some(_) => Some(format!("{text:?} is too small; it must be at least {min}B")),
                None => Some(format!(
                    "{text:?} is not a valid size; write it like \"64KiB\""
                )),
            },
            (ValueKind::Duration { min }, Value::Text(text)) => match parse_duration(text) {
                Some(time) if time.as_millis() >= u128::from(*min) => None,
                Some(_) => Some(format!(
                    "{text:?} is too short; it must be at least {min}ms"
                )),
                None => Some(format!(
                    "{text:?} is not a valid duration; write it like \"30s\""
                )),
            },
            (ValueKind::Mode, Value::Text(text)) => {
                let is_none = parse_mode(text).is_none();
                is_none.then(|| {
                    format!("{text:?} is not a valid mode; write it in octal, like \"0660\", at most 0777")
                })
            }
            (ValueKind::Path, Value::Text(text)) => {
                text.is_empty().then(|| "the path is empty".to_owned())
            }
            (ValueKind::OneOf(words), Value::Text(text)) => unknown_word(words, text),
            (ValueKind::AdminAddress, Value::Text(text)) => {
                let is_none = parse_admin(text).is_none();
                is_none.then(|| {
                    format!(
                        "{text:?} is not a valid address; expected HOST:PORT or unix:/path/to.sock"
                    )
                })
            }
            (ValueKind::ListenAddresses, Value::List(urls)) if urls.is_empty() => {
                Some("at least one address is required".to_owned())
            }
            (
                ValueKind::ListenAddresses | ValueKind::OptionalListenAddresses,
                Value::List(urls),
            ) => {
                let bad = urls.iter().find(|url| parse_listen(url).is_none());
                bad.map(|url| {
                    format!(
                        "{url:?} is not a valid address; expected ws://HOST:PORT, wss://HOST:PORT, or \
                         unix:/path/to.sock"
                    )
                })
            }
            (ValueKind::Proxies, Value::List(items)) => {
                let bad = Proxies::parse(items.iter().map(String::as_str)).err();
                bad.map(|item| {
                    format!(
                        "{item:?} is neither an IP address nor a network like \"10.0.0.0/8\" nor unix"
                    )
                })
            }
            (ValueKind::Origins, Value::List(items)) => {
                let bad = items.iter().find(|item| Origin::parse(item).is_none());
                bad.map(|item| not_an_origin(item))
            }
            _ => Some(format!("expected {}", self.form())),
        };
        match wrong {
            None => Ok(value),
            Some(wrong) => Err(wrong),
        }
    }

    /// Returns a description of the expected form, for errors.
    fn form(&self) -> &'static str {
        match self {
            ValueKind::Bool => "true or false",
            ValueKind::Number { .. } => "an integer, like 100",
            ValueKind::Size { .. } => "a size, like \"64KiB\"",
            ValueKind::Duration { .. } => "a duration, like \"30s\"",
            ValueKind::Mode => "a mode in quotes, like \"0660\"",
            ValueKind::Text | ValueKind::Path | ValueKind::OneOf(_) | ValueKind::AdminAddress => {
                "a string in quotes"
            }
            ValueKind::ListenAddresses
            | ValueKind::OptionalListenAddresses
            | ValueKind::Names
            | ValueKind::Proxies
            | ValueKind::Origins => "a list of strings, like [\"…\", \"…\"]",
        }
    }
}

fn outside(number: u64, min: u64, max: u64) -> Option<String> {
    match number {
        _ if number < min => Some(format!("{number} is too small; it must be at least {min}")),
        _ if number > max => Some(format!("{number} is too large; it must be at most {max}")),
        _ => None,
    }
}

fn unknown_word(words: &[&str], text: &str) -> Option<String> {
    if words.contains(&text) {
        return None;
    }
    let suggestion = nearest(text, words.iter().map(|word| (*word).to_owned()));
    let suggestion = suggestion.map_or_else(String::new, |suggestion| {
        format!("; did you mean {suggestion:?}?")
    });
    let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    Some(format!(
        "{text:?} is not one of {}{suggestion}",
        quoted.join(", ")
    ))
}

fn not_an_origin(text: &str) -> String {
    if let Some(origin) = origin_of_url(text) {
        return format!("{text:?} is not an origin; remove the slash and the rest: {origin:?}");
    }
    let hint = match text {
        "*" => "; to allow all pages, use an empty list",
        "null" => "; pages without an origin cannot be distinguished",
        _ => ", like \"https://example.org\" or \"http://localhost:8080\"",
    };
    format!("{text:?} is not an origin{hint}")
}

/// Returns the origin at the start of a URL that has a path.
fn origin_of_url(url: &str) -> Option<&str> {
    let host = url.find("://")? + "://".len();
    let end = host + url[host..].find('/')?;
    let origin = &url[..end];
    Origin::parse(origin).map(|_| origin)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn environment_values_need_no_quotes() {
        let list =
            |items: &[&str]| Value::List(items.iter().map(|item| item.to_string()).collect());
        for (kind, text, want) in [
            (ValueKind::Bool, "true", Some(Value::Bool(true))),
            (ValueKind::Bool, "yes", None),
            (
                ValueKind::Number { min: 1, max: 9 },
                "5",
                Some(Value::Number(5)),
            ),
            (ValueKind::Number { min: 1, max: 9 }, "0", None),
            (ValueKind::Number { min: 1, max: 9 }, "10", None),
            (ValueKind::Number { min: 1, max: 9 }, "-1", None),
            (
                ValueKind::Size { min: 1 },
                "1MiB",
                Some(Value::Text("1MiB".into())),
            ),
            (ValueKind::Size { min: 1 }, "0", None),
            (
                ValueKind::Duration { min: 1 },
                "1s",
                Some(Value::Text("1s".into())),
            ),
            (ValueKind::Duration { min: 1 }, "0s", None),
            (ValueKind::Mode, "0660", Some(Value::Text("0660".into()))),
            (ValueKind::Mode, "rw-rw----", None),
            (ValueKind::Path, "", None),
            (ValueKind::Names, " a , b,", Some(list(&["a", "b"]))),
            (
                ValueKind::Proxies,
                "::1,192.0.2.0/24,unix",
                Some(list(&["::1", "192.0.2.0/24", "unix"])),
            ),
            (ValueKind::Proxies, "localhost", None),
            (ValueKind::Proxies, "192.0.2.1/24", None),
            (ValueKind::OptionalListenAddresses, "", Some(list(&[]))),
            (ValueKind::OptionalListenAddresses, "a", None),
            (
                ValueKind::ListenAddresses,
                "ws://127.0.0.1:1,unix:/a",
                Some(list(&["ws://127.0.0.1:1", "unix:/a"])),
            ),
            (ValueKind::ListenAddresses, "", None),
            (
                ValueKind::Origins,
                "https://a.example",
                Some(list(&["https://a.example"])),
            ),
            (ValueKind::Origins, "*", None),
            (ValueKind::OneOf(&["a", "b"]), "c", None),
        ] {
            assert_eq!(kind.read(text).ok(), want, "{kind:?} {text:?}");
        }
    }

    #[test]
    fn error_for_wrong_form_names_the_expected_form() {
        for (kind, text, part) in [
            (ValueKind::Bool, "1", "true or false"),
            (ValueKind::Size { min: 1 }, "5", "a size"),
            (ValueKind::Mode, "660", "in quotes"),
            (ValueKind::Mode, "\"0o660\"", "in octal"),
            (ValueKind::Text, "[]", "a string"),
            (ValueKind::Names, "\"a\"", "a list"),
            (
                ValueKind::OneOf(&["info"]),
                "\"inof\"",
                "did you mean \"info\"?",
            ),
            (ValueKind::Origins, "[\"*\"]", "use an empty list"),
        ] {
            let error = kind.accept(Value::from_toml(text).unwrap()).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(Value::from_toml("1.5"), None);
        assert_eq!(Value::from_toml("[1]"), None);
        assert_eq!(Value::from_toml("-1"), None);
        assert_eq!(Value::from_toml("0x10"), Some(Value::Number(16)));
    }

    #[test]
    fn formatted_values_parse_back() {
        for text in ["true", "5", r#""a \"b\" \\""#, r#"["a", "b"]"#, "[]"] {
            let value = Value::from_toml(text).unwrap();
            assert_eq!(Value::from_toml(&value.to_toml()), Some(value));
        }
    }
}
