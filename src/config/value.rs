//! Kinds of settings and their syntax.
//!
//! Owns: the syntax of values, in TOML and in the environment, and whether a value is valid for a
//! kind. Their resolution is in `settle`.

use toml::de::{DeTable, DeValue};

use super::address::{parse_admin, parse_listen};
use super::near::nearest;
use super::units::{parse_duration, parse_mode, parse_size};
use crate::http::{Origin, Proxies};

/// A value as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `true` or `false`.
    Flag(bool),
    /// `5`.
    Number(u64),
    /// `"text"`, including sizes and durations.
    Text(String),
    /// `["text", "text"]`.
    List(Vec<String>),
}

/// The kind of value that a setting takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A boolean.
    Flag,
    /// A number.
    Number {
        /// The minimum.
        least: u64,
        /// The maximum.
        most: u64,
    },
    /// A number of bytes, such as `64KiB`.
    Size {
        /// The minimum.
        least: usize,
    },
    /// A duration, such as `30s`.
    Time {
        /// The minimum, in milliseconds.
        least: u64,
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
    Place,
    /// Addresses to serve WebSockets on, at least one.
    Places,
    /// Addresses to serve WebSockets on, possibly none.
    AnyPlaces,
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
            DeValue::Boolean(flag) => Some(Value::Flag(*flag)),
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
            Value::Flag(flag) => flag.to_string(),
            Value::Number(number) => number.to_string(),
            Value::Text(text) => toml::Value::from(text.as_str()).to_string(),
            Value::List(items) => toml::Value::from(items.clone()).to_string(),
        }
    }
}

impl Kind {
    /// Parses a value from the environment or a flag: without quotes, and lists separated by
    /// commas.
    ///
    /// # Errors
    /// A description of the problem.
    pub fn read(&self, text: &str) -> Result<Value, String> {
        let value = match self {
            Kind::Flag => text.parse().map(Value::Flag).ok(),
            Kind::Number { .. } => text.parse().map(Value::Number).ok(),
            Kind::Places | Kind::AnyPlaces | Kind::Names | Kind::Proxies | Kind::Origins => {
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
            (Kind::Flag, Value::Flag(_)) | (Kind::Text, Value::Text(_)) => None,
            (Kind::Names, Value::List(_)) => None,
            (Kind::Number { least, most }, Value::Number(number)) => {
                outside(*number, *least, *most)
            }
            (Kind::Size { least }, Value::Text(text)) => match parse_size(text) {
                Some(size) if size >= *least => None,
                Some(_) => Some(format!(
                    "{text:?} is too small; it must be at least {least}B"
                )),
                None => Some(format!("{text:?} is no size; write it like \"64KiB\"")),
            },
            (Kind::Time { least }, Value::Text(text)) => match parse_duration(text) {
                Some(time) if time.as_millis() >= u128::from(*least) => None,
                Some(_) => Some(format!(
                    "{text:?} is too short; it must be at least {least}ms"
                )),
                None => Some(format!("{text:?} is no duration; write it like \"30s\"")),
            },
            (Kind::Mode, Value::Text(text)) => {
                let is_none = parse_mode(text).is_none();
                is_none.then(|| {
                    format!("{text:?} is no mode; write it in octal, like \"0660\", at most 0777")
                })
            }
            (Kind::Path, Value::Text(text)) => {
                text.is_empty().then(|| "the path is empty".to_owned())
            }
            (Kind::OneOf(words), Value::Text(text)) => none_of(words, text),
            (Kind::Place, Value::Text(text)) => {
                let is_none = parse_admin(text).is_none();
                is_none.then(|| format!("{text:?} is none of HOST:PORT, unix:/path/to.sock"))
            }
            (Kind::Places, Value::List(urls)) if urls.is_empty() => {
                Some("there has to be a place to listen on".to_owned())
            }
            (Kind::Places | Kind::AnyPlaces, Value::List(urls)) => {
                let bad = urls.iter().find(|url| parse_listen(url).is_none());
                bad.map(|url| {
                    format!(
                        "{url:?} is none of ws://HOST:PORT, wss://HOST:PORT, unix:/path/to.sock"
                    )
                })
            }
            (Kind::Proxies, Value::List(items)) => {
                let bad = Proxies::parse(items.iter().map(String::as_str)).err();
                bad.map(|item| {
                    format!(
                        "{item:?} is no IP address, no network like \"10.0.0.0/8\" and not unix"
                    )
                })
            }
            (Kind::Origins, Value::List(items)) => {
                let bad = items.iter().find(|item| Origin::parse(item).is_none());
                bad.map(|item| no_origin(item))
            }
            _ => Some(format!("this must be {}", self.form())),
        };
        match wrong {
            None => Ok(value),
            Some(wrong) => Err(wrong),
        }
    }

    /// Returns a description of the expected form, for errors.
    fn form(&self) -> &'static str {
        match self {
            Kind::Flag => "true or false",
            Kind::Number { .. } => "a whole number, like 100",
            Kind::Size { .. } => "a size, like \"64KiB\"",
            Kind::Time { .. } => "a duration, like \"30s\"",
            Kind::Mode => "a mode in quotes, like \"0660\"",
            Kind::Text | Kind::Path | Kind::OneOf(_) | Kind::Place => "a text in quotes",
            Kind::Places | Kind::AnyPlaces | Kind::Names | Kind::Proxies | Kind::Origins => {
                "a list of texts, like [\"…\", \"…\"]"
            }
        }
    }
}

