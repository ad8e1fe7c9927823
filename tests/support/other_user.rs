//! Another user of this host, for tests that root runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::PROGRAM;

/// A user without any rights; it needs no entry in `/etc/passwd`.
pub const OTHER_USER: u32 = 54321;

/// Whether this process may start programs as another user; if not, that is printed.
pub fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("not tried: only root can start a program as another user");
    }
    is_root
}

/// A copy of the program in a folder where every user can start it.
pub fn program_for_all(folder: &Path) -> PathBuf {
    let copy = folder.join("h-realtime");
    fs::copy(PROGRAM, &copy).unwrap();
    for path in [folder, &copy] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    copy
}

/// A command that starts a program as the other user.
pub fn as_other_user(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    let user = OTHER_USER.to_string();
    command
        .args(["--reuid", &user, "--regid", &user, "--clear-groups"])
        .arg(program);
    command
}

/// Gives a file or directory to the other user.
pub fn give(path: &Path) {
    std::os::unix::fs::chown(path, Some(OTHER_USER), Some(OTHER_USER)).unwrap();
}
