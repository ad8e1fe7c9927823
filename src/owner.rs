//! Resolves the owners of Unix sockets: users and groups of this host, by name.

use crate::config::{ConfigError, ServerSettings, SocketSettings, Values};
use crate::net::SocketFile;

/// The attributes of the files of a server's Unix sockets.
#[derive(Clone, Copy, Debug)]
pub struct SocketFiles {
    /// For `listen`.
    pub listen: SocketFile,
    /// For `admin`.
    pub admin: SocketFile,
}

impl SocketFiles {
    /// Resolves the owners named in the settings.
    ///
    /// # Errors
    /// This host has no such user or group. The error names the setting and its source.
    pub fn of(settings: &ServerSettings, values: &Values) -> Result<Self, ConfigError> {
        let place = |name: &str| values.name_with_provenance(name);
        Ok(SocketFiles {
            listen: file(&settings.socket, "socket.", place)?,
            admin: file(&settings.admin_socket, "socket.admin_", place)?,
        })
    }
}

fn file(
    settings: &SocketSettings,
    prefix: &str,
    place: impl Fn(&str) -> String,
) -> Result<SocketFile, ConfigError> {
    let id = |name: &Option<String>, kind: &str, look_up: fn(&str) -> Option<u32>| {
        let Some(name) = name else {
            return Ok(None);
        };
        let id = name.parse().ok().or_else(|| look_up(name));
        let database = if kind == "user" { "passwd" } else { "group" };
        id.map(Some).ok_or_else(|| {
            let place = place(&format!("{prefix}{kind}"));
            ConfigError(format!(
                "{place}: this host has no {kind} {name:?}; create it, or name one that `getent \
                 {database}` lists, or its number"
            ))
        })
    };
    Ok(SocketFile {
        mode: settings.mode,
        user: id(&settings.user, "user", |name| {
            uzers::get_user_by_name(name).map(|user| user.uid())
        })?,
        group: id(&settings.group, "group", |name| {
            uzers::get_group_by_name(name).map(|group| group.gid())
        })?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(user: &str, group: &str) -> SocketSettings {
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned());
        SocketSettings {
            mode: 0o660,
            user: named(user),
            group: named(group),
        }
    }

    #[test]
    fn owners_are_found_by_name_or_number() {
        for (user, group, uid, gid) in [
            ("root", "", Some(0), None),
            ("", "root", None, Some(0)),
            ("12345", "54321", Some(12345), Some(54321)),
            ("", "", None, None),
        ] {
            let found = file(&settings(user, group), "socket.", str::to_owned).unwrap();
            assert_eq!((found.mode, found.user, found.group), (0o660, uid, gid));
        }
    }

    #[test]
    fn unknown_owners_are_named_with_their_setting_and_its_source() {
        let place = |name: &str| format!("{name} (c.toml, line 7)");
        for (user, group, part) in [
            (
                "no such",
                "",
                "socket.admin_user (c.toml, line 7): this host has no user \"no such\"",
            ),
            (
                "",
                "-1",
                "socket.admin_group (c.toml, line 7): this host has no group \"-1\"",
            ),
        ] {
            let error = file(&settings(user, group), "socket.admin_", place).unwrap_err();
            assert!(error.0.contains(part), "{error}");
        }
    }
}
