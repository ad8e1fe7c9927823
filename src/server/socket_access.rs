//! Checks whether this process may open the sockets, as far as that can be determined without
//! opening them.
//!
//! Owns: the checks, each with the error that opening the socket would return. Must not know:
//! whether an address is free.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;

use rustix::fs::{Access, access};
use rustix::process::{getegid, geteuid, getgroups};
use rustix::thread::{CapabilitySet, capabilities};

use crate::config::{ServerSettings, Values};
use crate::exit::Exit;
use crate::net::{Address, SocketFile};
use crate::owner::SocketFiles;

use super::bind::{self, cannot_listen};

/// The permissions of a process.
#[derive(Debug)]
pub(super) struct Privileges {
    user: u32,
    groups: Vec<u32>,
    /// The process may change the owner and group of files (`CAP_CHOWN`).
    may_chown: bool,
    /// The lowest TCP port that the process may bind.
    lowest_port: u16,
}

impl Privileges {
    /// Returns the permissions of this process.
    pub(super) fn current() -> Self {
        let has = |capability| match capabilities(None) {
            Ok(sets) => sets.effective.contains(capability),
            Err(_) => geteuid().is_root(),
        };
        let mut groups = vec![getegid().as_raw()];
        groups.extend(getgroups().unwrap_or_default().iter().map(|it| it.as_raw()));
        let lowest_port = match has(CapabilitySet::NET_BIND_SERVICE) {
            true => 0,
            false => lowest_port(),
        };
        Privileges {
            user: geteuid().as_raw(),
            groups,
            may_chown: has(CapabilitySet::CHOWN),
            lowest_port,
        }
    }

    fn may_bind(&self, port: u16) -> io::Result<()> {
        match port == 0 || port >= self.lowest_port {
            true => Ok(()),
            false => Err(ErrorKind::PermissionDenied.into()),
        }
    }

    /// Returns the name of the setting, `user` or `group`, that the process may not apply to the
    /// file.
    fn cannot_set_owner(&self, file: SocketFile) -> Option<&'static str> {
        let is_other_user = file.user.is_some_and(|user| user != self.user);
        let is_other_group = file
            .group
            .is_some_and(|group| !self.groups.contains(&group));
        match (self.may_chown, is_other_user, is_other_group) {
            (false, true, _) => Some("user"),
            (false, false, true) => Some("group"),
            _ => None,
        }
    }
}

/// Adds the problems of the addresses that the process has to open sockets for, each with its
/// setting and source.
pub(super) fn check(
    settings: &ServerSettings,
    values: &Values,
    files: SocketFiles,
    privileges: &Privileges,
) -> Vec<Exit> {
    let inherited = values.inherited();
    let listen = settings.listen.iter();
    let listen = listen.filter(|listen| !inherited.listen.contains(listen));
    let listen = listen.map(|listen| (&listen.address, "listen", files.listen, "socket."));
    let admin = (&settings.admin, "admin", files.admin, "socket.admin_");
    let admin = Some(admin).filter(|_| inherited.admin.as_ref() != Some(&settings.admin));
    let mut problems = Vec::new();
    for (address, name, file, prefix) in listen.chain(admin) {
        let found = match address {
            Address::Tcp(address) => privileges.may_bind(address.port()),
            Address::Unix(path) => may_create(path),
        };
        let found = found.map_err(|error| (name.to_owned(), error));
        let found = found.and_then(|()| match (address, privileges.cannot_set_owner(file)) {
            (Address::Unix(_), Some(kind)) => {
                let text = "this user cannot change the owner of the socket";
                let error = io::Error::new(ErrorKind::PermissionDenied, text);
                Err((format!("{prefix}{kind}"), error))
            }
            _ => Ok(()),
        });
        if let Err((setting, error)) = found {
            let Exit { code, message, .. } = cannot_listen(address, &error, bind::ADMIN_IN_USE);
            let setting = values.name_with_provenance(&setting);
            problems.push(Exit::new(code, format!("{setting}: {message}")));
        }
    }
    problems
}

/// Checks that a socket can be created at the path.
fn may_create(path: &Path) -> io::Result<()> {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !fs::metadata(directory)?.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    // An existing file is replaced if it is a socket of a process that has ended.
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(ErrorKind::AddrInUse.into()),
        _ => {}
    }
    Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// ip(7): "This file sets the lowest port that an unprivileged process may bind."
fn lowest_port() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let port = text.ok().and_then(|text| text.trim().parse().ok());
    port.unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: Privileges = Privileges {
        user: 7,
        groups: Vec::new(),
        may_chown: false,
        lowest_port: 1024,
    };

    #[test]
    fn unprivileged_process_cannot_bind_low_ports() {
        for (port, expected) in [(0, true), (1, false), (1023, false), (1024, true)] {
            assert_eq!(USER.may_bind(port).is_ok(), expected, "{port}");
        }
        let privileged = Privileges {
            lowest_port: 0,
            ..USER
        };
        assert!(privileged.may_bind(1).is_ok());
    }

    #[test]
    fn without_cap_chown_only_own_groups_are_allowed() {
        let member = Privileges {
            groups: vec![8, 9],
            ..USER
        };
        let file = |user, group| SocketFile {
            mode: 0o660,
            user,
            group,
        };
        for (user, group, expected) in [
            (None, None, None),
            (Some(7), Some(9), None),
            (Some(0), Some(9), Some("user")),
            (None, Some(7), Some("group")),
        ] {
            let file = file(user, group);
            assert_eq!(member.cannot_set_owner(file), expected, "{file:?}");
            let root = Privileges {
                may_chown: true,
                ..USER
            };
            assert_eq!(root.cannot_set_owner(file), None);
        }
    }

    #[test]
    fn path_errors_match_bind_errors() {
        let temp = tempfile::tempdir().unwrap();
        fs::write(temp.path().join("file"), "").unwrap();
        for name in ["file", "file/s", "nowhere/s"] {
            let path = temp.path().join(name);
            let checked = may_create(&path).unwrap_err().kind();
            let bound = std::os::unix::net::UnixListener::bind(&path).unwrap_err();
            assert_eq!(checked, bound.kind(), "{name}");
        }
        let path = temp.path().join("s");
        may_create(&path).unwrap();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        may_create(&path).unwrap();
        may_create(Path::new("s")).unwrap();
    }
}
