//! Another user of this host, for tests that run as root.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::PROGRAM;

/// A user without privileges; no entry in `/etc/passwd` is needed.
pub const OTHER_USER: u32 = 54321;

/// Returns whether this process may start programs as another user; prints a note if not.
pub fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("skipped: only root can start a program as another user");
    }
    is_root
}

/// Copies the program to a location where every user can execute it.
pub fn program_for_all(folder: &Path) -> PathBuf {
    let copy = folder.join("h-realtime");
    fs::copy(PROGRAM, &copy).unwrap();
    for path in [folder, &copy] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    copy
}

/// Returns a command that starts a program as the other user.
pub fn as_other_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    let user = OTHER_USER.to_string();
    command
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .arg(program);
    command
}

/// Changes the owner of a file or directory to the other user.
pub fn give(path: &Path) {
    std::os::unix::fs::chown(path, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
}
