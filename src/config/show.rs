//! Settings as text: all of them with their defaults, and what is in force.

use std::fmt::Write;

use super::table::{Preset, SECTIONS, SETTINGS, Setting};
use super::values::Values;

/// A configuration file with all settings and their defaults, each with what it is for. Read as
/// a configuration file it changes nothing.
pub fn defaults() -> String {
    let mut out = String::new();
    for (section, about) in SECTIONS {
        if !section.is_empty() {
            out.push('\n');
            line(&mut out, &format!("[{section}]"), about);
        }
        let of_section = SETTINGS
            .iter()
            .filter(|setting| setting.place().0 == *section);
        for setting in of_section {
            describe(&mut out, setting);
        }
    }
    out
}

fn describe(out: &mut String, setting: &Setting) {
    let key = setting.place().1;
    let restart = if setting.is_live { "" } else { "(restart) " };
    let about = format!("{restart}{}", setting.doc);
    match setting.preset {
        // Not in force twice: who takes up the other form need not take this one away.
        Preset::Is(value) if setting.is_secret => line(out, &format!("# {key} = {value}"), &about),
        Preset::Is(value) => line(out, &format!("{key} = {value}"), &about),
        Preset::Unset(means) => {
            line(
                out,
                &format!("# {key} = …"),
                &format!("{about}; default: {means}"),
            );
        }
    }
    if setting.is_secret {
        let about = format!("{restart}or a file that holds {key}");
        line(out, &format!("# {key}_file = …"), &about);
    }
}

/// One line, its comment at the same place as the others'.
fn line(out: &mut String, text: &str, about: &str) {
    let _ = match about {
        "" => writeln!(out, "{text}"),
        // Those that are longer are followed by theirs.
        about => writeln!(out, "{text:<width$}  # {about}", width = COMMENT_COLUMN),
    };
}

/// The settings in force, a line each: the value, and where it comes from. Secrets are not shown.
pub fn effective(values: &Values) -> String {
    let mut out = String::new();
    for setting in SETTINGS {
        let whence = values.whence(setting);
        let text = match values.value(setting) {
            Some(_) if setting.is_secret && whence.is_some() => {
                format!("{} = \"{MASK}\"", setting.name)
            }
            Some(value) => format!("{} = {}", setting.name, value.to_toml()),
            None => format!("# {} = …", setting.name),
        };
        let whence = match (whence, setting.preset) {
            (Some(whence), _) => whence.to_string(),
            (None, Preset::Is(_)) => "default".to_owned(),
            (None, Preset::Unset(means)) => format!("default: {means}"),
        };
        line(&mut out, &text, &whence);
    }
    out
}

/// In place of a secret.
const MASK: &str = "***";
const COMMENT_COLUMN: usize = 34;
