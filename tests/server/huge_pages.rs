//! Memory is allocated in small pages, so that a small heap stays small.
#![cfg(target_os = "linux")]

use std::fs;

use crate::support::Server;

/// Returns the number after a name in a file under /proc for the server's process.
fn number(server: &Server, file: &str, name: &str) -> u64 {
    let path = format!("/proc/{}/{file}", server.child.id());
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let word = line.and_then(|line| line.split_whitespace().next());
    word.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
}

#[test]
fn no_transparent_huge_pages_are_used() {
    let server = Server::start();
    assert_eq!(server.anonymous().drain(), []);
    assert_eq!(number(&server, "status", "THP_enabled:"), 0);
    // If the kernel enables them system-wide, the allocator has some before `main` begins.
    let huge = number(&server, "smaps_rollup", "AnonHugePages:");
    assert!(huge <= 4096, "{huge} KB");
}
