//! Settings as text: the defaults, and the effective values.

use std::fmt::Write;

use super::table::{DefaultValue, SECTIONS, SETTINGS, Setting};
use super::values::Values;

/// Returns a configuration file with all settings, their defaults, and their descriptions. Reading
/// it as the configuration file changes nothing.
pub(crate) fn defaults() -> String {
    let mut out = String::new();
    for (section, about) in SECTIONS {
        if !section.is_empty() {
            out.push('\n');
            line(&mut out, &format!("[{section}]"), about);
        }
        let of_section = SETTINGS
            .iter()
            .filter(|setting| setting.section_and_key().0 == *section);
        for setting in of_section {
            describe(&mut out, setting);
        }
    }
    out
}

fn describe(out: &mut String, setting: &Setting) {
    let key = setting.section_and_key().1;
    let restart = if setting.is_reloadable {
        ""
    } else {
        "(restart) "
    };
    let about = format!("{restart}{}", setting.doc);
    match setting.default {
        // Secrets are commented out, so that a setting can be given in its `_file` form without
        // removing this one.
        DefaultValue::Literal(value) if setting.is_secret => {
            line(out, &format!("# {key} = {value}"), &about)
        }
        DefaultValue::Literal(value) => line(out, &format!("{key} = {value}"), &about),
        DefaultValue::Unset(means) => {
            line(
                out,
                &format!("# {key} = …"),
                &format!("{about}; default: {means}"),
            );
        }
    }
    if setting.is_secret {
        let about = format!("{restart}or a file that contains {key}");
        line(out, &format!("# {key}_file = …"), &about);
    }
}

/// Writes one line, with its comment aligned to the common column.
fn line(out: &mut String, text: &str, about: &str) {
    let _ = match about {
        "" => writeln!(out, "{text}"),
        // Longer lines are followed directly by their comment.
        about => writeln!(out, "{text:<width$}  # {about}", width = COMMENT_COLUMN),
    };
}

/// Returns the effective settings, one line each, with value and source. Secrets are masked.
pub(crate) fn effective(values: &Values) -> String {
    let mut out = String::new();
    for setting in SETTINGS {
        let provenance = values.provenance(setting);
        let text = match values.value(setting) {
            Some(_) if setting.is_secret && provenance.is_some() => {
                format!("{} = \"{MASK}\"", setting.name)
            }
            Some(value) => format!("{} = {}", setting.name, value.to_toml()),
            None => format!("# {} = …", setting.name),
        };
        let provenance = match (provenance, setting.default) {
            (Some(provenance), _) => provenance.to_string(),
            (None, DefaultValue::Literal(_)) => "default".to_owned(),
            (None, DefaultValue::Unset(means)) => format!("default: {means}"),
        };
        line(&mut out, &text, &provenance);
    }
    out
}

/// Replaces a secret in the output.
const MASK: &str = "***";
const COMMENT_COLUMN: usize = 34;
