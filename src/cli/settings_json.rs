//! The JSON output of `config show --json`. Its shape is documented in docs/operating.md.

use serde_json::json;

use crate::config::{SETTINGS, Setting, Value, Values};

/// Returns the value and source of each setting, by its name. Secrets are masked.
pub(super) fn settings(values: &Values) -> serde_json::Value {
    let setting = |setting: &Setting| {
        let provenance = values.provenance(setting);
        let value = match values.value(setting) {
            Some(_) if setting.is_secret => json!("***"),
            Some(Value::Bool(value)) => json!(value),
            Some(Value::Number(value)) => json!(value),
            Some(Value::Text(value)) => json!(value),
            Some(Value::List(values)) => json!(values),
            None => json!(null),
        };
        let source = provenance.map_or_else(|| "default".to_owned(), ToString::to_string);
        let member = json!({"value": value, "source": source});
        (setting.name.to_owned(), member)
    };
    serde_json::Value::Object(SETTINGS.iter().map(setting).collect())
}