fn outside(number: u64, least: u64, most: u64) -> Option<String> {
    match number {
        _ if number < least => Some(format!(
            "{number} is too small; it must be at least {least}"
        )),
        _ if number > most => Some(format!("{number} is too large; it must be at most {most}")),
        _ => None,
    }
}

fn none_of(words: &[&str], text: &str) -> Option<String> {
    if words.contains(&text) {
        return None;
    }
    let near = nearest(text, words.iter().map(|word| (*word).to_owned()));
    let near = near.map_or_else(String::new, |near| format!("; did you mean {near:?}?"));
    let quoted: Vec<_> = words.iter().map(|word| format!("{word:?}")).collect();
    Some(format!("{text:?} is none of {}{near}", quoted.join(", ")))
}

fn no_origin(text: &str) -> String {
    if let Some(origin) = origin_of_url(text) {
        return format!("{text:?} is no origin: without the slash and what follows it, {origin:?}");
    }
    let hint = match text {
        "*" => "; to let all pages connect, name none",
        "null" => "; pages without an origin cannot be told apart",
        _ => ", like \"https://example.org\" or \"http://localhost:8080\"",
    };
    format!("{text:?} is no origin{hint}")
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
            (Kind::Flag, "true", Some(Value::Flag(true))),
            (Kind::Flag, "yes", None),
            (
                Kind::Number { least: 1, most: 9 },
                "5",
                Some(Value::Number(5)),
            ),
            (Kind::Number { least: 1, most: 9 }, "0", None),
            (Kind::Number { least: 1, most: 9 }, "10", None),
            (Kind::Number { least: 1, most: 9 }, "-1", None),
            (
                Kind::Size { least: 1 },
                "1MiB",
                Some(Value::Text("1MiB".into())),
            ),
            (Kind::Size { least: 1 }, "0", None),
            (
                Kind::Time { least: 1 },
                "1s",
                Some(Value::Text("1s".into())),
            ),
            (Kind::Time { least: 1 }, "0s", None),
            (Kind::Mode, "0660", Some(Value::Text("0660".into()))),
            (Kind::Mode, "rw-rw----", None),
            (Kind::Path, "", None),
            (Kind::Names, " a , b,", Some(list(&["a", "b"]))),
            (
                Kind::Proxies,
                "::1,192.0.2.0/24,unix",
                Some(list(&["::1", "192.0.2.0/24", "unix"])),
            ),
            (Kind::Proxies, "localhost", None),
            (Kind::Proxies, "192.0.2.1/24", None),
            (Kind::AnyPlaces, "", Some(list(&[]))),
            (Kind::AnyPlaces, "a", None),
            (
                Kind::Places,
                "ws://127.0.0.1:1,unix:/a",
                Some(list(&["ws://127.0.0.1:1", "unix:/a"])),
            ),
            (Kind::Places, "", None),
            (
                Kind::Origins,
                "https://a.example",
                Some(list(&["https://a.example"])),
            ),
            (Kind::Origins, "*", None),
            (Kind::OneOf(&["a", "b"]), "c", None),
        ] {
            assert_eq!(kind.read(text).ok(), want, "{kind:?} {text:?}");
        }
    }

    #[test]
    fn error_for_wrong_form_names_the_expected_form() {
        for (kind, text, part) in [
            (Kind::Flag, "1", "true or false"),
            (Kind::Size { least: 1 }, "5", "a size"),
            (Kind::Mode, "660", "in quotes"),
            (Kind::Mode, "\"0o660\"", "in octal"),
            (Kind::Text, "[]", "a text"),
            (Kind::Names, "\"a\"", "a list"),
            (Kind::OneOf(&["info"]), "\"inof\"", "did you mean \"info\"?"),
            (Kind::Origins, "[\"*\"]", "name none"),
        ] {
            let said = kind.accept(Value::from_toml(text).unwrap()).unwrap_err();
            assert!(said.contains(part), "{said}");
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
