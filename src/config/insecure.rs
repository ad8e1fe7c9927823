//! Settings that disable a protection.
//!
//! Owns: the list of such settings, which of them are refused, and the warnings about the others:
//! at startup, in `config check`, and in the metrics.

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::conflicts::Conflicts;
use super::settings::ServerSettings;
use super::values::{Provenance, Values};
use crate::model::OnExpiry;
use crate::net::Address;

/// A dangerous configuration, by the setting that causes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InsecureSetting {
    /// The admin address is publicly reachable, as `admin_public` permits.
    AdminPublic,
    /// Connections stay open after their tokens have ended.
    OnExpiryKeep,
}

impl InsecureSetting {
    /// Every variant.
    pub(crate) const ALL: [InsecureSetting; 2] =
        [InsecureSetting::AdminPublic, InsecureSetting::OnExpiryKeep];

    /// Returns the name of the setting.
    pub(crate) fn setting(self) -> &'static str {
        match self {
            InsecureSetting::AdminPublic => "admin_public",
            InsecureSetting::OnExpiryKeep => "auth.on_expiry",
        }
    }

    /// Returns the text of the warning.
    pub(crate) fn warning(self) -> &'static str {
        match self {
            InsecureSetting::AdminPublic => {
                "admin_public: every host that can reach the admin address can read the metrics \
                 that require no key, and the publish key and metrics_key cross the network \
                 unencrypted; restrict access to the address by other means"
            }
            InsecureSetting::OnExpiryKeep => {
                "auth.on_expiry = \"keep\": connections still receive the private annotations of \
                 their users after their tokens have expired or were revoked"
            }
        }
    }

    /// Returns whether the settings have this insecure.
    pub(crate) fn applies_to(self, settings: &ServerSettings) -> bool {
        match self {
            InsecureSetting::AdminPublic => settings.admin_public && is_public(&settings.admin),
            InsecureSetting::OnExpiryKeep => settings.on_expiry == OnExpiry::Keep,
        }
    }
}

/// Refuses dangerous settings that lack their explicit confirmation.
pub(super) fn reject(settings: &ServerSettings, conflicts: &mut Conflicts<'_>) {
    if is_public(&settings.admin) && !settings.admin_public {
        let text = format!(
            "admin: {} is a public address: every host that can reach it could read the metrics that \
             require no key, and the publish key and metrics_key would cross the network \
             unencrypted; use a loopback or private address or a Unix socket, or set \
             admin_public = true if access to the address is restricted by other means",
            settings.admin
        );
        conflicts.add(&["admin", "admin_public"], text);
    }
}

/// Returns the warnings about these settings, one line each.
pub(crate) fn warnings(settings: &ServerSettings, values: &Values) -> Vec<String> {
    let present = InsecureSetting::ALL
        .into_iter()
        .filter(|insecure| insecure.applies_to(settings));
    let mut lines: Vec<String> = present
        .map(|insecure| insecure.warning().to_owned())
        .collect();
    if let Some((_, key)) = &settings.tls {
        lines.extend(world_readable_warning(key, "the private key"));
    }
    for setting in super::table::SETTINGS
        .iter()
        .filter(|setting| setting.is_secret)
    {
        if let Some(Provenance::Line(path, _) | Provenance::SecretFile(path, _)) =
            values.provenance(setting)
        {
            lines.extend(world_readable_warning(path, setting.name));
        }
    }
    lines
}

fn world_readable_warning(path: &Path, content: &str) -> Option<String> {
    let mode = std::fs::metadata(path).ok()?.permissions().mode();
    let is_open = mode & 0o004 != 0;
    is_open.then(|| {
        let path = path.display();
        format!("{path}: all users of this host can read {content}; run: chmod o-r {path}")
    })
}

/// Returns whether an address may be publicly reachable. The wildcard address (`0.0.0.0`) counts as
/// public.
fn is_public(address: &Address) -> bool {
    match address {
        Address::Tcp(address) => !is_private(address),
        Address::Unix(_) => false,
    }
}

/// Loopback, link-local, RFC 1918, RFC 4193, and RFC 6598 addresses. Carriers and overlay networks
/// use the latter.
fn is_private(address: &SocketAddr) -> bool {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            let is_shared = first == 100 && (64..128).contains(&second);
            ip.is_loopback() || ip.is_private() || ip.is_link_local() || is_shared
        }
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_ranges_are_private() {
        for (address, is) in [
            ("127.0.0.1:1", true),
            ("127.8.8.8:1", true),
            ("10.1.2.3:1", true),
            ("172.16.0.1:1", true),
            ("172.32.0.1:1", false),
            ("192.168.1.1:1", true),
            ("169.254.1.1:1", true),
            ("100.64.0.1:1", true),
            ("100.128.0.1:1", false),
            ("0.0.0.0:1", false),
            ("192.0.2.1:1", false),
            ("[::1]:1", true),
            ("[::]:1", false),
            ("[fd00::1]:1", true),
            ("[fe80::1]:1", true),
            ("[2001:db8::1]:1", false),
            ("[::ffff:127.0.0.1]:1", true),
            ("[::ffff:192.0.2.1]:1", false),
        ] {
            assert_eq!(is_private(&address.parse().unwrap()), is, "{address}");
        }
    }
}
