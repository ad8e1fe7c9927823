//! Starts a program with inherited sockets, as systemd does.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Command;

use rustix::io::{FdFlags, fcntl_dupfd_cloexec, fcntl_setfd};

/// Returns a command that starts `program` with these named sockets. They stay open here until the
/// second value is dropped.
pub fn activated(program: &str, sockets: &[(&str, &dyn AsFd)]) -> (Command, Vec<OwnedFd>) {
    let mut script = String::new();
    let mut kept = Vec::new();
    for (number, (_, socket)) in sockets.iter().enumerate() {
        // Above the descriptor numbers used by the program.
        let copy = fcntl_dupfd_cloexec(socket, ABOVE).unwrap();
        fcntl_setfd(&copy, FdFlags::empty()).unwrap();
        let fd = copy.as_raw_fd();
        script.push_str(&format!("exec {}<&{fd} {fd}<&-; ", FIRST + number));
        kept.push(copy);
    }
    // The process id is only known in the shell, and exec keeps it.
    script.push_str(r#"export LISTEN_PID=$$; exec "$0" "$@""#);
    let names: Vec<&str> = sockets.iter().map(|(name, _)| *name).collect();
    let mut command = Command::new("bash");
    command
        .args(["-c", &script, program])
        .env("LISTEN_FDS", sockets.len().to_string())
        .env("LISTEN_FDNAMES", names.join(":"));
    (command, kept)
}

/// SD_LISTEN_FDS_START.
const FIRST: usize = 3;
const ABOVE: i32 = 1000;
